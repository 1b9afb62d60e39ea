"""This is where documents to be ordered are read on the compatible wire and their order written; and the client's half of the same.

Source: wire reference 1.1 and 7.4: the service's `/compatible-api/v1/reranks`, with all fields side by side as in Jina's API, which vLLM,
llama.cpp and their clients speak, too.
"""

import math
from functools import partial

import msgspec
from msgspec import UNSET, UnsetType

from qwenbox.dialects import whole
from qwenbox.dialects.base import Parsed, WireRequest
from qwenbox.dialects.openai import errors, fields
from qwenbox.dialects.openai.usage import HeardInput, InputUsage, input_usage
from qwenbox.dialects.whole import WholeReply
from qwenbox.terms.caller import Compat
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Ranked
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


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    object: str = "list"
    results: list[_Result]
    model: str
    id: str
    usage: InputUsage


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
    documents = asked.documents if body.return_documents else None
    reply = WholeReply(partial(_result, documents), partial(_answer, request.id, body.model), partial(errors.body, request_id=request.id))
    return Parsed(request=asked, reply=reply)


def _result(documents: tuple[str, ...] | None, event: ChatEvent) -> _Result | None:
    """documents: to be told beside their scores; None: they are not."""
    if not isinstance(event, Ranked):
        return None
    document = UNSET if documents is None else _Text(text=documents[event.index])
    return _Result(index=event.index, relevance_score=event.score, document=document)


def _answer(request_id: str, model: str, results: list[_Result], usage: Usage) -> _Answer:
    return _Answer(results=results, model=model, id=request_id, usage=input_usage(usage))


def _text(given: str | _Text | None) -> str:
    return given.text if isinstance(given, _Text) else given or ""


class _HeardResult(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    relevance_score: float


class _Heard(msgspec.Struct, frozen=True, kw_only=True):
    results: list[_HeardResult]
    usage: HeardInput | None = None


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
    usage = heard.usage or HeardInput()
    return whole.heard([Ranked(index=index, score=score) for index, score in best], usage.prompt_tokens or usage.total_tokens)
