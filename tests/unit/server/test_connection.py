"""What goes out in one piece, on uvicorn's own protocol and a transport that writes down what it is given."""

import asyncio
from collections.abc import Callable

import pytest
import uvicorn
from uvicorn.server import ServerState

from qwenbox.server.connection import OnePieceProtocol
from qwenbox.server.exchange import Receive, Scope, Send

ASK = b"GET / HTTP/1.1\r\nhost: box\r\n\r\n"


class Told(asyncio.Transport):
    """pieces: what was written, as it was written; "closed" after the last."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.pieces: list[bytes] = []
        self.is_closed = False
        self.written = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.pieces.append(bytes(data))
        self.written.set()

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed


def connected(app: Callable[[Scope, Receive, Send], object]) -> tuple[OnePieceProtocol, Told]:
    config = uvicorn.Config(app, http=OnePieceProtocol, ws="none", lifespan="off", log_config=None)  # type: ignore[arg-type]  (any callable)
    config.load()
    protocol, transport = OnePieceProtocol(config, ServerState(), {}), Told()
    protocol.connection_made(transport)
    return protocol, transport


def parts(*bodies: bytes, waits: asyncio.Event | None = None) -> Callable[[Scope, Receive, Send], object]:
    """An application that sends its head and these bodies; waits: between the head and the first body."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if waits is not None:
            await waits.wait()
        for body in bodies:
            await send({"type": "http.response.body", "body": body, "more_body": body is not bodies[-1]})

    return app


async def test_head_and_body_go_out_in_one_piece() -> None:
    protocol, told = connected(parts(b"whole"))
    protocol.data_received(ASK)
    await told.written.wait()
    assert 1 == len(told.pieces)
    assert told.pieces[0].startswith(b"HTTP/1.1 200") and b"whole" in told.pieces[0]


async def test_later_pieces_of_a_stream_go_out_at_once() -> None:
    protocol, told = connected(parts(b"one", b"two", b"three"))
    protocol.data_received(ASK)
    await told.written.wait()
    assert [True, False, False] == [piece.startswith(b"HTTP/1.1 200") for piece in told.pieces]
    assert [b"one", b"two", b"three"] == [
        word for piece, word in zip(told.pieces, (b"one", b"two", b"three"), strict=True) if word in piece
    ]


async def test_head_goes_out_alone_when_the_body_is_late() -> None:
    late = asyncio.Event()
    protocol, told = connected(parts(b"late", waits=late))
    protocol.data_received(ASK)
    await told.written.wait()
    assert told.pieces[0].endswith(b"\r\n\r\n")
    told.written.clear()
    late.set()
    await told.written.wait()
    assert 2 == len(told.pieces) and b"late" in told.pieces[1]


async def test_head_goes_out_before_the_connection_closes() -> None:
    never = asyncio.Event()
    protocol, told = connected(parts(b"never", waits=never))
    protocol.data_received(ASK)
    await asyncio.sleep(0)
    protocol.transport.close()
    assert told.is_closed
    assert [b"HTTP/1.1 200"] == [piece[:12] for piece in told.pieces]
    never.set()


@pytest.mark.parametrize("size", [1, 1_000_000])
async def test_every_byte_of_a_body_goes_out_once(size: int) -> None:
    protocol, told = connected(parts(b"x" * size))
    protocol.data_received(ASK)
    await told.written.wait()
    assert size == b"".join(told.pieces).partition(b"\r\n\r\n")[2].count(b"x")
