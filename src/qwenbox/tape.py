"""This is where exchanges with model servers are recorded, and played again without any server: for tests that need no network.

A tape is a file of JSON lines, one exchange each: what was asked (never with its headers: they hold the key), and what came back, piece
by piece with its time. The same question gets the recorded bytes; asked several times, the recordings follow each other and the last stays.
"""

import base64
import hashlib
import os
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import msgspec

from qwenbox.clock import Clock
from qwenbox.remote import Remote, RemoteAnswer, RemoteRequest
from qwenbox.terms.errors import ApiError, ErrorKind

# Of an answer's headers only these are kept: others may hold cookies, or what a service knows of its customer.
_KEPT = frozenset({"content-type", "retry-after", "retry-after-ms", "x-request-id"})

_ASKED_FOR_STATE = "GET"


class Mode(StrEnum):
    RECORD = "record"
    REPLAY = "replay"


class Pace(StrEnum):
    """OWN: as slow as it was; FAST: at once."""

    OWN = "own"
    FAST = "fast"


class TapeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[tape]`. file: "" for none; a relative one lies in the data folder. RECORD adds to it, REPLAY reaches no server."""

    file: str = ""
    mode: Mode = Mode.REPLAY
    pace: Pace = Pace.OWN


class Piece(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Bytes as they came. at_s: since the question. text: as UTF-8; base64: what is none."""

    at_s: float
    text: str = ""
    base64: str = ""

    def __post_init__(self) -> None:
        if self.base64:
            base64.b64decode(self.base64, validate=True)

    @property
    def data(self) -> bytes:
        return base64.b64decode(self.base64) if self.base64 else self.text.encode("utf-8", "surrogatepass")


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """How an exchange ended that did not end well."""

    kind: ErrorKind
    message: str
    retry_after_s: float | None = None


class Recording(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One exchange. path: without the server's address, so that a tape can be played elsewhere. digest: of the question, see `digest`.

    status: 0 when there was no answer at all. headed_s: when its head came, since the question.
    """

    method: str
    path: str
    digest: str
    body: Piece
    status: int = 0
    headers: dict[str, str] = {}
    headed_s: float = 0.0
    pieces: tuple[Piece, ...] = ()
    failure: Failure | None = None


def digest(request: RemoteRequest) -> str:
    """What tells one question from another: method, path and body, whatever the order and spacing of its JSON."""
    try:
        body = msgspec.json.encode(msgspec.json.decode(request.body), order="sorted") if request.body else b""
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        body = request.body
    return hashlib.sha256(b"\0".join((request.method.encode(), _path(request).encode(), body))).hexdigest()


class TapeRemote(Remote):
    """A Remote that records what passes through it, or plays it."""

    def __init__(self, config: TapeConfig, file: Path, clock: Clock) -> None:
        """Raises ValueError, naming file and line, for a tape that cannot be played."""
        super().__init__()
        self._config = config
        self._file = file
        self._clock = clock
        self._seen: set[str] = set()
        self._recordings = read(file) if config.mode is Mode.REPLAY else {}

    async def __aenter__(self) -> Self:
        if self._config.mode is Mode.RECORD:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._seen = {key for key, played in (read(self._file) if self._file.exists() else {}).items() if played}
        return await super().__aenter__()

    def stream(self, request: RemoteRequest) -> AbstractAsyncContextManager[RemoteAnswer]:
        key = digest(request)
        if self._config.mode is Mode.REPLAY:
            return _Replay(self._next(key, request), self._clock, is_paced=self._config.pace is Pace.OWN)
        if request.method == _ASKED_FOR_STATE and key in self._seen:
            return super().stream(request)  # a health check says the same every time
        return _Take(self, super().stream(request), request, self._clock)

    def keep(self, recording: Recording) -> None:
        self._seen.add(recording.digest)
        # In one write: several workers may add to the same tape.
        handle = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, msgspec.json.encode(recording) + b"\n")
        finally:
            os.close(handle)

    def _next(self, key: str, request: RemoteRequest) -> Recording:
        recordings = self._recordings.get(key)
        if not recordings:
            text = (
                f"The tape {self._file.name} has no answer to this request ({request.method} {_path(request)}): record it with [tape] mode."
            )
            error = ApiError(ErrorKind.ENGINE_FAILED, text)
            error.is_final = True
            raise error
        return recordings.popleft() if len(recordings) > 1 else recordings[0]


def read(file: Path) -> dict[str, deque[Recording]]:
    """Recordings by digest, in their order. Raises ValueError, naming file and line, for what is no tape."""
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise ValueError(f"The tape {file} cannot be read: {error.strerror}.") from error
    recordings: dict[str, deque[Recording]] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                recording = msgspec.json.decode(line, type=Recording)
            except (msgspec.DecodeError, ValueError, RecursionError) as error:
                raise ValueError(f"The tape {file} is damaged in line {number}: {error}.") from error
            recordings.setdefault(recording.digest, deque()).append(recording)
    return recordings


class _Take:
    """One exchange being recorded. What the caller leaves in the middle is not kept: nobody knows how it would have gone on."""

    def __init__(self, tape: TapeRemote, inner: AbstractAsyncContextManager[RemoteAnswer], request: RemoteRequest, clock: Clock) -> None:
        self._tape = tape
        self._inner = inner
        self._request = request
        self._clock = clock
        self._begun_s = clock.monotonic()
        self._headed_s = 0.0
        self._answer: _Heard | None = None

    async def __aenter__(self) -> RemoteAnswer:
        self._begun_s = self._clock.monotonic()
        try:
            inner = await self._inner.__aenter__()
        except ApiError as error:
            self._keep(error)
            raise
        self._headed_s = self.now_s()
        self._answer = _Heard(inner, self)
        return self._answer

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._inner.__aexit__(kind, error, trace)
        heard = self._answer
        if heard is not None and (heard.failure or error is None or isinstance(error, ApiError)):
            self._keep(heard.failure)

    def now_s(self) -> float:
        return round(self._clock.monotonic() - self._begun_s, 6)

    def _keep(self, failure: ApiError | None) -> None:
        request, heard = self._request, self._answer
        self._tape.keep(
            Recording(
                method=request.method,
                path=_path(request),
                digest=digest(request),
                body=_piece(request.body, 0.0),
                status=heard.status if heard else 0,
                headers={name: value for name, value in heard.headers.items() if name in _KEPT} if heard else {},
                headed_s=self._headed_s,
                pieces=tuple(heard.pieces) if heard else (),
                failure=Failure(kind=failure.kind, message=failure.message, retry_after_s=failure.retry_after_s) if failure else None,
            )
        )


class _Heard(RemoteAnswer):
    """An answer that is written down as it is read."""

    __slots__ = ("_inner", "_take", "failure", "pieces")

    def __init__(self, inner: RemoteAnswer, take: _Take) -> None:
        self.status = inner.status
        self.headers: Mapping[str, str] = inner.headers
        self.pieces: list[Piece] = []
        self.failure: ApiError | None = None
        self._inner = inner
        self._take = take

    @property
    def is_over(self) -> bool:
        return self._inner.is_over

    def close(self) -> None:
        self._inner.close()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            data = await anext(self._inner)
        except ApiError as error:
            self.failure = error
            raise
        self.pieces.append(_piece(data, self._take.now_s()))
        return data


class _Replay:
    """One exchange being played."""

    def __init__(self, recording: Recording, clock: Clock, *, is_paced: bool) -> None:
        self._recording = recording
        self._clock = clock
        self._is_paced = is_paced
        self._begun_s = clock.monotonic()

    async def __aenter__(self) -> RemoteAnswer:
        self._begun_s = self._clock.monotonic()
        await self.reach(self._recording.headed_s)
        if not self._recording.status:
            raise self.failure()
        return _Played(self._recording, self)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    async def reach(self, at_s: float) -> None:
        """Wait until it is as late as it was then."""
        wait_s = self._begun_s + at_s - self._clock.monotonic()
        if self._is_paced and wait_s > 0:
            await self._clock.sleep(wait_s)

    def failure(self) -> ApiError:
        failure = self._recording.failure
        if failure is None:
            return ApiError(ErrorKind.ENGINE_FAILED, "The tape holds no answer to this request.")
        return ApiError(failure.kind, failure.message, retry_after_s=failure.retry_after_s)


class _Played(RemoteAnswer):
    __slots__ = ("_pieces", "_recording", "_replay")

    def __init__(self, recording: Recording, replay: _Replay) -> None:
        self.status = recording.status
        self.headers: Mapping[str, str] = recording.headers
        self._recording = recording
        self._replay = replay
        self._pieces = deque(recording.pieces)

    @property
    def is_over(self) -> bool:
        return not self._pieces and self._recording.failure is None

    def close(self) -> None:
        self._pieces.clear()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._pieces:
            await self._replay.reach(self._pieces[0].at_s)
            return self._pieces.popleft().data
        if self._recording.failure is not None:
            raise self._replay.failure()
        raise StopAsyncIteration


def _path(request: RemoteRequest) -> str:
    parts = urlsplit(request.url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _piece(data: bytes, at_s: float) -> Piece:
    try:
        return Piece(at_s=at_s, text=data.decode("utf-8"))
    except UnicodeDecodeError:
        return Piece(at_s=at_s, base64=base64.b64encode(data).decode())
