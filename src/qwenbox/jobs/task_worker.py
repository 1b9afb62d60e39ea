"""This is where tasks are worked off: claimed, sent through the same gateway as any call, their pictures kept; on every worker of a box."""

import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import msgspec

from qwenbox.clock import Clock
from qwenbox.gateway.pipeline import Gateway
from qwenbox.jobs.results import Results
from qwenbox.jobs.task_queue import ClaimedTask, TaskQueue, call_id
from qwenbox.jobs.tasks import TasksConfig
from qwenbox.jobs.wakeup import Wakeup
from qwenbox.terms.call import Call
from qwenbox.terms.caller import Caller
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ImageMade
from qwenbox.terms.image import ImageRequest
from qwenbox.terms.job import TaskPicture
from qwenbox.terms.wishes import Wishes

_LOG = logging.getLogger("qwenbox.jobs")

# Tasks speak one dialect: who reads the books finds them under it.
DIALECT = "dashscope"

# What may be better next time without end, and what is tried a few times only.
_PASSING = frozenset({ErrorKind.OVERLOADED, ErrorKind.RATE_LIMITED, ErrorKind.CONFLICT})
_DOUBTFUL = frozenset({ErrorKind.ENGINE_FAILED, ErrorKind.TIMEOUT})
_DOUBTFUL_TRIES = 3
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 60.0
# The last write of a box that stops: how long and how often it is tried, and how soon again.
_LAST_S, _LAST_TRIES, _AGAIN_S = 5.0, 3, 0.2
# When the database is away; how often old tasks are forgotten.
_AWAY_S = 1.0
_SWEEP_S = 60.0


class TaskParts(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker works with. caller: who pays, by the key's id, as it is now; raises ApiError(UNAUTHENTICATED) once it is revoked."""

    queue: TaskQueue
    gateway: Gateway
    results: Results
    caller: Callable[[str], Caller]
    clock: Clock


class TaskWorker:
    """config.concurrency: this worker's own."""

    def __init__(self, config: TasksConfig, parts: TaskParts, wakeup: Wakeup) -> None:
        self._config = config
        self._queue = parts.queue
        self._gateway = parts.gateway
        self._results = parts.results
        self._caller = parts.caller
        self._clock = parts.clock
        self._wakeup = wakeup
        self._busy: Counter[str] = Counter()

    async def follow(self) -> None:
        """For ever; when the box stops, what is not done is left to others."""
        try:
            async with anyio.create_task_group() as running:
                running.start_soon(self._beat)
                running.start_soon(self._sweep)
                while True:
                    while self._busy.total() < self._config.concurrency and (claimed := await self._claim()) is not None:
                        self._busy[claimed.task.account_id] += 1
                        running.start_soon(self._run, claimed)
                    await self._wakeup.wait(self._config.poll_s)
        finally:
            with anyio.move_on_after(_LAST_S, shield=True):
                await self._release()

    async def _release(self) -> None:
        """More than once: a write that was begun earlier may be in its way, in PostgreSQL even as a deadlock."""
        for _ in range(_LAST_TRIES):
            if await self._try(self._queue.release()):
                return
            await anyio.sleep(_AGAIN_S)
        _LOG.warning("tasks go on once their leases are over")

    async def _claim(self) -> ClaimedTask | None:
        try:
            return await self._queue.claim(self._busy)
        except ApiError as error:
            _LOG.debug("no task claimed: %s", error)
            return None

    async def _beat(self) -> None:
        while True:
            await self._try(self._queue.beat())
            await anyio.sleep(min(self._config.poll_s, self._config.lease_s / 3))

    async def _sweep(self) -> None:
        while True:
            await self._try(self._queue.sweep(self._config.kept_s))
            await anyio.sleep(_SWEEP_S)

    async def _try(self, write: Awaitable[None]) -> bool:
        try:
            await write
        except ApiError as error:
            _LOG.debug("tasks wait: %s", error)
            return False
        return True

    async def _run(self, claimed: ClaimedTask) -> None:
        try:
            end = await self._outcome(claimed)
            while not await self._written(end):
                await self._clock.sleep(_AWAY_S)
        finally:
            self._busy[claimed.task.account_id] -= 1
            self._wakeup.call()

    async def _written(self, end: Callable[[], Awaitable[None]]) -> bool:
        """Also when the box stops: an end written after the task was given back counts no more, and its pictures are drawn again."""
        is_written = False
        with anyio.CancelScope(shield=True):
            is_written = await self._try(end())
        return is_written

    async def _outcome(self, claimed: ClaimedTask) -> Callable[[], Awaitable[None]]:
        """What is to be written of this attempt: an end, or that there will be another."""
        task, queue = claimed.task, self._queue
        try:
            pictures = await self._ask(claimed)
            return lambda: queue.succeed(task.id, pictures)
        except ApiError as error:
            if _is_passing(error, claimed.tries):
                wait_s = _wait_s(error, claimed.tries)
                return lambda: queue.put_back(task.id, wait_s)
            refused = error
        except Exception as error:  # noqa: BLE001 - the worker's one catch-all: what nobody expected fails the task, not the box
            _LOG.error("task %s failed", task.id, exc_info=error)
            refused = ApiError(ErrorKind.INTERNAL)
        return lambda: queue.fail(task.id, refused)

    async def _ask(self, claimed: ClaimedTask) -> list[TaskPicture]:
        task = claimed.task
        call = Call(
            id=call_id(task.id, await self._queue.attempt(task.id)),
            caller=self._caller(task.key_id),
            request=claimed.request,
            dialect=DIALECT,
            arrived_at=self._clock.now(),
            notes={"task": task.id},
            # Whoever submitted it without the header that names of uploads need was refused then.
            wishes=Wishes(resolves_uploads=True),
        )
        pictures: list[TaskPicture] = []
        try:
            async with self._gateway.image(call) as answer:
                try:
                    async for event in answer.events:
                        if isinstance(event, ImageMade):
                            pictures.append(await self._picture(call, event))
                            await self._queue.note(task.id, len(pictures))
                except anyio.get_cancelled_exc_class() as error:
                    # The box stops. A caller that hangs up pays for what was made by then; a task that will be run again must not.
                    raise _Interrupted from error
        except _Interrupted:
            await anyio.lowlevel.checkpoint()  # raises the cancellation that was held back
            raise
        return pictures

    async def _picture(self, call: Call[ImageRequest], made: ImageMade) -> TaskPicture:
        kept = await self._results.keep(call.caller.account_id, made.data, made.media_type) if made.data else None
        return TaskPicture(kept=kept, url=made.url, width=made.width, height=made.height, prompt=made.prompt)


class _Interrupted(Exception):
    pass


def _is_passing(error: ApiError, tries: int) -> bool:
    return error.kind in _PASSING or (error.kind in _DOUBTFUL and tries + 1 < _DOUBTFUL_TRIES)


def _wait_s(error: ApiError, tries: int) -> float:
    """Twice as long each time, spread, and never less than we were told."""
    grown_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(tries, 10))
    return max(error.retry_after_s or 0.0, grown_s * random.uniform(0.5, 1.0))
