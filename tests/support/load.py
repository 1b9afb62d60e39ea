"""This is where many calls at once are made, cheaply: asyncio connections that are kept, one call at a time on each."""

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from wire import COMPATIBLE_CHAT


@dataclass(frozen=True)
class Sample:
    """One call. status 0: the connection broke before the answer's end; body: what had come. *_s: time.monotonic()."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    sent_s: float
    done_s: float

    @property
    def id(self) -> str:
        return self.headers.get("x-request-id", "")

    @property
    def is_ended(self) -> bool:
        """Whether the client saw the end of a good answer, whole or streamed."""
        return self.status == 200 and (b"[DONE]" in self.body if self.body.startswith((b"data:", b":")) else b'"usage"' in self.body)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return self.json["error"]["code"]

    @property
    def retry_after_s(self) -> float | None:
        told = self.headers.get("retry-after-ms")
        return None if told is None else int(told) / 1000


@dataclass
class Connection:
    """`async with Connection(port) as connection`; opened on the first call, and again after it broke."""

    port: int
    key: str
    _reader: asyncio.StreamReader | None = field(default=None, repr=False)
    _writer: asyncio.StreamWriter | None = field(default=None, repr=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._writer.wait_closed()
        self._reader = self._writer = None

    async def chat(self, text: str = "hello", *, model: str = "qwen-plus", max_tokens: int | None = None, stream: bool = False) -> Sample:
        body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}
        if max_tokens is not None:
            body["max_tokens"] = max_tokens
        if stream:
            body["stream_options"] = {"include_usage": True}
        return await self.post(COMPATIBLE_CHAT, body)

    async def post(self, path: str, body: Any) -> Sample:
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\nauthorization: Bearer {self.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        )
        sent_s = time.monotonic()
        heard = _Heard()
        try:
            if self._reader is not None and self._reader.at_eof():
                await self.close()  # the box ends connections nobody uses
            if self._writer is None:
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)
            self._writer.write(head.encode() + data)
            await heard.read(self._reader)
        except (OSError, asyncio.IncompleteReadError):
            await self.close()
            return Sample(0, heard.headers, bytes(heard.body), sent_s, time.monotonic())
        return Sample(heard.status, heard.headers, bytes(heard.body), sent_s, time.monotonic())


class _Heard:
    """An answer as far as it came."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()

    async def read(self, reader: asyncio.StreamReader | None) -> None:
        assert reader is not None
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
        if "content-length" in self.headers:
            self.body += await reader.readexactly(int(self.headers["content-length"]))
        else:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                self.body += (await reader.readexactly(size + 2))[:-2]
            await reader.readuntil(b"\r\n")
        self.status = int(lines[0].split()[1])


def busiest(moments: list[tuple[float, int]], window_s: float) -> int:
    """The largest sum of weights in any closed window of that length, aligned or not. moments: (time, weight)."""
    ordered = sorted(moments)
    best = total = 0
    first = 0
    for at, weight in ordered:
        total += weight
        while ordered[first][0] < at - window_s:
            total -= ordered[first][1]
            first += 1
        best = max(best, total)
    return best
