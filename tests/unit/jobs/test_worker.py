"""Workers that end: whatever moment they are told at, nobody has to wait for a lease of theirs."""

from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import anyio
import msgspec
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.util import await_only

from qwenbox.clock import SystemClock
from qwenbox.db import Database, open_database
from qwenbox.dialects.registry import OPENAI
from qwenbox.files import Files, FilesConfig
from qwenbox.jobs import lines
from qwenbox.jobs.batches import Batches
from qwenbox.jobs.line import LineRunner
from qwenbox.jobs.queue import Queue
from qwenbox.jobs.results import Results, ResultsConfig
from qwenbox.jobs.task_queue import TaskQueue
from qwenbox.jobs.task_worker import TaskParts, TaskWorker
from qwenbox.jobs.tasks import Tasks, TasksConfig
from qwenbox.jobs.wakeup import Wakeup
from qwenbox.jobs.worker import BatchConfig, BatchWorker, WorkerParts, owner
from qwenbox.migrations.upgrade import upgrade
from qwenbox.terms.caller import Caller
from qwenbox.terms.image import ImageRequest
from qwenbox.terms.job import NewBatch, NewFile, NewTask, Purpose
from qwenbox.terms.secret import Secret
from support.gateways import Office, open_gateway

pytestmark = pytest.mark.anyio

ALICE = Caller(account_id="alice", key_id="key-alice")
CLOCK = SystemClock()
LEASE_S = 300.0
# When a worker is told to end: so many milliseconds after it began.
MOMENTS = (0, 1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64)

HELD = text(
    "SELECT 'part' AS kind FROM batch_parts WHERE owner IS NOT NULL AND NOT is_done "
    "UNION ALL SELECT 'batch' FROM batches WHERE owner IS NOT NULL UNION ALL SELECT 'task' FROM tasks WHERE owner IS NOT NULL"
)


class Desk:
    """A box's batches and tasks, and workers of them."""

    def __init__(self, database: Database, office: Office, folder: Path) -> None:
        self.database = database
        self._office = office
        self._files = Files(database, folder / "files", FilesConfig(), CLOCK)
        self._batches = Batches(database, self._files, CLOCK, "CNY", Wakeup())
        self._tasks = Tasks(database, TasksConfig(most_open=1_000), CLOCK, Wakeup())
        self._results = Results(database, folder / "results", ResultsConfig(), Secret("x" * 32), CLOCK)

    async def submit_batch(self) -> None:
        """Lines of the endpoint that asks nobody, ready to be claimed."""
        body = {"model": "batch-test-model", "messages": [{"role": "user", "content": "Hi"}]}
        rows = [{"custom_id": str(number), "method": "POST", "url": "/v1/chat/ds-test", "body": body} for number in range(100)]
        async with self._files.receive("alice") as incoming:
            await incoming.write(b"\n".join(msgspec.json.encode(row) for row in rows))
            stored = await self._files.keep(incoming, "alice", NewFile(purpose=Purpose.BATCH, filename="in.jsonl"))
        new = NewBatch(input_file_id=stored.id, endpoint="/v1/chat/ds-test", window="24h", window_s=86_400, metadata={})
        await self._batches.create(ALICE, new)
        queue = self._queue()
        batch = await queue.to_validate()
        assert batch is not None
        config = lines.LinesConfig(most_lines=100, line_limit_bytes=10_000)
        await queue.begin(batch, lines.check(self._files.path(stored.id), new.endpoint, config, lambda _: True))

    async def submit_task(self) -> None:
        new = NewTask(request_id="r", endpoint="/services/aigc/text2image/image-synthesis", model="m", prompt="一只猫", total=1)
        await self._tasks.submit(ALICE, new, ImageRequest(model="m", prompt="一只猫", n=1, width=512, height=512))

    def _queue(self) -> Queue:
        return Queue(self.database, CLOCK, owner(), LEASE_S)

    def batch_worker(self, line_ended: Callable[[bool], None] = lambda _: None) -> BatchWorker:
        parts = WorkerParts(
            queue=self._queue(),
            files=self._files,
            runner=LineRunner(self._office.gateway, OPENAI, lambda _: ALICE, CLOCK),
            catalog=self._office.gateway.catalog,
            clock=CLOCK,
            line_ended=line_ended,
        )
        return BatchWorker(BatchConfig(lease_s=LEASE_S, concurrency=4, poll_s=0.001), parts, Wakeup())

    def task_worker(self) -> TaskWorker:
        queue = TaskQueue(self.database, CLOCK, owner(), LEASE_S)
        parts = TaskParts(queue=queue, gateway=self._office.gateway, results=self._results, caller=lambda _: ALICE, clock=CLOCK)
        return TaskWorker(TasksConfig(lease_s=LEASE_S, concurrency=1, poll_s=0.001), parts, Wakeup())

    async def held(self) -> list[dict[str, object]]:
        return await self.database.read(HELD)


@pytest.fixture(params=["sqlite", "postgres"])
async def desk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Desk]:
    url = f"sqlite:///{tmp_path / 'box.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres").new_database()
    for name in ("files", "results"):
        (tmp_path / name).mkdir()
    async with open_database(url) as database, open_gateway(tmp_path) as office:
        await database.change(upgrade)
        yield Desk(database, office, tmp_path)


async def _hold(database: Database, begun: anyio.Event, over: anyio.Event) -> None:
    """As another process that writes: nobody takes or gives back anything meanwhile."""

    def hold(connection: Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(text("LOCK TABLE batches, batch_parts, tasks IN EXCLUSIVE MODE"))
        begun.set()
        await_only(over.wait())

    await database.change(hold)


async def _end(database: Database, follow: Callable[[], Coroutine[None, None, None]], after_s: float) -> None:
    """A worker begins and is told to end, both while somebody else writes."""
    begun, over = anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as others:
        others.start_soon(_hold, database, begun, over)
        await begun.wait()
        async with anyio.create_task_group() as workers:
            workers.start_soon(follow)
            await anyio.sleep(after_s)
            workers.cancel_scope.cancel()
            over.set()
    await database.settled()


async def test_no_lease_of_a_batch_is_left_whenever_its_worker_ends(desk: Desk) -> None:
    await desk.submit_batch()
    for moment in MOMENTS:
        await _end(desk.database, desk.batch_worker().follow, moment / 1_000)
        assert [] == await desk.held(), f"told after {moment} ms"


async def test_no_lease_of_a_task_is_left_whenever_its_worker_ends(desk: Desk) -> None:
    for moment in MOMENTS:
        await desk.submit_task()
        await _end(desk.database, desk.task_worker().follow, moment / 1_000)
        assert [] == await desk.held(), f"told after {moment} ms"


async def test_leases_are_given_back_when_the_last_results_cannot_be_written(desk: Desk) -> None:
    await desk.submit_batch()
    await desk.database.write(text("DROP TABLE batch_results"))
    ended = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.batch_worker(lambda _: ended.set()).follow)
        await ended.wait()
        assert await desk.held()
        tasks.cancel_scope.cancel()
    assert [] == await desk.held()
