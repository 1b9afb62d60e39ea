"""This is where a raw prompt is said in our own words: no messages, no template."""

import msgspec

from qwenbox.terms.chat import Sampling


class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Continue `prompt` as it stands. Fields shared with ChatRequest mean the same; events are those of a chat.

    suffix: text after the hole (fill in the middle), None for a plain continuation.
    """

    model: str
    prompt: str
    suffix: str | None = None
    sampling: Sampling = Sampling()
    max_output_tokens: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    top_logprobs: int | None = None
    extensions: dict[str, bytes] = {}
    defaults: dict[str, float | bool] = {}
