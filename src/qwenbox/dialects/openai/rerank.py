"""This is where documents to be ordered are read on the compatible wire and their order written; and the client's half of the same.

Source: wire reference 1.1 and 7.4: the service's `/compatible-api/v1/reranks`, with all fields side by side as in Jina's API, which vLLM,
llama.cpp and their clients speak, too.
"""

import math

import msgspec
from msgspec import UNSET, UnsetType

from qwenbox.dialects.base import Head, Parsed, WireRequest
from qwenbox.dialects.openai import errors, fields, render
from qwenbox.terms.caller import Compat
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Completed, Ranked, Started
from qwenbox.terms.rerank import RerankRequest
from qwenbox.terms.usage import Usage

_MISSING = "Required parameter({}) missing or invalid, please check the request parameters."


class _Text(msgspec.Struct, frozen=True, kw_only=True):
    text: str


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    model: str | None = None
    query: str | _Text | None = None
    documents: list[str | _Text] | None = None
    top_n: int | None = None
    return_documents: bool | None = None
    instruct: str | None = None


class _Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    index: int
    relevance_score: float
    document: _Text | UnsetType = UNSET


class _Usage(msgspec.Struct, frozen=True, kw_only=True):
    prompt_tokens: int
    total_tokens: int


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    object: str = "list"
    results: list[_Result]
    model: str
    id: str
    usage: _Usage


_BODY = msgspec.json.Decoder(_Body)
_ENCODER = msgspec.json.Encoder()


def parse(request: WireRequest, compat: Compat) -> Parsed[RerankRequest]:
    """What to order, and how to answer. Raises ApiError(INVALID_REQUEST) naming the field at fault."""
    body = fields.decode(_BODY, request.body)
    if not body.model:
        raise fields.invalid("you must provide a model parameter.", "model")
    query = _text(body.query)
    if not query:
        raise fields.invalid(_MISSING.format("query"), "query")
    if not body.documents:
        raise fields.invalid(_MISSING.format("documents"), "documents")
    if body.top_n is not None and body.top_n < 1:
        raise fields.invalid("top_n should be greater than 0", "top_n")
    asked = RerankRequest(
        model=body.model,
        query=query,
        documents=tuple(_text(document) for document in body.documents),
        # More than there are means all of them, as on the service.
        top_n=None if body.top_n is None else min(body.top_n, len(body.documents)),
        instruct=body.instruct or None,
    )
    return Parsed(request=asked, reply=RerankReply(request.id, asked, has_documents=bool(body.return_documents)))


class RerankReply:
    """One JSON answer, silent until Completed."""

    def __init__(self, request_id: str, asked: RerankRequest, *, has_documents: bool) -> None:
        self._request_id = request_id
        self._asked = asked
        self._has_documents = has_documents
        self._results: list[_Result] = []

    @property
    def head(self) -> Head:
        return render.JSON_HEAD

    def event(self, event: ChatEvent) -> bytes:
        match event:
            case Ranked(index=index, score=score):
                document = _Text(text=self._asked.documents[index]) if self._has_documents else UNSET
                self._results.append(_Result(index=index, relevance_score=score, document=document))
                return b""
            case Completed(usage=usage):
                told = _Usage(prompt_tokens=usage.input_tokens, total_tokens=usage.input_tokens)
                return _ENCODER.encode(_Answer(results=self._results, model=self._asked.model, id=self._request_id, usage=told))
            case _:
                return b""

    def error(self, error: ApiError) -> bytes:
        return errors.body(error, self._request_id)

    def heartbeat(self) -> bytes:
        return b""


def _text(given: str | _Text | None) -> str:
    return given.text if isinstance(given, _Text) else given or ""


class _HeardResult(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    relevance_score: float


class _HeardUsage(msgspec.Struct, frozen=True, kw_only=True):
    prompt_tokens: int | None = None
    total_tokens: int | None = None


class _Heard(msgspec.Struct, frozen=True, kw_only=True):
    results: list[_HeardResult]
    usage: _HeardUsage | None = None


_HEARD = msgspec.json.Decoder(_Heard)


def speak(request: RerankRequest, model: str) -> bytes:
    """The request as a server is asked. Raises ApiError(INVALID_REQUEST) for what this wire cannot say."""
    if request.instruct is not None:
        raise fields.invalid(f"The model {request.model} takes no instruct.", "instruct")
    return _ENCODER.encode({"model": model, "query": request.query, "documents": request.documents, "top_n": len(request.documents)})


def hear(body: bytes, request: RerankRequest) -> list[ChatEvent]:
    """The events of a server's answer. Raises ApiError(ENGINE_FAILED) for one that is not what was asked for."""
    try:
        heard = _HEARD.decode(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(ErrorKind.ENGINE_FAILED, "The model's server sent an answer that cannot be read.") from error
    if sorted(result.index for result in heard.results) != list(range(len(request.documents))):
        raise ApiError(ErrorKind.ENGINE_FAILED, "The model's server did not send one score for each document.")
    scores = {result.index: result.relevance_score for result in heard.results}
    if any(not 0 <= score <= 1 for score in scores.values()):
        # llama.cpp tells what the weights say before it is made a probability.
        scores = {index: 1 / (1 + math.exp(-max(min(score, 500.0), -500.0))) for index, score in scores.items()}
    best = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[: request.top_n]
    usage = heard.usage or _HeardUsage()
    tokens = usage.prompt_tokens or usage.total_tokens
    told = Usage(input_tokens=tokens or 0, output_tokens=0, is_counted=tokens is None)
    ranked = [Ranked(index=index, score=score) for index, score in best]
    return [Started(input_tokens=tokens or 0), *ranked, Completed(usage=told)]
