"""This is where the OpenAI-compatible dialect is put together."""

from qwenbox.dialects.base import Dialect, Route, Verb
from qwenbox.dialects.openai import completions, errors, models, parse

DIALECT = Dialect(
    name="openai",
    prefixes=("/compatible-mode/v1", "/v1"),
    routes=(
        Route(method="POST", path="/chat/completions", verb=Verb.CHAT),
        Route(method="POST", path="/completions", verb=Verb.COMPLETE),
        Route(method="GET", path="/models", verb=Verb.LIST_MODELS),
        Route(method="GET", path="/models/{model}", verb=Verb.GET_MODEL),
    ),
    credential=parse.credential,
    error_page=errors.page,
    parse_chat=parse.chat,
    parse_completion=completions.parse,
    parse_models=models.parse,
    render_models=models.page,
)
