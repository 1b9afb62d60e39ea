"""This is where a prompt is cut into tokens for somebody who wants to count them: nothing is generated, and nothing is billed."""

from collections.abc import Sequence

from qwenbox.dialects.base import Dialect, TokensCut, WireRequest
from qwenbox.gateway.catalog import Model
from qwenbox.server.exchange import Exchange
from qwenbox.server.parts import Parts, missing
from qwenbox.terms.caller import Caller
from qwenbox.terms.engine import TextSplitter, Token
from qwenbox.terms.errors import ApiError, ErrorKind

# More than any model reads; cutting as much takes a second of a thread.
_MOST_CHARACTERS = 4_000_000
_NO_VOCABULARY = (
    "The model {} cannot count here: its vocabulary is not on this box. Whoever runs the box: `qwenbox pull qwen-turbo` brings one."
)


async def tokens(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    parse, render = dialect.parse_tokens or missing(dialect), dialect.render_tokens or missing(dialect)
    asked = parse(wire)
    model = parts.gateway.catalog.resolve(asked.model, caller)
    if sum(map(len, asked.texts)) > _MOST_CHARACTERS:
        raise ApiError(ErrorKind.CONTEXT_TOO_LONG, f"Range of input length should be [1, {_MOST_CHARACTERS}]", param="input")
    found = await _split(model, asked.texts)
    if found is None:
        raise ApiError(ErrorKind.INVALID_REQUEST, _NO_VOCABULARY.format(asked.model), param="model")
    cut = TokensCut(ids=tuple(token.id for token in found), pieces=tuple(token.text for token in found))
    await exchange.page(render(cut, wire.id))


async def _split(model: Model, texts: Sequence[str]) -> list[Token] | None:
    """By the first deployment that has a vocabulary."""
    for deployment in model.deployments:
        if isinstance(deployment.engine, TextSplitter):
            found = await deployment.engine.split_texts(texts)
            if found is not None:
                return found
    return None
