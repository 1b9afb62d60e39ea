"""This is where batches are worked off: parts are claimed, their lines run, results written in groups; on every worker of a box."""

import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import anyio.to_thread
import msgspec

from qwenbox.clock import Clock
from qwenbox.files import Files
from qwenbox.gateway.catalog import ANY_MODEL, Catalog, is_open_to
from qwenbox.jobs import lines
from qwenbox.jobs.finish import Finisher
from qwenbox.jobs.line import FIRST, Attempts, Ended, LineRunner, Stopped, call_id
from qwenbox.jobs.queue import Claimed, Queue, Result
from qwenbox.jobs.wakeup import Wakeup
from qwenbox.terms.errors import ApiError
from qwenbox.terms.job import Batch, BatchFault

_LOG = logging.getLogger("qwenbox.jobs")

# The last writes of a box that stops: how long and how often each is tried, and how soon again.
_LAST_S, _LAST_TRIES, _AGAIN_S = 5.0, 3, 0.2
# When the database is away.
_AWAY_S = 1.0


class BatchConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[batch]`. concurrency: lines that run or wait for an engine at a time, over all workers of the box.

    poll_s: how soon a worker sees what another one was told. lease_s: how long the lines of a process that died wait for others.
    most_lines, line_limit_bytes: of an input file.
    """

    concurrency: int = 16
    poll_s: float = 1.0
    lease_s: float = 15.0
    most_lines: int = 50_000
    line_limit_bytes: int = 6 * 1024 * 1024

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.poll_s <= 0 or self.lease_s <= 0:
            raise ValueError("concurrency must be at least 1, poll_s and lease_s more than 0")


def owner() -> str:
    """A name for a worker of this process."""
    return secrets.token_hex(8)


def _unheard(is_failed: bool) -> None:
    pass


class WorkerParts(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker works with. line_ended: hears of each line's end, and whether it failed."""

    queue: Queue
    files: Files
    runner: LineRunner
    catalog: Catalog
    clock: Clock
    line_ended: Callable[[bool], None] = _unheard


class BatchWorker:
    """config.concurrency: this worker's own."""

    def __init__(self, config: BatchConfig, parts: WorkerParts, wakeup: Wakeup) -> None:
        self._config = config
        self._queue = parts.queue
        self._files = parts.files
        self._runner = parts.runner
        self._catalog = parts.catalog
        self._clock = parts.clock
        self._line_ended = parts.line_ended
        self._finisher = Finisher(parts.queue, parts.files, parts.clock, config.line_limit_bytes)
        self._wakeup = wakeup
        self._steward_wakeup = Wakeup()
        self._busy: Counter[str] = Counter()
        self._stops: dict[str, anyio.Event] = {}
        self._results: list[Result] = []
        self._parts: list[Claimed] = []
        self._written = Wakeup()

    async def follow(self) -> None:
        """For ever; when the box stops, what is done is written and what is not is left to others."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._beat)
                tasks.start_soon(self._write)
                tasks.start_soon(self._care)
                while True:
                    free = self._config.concurrency - self._busy.total()
                    claimed = await self._claim(free)
                    for part in claimed:
                        self._busy[part.batch.account_id] += 1
                        tasks.start_soon(self._run_part, part)
                    if len(claimed) < max(free, 1) and await self._wakeup.wait(self._config.poll_s):
                        self._steward_wakeup.call()
        finally:
            # Each in a time of its own: results that cannot be written must not keep leases from being given back.
            for last in (self._flush, self._queue.release):
                with anyio.move_on_after(_LAST_S, shield=True):
                    await self._insist(last)

    async def _claim(self, free: int) -> list[Claimed]:
        try:
            return await self._queue.claim(free, self._busy) if free > 0 else []
        except ApiError as error:
            _LOG.debug("nothing claimed: %s", error)
            return []

    async def _insist(self, write: Callable[[], Awaitable[None]]) -> None:
        """More than once: a write that was begun earlier may be in its way, in PostgreSQL even as a deadlock."""
        for left in reversed(range(_LAST_TRIES)):
            try:
                return await write()
            except ApiError as error:
                if not left:
                    _LOG.warning("batches go on once their leases are over: %s", error)
            await anyio.sleep(_AGAIN_S)

    async def _beat(self) -> None:
        """Keep the leases, and stop what shall be stopped."""
        while True:
            try:
                for batch_id in await self._queue.beat():
                    self._stop(batch_id).set()
            except ApiError as error:
                _LOG.debug("no lease kept: %s", error)
            await anyio.sleep(min(self._config.poll_s, self._config.lease_s / 3))

    def _stop(self, batch_id: str) -> anyio.Event:
        return self._stops.setdefault(batch_id, anyio.Event())

    async def _write(self) -> None:
        while True:
            await self._written.wait(_AWAY_S)
            try:
                await self._flush()
            except ApiError as error:
                _LOG.debug("results wait: %s", error)
                await anyio.sleep(_AWAY_S)

    async def _flush(self) -> None:
        """Everything that came while the last group was written goes together."""
        results, parts = list(self._results), list(self._parts)
        if not results and not parts:
            return
        await self._queue.record(results, parts)
        del self._results[: len(results)], self._parts[: len(parts)]
        if parts:
            self._steward_wakeup.call()

    async def _run_part(self, claimed: Claimed) -> None:
        try:
            while not await self._try_part(claimed):
                await self._clock.sleep(_AWAY_S)
            self._parts.append(claimed)
        finally:
            self._busy[claimed.batch.account_id] -= 1
            self._written.call()
            self._wakeup.call()

    async def _try_part(self, claimed: Claimed) -> bool:
        """Whether nothing is left to do of it. What its lines lack when their input is gone, or they were stopped, the files will say."""
        try:
            await self._run_lines(claimed)
        except (Stopped, FileNotFoundError):
            return True
        except (ApiError, OSError) as error:
            _LOG.warning("lines of %s wait: %s", claimed.batch.id, error)
            return False
        return True

    async def _run_lines(self, claimed: Claimed) -> None:
        batch, part = claimed.batch, claimed.part
        path = self._files.path(batch.input_file_id)
        texts = await anyio.to_thread.run_sync(lambda: list(lines.of_part(path, part, self._config.line_limit_bytes)))
        done, begun = await self._past(claimed) if claimed.is_again else (set[int](), dict[int, Attempts]())
        stopped = self._stop(batch.id)
        for line, text in texts:
            if line in done:
                continue
            if stopped.is_set():
                raise Stopped
            ended = await self._run_line(batch, line, text, begun.get(line, FIRST), stopped)
            self._line_ended(ended.is_failed)
            self._results.append(Result(batch_id=batch.id, line=line, call_id=ended.call_id, is_failed=ended.is_failed, body=ended.body))
            self._written.call()

    async def _run_line(self, batch: Batch, line: int, text: bytes, begun: Attempts, stopped: anyio.Event) -> Ended:
        try:
            return await self._runner.run(batch, line, text, begun, stopped)
        except Stopped:
            raise
        except Exception as error:  # noqa: BLE001 - one line's failure must not end the others
            _LOG.error("line %d of %s failed", line + 1, batch.id, exc_info=error)
            return self._runner.broken(batch, line, text, begun)

    async def _past(self, claimed: Claimed) -> tuple[set[int], dict[int, Attempts]]:
        """Of a part somebody had before: lines with results, and which attempts of the others are in the books."""
        done = await self._queue.done_lines(claimed)
        begun: dict[int, Attempts] = {}
        part = claimed.part
        asked = {line: 0 for line in range(part.first, part.first + part.count) if line not in done}
        while asked:
            ids = {line: call_id(claimed.batch.id, line, attempt) for line, attempt in asked.items()}
            booked = await self._queue.booked(list(ids.values()))
            following: dict[int, int] = {}
            for line, attempt in asked.items():
                completed = booked.get(ids[line])
                if completed is None or completed:
                    begun[line] = Attempts(number=attempt, is_booked=bool(completed))
                else:
                    following[line] = attempt + 1
            asked = following
        return done, begun

    async def _care(self) -> None:
        """Check files that came, end batches that are over."""
        await self._files.sweep()
        while True:
            try:
                while (batch := await self._queue.to_validate()) is not None:
                    await self._kept(batch, self._validate)
                while (batch := await self._queue.to_finish()) is not None:
                    await self._kept(batch, self._finish)
            except ApiError as error:
                _LOG.warning("batches wait: %s", error)
            await self._steward_wakeup.wait(self._config.poll_s)

    async def _kept(self, batch: Batch, work: Callable[[Batch], Awaitable[None]]) -> None:
        """The worker's one catch-all: what nobody expected fails the batch, not the box."""
        try:
            await work(batch)
        except FileNotFoundError:
            await self._queue.fail(batch, [BatchFault(code="input_file_not_found", message="The input file is not here any more.")])
        except ApiError:
            raise
        except Exception as error:  # noqa: BLE001 - see above
            _LOG.error("%s failed", batch.id, exc_info=error)
            await self._queue.fail(batch, [BatchFault(code="internal_error", message="Something failed inside the box; see its log.")])

    async def _validate(self, batch: Batch) -> None:
        config = lines.LinesConfig(most_lines=self._config.most_lines, line_limit_bytes=self._config.line_limit_bytes)
        path = self._files.path(batch.input_file_id)
        may = partial(self._may_ask, batch)
        checked = await anyio.to_thread.run_sync(lines.check, path, batch.endpoint, config, may)
        if checked.faults:
            await self._queue.fail(batch, checked.faults, checked.total)
            return
        await self._queue.begin(batch, checked)
        self._wakeup.call()

    def _may_ask(self, batch: Batch, model: str) -> bool:
        try:
            caller = self._runner.caller(batch.key_id)
            found = self._catalog.find(model) or self._catalog.find(ANY_MODEL)
            return found is not None and is_open_to(caller, model, found)
        except ApiError:
            return False

    async def _finish(self, batch: Batch) -> None:
        await self._finisher.finish(batch)
        self._stops.pop(batch.id, None)
