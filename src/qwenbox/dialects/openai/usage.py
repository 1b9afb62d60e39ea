"""This is where the usage of calls that are all input is told and heard: vectors, and documents in order."""

import msgspec

from qwenbox.terms.usage import Usage


class InputUsage(msgspec.Struct, frozen=True, kw_only=True):
    prompt_tokens: int
    total_tokens: int


class HeardInput(msgspec.Struct, frozen=True, kw_only=True):
    """As a server tells it, if it does."""

    prompt_tokens: int | None = None
    total_tokens: int | None = None


def input_usage(usage: Usage) -> InputUsage:
    return InputUsage(prompt_tokens=usage.input_tokens, total_tokens=usage.input_tokens)
