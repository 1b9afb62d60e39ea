"""This is where a call to somebody else's server is held: the key for it, and its answer as events in whatever dialect it speaks."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol

import anyio
import msgspec

from qwenbox.remote import Remote, RemoteAnswer, RemoteRequest
from qwenbox.terms.errors import ApiError
from qwenbox.terms.events import ChatEvent, Completed
from qwenbox.terms.secret import Secret

# The last frame and the body's end are two writes of most servers: a connection is worth that much waiting, an answer no more.
DRAIN_S = 0.5
FAILURE_BYTES = 64 * 1024


class Listener(Protocol):
    """Hears one answer: a stream piece by piece and then its end, or a whole one. Raises ApiError as the dialect's `speak` says."""

    def feed(self, chunk: bytes) -> list[ChatEvent]: ...

    def finish(self) -> list[ChatEvent]: ...

    def whole(self, body: bytes) -> list[ChatEvent]: ...


class WholeListener:
    """Hears an answer that is nothing before its end. hear: the body as events."""

    def __init__(self, hear: Callable[[bytes], list[ChatEvent]]) -> None:
        self._hear = hear
        self._heard: list[bytes] = []

    def feed(self, chunk: bytes) -> list[ChatEvent]:
        self._heard.append(chunk)
        return []

    def finish(self) -> list[ChatEvent]:
        return self._hear(b"".join(self._heard))

    def whole(self, body: bytes) -> list[ChatEvent]:
        return self._hear(body)


class Language(msgspec.Struct, frozen=True, kw_only=True):
    """How a server is understood. listen: a listener for one answer. failure: its refusal by status, body and headers."""

    listen: Callable[[], Listener]
    failure: Callable[[int, bytes, Mapping[str, str]], ApiError]


class UpstreamAnswer:
    """The events of one call; leaving hangs up, unless the answer was heard to its end."""

    __slots__ = ("_events", "_exchange", "_language")

    def __init__(self, remote: Remote, request: RemoteRequest, language: Language) -> None:
        self._exchange = remote.stream(request)
        self._language = language
        self._events: AsyncGenerator[ChatEvent] | None = None

    async def __aenter__(self) -> AsyncIterator[ChatEvent]:
        answer = await self._exchange.__aenter__()
        if answer.status == 200:
            is_whole = answer.headers.get("content-type", "").startswith("application/json")
            self._events = (_whole if is_whole else _streamed)(answer, self._language.listen())
            return self._events
        try:
            body = await answer.read(FAILURE_BYTES)
        finally:
            await self._exchange.__aexit__(None, None, None)
        raise self._language.failure(answer.status, body, answer.headers)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if self._events is not None:
                await self._events.aclose()
        finally:
            await self._exchange.__aexit__(kind, error, trace)


def find_key(variable: str, file: str, environment: Mapping[str, str]) -> Secret | None:
    """The key a server wants; None where neither place is named. Raises KeyError, OSError or ValueError when it is not there."""
    if not variable and not file:
        return None
    text = (Path(file).expanduser().read_text("utf-8") if file else environment[variable]).strip()
    if not text or not text.isascii() or not text.isprintable():
        raise ValueError("no key")  # never with the text: it may be one
    return Secret(text)


async def _streamed(answer: RemoteAnswer, listener: Listener) -> AsyncGenerator[ChatEvent]:
    """`Completed` waits for the body's end: whoever hears it leaves, and the connection would be lost to the next call."""
    completed: ChatEvent | None = None
    async for chunk in answer:
        for event in listener.feed(chunk):
            if isinstance(event, Completed):
                completed = event
            else:
                yield event
        if completed is not None:
            await _drain(answer)
            break
    for event in listener.finish() if completed is None else [completed]:
        yield event


async def _drain(answer: RemoteAnswer) -> None:
    if answer.is_over:
        return
    with anyio.move_on_after(DRAIN_S):
        try:
            async for _ in answer:
                pass
        except ApiError:
            pass  # everything that matters was said


async def _whole(answer: RemoteAnswer, listener: Listener) -> AsyncGenerator[ChatEvent]:
    """Of a server that does not stream, though it was asked to."""
    for event in listener.whole(await answer.read()):
        yield event
