"""This is where many streams are heard at once, and each chunk's delay is read from the moment of sending it carries."""

import asyncio
import re
import time
from typing import cast

import msgspec
import uvloop

from bench.load import Endpoint

SENT = re.compile(rb'"content":\s*"(\d{10,})"')


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """delays_s: from upstream's sending to our hearing, every chunk of every stream. failures: what each broken stream said."""

    streams: int
    chunks: int
    delays_s: list[float]
    failures: list[str]
    seconds: float


class _Stream(asyncio.Protocol):
    def __init__(self, request: bytes, expected: int) -> None:
        self.delays_ns: list[int] = []
        self.done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._request = request
        self._expected = expected
        self._rest = b""
        self._is_headed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop keeps the interface without the class
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        data = self._rest + data
        if not self._is_headed:
            if not data.startswith(b"HTTP/1.1 200"):
                self._end(f"answered {data[:200]!r}")
                return
            self._is_headed = True
        end = data.rfind(b"\n") + 1
        self._rest = data[end:]
        for sent in SENT.findall(data, 0, end):
            self.delays_ns.append(now - int(sent))
        if b"data: [DONE]" in data:
            count = len(self.delays_ns)
            self._end("" if count == self._expected else f"{count} of {self._expected} chunks")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("hung up")

    def _end(self, failure: str) -> None:
        if not self.done.done():
            self.done.set_result(failure)
            self._transport.close()


def hear(endpoint: Endpoint, streams: int, chunks: int, pace_ms: int, *, spread_s: float = 0.0) -> Heard:
    """Open `streams` streams of `chunks` chunks each, the openings spread over `spread_s`; all of them are open together
    if the last opens before the first ends."""
    return uvloop.run(_hear(endpoint, streams, chunks, pace_ms, spread_s))


async def _hear(endpoint: Endpoint, streams: int, chunks: int, pace_ms: int, spread_s: float) -> Heard:
    request = endpoint.request(f"pace={pace_ms};chunks={chunks};", is_streamed=True)
    begun = time.monotonic()
    limit_s = spread_s + chunks * pace_ms / 1000 * 3 + 60

    async def one(number: int) -> tuple[list[int], str]:
        await asyncio.sleep(spread_s * number / streams)
        try:
            _, stream = await asyncio.get_running_loop().create_connection(lambda: _Stream(request, chunks), "127.0.0.1", endpoint.port)
        except OSError as error:
            return [], str(error)
        try:
            return stream.delays_ns, await asyncio.wait_for(asyncio.shield(stream.done), limit_s)
        except TimeoutError:
            return stream.delays_ns, f"not over after {limit_s:.0f} s"

    heard = await asyncio.gather(*(one(number) for number in range(streams)))
    delays = [delay / 1e9 for some, _ in heard for delay in some]
    return Heard(
        streams=streams,
        chunks=len(delays),
        delays_s=delays,
        failures=[failure for _, failure in heard if failure],
        seconds=time.monotonic() - begun,
    )
