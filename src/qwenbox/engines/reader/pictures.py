"""This is where pictures are handed to the child that reads them, and what it read is remembered."""

import hashlib
import os
import secrets
from collections import OrderedDict
from types import TracebackType
from typing import Final, Self

import anyio
import msgspec

from qwenbox.clock import Clock
from qwenbox.engines.child import Child, ChildCommand, ChildConfig
from qwenbox.engines.memory import MemoryBudget
from qwenbox.remote import Remote, RemoteReply, RemoteRequest, Timeouts
from qwenbox.terms.chat import ImagePart
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.gauges import ChildState

MODULE: Final = "qwenbox.children.ocr"
# Between the child's death and our noticing it, its port refuses or hangs up.
NOTICE_S: Final = 0.2
PEER: Final = "The reader of pictures"


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line of text in a picture. score: 0 to 1. corners: clockwise from where the text begins above, x and y in pixels."""

    text: str
    score: float
    corners: tuple[tuple[float, float], ...]


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """kind: "qr" or a kind of bar code, like "EAN_13"."""

    kind: str
    text: str


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What can be said of a picture without a model that sees; fields as in children/ocr.py."""

    width: int
    height: int
    lines: tuple[Line, ...] = ()
    codes: tuple[Code, ...] = ()
    colours: tuple[tuple[str, float], ...] = ()
    brightness: float = 0.5
    is_flat: bool | None = None


class ReadingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[engine.NAME.reading]`. threads: 0 takes half the cores, since the text model computes beside it. memory_bytes: the most data its
    process may have; a quiet one has 0.4 GB. most_pixels: width times height of the largest picture. read_s: the longest that one picture
    may take; a page full of text takes 5 to 30 s on a slow core. most_waiting: pictures that may wait for their turn. kept: readings that
    are remembered. idle_unload_s: after this long without a picture the process ends.
    """

    threads: int = 0
    nice: int = 0
    memory_bytes: int = 1_610_612_736
    most_pixels: int = 100_000_000
    read_s: float = 120.0
    most_waiting: int = 16
    kept: int = 256
    idle_unload_s: float = 600.0
    child: ChildConfig = ChildConfig()

    def __post_init__(self) -> None:
        if self.threads < 0 or min(self.memory_bytes, self.most_pixels, self.most_waiting, self.kept) < 1:
            raise ValueError("threads must be at least 0; memory_bytes, most_pixels, most_waiting and kept at least 1")
        if min(self.read_s, self.idle_unload_s) <= 0:
            raise ValueError("read_s and idle_unload_s are seconds above 0")

    @property
    def thread_count(self) -> int:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.threads or max(1, cores // 2)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The line the child reads; fields as in children/ocr.py."""

    parent_pid: int
    key: str
    threads: int
    nice: int
    memory_bytes: int
    most_pixels: int


class _Told(msgspec.Struct, frozen=True):
    """How the child says that it could not."""

    message: str = ""


_READING: Final = msgspec.json.Decoder(Reading)
_TOLD: Final = msgspec.json.Decoder(_Told)


class Pictures:
    """Reads pictures in a process of its own, which the first picture starts; a tenant of the memory budget while it runs.

    Build it inside the event loop and enter it before the first picture; leaving it ends the process.
    """

    def __init__(self, config: ReadingConfig, remote: Remote, memory: MemoryBudget, clock: Clock) -> None:
        self._config = config
        self._remote = remote
        self._memory = memory
        self._clock = clock
        self._tasks = anyio.create_task_group()
        self._child = Child(ChildCommand(name="pictures' text", module=MODULE), config.child, self._tasks, clock)
        self._key = ""
        self._turn = anyio.Lock()
        self._kept: OrderedDict[bytes, Reading] = OrderedDict()
        self._users = 0
        self._last_used_s = clock.monotonic()
        self._timeouts = Timeouts(connect_s=5.0, first_byte_s=config.read_s, between_bytes_s=config.read_s)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._unload_when_idle)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with anyio.CancelScope(shield=True):
            await self._end()
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)  # with the error it would come out wrapped in a group

    @property
    def is_ready(self) -> bool:
        return self._child.is_ready

    @property
    def pid(self) -> int | None:
        return self._child.pid

    def state(self) -> ChildState:
        return self._child.state("pictures")

    @property
    def log(self) -> str:
        return self._child.log

    @property
    def is_idle(self) -> bool:
        return self._users == 0

    @property
    def last_used_s(self) -> float:
        return self._last_used_s

    async def read(self, picture: ImagePart) -> Reading:
        """What is in it; the same bytes are read once.

        Raises ApiError: INVALID_REQUEST for a picture that cannot be read, OVERLOADED while too many wait, TIMEOUT after `read_s`,
        ENGINE_FAILED when its process ended twice over it.
        """
        if not picture.data:
            raise ApiError(ErrorKind.INVALID_REQUEST, "The picture was not fetched, so it cannot be read.", param="messages")
        name = hashlib.blake2b(picture.data, digest_size=20).digest()
        if (known := self._known(name)) is not None:
            return known
        if self._users > self._config.most_waiting:
            raise ApiError(ErrorKind.OVERLOADED, "Too many pictures wait to be read; try again soon.", retry_after_s=2.0)
        self._users += 1
        try:
            async with self._turn:
                if (known := self._known(name)) is not None:  # by the one before us
                    return known
                reading = self._kept[name] = await self._asked(picture.data)
        finally:
            self._users -= 1
            self._last_used_s = self._clock.monotonic()
        while len(self._kept) > self._config.kept:
            self._kept.popitem(last=False)
        return reading

    async def unload(self) -> bool:
        if self._users:
            return False
        try:
            self._turn.acquire_nowait()
        except anyio.WouldBlock:
            return False
        try:
            await self._end()
            return True
        finally:
            self._turn.release()

    def _known(self, name: bytes) -> Reading | None:
        reading = self._kept.get(name)
        if reading is not None:
            self._kept.move_to_end(name)
        return reading

    async def _asked(self, data: bytes) -> Reading:
        """By the child, or by the one that follows it if it dies."""
        try:
            reply = await self._exchange(data)
        except ApiError as error:
            if error.kind is ErrorKind.TIMEOUT:
                await self._end()  # it would keep the next picture waiting
                raise ApiError(ErrorKind.TIMEOUT, f"The picture took longer to read than {self._config.read_s:g} s.") from error
            if error.kind not in (ErrorKind.OVERLOADED, ErrorKind.ENGINE_FAILED) or self._child.is_starting:
                raise
            await self._clock.sleep(NOTICE_S)
            reply = await self._exchange(data)
        if reply.status == 200:
            return _READING.decode(reply.body)
        if reply.status != 422:
            await self._end()  # what ran out of memory may not have given it back
        raise ApiError(ErrorKind.INVALID_REQUEST, _message(reply), param="messages")

    async def _exchange(self, data: bytes) -> RemoteReply:
        if not self._child.is_ready:
            await self._memory.claim(self, self._config.memory_bytes, {})
        ready = await self._child.ready(self._settings)
        headers = {"authorization": f"Bearer {self._key}", "content-type": "application/octet-stream"}
        request = RemoteRequest(method="POST", url=f"{ready.address}/", body=data, headers=headers, timeouts=self._timeouts, peer=PEER)
        return await self._remote.call(request)

    def _settings(self) -> bytes:
        self._key = secrets.token_urlsafe(32)
        config = self._config
        settings = Settings(
            parent_pid=os.getpid(),
            key=self._key,
            threads=config.thread_count,
            nice=config.nice,
            memory_bytes=config.memory_bytes,
            most_pixels=config.most_pixels,
        )
        return msgspec.json.encode(settings)

    async def _end(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._child.stop()
            self._memory.release(self)

    async def _unload_when_idle(self) -> None:
        while True:
            left_s = self._last_used_s + self._config.idle_unload_s - self._clock.monotonic()
            if self._child.is_ready and left_s <= 0:
                await self.unload()
            await self._clock.sleep(max(min(left_s, self._config.idle_unload_s), 0.1 * self._config.idle_unload_s, 0.01))


def _message(reply: RemoteReply) -> str:
    try:
        return _TOLD.decode(reply.body).message or "The picture cannot be read."
    except msgspec.DecodeError:
        return "The picture cannot be read."
