"""This is where one HTTP exchange over ASGI is read and written: body limit, heads, hang-ups, heartbeats."""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, MutableMapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self, TypeAlias
from urllib.parse import parse_qsl

import msgspec

from qwenbox.dialects.base import Head, Page, WireRequest
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.timeline import Timeline

# ASGI's own shapes; this folder is the only one that touches them.
Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

# A refused body is read and thrown away up to this size, so that the client sees our answer and not a broken pipe.
_DRAIN_BYTES = 256 * 1024 * 1024

# How often running answers are looked over; one that was there at two looks is watched for its client's leaving.
_LOOK_S = 0.05

# What an answer ends with that lasted longer than the box, which was stopped. Seconds: about what a start takes.
_STOPPED = "The box was stopped before the answer was complete. Please try again."
_STOPPED_S = 3.0


# What may stand in a link: a host's name or number with its port.
_ADDRESS = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """host, port: where the box listens; 0 picks a free port. body_limit_bytes: the largest request body.

    heartbeat_s: silence after which a stream gets a comment line, so that no proxy or SDK gives up.
    keep_alive_s: how long a connection may idle; longer than the SDKs keep theirs (httpx 5 s, aiohttp 15 s), so that it is the client who
    closes: a server that closes first can meet a request on its way, which the client then sees as a reset.
    public_url: where clients find the box, for links in answers, e.g. https://qwen.example.com; "" takes what each request says.
    drain_s: how long running calls may take to end at shutdown. workers: processes that answer on the one port.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    body_limit_bytes: int = 32 * 1024 * 1024
    heartbeat_s: float = 10.0
    keep_alive_s: float = 75.0
    drain_s: float = 10.0
    workers: int = 1
    public_url: str = ""

    def __post_init__(self) -> None:
        if self.public_url and not _ADDRESS.fullmatch(self.public_url):
            raise ValueError("public_url must be scheme and host without a path, such as https://qwen.example.com")
        if not 1 <= self.workers <= 256:
            raise ValueError("workers must be 1 to 256")


class ClientGone(Exception):
    """The client left before its request was whole: there is nobody to answer."""


class Exchange:
    """One request and its response."""

    __slots__ = ("_receive", "_send", "has_begun", "id", "is_read", "is_sending", "last_sent_s", "scope", "status", "timeline")

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self.id = request_id
        self.has_begun = False
        self.is_read = False
        self.is_sending = False
        self.last_sent_s = 0.0
        self.status = 0
        self.timeline = Timeline(id=request_id, begun_s=time.monotonic())

    @property
    def path(self) -> str:
        return self.scope["path"]

    @property
    def method(self) -> str:
        return self.scope["method"]

    @property
    def address(self) -> str:
        """Scheme and host as the client wrote them; as we listen, where it wrote none that makes sense."""
        named = next((value.decode("latin-1") for name, value in self.scope["headers"] if name == b"host"), "")
        address = f"{self.scope.get('scheme', 'http')}://{named}"
        if _ADDRESS.fullmatch(address):
            return address
        host, port = self.scope.get("server") or ("127.0.0.1", 0)
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def read(self, limit_bytes: int, path_params: dict[str, str] | None = None) -> WireRequest:
        """The whole request. Raises ApiError(TOO_LARGE) past the limit, with the rest of the body thrown away."""
        return self.head(path_params, await self._body(limit_bytes))

    def head(self, path_params: dict[str, str] | None = None, body: bytes = b"") -> WireRequest:
        """The request with the body that was read, or to be read with `pieces`."""
        scope = self.scope
        query = scope["query_string"]
        return WireRequest(
            id=self.id,
            method=scope["method"],
            path=scope["path"],
            received_at=time.time(),
            headers={name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
            query=dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)) if query else {},
            path_params=path_params or {},
            body=body,
            timeline=self.timeline,
        )

    async def pieces(self) -> AsyncGenerator[bytes]:
        """The body as it comes. Raises ClientGone when it ends before its end."""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            # Before the piece is handed out: whoever refuses the last one has nothing left to drain.
            self.is_read = not message.get("more_body")
            yield message.get("body", b"")
            if self.is_read:
                return

    async def drain(self) -> None:
        """Throw away what is left of a body that was refused, so that the client sees the answer; not without end."""
        total = 0
        while not self.is_read and total <= _DRAIN_BYTES:
            message = await self._receive()
            total += len(message.get("body", b""))
            self.is_read = message["type"] == "http.disconnect" or not message.get("more_body")

    async def _body(self, limit_bytes: int) -> bytes:
        message = await self._receive()
        if not message.get("more_body") and len(message.get("body", b"")) <= limit_bytes:
            return message.get("body", b"")
        body = bytearray(message.get("body", b""))
        total = len(body)
        while message.get("more_body") and total <= _DRAIN_BYTES:
            message = await self._receive()
            piece = message.get("body", b"")
            total += len(piece)
            if total <= limit_bytes:
                body += piece
            else:
                body.clear()
        if total > limit_bytes:
            text = f"The request body is larger than {limit_bytes} bytes, this box's limit ([server] body_limit_bytes)."
            raise ApiError(ErrorKind.TOO_LARGE, text)
        return bytes(body)

    async def page(self, page: Page) -> None:
        """Send a whole response."""
        await self.begin(page.head, len(page.body))
        await self.write(page.body, is_last=True)

    async def begin(self, head: Head, length_bytes: int | None = None) -> None:
        """Send status and headers; after this the status can't change any more."""
        headers = [(b"content-type", head.media_type.encode("latin-1")), (b"x-request-id", self.id.encode("latin-1"))]
        if length_bytes is not None:
            headers.append((b"content-length", str(length_bytes).encode("latin-1")))
        if head.headers:
            headers.extend((name.encode("latin-1"), value.encode("latin-1")) for name, value in head.headers.items())
        self.has_begun = True
        self.status = head.status
        await self._send({"type": "http.response.start", "status": head.status, "headers": headers})

    async def write(self, data: bytes, *, is_last: bool = False) -> None:
        self.is_sending = True
        try:
            await self._send({"type": "http.response.body", "body": data, "more_body": not is_last})
        finally:
            self.is_sending = False

    async def hung_up(self) -> None:
        """Returns when the client has left."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


class Hangups:
    """Watches over all running answers with one timer; one that lasts gets a task that waits for its client's leaving.

    Not a task group per call: most answers are over before the first look, and then nothing was ever made for them (28 µs a call,
    measured). The tasks are this object's own, and each ends with its answer.
    """

    def __init__(self) -> None:
        self._running: set[Hangup] = set()
        self._young: set[Hangup] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, exchange: Exchange) -> "Hangup":
        return Hangup(self, exchange)

    def stop(self) -> None:
        """End all running answers: the box is about to go. Each tells its client so."""
        for hangup in tuple(self._running):
            hangup.stop()

    def add(self, hangup: "Hangup") -> None:
        self._running.add(hangup)
        self._young.add(hangup)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    def discard(self, hangup: "Hangup") -> None:
        self._running.discard(hangup)
        self._young.discard(hangup)

    def _look(self) -> None:
        self._timer = None
        lasting = [hangup for hangup in self._young if hangup.was_seen]
        for hangup in lasting:
            self._young.discard(hangup)
            hangup.listen()
        for hangup in self._young:
            hangup.was_seen = True
        if self._young:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)


class Hangup:
    """Ends what runs inside, quietly, when the client leaves; `is_gone` tells so afterwards.

    What runs within `told` ends with an ApiError instead when the box stops. was_seen: it ran already when the timer looked last.
    """

    __slots__ = ("_exchange", "_hangups", "_is_stopped", "_running", "_watching", "is_gone", "was_seen")

    def __init__(self, hangups: Hangups, exchange: Exchange) -> None:
        self._hangups = hangups
        self._exchange = exchange
        self._running: asyncio.Task[object] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._is_stopped = False
        self.is_gone = False
        self.was_seen = False

    async def __aenter__(self) -> Self:
        self._running = asyncio.current_task()
        self._hangups.add(self)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        self._hangups.discard(self)
        if self._watching is not None:
            self._watching.cancel()
        if not (self.is_gone or self._is_stopped) or self._running is None:
            return False
        if kind is None:
            # The answer ended in the very moment of the cancellation, which is still to be delivered.
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        self._running.uncancel()
        return kind is None or kind is asyncio.CancelledError

    @contextmanager
    def told(self) -> Generator[None]:
        """Raises ApiError(OVERLOADED) in place of the cancellation by `stop`, once all that ran inside is closed."""
        try:
            yield
        except asyncio.CancelledError:
            if not self._is_stopped or self.is_gone or self._running is None:
                raise
            self._is_stopped = False
            self._running.uncancel()
            raise ApiError(ErrorKind.OVERLOADED, _STOPPED, retry_after_s=_STOPPED_S) from None

    def stop(self) -> None:
        if self._running is not None and not self.is_gone:
            self._is_stopped = self._exchange.timeline.was_stopped = True
            self._running.cancel()

    def listen(self) -> None:
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        await self._exchange.hung_up()
        self.is_gone = True
        if self._running is not None:
            self._running.cancel()


class Pulse:
    """Calls `beat` after every `period_s` of silence of a stream; costs the stream nothing while it speaks."""

    def __init__(self, exchange: Exchange, period_s: float, beat: Callable[[], Awaitable[None]]) -> None:
        self._exchange = exchange
        self._period_s = period_s
        self._beat = beat
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._exchange.last_sent_s = self._loop.time()
        self._timer = self._loop.call_later(self._period_s, self._tick)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def spoke(self) -> None:
        self._exchange.last_sent_s = self._loop.time()

    def _tick(self) -> None:
        silence_s = self._loop.time() - self._exchange.last_sent_s
        if silence_s >= self._period_s and not self._exchange.is_sending:
            self._task = self._loop.create_task(self._run())
            silence_s = 0.0
        self._timer = self._loop.call_later(max(self._period_s - silence_s, 0.05), self._tick)

    async def _run(self) -> None:
        await self._beat()
        self.spoke()
