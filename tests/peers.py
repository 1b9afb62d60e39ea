"""This is where tests play the other side of a connection: a raw HTTP/1.1 server on a free loopback port that follows a script."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import anyio

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Mixed: Yes\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"

Script: TypeAlias = "Callable[[Peer, asyncio.StreamWriter], Awaitable[None]]"


def frame(data: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Peer:
    """Plays its script once per request and notes what it heard: heads and bodies. hung_up: set when a client left early,
    which a path with /hang in it watches for while the script runs."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.url = ""
        self.heard: list[tuple[bytes, bytes]] = []
        self.connections = 0
        self.hung_up = anyio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
                self.heard.append((head, await reader.readexactly(length[0] if length else 0)))
                script = asyncio.ensure_future(self._script(self, writer))
                listening = asyncio.ensure_future(reader.read(1) if b" /hang" in head else asyncio.sleep(60))
                await asyncio.wait({script, listening}, return_when=asyncio.FIRST_COMPLETED)
                if listening.done():
                    self.hung_up.set()
                for task in (script, listening):
                    task.cancel()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            self.hung_up.set()
        finally:
            writer.close()


@asynccontextmanager
async def peer(script: Script, certificate: Path | None = None) -> AsyncIterator[Peer]:
    it = Peer(script)
    tls = None
    if certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
    server = await asyncio.start_server(it.serve, "127.0.0.1", 0, ssl=tls)
    it.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield it
    finally:
        server.close()
