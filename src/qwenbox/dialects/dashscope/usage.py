"""This is where tokens are written as native `usage` (wire reference 2.4, 3.3)."""

import msgspec
from msgspec import UNSET, UnsetType

from qwenbox.terms.usage import Usage


class PromptTokens(msgspec.Struct, frozen=True):
    cached_tokens: int


class InputTokens(msgspec.Struct, frozen=True):
    text_tokens: int
    image_tokens: int


class OutputTokens(msgspec.Struct, frozen=True):
    """text_tokens: with pictures only; both add up to all output there."""

    reasoning_tokens: int | UnsetType = UNSET
    text_tokens: int | UnsetType = UNSET


class WireUsage(msgspec.Struct, frozen=True):
    """image_tokens and input_tokens_details: of calls with pictures."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokens | UnsetType = UNSET
    output_tokens_details: OutputTokens | UnsetType = UNSET
    image_tokens: int | UnsetType = UNSET
    input_tokens_details: InputTokens | UnsetType = UNSET


class InputUsage(msgspec.Struct, frozen=True):
    """Of a call that is all input. Documentation and SDK read one each."""

    total_tokens: int
    input_tokens: int


def render_input(used: Usage) -> InputUsage:
    return InputUsage(used.input_tokens, used.input_tokens)


def render(used: Usage) -> WireUsage:
    """What is unknown is left out."""
    cached, image = used.cached_tokens, used.image_tokens
    return WireUsage(
        used.input_tokens,
        used.output_tokens,
        used.total_tokens,
        UNSET if cached is None else PromptTokens(cached),
        _output(used),
        UNSET if image is None else image,
        UNSET if image is None else InputTokens(used.input_tokens - image, image),
    )


def _output(used: Usage) -> OutputTokens | UnsetType:
    reasoning = UNSET if used.reasoning_tokens is None else used.reasoning_tokens
    if used.image_tokens is not None:
        return OutputTokens(reasoning, used.output_tokens - (used.reasoning_tokens or 0))
    return UNSET if reasoning is UNSET else OutputTokens(reasoning)
