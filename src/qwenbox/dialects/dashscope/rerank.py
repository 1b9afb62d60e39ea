"""This is where documents to be ordered are read on the native wire, their order written; and the client's half (wire reference 7.4)."""

import msgspec
from msgspec import UNSET, UnsetType

from qwenbox.dialects.base import Head, Parsed, WireRequest
from qwenbox.dialects.dashscope import body, errors
from qwenbox.terms.caller import Compat
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Completed, Ranked, Started
from qwenbox.terms.rerank import RerankRequest
from qwenbox.terms.usage import Usage


class TextDocument(msgspec.Struct, frozen=True, kw_only=True):
    text: str


class _Input(msgspec.Struct, frozen=True, kw_only=True):
    query: str | TextDocument | None = None
    documents: list[str | TextDocument] | None = None


class _Parameters(msgspec.Struct, frozen=True, kw_only=True):
    return_documents: bool | None = None
    top_n: int | None = None
    instruct: str | None = None


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    model: str | None = None
    input: _Input | None = None
    parameters: _Parameters | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    index: int
    relevance_score: float
    document: TextDocument | UnsetType = UNSET


class _Output(msgspec.Struct, frozen=True, kw_only=True):
    results: list[Result]


class _Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Documentation and SDK read one each."""

    total_tokens: int
    input_tokens: int


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    output: _Output
    usage: _Usage
    request_id: str


_decoder = msgspec.json.Decoder(_Asked)
_encoder = msgspec.json.Encoder()


def parse(request: WireRequest, compat: Compat) -> Parsed[RerankRequest]:
    """What to order, and how to answer. Raises ApiError(INVALID_REQUEST) in the service's words, naming the field."""
    given = body.decode_as(_decoder, request.body)
    if not given.model:
        raise ApiError(ErrorKind.INVALID_REQUEST, errors.EMPTY_MODEL, param="model")
    if given.input is None:
        raise ApiError(ErrorKind.INVALID_REQUEST, errors.EMPTY_INPUT, param="input")
    said = given.parameters or _Parameters()
    asked = _request(given.model, given.input, said)
    return Parsed(request=asked, reply=RerankReply(request.id, asked, has_documents=bool(said.return_documents)))


class RerankReply:
    """One JSON answer, silent until Completed."""

    def __init__(self, request_id: str, asked: RerankRequest, *, has_documents: bool) -> None:
        self._request_id = request_id
        self._asked = asked
        self._has_documents = has_documents
        self._results: list[Result] = []

    @property
    def head(self) -> Head:
        return Head(status=200, media_type="application/json")

    def event(self, event: ChatEvent) -> bytes:
        match event:
            case Ranked(index=index, score=score):
                document = TextDocument(text=self._asked.documents[index]) if self._has_documents else UNSET
                self._results.append(Result(index=index, relevance_score=score, document=document))
                return b""
            case Completed(usage=usage):
                told = _Usage(total_tokens=usage.input_tokens, input_tokens=usage.input_tokens)
                return _encoder.encode(_Answer(output=_Output(results=self._results), usage=told, request_id=self._request_id))
            case _:
                return b""

    def error(self, error: ApiError) -> bytes:
        return errors.body(error, self._request_id)

    def heartbeat(self) -> bytes:
        return b""


def _request(model: str, asked: _Input, said: _Parameters) -> RerankRequest:
    query = _text(asked.query)
    if not query:
        raise ApiError(ErrorKind.INVALID_REQUEST, body.INVALID.format("query"), param="input.query")
    if not asked.documents:
        raise ApiError(ErrorKind.INVALID_REQUEST, body.INVALID.format("documents"), param="input.documents")
    if said.top_n is not None and said.top_n < 1:
        raise ApiError(ErrorKind.INVALID_REQUEST, "top_n should be greater than 0", param="top_n")
    return RerankRequest(
        model=model,
        query=query,
        documents=tuple(_text(document) for document in asked.documents),
        # More than there are means all of them, as on the service.
        top_n=None if said.top_n is None else min(said.top_n, len(asked.documents)),
        instruct=said.instruct or None,
    )


def _text(given: str | TextDocument | None) -> str:
    return given.text if isinstance(given, TextDocument) else given or ""


class _HeardResult(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    relevance_score: float


class _HeardOutput(msgspec.Struct, frozen=True, kw_only=True):
    results: list[_HeardResult]


class _HeardUsage(msgspec.Struct, frozen=True, kw_only=True):
    total_tokens: int | None = None
    input_tokens: int | None = None


class _Heard(msgspec.Struct, frozen=True, kw_only=True):
    output: _HeardOutput
    usage: _HeardUsage = _HeardUsage()


_heard_decoder = msgspec.json.Decoder(_Heard)


def speak(request: RerankRequest, model: str) -> bytes:
    """The request as the service is asked; what the caller left unsaid stays unsaid. Documents are known here and need not come back."""
    parameters: dict[str, object] = {"return_documents": False}
    if request.top_n is not None:
        parameters["top_n"] = request.top_n
    if request.instruct is not None:
        parameters["instruct"] = request.instruct
    asked = {"query": request.query, "documents": request.documents}
    return _encoder.encode({"model": model, "input": asked, "parameters": parameters})


def hear(data: bytes, request: RerankRequest) -> list[ChatEvent]:
    """The events of the service's answer. Raises ApiError(ENGINE_FAILED) for one that is not what was asked for."""
    try:
        heard = _heard_decoder.decode(data)
    except (ValueError, RecursionError) as error:
        raise ApiError(ErrorKind.ENGINE_FAILED, "The model's service sent an answer that cannot be read.") from error
    results = heard.output.results
    wanted = len(request.documents) if request.top_n is None else request.top_n
    places = {result.index for result in results}
    if len(results) != wanted or len(places) != wanted or not places <= set(range(len(request.documents))):
        raise ApiError(ErrorKind.ENGINE_FAILED, "The model's service did not send one score for each document.")
    tokens = heard.usage.total_tokens if heard.usage.total_tokens is not None else heard.usage.input_tokens
    usage = Usage(input_tokens=tokens or 0, output_tokens=0, is_counted=tokens is None)
    ranked = [Ranked(index=result.index, score=result.relevance_score) for result in results]
    return [Started(input_tokens=tokens or 0), *ranked, Completed(usage=usage)]
