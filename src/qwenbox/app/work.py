"""This is where what runs as long as a box is gathered: its workers on batches and tasks, its followers, its sweepers."""

from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TypeAlias

import anyio
import msgspec

from qwenbox.app.counting import AnyCounters
from qwenbox.app.office import Office
from qwenbox.config import Config
from qwenbox.dialects.openai.dialect import DIALECT as OPENAI
from qwenbox.gateway.cache.cache import Cache
from qwenbox.gateway.counters.shared import SharedCounters
from qwenbox.gateway.pipeline import Gateway
from qwenbox.gateway.recordings import Recordings
from qwenbox.jobs.line import LineRunner
from qwenbox.jobs.queue import Queue
from qwenbox.jobs.task_queue import TaskQueue
from qwenbox.jobs.task_worker import TaskParts, TaskWorker
from qwenbox.jobs.worker import BatchWorker, WorkerParts, owner
from qwenbox.server.parts import Parts
from qwenbox.telemetry.metrics import Metrics
from qwenbox.workers.seat import Seat

# Something that runs as long as the box.
Follower: TypeAlias = Callable[[], Coroutine[None, None, None]]


async def follow(stack: AsyncExitStack, followers: Sequence[Follower]) -> None:
    """Run what runs as long as the box; last of all, since a task group wraps what goes wrong inside it, and a start that fails shall say
    one clear thing."""
    tasks = await stack.enter_async_context(anyio.create_task_group())
    stack.callback(tasks.cancel_scope.cancel)
    for follower in followers:
        tasks.start_soon(follower)


def followers(office: Office, gateway: Gateway, cache: Cache, counters: AnyCounters) -> Iterator[Follower]:
    """What keeps this process in step with the others, and writes what it has noted."""
    yield office.keys.follow
    yield partial(gateway.admission.follow, office.ledger.load)
    yield gateway.metering.follow
    yield cache.follow
    if gateway.metering.recordings is not None:
        yield gateway.metering.recordings.follow
    if office.shared_clock is not None:
        yield office.shared_clock.follow
    if isinstance(counters, SharedCounters):
        yield counters.follow


def sweepers(config: Config, office: Office, parts: Parts, seat: Seat | None) -> Iterator[Follower]:
    """What removes that which is over; in one process of a box."""
    if seat is None or seat.index == 1:
        yield partial(office.statements.follow, config.retention, office.clock)
        yield parts.conversations.follow
        yield parts.uploads.follow
        yield parts.results.follow
        yield Recordings(office.database, config.recording, office.clock).sweep


def batch_worker(config: Config, office: Office, parts: Parts, metrics: Metrics, seat: Seat | None) -> BatchWorker:
    """This process's share of the box's work on batches."""
    own = msgspec.structs.replace(config.batch, concurrency=_share(config.batch.concurrency, seat))
    needs = WorkerParts(
        queue=Queue(office.database, office.clock, owner(), own.lease_s),
        files=parts.files,
        runner=LineRunner(parts.gateway, OPENAI, office.keys.caller, office.clock),
        catalog=parts.gateway.catalog,
        clock=office.clock,
        line_ended=metrics.line_ended,
    )
    return BatchWorker(own, needs, parts.batches.wakeup)


def task_worker(config: Config, office: Office, parts: Parts, seat: Seat | None) -> TaskWorker:
    """This process's share of the box's work on tasks."""
    own = msgspec.structs.replace(config.tasks, concurrency=_share(config.tasks.concurrency, seat))
    queue = TaskQueue(office.database, office.clock, owner(), own.lease_s)
    needs = TaskParts(queue=queue, gateway=parts.gateway, results=parts.results, caller=office.keys.caller, clock=office.clock)
    return TaskWorker(own, needs, parts.tasks.wakeup)


def _share(concurrency: int, seat: Seat | None) -> int:
    return max(1, concurrency // (seat.count if seat else 1))
