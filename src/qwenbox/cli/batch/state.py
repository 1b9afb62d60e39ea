"""This is where a run notes how far it is, beside its output, so that the same command goes on after any end."""

import fcntl
import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

import msgspec

from qwenbox.client.batch_input import Asked
from qwenbox.terms.errors import ApiError, ErrorKind

# Of one batch. The service takes 500 MB; a part goes out in one piece of memory.
MOST_LINES, MOST_BYTES = 50_000, 64 * 1024 * 1024
_TEST_ENDPOINT, _TEST_LINES = "/v1/chat/ds-test", 100
_VERSION = 1


class Part(msgspec.Struct, kw_only=True):
    """One batch of a run. spans: which requests, as (first, count). marker: its `ds_name`, by which it is found if its id was not noted.

    round: 0, and one more for each --retry-failed. is_creating: the batch may have been made already. is_over: it has ended; status: how.
    """

    marker: str
    round: int = 0
    endpoint: str
    model: str
    spans: list[tuple[int, int]]
    file_id: str = ""
    is_creating: bool = False
    batch_id: str = ""
    status: str = ""
    is_over: bool = False

    @property
    def size(self) -> int:
        return sum(count for _, count in self.spans)

    def numbers(self) -> Generator[int]:
        for first, count in self.spans:
            yield from range(first, first + count)


class State(msgspec.Struct, kw_only=True):
    """input_sha256: of the input's bytes. options: what the requests were made with, to be the same when the run goes on.

    is_done: the output is written. failed: requests without an answer, as spans, once it is.
    abandoned: batches of a run before --restart that are still to be cancelled.
    """

    version: int = _VERSION
    run_id: str
    begun_at: float
    input_sha256: str
    options: dict[str, str]
    total: int
    parts: list[Part]
    is_done: bool = False
    failed: list[tuple[int, int]] = []
    abandoned: list[str] = []

    @property
    def is_begun(self) -> bool:
        """Whether anything was sent that is worth going on with."""
        return any(part.file_id or part.is_creating or part.batch_id for part in self.parts)


class StateFile:
    """The file OUTPUT.state. Hold `lock` while using the rest."""

    def __init__(self, output: Path) -> None:
        self.path = output.with_name(output.name + ".state")

    @contextmanager
    def lock(self) -> Generator[None]:
        """Raises ApiError(CONFLICT) while another process does the same run. A killed process holds nothing."""
        path = self.path.with_name(self.path.name + ".lock")
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not path.exists() or os.stat(path).st_ino != os.fstat(handle).st_ino:
                    raise BlockingIOError
            except BlockingIOError as error:
                raise ApiError(ErrorKind.CONFLICT, f"Another process is at this run: it holds {path}.") from error
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
        finally:
            os.close(handle)

    def load(self) -> State | None:
        """None when there is none. Raises ApiError(INVALID_REQUEST) for a file that is no state of ours."""
        try:
            data = self.path.read_bytes()
            state = msgspec.json.decode(data, type=State)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError, OSError) as error:
            raise ApiError(ErrorKind.INVALID_REQUEST, f"{self.path} cannot be read as the state of a run: {error}") from error
        if state.version != _VERSION:
            raise ApiError(ErrorKind.INVALID_REQUEST, f"{self.path} is of another version of qwenbox; --restart begins anew.")
        return state

    def save(self, state: State) -> None:
        """On disk before it returns, whole or not at all."""
        replace(self.path, msgspec.json.encode(state))


def replace(path: Path, data: bytes) -> None:
    """Put a whole file in the place of another, durably."""
    new = path.with_name(path.name + ".new")
    with new.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    settle(new, path)


def settle(new: Path, path: Path) -> None:
    """Rename a file whose bytes are on the disk already, durably."""
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def plan(asked: Iterable[tuple[int, Asked]], run_id: str, round_: int, most_lines: int = MOST_LINES) -> list[Part]:
    """Batches for these requests, by number: one endpoint and model each, none too large."""
    parts: list[Part] = []
    open_parts: dict[tuple[str, str], tuple[Part, int, int]] = {}
    for number, each in asked:
        key, size = (each.endpoint, each.model), len(each.wire()) + 1
        part, lines, filled = open_parts.get(key, (None, 0, 0))
        limit = min(most_lines, _TEST_LINES) if each.endpoint == _TEST_ENDPOINT else most_lines
        if part is None or lines >= limit or filled + size > MOST_BYTES:
            marker = f"qwenbox-{run_id}-{round_}-{len(parts) + 1}"
            part, lines, filled = Part(marker=marker, round=round_, endpoint=each.endpoint, model=each.model, spans=[]), 0, 0
            parts.append(part)
        _add(part.spans, number)
        open_parts[key] = (part, lines + 1, filled + size)
    return parts


def spans(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending numbers as (first, count)."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        _add(found, number)
    return found


def _add(found: list[tuple[int, int]], number: int) -> None:
    if found and sum(found[-1]) == number:
        found[-1] = (found[-1][0], found[-1][1] + 1)
    else:
        found.append((number, 1))
