"""This is where tests have an upstream that fails by a schedule: a real server that speaks the OpenAI dialect, in a thread of its own."""

import asyncio
import json
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from random import Random

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
QUESTION = re.compile(rb"question-\d+")

# What may happen to an attempt. Before the first byte: throttled (with a Retry-After or without), failed, reset, stall.
BEFORE = ("throttled", "told", "failed", "reset", "stall")
GOOD, CUT = "good", "cut"
# … and what only single tests ask for: tokens that stop coming, tokens that never end.
SILENT, ENDLESS = "silent", "endless"

Fate = Callable[[str, int], str]


def drawn(seed: int, *, before: float = 0.3, cut: float = 0.05) -> Fate:
    """A fate for each question's each attempt, the same however the calls happen to run."""

    def fate(question: str, attempt: int) -> str:
        random = Random(f"{seed} {question} {attempt}")
        place = random.random()
        if place < before:
            return random.choice(BEFORE)
        return CUT if place < before + cut else GOOD

    return fate


@dataclass
class Upstream:
    """url: its base, /v1 included. fates: of each question's attempts, in order. open: calls it is busy with now."""

    fate: Fate
    port: int = 0
    fates: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    open: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def is_idle(self, within_s: float = 20.0) -> bool:
        """Whether every call was hung up or answered within that time."""
        with self._changed:
            return self._changed.wait_for(lambda: self.open == 0, within_s)

    def count(self, change: int) -> None:
        with self._changed:
            self.open += change
            self._changed.notify_all()


@contextmanager
def serve(fate: Fate, port: int = 0) -> Iterator[Upstream]:
    """port: 0 takes a free one. Left, it is gone for whoever asks."""
    upstream = Upstream(fate, port)
    loop = asyncio.new_event_loop()
    started = threading.Event()
    over = asyncio.Event()

    async def run() -> None:
        tasks: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                await _converse(upstream, reader, writer)
            tasks.discard(task)
            writer.transport.abort()

        server = await asyncio.start_server(connected, "127.0.0.1", upstream.port)
        upstream.port = server.sockets[0].getsockname()[1]
        started.set()
        await over.wait()
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.sleep(0.01)

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    started.wait(60)
    try:
        yield upstream
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(60)
        loop.close()


async def _converse(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        body = await reader.readexactly(int(length[1]) if length else 0)
        if head.startswith(b"GET"):
            writer.write(_page(200, b'{"object":"list","data":[]}'))
            continue
        upstream.count(+1)
        gone = asyncio.ensure_future(reader.read(1))
        playing = asyncio.ensure_future(_play(upstream, body, writer))
        try:
            await asyncio.wait({gone, playing}, return_when=asyncio.FIRST_COMPLETED)
            if not playing.done() or gone.done() or not playing.result():
                return  # hung up, by either side
        finally:
            playing.cancel()
            gone.cancel()
            upstream.count(-1)
        with suppress(asyncio.CancelledError):
            await gone


async def _play(upstream: Upstream, body: bytes, writer: asyncio.StreamWriter) -> bool:
    """Returns whether the connection may serve another call."""
    found = QUESTION.search(body)
    question = found[0].decode() if found else ""
    fates = upstream.fates[question]
    fate = upstream.fate(question, len(fates))
    fates.append(fate)
    match fate:
        case "throttled":
            writer.write(_page(429, b'{"error":{"message":"slow down","code":"limit_requests"}}'))
        case "told":
            writer.write(_page(429, b'{"error":{"message":"slow down","code":"limit_requests"}}', b"retry-after: 1\r\n"))
        case "failed":
            writer.write(_page(500, b'{"error":{"message":"oh dear","code":"internal_error"}}'))
        case "reset":
            return False
        case "stall":
            await asyncio.sleep(3_600)
        case _:
            return await _answer(question, fate, writer)
    return True


async def _answer(question: str, fate: str, writer: asyncio.StreamWriter) -> bool:
    writer.write(HEAD)
    for piece in ("Answer ", "to ", question):
        writer.write(_chunk({"delta": {"content": piece}}))
        await writer.drain()
    if fate == CUT:
        return False
    if fate == SILENT:
        await asyncio.sleep(3_600)
    while fate == ENDLESS:
        writer.write(_chunk({"delta": {"content": "more "}}))
        await asyncio.sleep(0.02)
    writer.write(_chunk({"delta": {}, "finish_reason": "stop"}))
    writer.write(_chunk(None, {"prompt_tokens": 5, "completion_tokens": 3}) + _framed(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    return True


def _chunk(choice: dict[str, object] | None, usage: dict[str, int] | None = None) -> bytes:
    choices = [{"index": 0, "finish_reason": None, **choice}] if choice else []
    return _framed(b"data: " + json.dumps({"id": "x", "choices": choices, "usage": usage}).encode() + b"\n\n")


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _page(status: int, body: bytes, more: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n" % (status, more, len(body))
    return head + body
