"""This is where a worker and its parent talk: length-prefixed frames over one inherited socket pair.

A worker asks for what only the parent has (a turn, a child in use) under an id, is given it or refused, and gives it back under the
same id. Nobody but the two can reach the socket, and its end is the end of everything that was held over it.
"""

import asyncio
import itertools
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeAlias, TypeVar, cast

import anyio
import msgspec

from qwenbox.gateway.scheduler import Claim
from qwenbox.terms.engine import Capacity, HealthState
from qwenbox.terms.errors import ApiError, ErrorKind

_LENGTH_BYTES = 4
# A frame holds a claim or a path, never a prompt; the largest is the configuration.
MAX_FRAME_BYTES = 16 * 1024 * 1024


class _Message(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True):
    """id: of the ask it belongs to."""

    id: int = 0


class Begin(_Message, frozen=True):
    """Parent → worker, first: who it is. config: the box's settings as JSON, as the parent read them. started_at: when the box was."""

    index: int
    count: int
    config: bytes
    started_at: float = 0.0


class Serving(_Message, frozen=True):
    """Worker → parent: it accepts calls now."""


class Load(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A file of weights, as far as loading it goes."""

    path: str
    size_bytes: int
    kv_bytes_per_token: int
    projector: str = ""
    projector_bytes: int = 0


class LaneName(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One of an engine's two lanes (engines/llamacpp)."""

    engine: str
    is_exact: bool


class AskTurn(_Message, frozen=True):
    """A turn in the queue of that name, until `Back`. Answered by `Granted`."""

    queue: str
    capacity: Capacity
    claim: Claim


class AskChild(_Message, frozen=True):
    """The lane's child, kept loaded until `Back`. Answered by `GivenChild`."""

    lane: LaneName
    weights: Load


class AskChildAgain(_Message, frozen=True):
    """Inside an `AskChild`: the child as it is now, started anew if it has died. Answered by `GivenChild`; nothing is held."""

    lane: LaneName
    weights: Load


class AskState(_Message, frozen=True):
    """How the lane's child is. Answered by `GivenState`."""

    lane: LaneName


class AskUnload(_Message, frozen=True):
    """End the lane's child if nobody uses it. Answered by `GivenUnload`."""

    lane: LaneName


class Back(_Message, frozen=True):
    """The ask of that id is over, answered or not."""


class Granted(_Message, frozen=True):
    pass


class GivenChild(_Message, frozen=True):
    """key: of the child, good for as long as it runs. marker: what stands for a picture in its prompts."""

    address: str
    key: str
    marker: str = ""


class GivenState(_Message, frozen=True):
    state: HealthState


class GivenUnload(_Message, frozen=True):
    is_unloaded: bool


class Refused(_Message, frozen=True):
    """An ApiError, on its way to the worker's caller."""

    kind: ErrorKind
    message: str
    param: str | None
    retry_after_s: float | None


class AskMetrics(_Message, frozen=True):
    """What all processes of the box counted. Answered by `GivenMetrics`."""


class AskConsole(_Message, frozen=True):
    """Where the console listens, started if need be. Answered by `GivenConsole`."""


class GivenConsole(_Message, frozen=True):
    port: int


class Count(_Message, frozen=True):
    """Parent → worker: what it counted. Answered by `Counted`."""


class Counted(_Message, frozen=True):
    """snapshot: telemetry/snapshot.py, packed."""

    snapshot: bytes


class GivenMetrics(_Message, frozen=True):
    snapshot: bytes


FromWorker: TypeAlias = Serving | AskTurn | AskChild | AskChildAgain | AskState | AskUnload | AskMetrics | AskConsole | Counted | Back
FromParent: TypeAlias = Begin | Granted | GivenChild | GivenState | GivenUnload | GivenMetrics | GivenConsole | Count | Refused
Ask: TypeAlias = AskTurn | AskChild | AskChildAgain | AskState | AskUnload | AskMetrics | AskConsole

M = TypeVar("M")
G = TypeVar("G", Granted, GivenChild, GivenState, GivenUnload, GivenMetrics, GivenConsole)

_ENCODER = msgspec.msgpack.Encoder()


class Wire(asyncio.Protocol, Generic[M]):
    """One end of the link: messages out at once, messages in to a function. over: set when the other side is gone."""

    def __init__(self, kind: msgspec.msgpack.Decoder[M]) -> None:
        self._decoder = kind
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._heard: list[M] = []
        self._hear: Callable[[M], None] = self._heard.append
        self._lose: Callable[[], None] = lambda: None
        self.over = anyio.Event()

    @classmethod
    async def open(cls, end: socket.socket, kind: msgspec.msgpack.Decoder[M]) -> Self:
        """end: closed with the wire."""
        end.setblocking(False)
        _, wire = await asyncio.get_running_loop().create_unix_connection(lambda: cls(kind), sock=end)
        return wire

    def send(self, message: FromWorker | FromParent) -> None:
        """Queued, never waited for; lost when the other side is gone, which then is what everybody learns."""
        if self._transport is not None and not self._transport.is_closing():
            data = _ENCODER.encode(message)
            self._transport.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)

    def listen(self, hear: Callable[[M], None], lose: Callable[[], None] = lambda: None) -> None:
        """What came before anybody listened is heard first. lose: called at the end."""
        self._hear = hear
        self._lose = lose
        for message in self._heard:
            hear(message)
        self._heard.clear()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports keep the interface without the class

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(buffer[:_LENGTH_BYTES], "big")
            if end > MAX_FRAME_BYTES:
                self.close()
                return
            if len(buffer) < end:
                return
            frame = bytes(buffer[_LENGTH_BYTES:end])
            del buffer[:end]
            try:
                message = self._decoder.decode(frame)
            except msgspec.DecodeError:
                self.close()
                return
            self._hear(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self.over.set()
        self._lose()


_FROM_PARENT: msgspec.msgpack.Decoder[FromParent] = msgspec.msgpack.Decoder(FromParent)
FROM_WORKER: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


class Link:
    """The worker's end. count: what it counted so far, packed; asked by the parent. started_at: when the box was."""

    def __init__(self, wire: Wire[FromParent]) -> None:
        self._wire = wire
        self._ids = itertools.count(1)
        self._asked: dict[int, asyncio.Future[FromParent]] = {}
        self.count: Callable[[], bytes] | None = None
        self.started_at = 0.0
        self._begin: asyncio.Future[Begin] = asyncio.get_running_loop().create_future()
        wire.listen(self._hear, self._lose)

    @classmethod
    async def open(cls, end: socket.socket) -> "Link":
        return cls(await Wire[FromParent].open(end, _FROM_PARENT))

    async def begin(self) -> Begin | None:
        """What the parent says first; None when it ended before."""
        async with anyio.create_task_group() as tasks:

            async def give_up() -> None:
                await self._wire.over.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(give_up)
            begin = await self._begin
            tasks.cancel_scope.cancel()
            return begin
        return None

    def serving(self) -> None:
        """Tell the parent that calls are answered."""
        self._wire.send(Serving())

    async def lost(self) -> None:
        """Returns when the parent is gone. Those who waited for it have been told then."""
        await self._wire.over.wait()

    def hold(self, ask: Ask, kind: type[G]) -> "Held[G]":
        """What is asked for, held for as long as the context lasts. Raises the parent's ApiError, or OVERLOADED when it is gone."""
        return Held(self, ask, kind)

    async def get(self, ask: Ask, kind: type[G]) -> G:
        """An answer that holds nothing. Raises like `hold`."""
        given = await self.ask(msgspec.structs.replace(ask, id=self.next_id()))
        if not isinstance(given, kind):
            raise ApiError(ErrorKind.INTERNAL)
        return given

    def next_id(self) -> int:
        return next(self._ids)

    async def ask(self, ask: Ask) -> FromParent:
        """For `hold` and `get`. Given up, it is taken back."""
        if self._wire.over.is_set():
            raise _parent_gone()
        asked = self._asked[ask.id] = asyncio.get_running_loop().create_future()
        self._wire.send(ask)
        try:
            given = await asked
        except asyncio.CancelledError:
            # Also when it was granted in this very moment: then the parent holds what nobody will ever use.
            self.back(ask.id)
            raise
        finally:
            del self._asked[ask.id]
        if isinstance(given, Refused):
            raise ApiError(given.kind, given.message, param=given.param, retry_after_s=given.retry_after_s)
        return given

    def back(self, ask_id: int) -> None:
        self._wire.send(Back(id=ask_id))

    def close(self) -> None:
        self._wire.close()

    def _hear(self, message: FromParent) -> None:
        if isinstance(message, Begin):
            self.started_at = message.started_at
            if not self._begin.done():
                self._begin.set_result(message)
            return
        if isinstance(message, Count):
            if self.count is not None:
                self._wire.send(Counted(id=message.id, snapshot=self.count()))
            return
        asked = self._asked.get(message.id)
        if asked is not None and not asked.done():
            asked.set_result(message)

    def _lose(self) -> None:
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(_parent_gone())


class Held(Generic[G]):
    """`async with` for one thing of the parent's."""

    __slots__ = ("_ask", "_kind", "_link")

    def __init__(self, link: Link, ask: Ask, kind: type[G]) -> None:
        self._link = link
        self._ask = msgspec.structs.replace(ask, id=link.next_id())
        self._kind = kind

    async def __aenter__(self) -> G:
        given = await self._link.ask(self._ask)
        if not isinstance(given, self._kind):
            self._link.back(self._ask.id)
            raise ApiError(ErrorKind.INTERNAL)
        return given

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._link.back(self._ask.id)


def _parent_gone() -> ApiError:
    return ApiError(ErrorKind.OVERLOADED, "The box is being restarted. Please try again.", retry_after_s=1.0)
