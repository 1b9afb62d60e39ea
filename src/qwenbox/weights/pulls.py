"""This is where weights are pulled beside a serving box: started, watched and stopped through any of its processes.

What all of them see lies beside the weights: `NAME.job` is locked by the process that pulls, so that its end is the pull's end;
`NAME.pull` says how far it is; `NAME.stop` asks it to end.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import anyio.abc
import msgspec

from qwenbox.terms.errors import ApiError
from qwenbox.weights.entry import Phase, Presence, Progress, Source
from qwenbox.weights.lock import Hold, is_held, take
from qwenbox.weights.store import WeightsStore

POLL_S = 0.2
TOLD_EVERY_S = 0.2
ENDED = "The process that fetched it ended. Start it again: it goes on where it was."


class PullState(StrEnum):
    """NONE: not here, and nobody fetches it. FAILED: nobody will try again by himself. CANCELLED: what was fetched is kept."""

    NONE = "none"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class PullReport(msgspec.Struct, frozen=True, kw_only=True):
    """How far the pull of one file is. total_bytes: None until somebody said it. rate_bytes_s: over the last seconds.

    reason: why it failed, for the owner of the machine. told_at: seconds since the epoch, 0 where nobody told.
    """

    name: str
    state: PullState
    phase: Phase | None = None
    source: Source | None = None
    done_bytes: int = 0
    total_bytes: int | None = None
    rate_bytes_s: float = 0.0
    reason: str = ""
    told_at: float = 0.0


class Pulls:
    """Pulls of one store. Opened, it may start them; leaving ends those of this process, what they have is kept."""

    def __init__(self, store: WeightsStore, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._folder = store.folder
        self._now = now
        self._tasks: anyio.abc.TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        tasks, self._tasks = self._tasks, None
        if tasks is not None:
            tasks.cancel_scope.cancel()
            await tasks.__aexit__(None, None, None)

    async def start(self, names: Sequence[str]) -> None:
        """Fetch those that are not here and that nobody fetches, one after the other; returns at once."""
        held: dict[str, Hold] = {}
        for name in names:
            if self._store.path(name) is None and (hold := await take(self._lock(name))) is not None:
                held[name] = hold
        if not held or self._tasks is None:
            return
        for name in held:
            self._stop(name).unlink(missing_ok=True)
            self._tell(self._beginning(name))
        self._tasks.start_soon(self._run, held)

    def state(self, name: str) -> PullReport:
        """Of the file of that name, whoever fetches it."""
        place = self._store.path(name)
        total = self._store.entry(name).bytes or None
        if place is not None:
            size = place.stat().st_size
            return PullReport(name=name, state=PullState.DONE, phase=Phase.DONE, done_bytes=size, total_bytes=size)
        told = self._told(name)
        here = self._store.bytes_here(name)
        if is_held(self._lock(name)):
            return told if told is not None and told.state is PullState.RUNNING else self._beginning(name)
        if self._store.state(name).presence is Presence.FETCHING:  # by a command, or for a call
            return PullReport(name=name, state=PullState.RUNNING, phase=Phase.FETCHING, done_bytes=here, total_bytes=total)
        if told is None or told.state is PullState.DONE:
            return PullReport(name=name, state=PullState.NONE, done_bytes=here, total_bytes=total)
        if told.state is PullState.RUNNING:
            told = msgspec.structs.replace(told, state=PullState.FAILED, reason=ENDED)
        return msgspec.structs.replace(told, phase=None, done_bytes=here, rate_bytes_s=0.0)

    async def cancel(self, name: str) -> None:
        """Ask whichever process of the box fetches it to end, and wait until it has; nothing happens where none does."""
        while is_held(self._lock(name)):
            self._stop(name).touch()
            await anyio.sleep(POLL_S)

    async def _run(self, held: dict[str, Hold]) -> None:
        try:
            for name, hold in held.items():
                try:
                    await self._one(name)
                finally:
                    hold.release()
        finally:
            for hold in held.values():
                hold.release()

    async def _one(self, name: str) -> None:
        last, stopped = self._beginning(name), False

        def heard(progress: Progress) -> None:
            nonlocal last
            report = _report(progress)
            # Each of them is a small file that others may read at any time: not for every block.
            if report.phase is not last.phase or self._now() - last.told_at >= TOLD_EVERY_S:
                last = self._tell(report)

        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                nonlocal stopped
                while not self._stop(name).exists():  # noqa: ASYNC110 (another process's word, which no event tells)
                    await anyio.sleep(POLL_S)
                stopped = True
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch)
            try:
                await self._store.pull(name, heard)
                last = msgspec.structs.replace(last, state=PullState.DONE, phase=Phase.DONE)
            except ApiError as error:
                last = msgspec.structs.replace(last, state=PullState.FAILED, reason=error.message)
            tasks.cancel_scope.cancel()
        if stopped:
            last = msgspec.structs.replace(last, state=PullState.CANCELLED)
        self._tell(msgspec.structs.replace(last, rate_bytes_s=0.0))
        self._stop(name).unlink(missing_ok=True)

    def _beginning(self, name: str) -> PullReport:
        total = self._store.entry(name).bytes or None
        return PullReport(
            name=name, state=PullState.RUNNING, phase=Phase.WAITING, done_bytes=self._store.bytes_here(name), total_bytes=total
        )

    def _tell(self, report: PullReport) -> PullReport:
        report = msgspec.structs.replace(report, told_at=self._now())
        path = self._folder / f"{report.name}.pull"
        fresh = path.with_name(path.name + ".new")
        with suppress(OSError):  # a full disk is what the pull itself will tell of
            fresh.write_bytes(msgspec.json.encode(report))
            fresh.replace(path)
        return report

    def _told(self, name: str) -> PullReport | None:
        try:
            return msgspec.json.decode((self._folder / f"{name}.pull").read_bytes(), type=PullReport)
        except (OSError, msgspec.DecodeError):
            return None

    def _lock(self, name: str) -> Path:
        return self._folder / f"{name}.job"

    def _stop(self, name: str) -> Path:
        return self._folder / f"{name}.stop"


def _report(now: Progress) -> PullReport:
    return PullReport(
        name=now.name,
        state=PullState.RUNNING,
        phase=now.phase,
        source=now.source,
        done_bytes=now.done_bytes,
        total_bytes=now.total_bytes,
        rate_bytes_s=now.rate_bytes_s,
    )
