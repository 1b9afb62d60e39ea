"""This is where calls are made: one after another on a plain socket for latencies, many at once for throughput."""

import asyncio
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import msgspec
import uvloop

LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where chat completions are asked for, and how."""

    port: int
    path: str
    model: str
    headers: Mapping[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"

    def body(self, text: str, *, is_streamed: bool = False) -> bytes:
        messages = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": text}]
        return msgspec.json.encode({"model": self.model, "messages": messages, "stream": is_streamed, "max_tokens": 64})

    def request(self, text: str, *, is_streamed: bool = False) -> bytes:
        body = self.body(text, is_streamed=is_streamed)
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        head = f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\ncontent-type: application/json\r\n{lines}"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """errors: answers that were not 200, and broken connections."""

    calls: int
    seconds: float
    errors: int
    tool: str

    @property
    def calls_per_s(self) -> float:
        return self.calls / self.seconds


class Unfinished(Exception):
    """The bytes so far are not a whole answer."""


def answer_end(data: bytes) -> int:
    """Where the first answer in `data` ends. Raises Unfinished."""
    split = data.find(b"\r\n\r\n")
    if split < 0:
        raise Unfinished
    head = data[:split]
    if (length := LENGTH.search(head)) is not None:
        end = split + 4 + int(length[1])
    else:
        place = data.find(b"\r\n0\r\n\r\n", split)
        end = place + 7 if place >= 0 else len(data) + 1
    if end > len(data):
        raise Unfinished
    return end


def latencies(endpoint: Endpoint, calls: int) -> list[float]:
    """Seconds of each of `calls` calls, one at a time on one connection. Raises RuntimeError when one is not answered with 200."""
    request = endpoint.request("How are you?")
    taken: list[float] = []
    with socket.create_connection(("127.0.0.1", endpoint.port), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(calls):
            begun = time.perf_counter()
            connection.sendall(request)
            data = b""
            while True:
                piece = connection.recv(262_144)
                data += piece
                if not piece:
                    raise RuntimeError(f"port {endpoint.port} hung up")
                try:
                    answer_end(data)
                    break
                except Unfinished:
                    continue
            taken.append(time.perf_counter() - begun)
            if not data.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"port {endpoint.port} answered {data[:400]!r}")
    return taken


def throughput(endpoint: Endpoint, concurrency: int, seconds: float) -> Throughput:
    """As many calls as `concurrency` connections get answered. wrk makes them where it is installed: it takes less of the load's core."""
    if shutil.which("wrk"):
        return _wrk(endpoint, concurrency, seconds)
    return uvloop.run(_own(endpoint, concurrency, seconds))


def _wrk(endpoint: Endpoint, concurrency: int, seconds: float) -> Throughput:
    body = endpoint.body("How are you?").decode().replace("]]", "] ]")
    headers = {"content-type": "application/json", **endpoint.headers}
    script = 'wrk.method = "POST"\n' + f"wrk.body = [[{body}]]\n" + "".join(f'wrk.headers["{n}"] = [[{v}]]\n' for n, v in headers.items())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "call.lua"
        path.write_text(script)
        command = ["wrk", "-t1", f"-c{concurrency}", f"-d{max(1, round(seconds))}s", "--timeout", "30s", "-s", str(path), endpoint.url]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m)\b", said)
    if found is None:
        raise RuntimeError(f"wrk said {said!r}")
    unit = {"ms": 0.001, "s": 1.0, "m": 60.0}[found[3]]
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    errors = (int(refused[1]) if refused else 0) + (sum(int(count) for count in broken.groups()) if broken else 0)
    return Throughput(calls=int(found[1]), seconds=float(found[2]) * unit, errors=errors, tool="wrk")


class _Caller(asyncio.Protocol):
    """One connection that asks again as soon as it is answered, until `deadline`."""

    def __init__(self, request: bytes, deadline: float) -> None:
        self.calls = self.errors = 0
        self.done = asyncio.get_running_loop().create_future()
        self._request = request
        self._deadline = deadline
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop keeps the interface without the class
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._data += data
        try:
            end = answer_end(self._data)
        except Unfinished:
            return
        self.calls += 1
        self.errors += not self._data.startswith(b"HTTP/1.1 200")
        self._data = self._data[end:]
        if time.perf_counter() < self._deadline:
            self._transport.write(self._request)
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.errors += time.perf_counter() < self._deadline
        if not self.done.done():
            self.done.set_result(None)


async def _own(endpoint: Endpoint, concurrency: int, seconds: float) -> Throughput:
    loop = asyncio.get_running_loop()
    begun = time.perf_counter()
    request = endpoint.request("How are you?")
    opened = [loop.create_connection(lambda: _Caller(request, begun + seconds), "127.0.0.1", endpoint.port) for _ in range(concurrency)]
    callers = [caller for _, caller in await asyncio.gather(*opened)]
    await asyncio.gather(*(caller.done for caller in callers))
    return Throughput(
        calls=sum(caller.calls for caller in callers),
        seconds=time.perf_counter() - begun,
        errors=sum(caller.errors for caller in callers),
        tool="own",
    )
