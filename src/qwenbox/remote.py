"""This is where one exchange with a model server happens: bytes out, bytes in, every failure an ApiError.

Deadlines are ours, not pyreqwest's: its read timeout is one figure per client and also bounds the wait for the head, while a
prompt may take minutes to read and a stall between two tokens should be noticed in seconds.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from math import inf
from types import TracebackType
from typing import Self

import msgspec
from anyio.lowlevel import checkpoint_if_cancelled
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import BuilderError, ConnectTimeoutError, PyreqwestError, RequestError
from pyreqwest.request import StreamRequest
from pyreqwest.response import Response, ResponseBodyReader

from qwenbox import __version__
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


class RemoteRequest(msgspec.Struct, frozen=True, kw_only=True):
    """peer: how a message for people calls the other side; addresses stay out of messages, headers out of `repr`."""

    method: str
    url: str
    body: bytes = b""
    headers: Mapping[str, str] = {}
    timeouts: Timeouts = Timeouts()
    peer: str = "the model server"

    def __repr__(self) -> str:
        return f"RemoteRequest({self.method} {self.url.partition('?')[0]}, {len(self.body)} bytes)"


class RemoteReply(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer. headers: names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class RemoteAnswer:
    """An answer that is arriving: iterate over its bytes as they come, or `read` them. One reader at a time."""

    __slots__ = ("_deadline", "_peer", "_reader", "_response", "_silence_s", "status")

    def __init__(self, response: Response, request: RemoteRequest, deadline: "_Deadline") -> None:
        self.status = response.status
        self._response = response
        self._reader: ResponseBodyReader = response.body_reader
        self._deadline = deadline
        self._silence_s = request.timeouts.between_bytes_s
        self._peer = request.peer

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case."""
        return self._response.headers

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The next bytes as they came off the wire. Raises ApiError: TIMEOUT after a silence, ENGINE_FAILED for a broken stream."""
        deadline = self._deadline
        deadline.start(self._silence_s)
        try:
            chunk = await self._reader.read_chunk()
        except asyncio.CancelledError as error:
            if deadline.is_ours():
                raise _silent(self._peer, self._silence_s) from error
            await checkpoint_if_cancelled()  # pyreqwest raises a cancellation of its own, which no anyio scope would know
            raise
        except PyreqwestError as error:
            raise _broken(error, self._peer) from error
        finally:
            deadline.at = inf
        if chunk is None:
            raise StopAsyncIteration
        return bytes(chunk)

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


class _Deadline:
    """One timer per exchange, moved by writing `at`: it is looked at only when it fires, so a chunk costs no timer.

    pause_s: the shortest wait after the first; looking at least that often never misses one.
    An overdue wait is ended by cancelling the waiting task, as `asyncio.timeout` does.
    """

    __slots__ = ("_cancelling", "_handle", "_is_expired", "_loop", "_pause_s", "_task", "at")

    def __init__(self, pause_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._pause_s = pause_s
        self._handle: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._is_expired = False
        self.at = inf

    def start(self, seconds: float) -> None:
        """The calling task waits from now on, at most `seconds`."""
        now = self._loop.time()
        self.at = now + seconds
        self._task = task = asyncio.current_task()
        self._cancelling = task.cancelling() if task else 0
        if self._handle is None:
            self._handle = self._loop.call_at(min(self.at, now + self._pause_s), self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if self.at <= now:
            self._is_expired = True
            if self._task:
                self._task.cancel()
            return
        self._handle = self._loop.call_at(min(self.at, now + self._pause_s), self._look)

    def is_ours(self) -> bool:
        """Whether the cancellation just caught is this deadline's and nobody else's."""
        return self._is_expired and self._task is not None and self._task.uncancel() <= self._cancelling

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


class _Exchange:
    """`async with` for one request; leaving it before the body's end closes the connection, so that the other side stops."""

    __slots__ = ("_client", "_deadline", "_request", "_sent")

    def __init__(self, client: Client, request: RemoteRequest) -> None:
        self._client = client
        self._request = request

    async def __aenter__(self) -> RemoteAnswer:
        request = self._request
        self._sent = _prepare(self._client, request)
        self._deadline = deadline = _Deadline(request.timeouts.between_bytes_s)
        deadline.start(request.timeouts.first_byte_s)
        try:
            response = await self._sent.__aenter__()
        except asyncio.CancelledError as error:
            deadline.close()
            if deadline.is_ours():
                raise _late(request.peer, request.timeouts.first_byte_s) from error
            await checkpoint_if_cancelled()
            raise
        except PyreqwestError as error:
            deadline.close()
            raise _unreached(error, request) from error
        deadline.at = inf
        return RemoteAnswer(response, request, deadline)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._deadline.close()
        await self._sent.__aexit__(kind, error, trace)


class Remote:
    """The one HTTP client of a process: pooled HTTP/1.1 connections, no proxies, no redirects. Open it once, in `app`."""

    def __init__(self) -> None:
        self._clients: dict[float, Client] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for client in self._clients.values():
            await client.close()
        self._clients.clear()

    def stream(self, request: RemoteRequest) -> AbstractAsyncContextManager[RemoteAnswer]:
        """Send; entered once the first byte of the answer's body (or its end) is here, whatever the status.

        Raises ApiError, on entry or while reading: OVERLOADED when nobody could be reached (nothing was sent),
        ENGINE_FAILED when the exchange broke, TIMEOUT naming which of the three ran out.
        """
        connect_s = request.timeouts.connect_s
        return _Exchange(self._clients.get(connect_s) or self._open(connect_s), request)

    async def call(self, request: RemoteRequest) -> RemoteReply:
        """A whole exchange; for answers known to be small. Raises ApiError like `stream`, and ENGINE_FAILED past 16 MiB."""
        async with self.stream(request) as answer:
            body = await answer.read(MAX_ANSWER_BYTES + 1)
            if len(body) > MAX_ANSWER_BYTES:
                raise ApiError(ErrorKind.ENGINE_FAILED, f"{request.peer} sent more than {MAX_ANSWER_BYTES} bytes.")
            return RemoteReply(status=answer.status, headers=dict(answer.headers), body=body)

    def _open(self, connect_s: float) -> Client:
        builder = (
            ClientBuilder()
            .no_proxy()
            .http1_only()
            .follow_redirects(False)
            .referer(False)
            .gzip(False)  # a compressor on the way would hold tokens back
            .brotli(False)
            .zstd(False)
            .deflate(False)
            .user_agent(f"qwenbox/{__version__}")
            .connect_timeout(timedelta(seconds=connect_s))
            .pool_idle_timeout(timedelta(seconds=POOL_IDLE_S))
        )
        client = self._clients[connect_s] = builder.build()
        return client


def _prepare(client: Client, request: RemoteRequest) -> StreamRequest:
    try:
        # 0 enters with the head; the default of 64 KiB would hold a stream back until that much is here.
        builder = client.request(request.method, request.url).headers(request.headers).streamed_read_buffer_limit(0)
        return builder.body_bytes(request.body).build_streamed() if request.body else builder.build_streamed()
    except (BuilderError, ValueError) as error:
        raise ApiError(ErrorKind.ENGINE_FAILED, f"{request.peer} has an address or header that is not valid.") from error


def _late(peer: str, seconds: float) -> ApiError:
    return ApiError(ErrorKind.TIMEOUT, f"{peer} sent nothing within {seconds:g} s (first_byte_s).")


def _silent(peer: str, seconds: float) -> ApiError:
    return ApiError(ErrorKind.TIMEOUT, f"{peer} fell silent for {seconds:g} s in the middle of its answer (between_bytes_s).")


def _broken(error: PyreqwestError, peer: str) -> ApiError:
    return ApiError(ErrorKind.ENGINE_FAILED, f"{peer} broke off in the middle of its answer.")


def _unreached(error: PyreqwestError, request: RemoteRequest) -> ApiError:
    """What went wrong before the answer's first byte."""
    if isinstance(error, ConnectTimeoutError):
        return ApiError(ErrorKind.TIMEOUT, f"{request.peer} took no connection within {request.timeouts.connect_s:g} s (connect_s).")
    if isinstance(error, BuilderError):
        return ApiError(ErrorKind.ENGINE_FAILED, f"{request.peer} has an address that is not valid.")
    if isinstance(error, RequestError) and any("(Connect)" in cause["message"] for cause in error.details["causes"] or ()):
        return ApiError(ErrorKind.OVERLOADED, f"{request.peer} cannot be reached.", retry_after_s=RETRY_UNREACHABLE_S)
    return ApiError(ErrorKind.ENGINE_FAILED, f"{request.peer} closed the connection before it answered.")
