"""This is where one exchange with a model server happens: bytes out, bytes in, every failure an ApiError.

Leaving an exchange closes its connection at once, whether the answer's head, its first token or the next one was being waited for.
Why no client library does this part: docs/decisions/003-http-to-model-servers.md
"""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import anyio
import msgspec

from qwenbox import __version__
from qwenbox.http1 import Connection
from qwenbox.terms.engine import CONNECT_EXTENSION
from qwenbox.terms.errors import ApiError, ErrorKind

# Model servers keep idle connections for 5 s (uvicorn, Node, cpp-httplib): taking one up just as they hang up would break a call.
POOL_IDLE_S = 4.0
MAX_ANSWER_BYTES = 16 * 1024 * 1024
RETRY_UNREACHABLE_S = 1.0


class Timeouts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Seconds, > 0. first_byte_s: from sending to the first byte of the answer's body. between_bytes_s: longest silence after it."""

    connect_s: float = 5.0
    first_byte_s: float = 600.0
    between_bytes_s: float = 120.0

    def within(self, extensions: Mapping[str, bytes]) -> "Timeouts":
        """These, with what a request's extensions say about the connection."""
        connect = extensions.get(CONNECT_EXTENSION)
        return self if connect is None else msgspec.structs.replace(self, connect_s=float(connect))


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A body too large for memory. open: its bytes from the start, as often as it is asked; size_bytes: how many they are."""

    size_bytes: int
    open: Callable[[], AsyncIterator[bytes]]


class RemoteRequest(msgspec.Struct, frozen=True, kw_only=True):
    """headers: besides host, user-agent, accept-encoding and content-length, which are set here.

    source: what follows `body`, sent as fast as the other side takes it; each wait for that may last timeouts.between_bytes_s.
    peer: how a message for people calls the other side; addresses stay out of messages, headers out of `repr`.
    """

    method: str
    url: str
    body: bytes = b""
    headers: Mapping[str, str] = {}
    timeouts: Timeouts = Timeouts()
    source: Source | None = None
    peer: str = "The model's server"

    def __repr__(self) -> str:
        return f"RemoteRequest({self.method} {self.url.partition('?')[0]}, {len(self.body)} bytes)"


class RemoteReply(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer. headers: names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class RemoteAnswer:
    """An answer that is arriving: iterate over its bytes as they come, or `read` them. One reader at a time.

    headers: names in lower case. Iterate to the end, and the connection serves the next call.
    """

    __slots__ = ("_connection", "_first_byte_by", "_request", "headers", "status")

    def __init__(self, connection: Connection, request: RemoteRequest, first_byte_by: float) -> None:
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers
        self._connection: Connection | None = connection
        self._request = request
        self._first_byte_by = first_byte_by

    def close(self) -> None:
        """The exchange is over: the connection may be another call's by now."""
        self._connection = None

    @property
    def is_over(self) -> bool:
        """Whether everything came and was read: iterating on would end at once."""
        return self._connection is not None and self._connection.is_complete and not self._connection.chunks

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """All that came since the last look. Raises ApiError: TIMEOUT after a silence, ENGINE_FAILED for a broken stream."""
        connection = self._connection
        if connection is None:
            raise RuntimeError("an answer was read after its exchange was left")
        while not connection.chunks:
            if connection.is_complete:
                raise StopAsyncIteration
            if not connection.is_open:
                raise self._failure(connection)
            await connection.wait(self._first_byte_by or connection.loop.time() + self._request.timeouts.between_bytes_s)
        self._first_byte_by = 0.0
        return connection.take()

    async def read(self, limit: int = MAX_ANSWER_BYTES) -> bytes:
        """The rest of the body, cut off after `limit` bytes."""
        pieces: list[bytes] = []
        size = 0
        async for chunk in self:
            pieces.append(chunk)
            size += len(chunk)
            if size >= limit:
                break
        return b"".join(pieces)[:limit]

    def _failure(self, connection: Connection) -> ApiError:
        request = self._request
        if not connection.is_expired:
            return ApiError(ErrorKind.ENGINE_FAILED, f"{request.peer} broke off in the middle of its answer.")
        if self._first_byte_by:
            return _late(request)
        seconds = request.timeouts.between_bytes_s
        text = f"{request.peer} fell silent for {seconds:g} s in its answer (between_bytes_s)."
        return ApiError(ErrorKind.TIMEOUT, text, param="between_bytes_s")


class _Address(msgspec.Struct, frozen=True):
    """host_header: as the URL has it, port and brackets included."""

    host: str
    port: int
    is_tls: bool
    host_header: str


class Remote:
    """The one HTTP client of a process: pooled connections, no proxies, no redirects, no cookies. Open it once, in `app`."""

    def __init__(self, pool_idle_s: float = POOL_IDLE_S) -> None:
        self._pool_idle_s = pool_idle_s
        self._idle: dict[_Address, deque[Connection]] = {}
        self._tls: ssl.SSLContext | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.hang_up()
        self._idle.clear()

    def stream(self, request: RemoteRequest) -> AbstractAsyncContextManager[RemoteAnswer]:
        """Send; entered when the answer's head is here, whatever its status.

        Raises ApiError, on entry or while reading: OVERLOADED when nobody could be reached (nothing was sent),
        ENGINE_FAILED when the exchange broke, TIMEOUT naming which of the three ran out.
        """
        return _Exchange(self, request)

    async def call(self, request: RemoteRequest) -> RemoteReply:
        """A whole exchange; for answers known to be small. Raises ApiError like `stream`, and ENGINE_FAILED past 16 MiB."""
        async with self.stream(request) as answer:
            body = await answer.read(MAX_ANSWER_BYTES + 1)
            if len(body) > MAX_ANSWER_BYTES:
                raise ApiError(ErrorKind.ENGINE_FAILED, f"{request.peer} sent more than {MAX_ANSWER_BYTES} bytes.")
            return RemoteReply(status=answer.status, headers=answer.headers, body=body)

    def pooled(self, address: _Address) -> Connection | None:
        """The connection used last, so that those no longer needed grow old and close."""
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            if connection.is_open:
                return connection
        return None

    def release(self, address: _Address, connection: Connection) -> None:
        """Keep it for the next call, or close it: nobody else could use a connection whose answer was not read to its end."""
        if not connection.rest(self._pool_idle_s):
            connection.hang_up()
            return
        idle = self._idle.setdefault(address, deque())
        while idle and not idle[0].is_open:
            idle.popleft()
        idle.append(connection)

    async def connect(self, address: _Address, request: RemoteRequest) -> Connection:
        if address.is_tls and self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        loop = asyncio.get_running_loop()
        connect_s, peer = request.timeouts.connect_s, request.peer
        try:
            with anyio.fail_after(connect_s):
                _, connection = await loop.create_connection(
                    Connection, address.host, address.port, ssl=self._tls if address.is_tls else None
                )
            return connection
        except TimeoutError as error:
            text = f"{peer} took no connection within {connect_s:g} s (connect_s)."
            raise ApiError(ErrorKind.TIMEOUT, text, param="connect_s") from error
        except ssl.SSLError as error:
            raise ApiError(
                ErrorKind.ENGINE_FAILED, f"{peer} speaks no TLS that is trusted here: {error.reason or 'see the log'}."
            ) from error
        except OSError as error:
            raise ApiError(ErrorKind.OVERLOADED, f"{peer} cannot be reached.", retry_after_s=RETRY_UNREACHABLE_S) from error


class _Exchange:
    """`async with` for one request: a plain class, because a generator's context manager costs more than the parsing."""

    __slots__ = ("_address", "_answer", "_connection", "_remote", "_request")

    def __init__(self, remote: Remote, request: RemoteRequest) -> None:
        self._remote = remote
        self._request = request

    async def __aenter__(self) -> RemoteAnswer:
        request = self._request
        self._address, data = _encode(request)
        connection = self._remote.pooled(self._address)
        if connection is not None:
            first_byte_by = await self._ask(connection, data)
            if connection.is_headed or connection.is_heard or connection.is_expired:
                return self._begin(connection, first_byte_by)
            # It hung up as we took the connection out of the pool and never read the request: ask again, on a new one.
        connection = await self._remote.connect(self._address, request)
        return self._begin(connection, await self._ask(connection, data))

    async def _ask(self, connection: Connection, data: bytes) -> float:
        """Send and wait for the head, or for its failure."""
        self._connection = connection
        first_byte_by = connection.loop.time() + self._request.timeouts.first_byte_s
        connection.send(data)
        try:
            if self._request.source is not None:
                await self._send_source(connection, self._request.source)
                first_byte_by = connection.loop.time() + self._request.timeouts.first_byte_s
            while connection.is_open and not connection.is_headed:
                await connection.wait(first_byte_by)
        except BaseException:
            connection.hang_up()
            raise
        return first_byte_by

    async def _send_source(self, connection: Connection, source: Source) -> None:
        """All of it, unless the other side answers before, or is gone."""
        sent = 0
        async for piece in source.open():
            if connection.is_headed or not connection.is_open:
                break
            sent += len(piece)
            await connection.send_more(piece, connection.loop.time() + self._request.timeouts.between_bytes_s)
        if sent != source.size_bytes or connection.is_headed:
            connection.refuse_another()

    def _begin(self, connection: Connection, first_byte_by: float) -> RemoteAnswer:
        if connection.is_headed:
            self._answer = RemoteAnswer(connection, self._request, first_byte_by)
            return self._answer
        if connection.is_expired:
            raise _late(self._request)
        raise ApiError(ErrorKind.ENGINE_FAILED, f"{self._request.peer} closed the connection before it answered.")

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._answer.close()
        self._remote.release(self._address, self._connection)


@lru_cache(maxsize=1024)
def _split(url: str) -> tuple[_Address, str]:
    """Where to connect, and the request's target. Raises ValueError for what is no http(s) address."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError("not an http(s) address")
    if not (target.isascii() and parts.netloc.isascii() and target.isprintable()) or " " in url:
        raise ValueError("an address is printable ASCII without spaces")
    is_tls = parts.scheme == "https"
    address = _Address(host=parts.hostname, port=parts.port or (443 if is_tls else 80), is_tls=is_tls, host_header=parts.netloc)
    return address, target


def _encode(request: RemoteRequest) -> tuple[_Address, bytes]:
    try:
        address, target = _split(request.url)
        lines = [
            f"{request.method} {target} HTTP/1.1\r\nhost: {address.host_header}\r\nuser-agent: qwenbox/{__version__}\r\n"
            "accept-encoding: identity\r\n",  # a compressor on the way would hold tokens back
            *[f"{name}: {value}\r\n" for name, value in request.headers.items()],
            f"content-length: {len(request.body) + (request.source.size_bytes if request.source else 0)}\r\n\r\n",
        ]
        head = "".join(lines).encode("latin-1")
        expected = 6 + len(request.headers)
        if head.count(b"\r") != expected or head.count(b"\n") != expected:
            raise ValueError("a header holds a line break")
    except ValueError as error:  # an encoding error is one, too
        raise ApiError(ErrorKind.ENGINE_FAILED, f"{request.peer} has an address or header that is not valid.") from error
    return address, head + request.body


def _late(request: RemoteRequest) -> ApiError:
    text = f"{request.peer} sent nothing within {request.timeouts.first_byte_s:g} s (first_byte_s)."
    return ApiError(ErrorKind.TIMEOUT, text, param="first_byte_s")
