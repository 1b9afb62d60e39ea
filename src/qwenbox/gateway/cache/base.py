"""This is where a kept answer is said, and the contract of the shelf on which all processes of a box keep theirs."""

from typing import Protocol

import msgspec

from qwenbox.terms.events import ChatEvent


class Recorded(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A complete answer, as its caller got it. deployment: who gave it."""

    deployment: str
    events: tuple[ChatEvent, ...]


class Item(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """An answer on the shelf. stored_at: seconds since the epoch. data: `Recorded` as MessagePack."""

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

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Recorded)


def pack(recorded: Recorded) -> bytes:
    return _encoder.encode(recorded)


def unpack(data: bytes) -> Recorded | None:
    """None for what another version of ours has written."""
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError:
        return None
