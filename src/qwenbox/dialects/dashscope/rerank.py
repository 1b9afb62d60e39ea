"""This is where documents to be ordered are read on the native wire, their order written; and the client's half (wire reference 7.4)."""

from functools import partial

import msgspec
from msgspec import UNSET, UnsetType

from qwenbox.dialects import whole
from qwenbox.dialects.base import Parsed, WireRequest
from qwenbox.dialects.dashscope import body, errors
from qwenbox.dialects.dashscope.heard import HeardInput
from qwenbox.dialects.dashscope.usage import InputUsage, render_input
from qwenbox.dialects.whole import WholeReply
from qwenbox.terms.caller import Compat
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Ranked
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


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    output: _Output
    usage: InputUsage
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
    piece = partial(_result, asked.documents if said.return_documents else None)
    reply = WholeReply(piece, partial(_answer, request.id), partial(errors.body, request_id=request.id))
    return Parsed(request=asked, reply=reply)


def _result(documents: tuple[str, ...] | None, event: ChatEvent) -> Result | None:
    """documents: to be told beside their scores; None: they are not."""
    if not isinstance(event, Ranked):
        return None
    document = UNSET if documents is None else TextDocument(text=documents[event.index])
    return Result(index=event.index, relevance_score=event.score, document=document)


def _answer(request_id: str, results: list[Result], usage: Usage) -> _Answer:
    return _Answer(output=_Output(results=results), usage=render_input(usage), request_id=request_id)


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


class _Heard(msgspec.Struct, frozen=True, kw_only=True):
    output: _HeardOutput
    usage: HeardInput = HeardInput()


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
    return whole.heard([Ranked(index=result.index, score=result.relevance_score) for result in results], heard.usage.tokens)
