"""Tasks in the database: whose they are, who runs them, that their first end counts, when they are forgotten."""

from collections.abc import AsyncIterator

import pytest

from qwenbox.db import Database, open_database
from qwenbox.jobs.task_queue import ClaimedTask, TaskQueue, call_id
from qwenbox.jobs.tasks import Tasks, TasksConfig
from qwenbox.jobs.wakeup import Wakeup
from qwenbox.migrations.upgrade import upgrade
from qwenbox.terms.caller import Caller
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.image import ImageRequest
from qwenbox.terms.job import Kept, NewTask, Task, TaskPicture, TasksAsked, TaskState
from support.clocks import StillClock

ALICE, BOB = (Caller(account_id=name, key_id=f"key-{name}") for name in ("alice", "bob"))
LEASE_S = 10.0
DAY_S = 24 * 3600.0


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    async with open_database("sqlite+aiosqlite:///:memory:") as opened:
        await opened.change(upgrade)
        yield opened


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


class Desk:
    """One box's tasks, and two workers of it."""

    def __init__(self, database: Database, clock: StillClock, most_open: int = 100) -> None:
        self.clock = clock
        self.tasks = Tasks(database, TasksConfig(most_open=most_open), clock, Wakeup())
        self.first, self.second = (TaskQueue(database, clock, owner, LEASE_S) for owner in ("one", "two"))

    async def submit(self, caller: Caller = ALICE, n: int = 1, model: str = "wan2.2-t2i-flash") -> Task:
        self.clock.advance(0.001)
        new = NewTask(request_id="r", endpoint="/services/aigc/text2image/image-synthesis", model=model, prompt="一只猫", total=n)
        return await self.tasks.submit(caller, new, ImageRequest(model=model, prompt="一只猫", n=n, width=512, height=512))

    async def state(self, task: Task) -> TaskState:
        found = await self.tasks.get(task.account_id, task.id)
        return TaskState.UNKNOWN if found is None else found.state


@pytest.fixture
def desk(database: Database, clock: StillClock) -> Desk:
    return Desk(database, clock)


def claimed(found: ClaimedTask | None) -> ClaimedTask:
    assert found is not None
    return found


async def test_a_task_is_its_owners_alone(desk: Desk):
    task = await desk.submit()
    assert await desk.tasks.get("alice", task.id) == task
    assert await desk.tasks.get("bob", task.id) is None
    with pytest.raises(ApiError):
        await desk.tasks.cancel("bob", task.id)
    assert await desk.state(task) is TaskState.PENDING
    assert (await desk.tasks.page("bob", TasksAsked())).total == 0
    for strange in ("", "\0", "你", "x" * 1_000):
        assert await desk.tasks.get("alice", strange) is None


async def test_a_claimed_task_is_whole_and_nobody_elses(desk: Desk):
    task = await desk.submit(n=3)
    ours = claimed(await desk.first.claim({}))
    assert (ours.task.id, ours.request.prompt, ours.request.n, ours.tries) == (task.id, "一只猫", 3, 0)
    assert await desk.second.claim({}) is None
    assert await desk.state(task) is TaskState.RUNNING
    with pytest.raises(ApiError) as refused:
        await desk.tasks.cancel("alice", task.id)
    assert refused.value.kind is ErrorKind.INVALID_REQUEST


async def test_accounts_take_turns(desk: Desk):
    for _ in range(3):
        await desk.submit(ALICE)
    await desk.submit(BOB)
    order: list[str] = []
    for _ in range(4):
        ours = claimed(await desk.first.claim({name: order.count(name) for name in ("alice", "bob")}))
        order.append(ours.task.account_id)
    assert order == ["alice", "bob", "alice", "alice"]


async def test_the_task_of_a_dead_worker_is_taken_over_and_its_first_end_counts(desk: Desk):
    task = await desk.submit()
    await desk.first.claim({})
    desk.clock.advance(LEASE_S / 2)
    await desk.first.beat()
    desk.clock.advance(LEASE_S * 0.9)
    assert await desk.second.claim({}) is None
    desk.clock.advance(LEASE_S)
    assert claimed(await desk.second.claim({})).task.id == task.id
    picture = TaskPicture(kept=Kept(name="a.png", expires_at=1), width=1, height=1)
    # Whoever lost it comes late.
    await desk.first.fail(task.id, ApiError(ErrorKind.ENGINE_FAILED, "late"))
    assert await desk.state(task) is TaskState.RUNNING
    await desk.second.succeed(task.id, [picture])
    await desk.first.succeed(task.id, [])
    found = await desk.tasks.get("alice", task.id)
    assert found is not None and (found.state, found.pictures, found.done) == (TaskState.SUCCEEDED, (picture,), 1)


async def test_a_worker_that_ends_leaves_its_tasks_at_once(desk: Desk):
    await desk.submit()
    await desk.first.claim({})
    await desk.first.release()
    desk.clock.advance(0.001)
    assert await desk.second.claim({}) is not None


async def test_a_task_that_is_put_back_waits_and_can_be_cancelled(desk: Desk):
    task = await desk.submit()
    await desk.first.claim({})
    await desk.first.put_back(task.id, wait_s=30.0)
    assert await desk.state(task) is TaskState.PENDING and await desk.first.claim({}) is None
    desk.clock.advance(31)
    assert claimed(await desk.first.claim({})).tries == 1
    await desk.first.put_back(task.id, wait_s=30.0)
    await desk.tasks.cancel("alice", task.id)
    desk.clock.advance(31)
    assert await desk.first.claim({}) is None


async def test_a_failed_task_says_why(desk: Desk):
    task = await desk.submit()
    await desk.first.claim({})
    await desk.first.fail(task.id, ApiError(ErrorKind.CONTENT_REJECTED, "no"))
    found = await desk.tasks.get("alice", task.id)
    assert found is not None and found.fault is not None
    assert (found.state, found.fault.kind, found.fault.message) == (TaskState.FAILED, ErrorKind.CONTENT_REJECTED, "no")


async def test_tasks_are_forgotten_a_day_after_their_end_and_late_ones_fail(desk: Desk):
    over, late = await desk.submit(), await desk.submit()
    assert claimed(await desk.first.claim({})).task.id == over.id
    await desk.first.succeed(over.id, [])
    desk.clock.advance(DAY_S - 1)
    assert await desk.state(over) is TaskState.SUCCEEDED
    desk.clock.advance(2)
    assert await desk.state(over) is TaskState.UNKNOWN
    await desk.first.sweep(DAY_S)
    assert await desk.state(late) is TaskState.FAILED
    desk.clock.advance(DAY_S + 1)
    await desk.first.sweep(DAY_S)
    assert (await desk.tasks.page("alice", TasksAsked())).total == 0


async def test_an_account_has_so_many_open_tasks_and_no_more(database: Database, clock: StillClock):
    desk = Desk(database, clock, most_open=2)
    first = await desk.submit()
    await desk.submit()
    with pytest.raises(ApiError) as refused:
        await desk.submit()
    assert refused.value.kind is ErrorKind.RATE_LIMITED and "most_open" in refused.value.message
    await desk.submit(BOB)
    await desk.tasks.cancel("alice", first.id)
    await desk.submit()


async def test_lists_are_filtered_and_paged(desk: Desk):
    made = [await desk.submit(model=model) for model in ("wanx-v1", "qwen-image", "wanx-v1")]
    await desk.tasks.cancel("alice", made[0].id)
    page = await desk.tasks.page("alice", TasksAsked(page_size=2))
    assert (page.total, [task.id for task in page.tasks]) == (3, [made[2].id, made[1].id])
    assert [task.id for task in (await desk.tasks.page("alice", TasksAsked(page_size=2, page_no=2))).tasks] == [made[0].id]
    assert (await desk.tasks.page("alice", TasksAsked(model="wanx-v1"))).total == 2
    assert (await desk.tasks.page("alice", TasksAsked(state=TaskState.CANCELED))).total == 1
    assert (await desk.tasks.page("alice", TasksAsked(key_id="key-bob"))).total == 0
    assert (
        await desk.tasks.page("alice", TasksAsked(submitted_after=made[1].submitted_at, submitted_before=made[1].submitted_at))
    ).total == 1


async def test_attempts_have_ids_of_their_own_that_never_change(desk: Desk):
    task = await desk.submit()
    assert await desk.first.attempt(task.id) == 0
    assert call_id("t", 0) == call_id("t", 0) != call_id("t", 1) != call_id("u", 1)
