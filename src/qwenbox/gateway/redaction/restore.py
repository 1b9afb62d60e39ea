"""This is where an answer's events get their values back: in texts, thinking and the arguments of calls, each choice by itself."""

from collections import deque
from collections.abc import AsyncIterator
from typing import TypeAlias

import msgspec

from qwenbox.gateway.redaction.mend import Mender, Names
from qwenbox.terms.errors import ApiError
from qwenbox.terms.events import (
    ChatDelta,
    ChatEvent,
    ChoiceFinished,
    Completed,
    Embedded,
    ImageMade,
    Ranked,
    ReasoningDelta,
    Started,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
)

# Which text of a choice a delta adds to: the answer, the thinking, or the arguments of its n-th call.
_TEXT = -1
_REASONING = -2
Channel: TypeAlias = int


class Restored:
    """Events with values for placeholders. A delta that is held back as a whole gives its tokens and logprobs to the next one of its text
    or, if it was no placeholder after all, comes when its text ends. A class, since a generator would need closing."""

    __slots__ = ("_events", "_failure", "_ready", "_restorer")

    def __init__(self, events: AsyncIterator[ChatEvent], restorer: "Restorer") -> None:
        self._events = events
        self._restorer = restorer
        self._ready: deque[ChatEvent] = deque()
        self._failure: BaseException | None = None

    def __aiter__(self) -> AsyncIterator[ChatEvent]:
        return self

    async def __anext__(self) -> ChatEvent:
        while not self._ready:
            if self._failure is not None:
                raise self._failure
            try:
                event = await anext(self._events)
            except (StopAsyncIteration, ApiError) as failure:
                # What was made before the cut is the caller's, and its tokens are in the bill.
                self._failure = failure
                self._ready.extend(self._restorer.rest())
            else:
                self._ready.extend(self._restorer.hear(event))
        return self._ready.popleft()


class Restorer:
    """The texts of one answer, all choices."""

    def __init__(self, text: Names, arguments: Names) -> None:
        """text: for answers and thinking; arguments: for those of calls, which are JSON."""
        self._text = text
        self._arguments = arguments
        self._open: dict[int, dict[Channel, _Line]] = {}

    def hear(self, event: ChatEvent) -> list[ChatEvent]:
        """What may be said after this event."""
        match event:
            case Started() | Embedded() | Ranked() | ImageMade():
                return [event]
            case ChoiceFinished():
                return [*self._flush(event.index), event]
            case Completed():
                return [*self.rest(), event]
            case _:
                return self._delta(event)

    def rest(self) -> list[ChatEvent]:
        """All that is still held."""
        return [event for index in sorted(self._open) for event in self._flush(index)]

    def _delta(self, delta: ChatDelta) -> list[ChatEvent]:
        channel = _channel(delta)
        lines = self._open.setdefault(delta.index, {})
        # Thinking is over when the answer begins; two calls may grow side by side.
        over = [other for other in lines if other != channel and (other < 0 or channel < 0)]
        said: list[ChatEvent] = [event for other in over if (event := lines.pop(other).flush(other, delta.index))]
        line = lines.get(channel)
        if line is None:
            line = lines[channel] = _Line(self._arguments if channel >= 0 else self._text)
        event = line.hear(delta)
        return [*said, event] if event else said

    def _flush(self, index: int) -> list[ChatEvent]:
        lines = self._open.pop(index, {})
        return [event for channel, line in lines.items() if (event := line.flush(channel, index))]


class _Line:
    """One text that grows, and what its held end took."""

    __slots__ = ("_logprobs", "_mender", "_tokens")

    def __init__(self, names: Names) -> None:
        self._mender = Mender(names)
        self._tokens = 0
        self._logprobs: tuple[TokenLogprob, ...] = ()

    def hear(self, delta: ChatDelta) -> ChatDelta | None:
        said = delta.arguments if isinstance(delta, ToolCallDelta) else delta.text
        text = self._mender.feed(said)
        if self._mender.held and not text and not (isinstance(delta, ToolCallDelta) and delta.name):
            self._tokens += delta.tokens
            self._logprobs += delta.logprobs
            return None
        if text == said and not self._tokens and not self._logprobs:
            return delta
        tokens, logprobs = self._tokens + delta.tokens, self._logprobs + delta.logprobs
        self._tokens, self._logprobs = 0, ()
        if isinstance(delta, ToolCallDelta):
            return msgspec.structs.replace(delta, arguments=text, tokens=tokens, logprobs=logprobs)
        return msgspec.structs.replace(delta, text=text, tokens=tokens, logprobs=logprobs)

    def flush(self, channel: Channel, index: int) -> ChatDelta | None:
        text = self._mender.flush()
        if not text:
            return None
        tokens, logprobs = self._tokens, self._logprobs
        self._tokens, self._logprobs = 0, ()
        if channel == _TEXT:
            return TextDelta(text=text, index=index, tokens=tokens, logprobs=logprobs)
        if channel == _REASONING:
            return ReasoningDelta(text=text, index=index, tokens=tokens, logprobs=logprobs)
        return ToolCallDelta(call=channel, arguments=text, index=index, tokens=tokens, logprobs=logprobs)


def _channel(delta: ChatDelta) -> Channel:
    match delta:
        case TextDelta():
            return _TEXT
        case ReasoningDelta():
            return _REASONING
        case ToolCallDelta():
            return delta.call
