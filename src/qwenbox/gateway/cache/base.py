"""This is where a kept answer is said, and the contract of the shelf on which all processes of a box keep theirs."""

from itertools import groupby
from typing import Protocol

import msgspec

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
    ToolCallDelta,
)


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """A complete answer, as its caller got it. deployment: who gave it."""

    deployment: str
    events: tuple[ChatEvent, ...]


class Item(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """An answer on the shelf. stored_at: seconds since the epoch. data: what `pack` makes of a `Recorded`."""

    key: str
    account_id: str
    model: str
    stored_at: float
    data: bytes

    @property
    def size_bytes(self) -> int:
        """What it takes: the data, and about as much more as a row or a dictionary's entry does."""
        return len(self.data) + _OVERHEAD_BYTES


class ShelfState(msgspec.Struct, frozen=True, kw_only=True):
    """oldest_at: when the oldest answer was stored, None of an empty shelf."""

    entries: int
    bytes: int
    oldest_at: float | None


class Shelf(Protocol):
    @property
    def name(self) -> str:
        """For people: "database" or "valkey"."""
        ...

    async def find(self, key: str) -> Item | None:
        """The answer, whatever its age; None also when the shelf cannot be reached: a cache never makes a call fail."""
        ...

    def touch(self, key: str) -> None:
        """It was used just now, without a look here."""
        ...

    def keep(self, item: Item) -> None:
        """Soon, and only if it can be done."""
        ...

    async def purge(self, account_id: str | None, model: str | None) -> int:
        """Forget the answers of this account and this model, None: of all; returns how many. Raises ApiError(OVERLOADED)."""
        ...

    async def state(self) -> ShelfState:
        """Raises ApiError(OVERLOADED)."""
        ...

    async def follow(self) -> None:
        """Write what is to be kept, for as long as it runs; what waits when it is ended is still written."""
        ...


_OVERHEAD_BYTES = 512


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    """whole: the same answer in as few events as it takes, for callers who get it in one piece: ten times as fast to give."""

    deployment: str
    events: msgspec.Raw
    whole: msgspec.Raw


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Packed)
_events = msgspec.msgpack.Decoder(tuple[ChatEvent, ...])


def pack(recorded: Recorded) -> bytes:
    events, whole = (msgspec.Raw(_encoder.encode(some)) for some in (recorded.events, merged(recorded.events)))
    return _encoder.encode(_Packed(recorded.deployment, events, whole))


def unpack(data: bytes, *, is_whole: bool) -> Recorded | None:
    """The answer as it came, or with `is_whole` in few events. None for what another version of ours has written."""
    try:
        packed = _decoder.decode(data)
        return Recorded(deployment=packed.deployment, events=_events.decode(packed.whole if is_whole else packed.events))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def merged(events: tuple[ChatEvent, ...]) -> tuple[ChatEvent, ...]:
    """The same answer, choice by choice, with neighbouring deltas of a kind made one."""
    first, last = [e for e in events if isinstance(e, Started)], [e for e in events if isinstance(e, Completed)]
    middle = sorted(
        (e for e in events if not isinstance(e, Started | Completed | Embedded | Ranked | ImageMade)), key=lambda event: event.index
    )
    joined: list[ChatEvent] = []
    for _, some in groupby(middle, _kind):
        joined.append(_join(tuple(some)))
    return (*first, *joined, *last)


def _kind(event: ChatDelta | ChoiceFinished) -> tuple[type[object], int, int]:
    return type(event), event.index, event.call if isinstance(event, ToolCallDelta) else 0


def _join(events: tuple[ChatDelta | ChoiceFinished, ...]) -> ChatEvent:
    head = events[0]
    tokens = sum(event.tokens for event in events)
    deltas = [event for event in events if not isinstance(event, ChoiceFinished)]
    logprobs = tuple(logprob for delta in deltas for logprob in delta.logprobs)
    match head:
        case ToolCallDelta():
            arguments = "".join(delta.arguments for delta in deltas if isinstance(delta, ToolCallDelta))
            return msgspec.structs.replace(head, arguments=arguments, tokens=tokens, logprobs=logprobs)
        case TextDelta() | ReasoningDelta():
            text = "".join(delta.text for delta in deltas if not isinstance(delta, ToolCallDelta))
            return msgspec.structs.replace(head, text=text, tokens=tokens, logprobs=logprobs)
        case ChoiceFinished():
            return head
