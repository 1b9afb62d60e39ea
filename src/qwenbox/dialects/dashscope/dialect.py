"""This is where the DashScope native dialect is put together."""

from qwenbox.dialects.base import Dialect, Route, Verb, WireRequest
from qwenbox.dialects.dashscope import embeddings, errors, models, parse, rerank, short_lived, tokenizer
from qwenbox.terms.errors import ApiError, ErrorKind


def credential(request: WireRequest) -> str:
    """The key of `Authorization: Bearer`.

    Raises ApiError(UNAUTHENTICATED): the SDK's 2.0 client sends no header when it has no key, and is told so.
    """
    header = request.headers.get("authorization", "").strip()
    if not header:
        raise ApiError(ErrorKind.UNAUTHENTICATED, errors.NO_KEY)
    scheme, _, key = header.partition(" ")
    if scheme.lower() != "bearer":
        raise ApiError(ErrorKind.UNAUTHENTICATED)
    if not key.strip():
        raise ApiError(ErrorKind.UNAUTHENTICATED, errors.NO_KEY)
    return key.strip()


DIALECT = Dialect(
    name="dashscope",
    prefixes=("/api/v1",),
    routes=(
        Route(method="POST", path="/services/aigc/text-generation/generation", verb=Verb.CHAT),
        Route(method="POST", path="/services/aigc/multimodal-generation/generation", verb=Verb.CHAT),
        Route(method="POST", path="/services/aigc/code-generation/generation", verb=Verb.CHAT),
        Route(method="POST", path="/services/embeddings/text-embedding/text-embedding", verb=Verb.EMBED),
        Route(method="POST", path="/services/rerank/text-rerank/text-rerank", verb=Verb.RERANK),
        Route(method="POST", path="/tokenizer", verb=Verb.COUNT_TOKENS),
        Route(method="GET", path="/models", verb=Verb.LIST_MODELS),
        Route(method="POST", path="/tokens", verb=Verb.SHORT_LIVED_KEY),
    ),
    credential=credential,
    error_page=errors.error_page,
    parse_chat=parse.chat,
    parse_embedding=embeddings.parse,
    parse_rerank=rerank.parse,
    parse_tokens=tokenizer.parse,
    render_tokens=tokenizer.page,
    parse_models=models.parse,
    render_models=models.render,
    parse_short_lived=short_lived.parse,
    render_short_lived=short_lived.render,
)
