"""This is where one HTTP/1.1 connection to a server lives: a request out, its answer parsed as it arrives, one deadline.

llhttp reads; the event loop's transport writes. Nothing here knows who asks or why: `remote` does.
"""

import asyncio
from collections import deque
from math import inf
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

MAX_HEAD_BYTES = 64 * 1024
PAUSE_AT_BYTES = 256 * 1024  # unread bytes of an answer after which its connection is read no further


class Connection(asyncio.Protocol):
    """One TCP connection, one exchange at a time; what arrives waits in `chunks` for its one reader.

    is_headed: status and headers are here. is_complete: so is the body's end. is_heard: at least a byte of the answer came.
    is_open: False once the other side or we hung up. is_expired: we did, because a deadline passed.
    """

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.chunks: deque[bytes] = deque()
        self.is_open = True
        self.is_expired = False
        self._transport: asyncio.Transport
        self._parser = HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._is_idle = False
        self._is_paused = False
        self._is_full = False
        self._unread_bytes = 0
        self._deadline = inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._begin()

    def _begin(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.is_headed = False
        self.is_complete = False
        self.is_heard = False
        self._is_kept = False
        self._head_bytes = 0

    # What an exchange does.

    def send(self, data: bytes) -> None:
        self._is_idle = False
        self._begin()
        self._transport.write(data)

    async def send_more(self, data: bytes, deadline: float) -> None:
        """More of a body, once the other side has taken most of what was written before, unless it answers. deadline: as in `wait`."""
        while self._is_full and self.is_open and not self.is_headed:
            await self.wait(deadline)
        if self.is_open and not self.is_headed:
            self._transport.write(data)

    def refuse_another(self) -> None:
        """No exchange can follow this one: its request was not sent to the end."""
        self._is_kept = False

    async def wait(self, deadline: float) -> None:
        """Until something happened: bytes, their end, a failure. deadline: of the loop's clock; past it the connection is closed."""
        self._set_deadline(deadline)
        self._waiter = waiter = self.loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    def take(self) -> bytes:
        """All unread bytes."""
        data = self.chunks.popleft() if len(self.chunks) == 1 else b"".join(self.chunks)
        self.chunks.clear()
        self._unread_bytes = 0
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()
        return data

    def rest(self, idle_s: float) -> bool:
        """Go idle, for `idle_s` at most, if another exchange can follow."""
        self._is_idle = self.is_open and self.is_complete and self._is_kept and not self.chunks
        if self._is_idle:
            self._set_deadline(self.loop.time() + idle_s)
        return self._is_idle

    def hang_up(self) -> None:
        self.is_open = False
        self._transport.abort()
        if self._timer is not None:
            self._timer.cancel()

    # The one timer of a connection is looked at only when it fires, so that a chunk costs none.

    def _set_deadline(self, deadline: float) -> None:
        self._deadline = deadline
        if deadline < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.loop.call_at(deadline, self._look)
            self._timer_at = deadline

    def _look(self) -> None:
        self._timer, self._timer_at = None, inf
        if self._deadline > self.loop.time():
            self._set_deadline(self._deadline)
        elif self._is_idle:
            self.hang_up()
        elif self._waiter is not None:
            self.is_expired = True
            self.hang_up()
            self._wake()

    # What the event loop tells us.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports keep the interface without the class

    def data_received(self, data: bytes) -> None:
        self.is_heard = True
        if self._is_idle:
            self.hang_up()
            return
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self.hang_up()
        self._wake()

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        is_framed = "content-length" in self.headers or "transfer-encoding" in self.headers
        if self.is_open and self.is_headed and exc is None and not is_framed:
            self.is_complete = True  # the older way to end a body
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What llhttp tells us; an exception here ends the parsing, and with it the connection.

    def on_message_begin(self) -> None:
        if self.is_headed:
            raise ValueError("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise ValueError("the head is too large")
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # an interim answer: the real one follows
            self.headers = {}
            return
        self.status = status
        self.is_headed = True
        self._is_kept = self._parser.should_keep_alive()

    def on_body(self, chunk: bytes) -> None:
        self.chunks.append(chunk)
        self._unread_bytes += len(chunk)
        if self._unread_bytes > PAUSE_AT_BYTES and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        self.is_complete = self.is_headed
