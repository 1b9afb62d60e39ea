"""This is where a connection of uvicorn's sends the head of an answer together with the body's first bytes.

uvicorn writes the two apart, and uvloop sends each at once: two system calls and two packets where one does, and a client that is
woken up twice.
"""

import asyncio
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HEAD = b"HTTP/1.1 "


class OnePieceProtocol(HttpToolsProtocol):
    """For uvicorn.Config(http=…)."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  (as uvicorn has it)
        super().connection_made(cast(asyncio.Transport, _OnePiece(transport, self.loop)))


class _OnePiece:
    """A transport, as far as uvicorn uses one. A head waits for what is written next, but not longer than this turn of the loop."""

    __slots__ = ("_head", "_loop", "_transport", "get_extra_info", "is_closing", "pause_reading", "resume_reading")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""
        self.get_extra_info = transport.get_extra_info
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(_HEAD):
            self._head = data
            self._loop.call_soon(self._send)
            return
        self._transport.write(data)

    def close(self) -> None:
        """After what was written."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        if self._head:
            data, self._head = self._head, b""
            self._transport.write(data)
