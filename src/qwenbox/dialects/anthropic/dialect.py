"""This is where the dialect of Anthropic's Messages is put together."""

from qwenbox.dialects.anthropic import errors, models, parse, render, unserved
from qwenbox.dialects.base import Dialect, Route, Verb

DIALECT = Dialect(
    name="anthropic",
    prefixes=("/apps/anthropic",),
    routes=(
        Route(method="POST", path="/v1/messages", verb=Verb.CHAT),
        Route(method="POST", path="/v1/messages/count_tokens", verb=Verb.COUNT_PROMPT),
        Route(method="GET", path="/v1/models", verb=Verb.LIST_MODELS),
        Route(method="GET", path="/v1/models/{model}", verb=Verb.GET_MODEL),
    ),
    unserved=unserved.FAMILIES,
    credential=parse.credential,
    error_page=errors.page,
    parse_chat=parse.chat,
    parse_prompt=parse.count,
    render_prompt=render.counted,
    parse_models=models.parse,
    render_models=models.page,
)
