"""This is where the answer of an engine is said as events, in the one order every engine keeps.

Grammar: one Started · any number of deltas · one ChoiceFinished per choice (after the last delta of its index) · one Completed.
Calls that write no text have results in place of deltas and finishes: one Embedded per text, one Ranked per document, one ImageMade per
picture. Failures are raised (ApiError), never yielded. A whole answer is `fold` over the same events.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import TypeAlias

import msgspec

from qwenbox.terms.chat import ToolCall
from qwenbox.terms.usage import Usage


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


class TokenLogprob(msgspec.Struct, frozen=True, kw_only=True):
    """One output token: its text and bytes, natural-log probability, and its best rivals (best first, may hold itself)."""

    text: str
    raw: bytes
    logprob: float
    rivals: tuple["TokenLogprob", ...] = ()


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    """The prompt was accepted. cached_tokens: how much of it was already in the engine, image_tokens: how much pictures made; None if
    unknown."""

    input_tokens: int
    cached_tokens: int | None = None
    image_tokens: int | None = None


class TextDelta(msgspec.Struct, frozen=True, kw_only=True, tag="text"):
    """Added answer text of one choice. tokens: output tokens it took, tags and swallowed text included."""

    text: str
    index: int = 0
    tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


class ReasoningDelta(msgspec.Struct, frozen=True, kw_only=True, tag="reasoning"):
    """Added thinking text of one choice."""

    text: str
    index: int = 0
    tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


class ToolCallDelta(msgspec.Struct, frozen=True, kw_only=True, tag="tool_call"):
    """A piece of the `call`-th tool call of a choice. id and name come whole in its first piece and are "" later;
    the `arguments` pieces join to JSON text."""

    call: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    index: int = 0
    tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


class ChoiceFinished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    """A choice is over. tokens: output tokens not yet counted by a delta (an end-of-turn token, say).

    stop: the caller's own stop text that ended it, "" where another end came first or nobody tells.
    """

    reason: FinishReason
    index: int = 0
    tokens: int = 0
    stop: str = ""


class Completed(msgspec.Struct, frozen=True, kw_only=True, tag="completed"):
    """The call is over; nothing follows. picture_sizes: width and height at which pictures were seen, where the request asked for them."""

    usage: Usage
    picture_sizes: tuple[tuple[int, int], ...] = ()


class SparseWeight(msgspec.Struct, frozen=True, kw_only=True):
    """One word of a sparse vector. index: in the vocabulary of whoever made it; token: the word, "" if unknown."""

    index: int
    value: float
    token: str = ""


class Embedded(msgspec.Struct, frozen=True, kw_only=True, tag="embedded"):
    """The vector of the `index`-th text. vector: () where only a sparse one was asked for. sparse: None where none was."""

    index: int
    vector: tuple[float, ...] = ()
    sparse: tuple[SparseWeight, ...] | None = None


class Ranked(msgspec.Struct, frozen=True, kw_only=True, tag="ranked"):
    """How well the `index`-th document answers the question: score 0 to 1, more is better. They come best first."""

    index: int
    score: float


class ImageMade(msgspec.Struct, frozen=True, kw_only=True, tag="image"):
    """The `index`-th picture. data: the file's bytes, b"" where it lies at `url` (http or https, for a day at most).

    media_type: "image/png"; width, height: pixels, 0 if unknown. prompt: what was drawn where it is not what was asked, else "".
    """

    index: int
    data: bytes = b""
    url: str = ""
    media_type: str = ""
    width: int = 0
    height: int = 0
    prompt: str = ""


ChatDelta: TypeAlias = TextDelta | ReasoningDelta | ToolCallDelta
# What is made by calls that write no text.
Result: TypeAlias = Embedded | Ranked | ImageMade
ChatEvent: TypeAlias = Started | ChatDelta | ChoiceFinished | Result | Completed


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One whole answer."""

    index: int
    text: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    reason: FinishReason
    logprobs: tuple[TokenLogprob, ...]


class ChatResult(msgspec.Struct, frozen=True, kw_only=True):
    """All choices by index, and what they took."""

    choices: tuple[Choice, ...]
    usage: Usage


class Fold:
    """Grows a ChatResult from events: `add` each, then read `result()` once Completed was added.

    logprobs of a choice are those of its TextDeltas: thinking and calls are not reported on any wire we speak.
    """

    def __init__(self) -> None:
        self._text: dict[int, list[str]] = {}
        self._reasoning: dict[int, list[str]] = {}
        self._calls: dict[int, dict[int, list[str]]] = {}
        self._logprobs: dict[int, list[TokenLogprob]] = {}
        self._reasons: dict[int, FinishReason] = {}
        self._usage: Usage | None = None

    def add(self, event: ChatEvent) -> None:
        match event:
            case Started():
                pass
            case TextDelta():
                self._text.setdefault(event.index, []).append(event.text)
                if event.logprobs:
                    self._logprobs.setdefault(event.index, []).extend(event.logprobs)
            case ReasoningDelta():
                self._reasoning.setdefault(event.index, []).append(event.text)
            case ToolCallDelta():
                pieces = self._calls.setdefault(event.index, {}).setdefault(event.call, ["", ""])
                pieces[0] = pieces[0] or event.id
                pieces[1] = pieces[1] or event.name
                pieces.append(event.arguments)
            case ChoiceFinished():
                self._reasons[event.index] = event.reason
            case Completed():
                self._usage = event.usage
            case Embedded() | Ranked() | ImageMade():
                pass  # no part of a text; who asked for them keeps them

    def result(self) -> ChatResult:
        """Raises ValueError before Completed: half an answer is not a result."""
        if self._usage is None:
            raise ValueError("the events ended before Completed")
        return ChatResult(choices=tuple(self._choice(index) for index in sorted(self._reasons)), usage=self._usage)

    def _choice(self, index: int) -> Choice:
        calls = self._calls.get(index, {})
        return Choice(
            index=index,
            text="".join(self._text.get(index, ())),
            reasoning="".join(self._reasoning.get(index, ())),
            tool_calls=tuple(ToolCall(id=p[0], name=p[1], arguments="".join(p[2:])) for _, p in sorted(calls.items())),
            reason=self._reasons[index],
            logprobs=tuple(self._logprobs.get(index, ())),
        )


def fold(events: Iterable[ChatEvent]) -> ChatResult:
    """The whole answer these events add up to. Raises ValueError if they end before Completed."""
    folding = Fold()
    for event in events:
        folding.add(event)
    return folding.result()
