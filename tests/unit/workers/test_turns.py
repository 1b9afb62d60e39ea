"""Workers at their parent's engines: one queue for all of them, one child, and nothing left held by the dead."""

import socket
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import anyio.abc
import pytest

from qwenbox.engines.llamacpp.config import Endpoint, Loadable
from qwenbox.gateway.scheduler import Claim, Need, Pools, SchedulerConfig
from qwenbox.telemetry.snapshot import Snapshot
from qwenbox.terms.engine import Capacity, HealthState
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret
from qwenbox.workers.census import Census
from qwenbox.workers.link import FROM_WORKER, AskConsole, FromWorker, GivenConsole, Link, Load, Wire
from qwenbox.workers.turns import Host, LinkedLanes, LinkedTurns, Shared

pytestmark = pytest.mark.anyio

ONE = Capacity(slots=1)
WEIGHTS = Load(path="/weights/tiny.gguf", size_bytes=1_000, kv_bytes_per_token=16, projector="/weights/mmproj.gguf", projector_bytes=9)


class LaneByHand:
    """A lane without a child."""

    def __init__(self) -> None:
        self.users = 0
        self.changed = anyio.Event()
        self.failure: Exception | None = None
        self.loaded: list[Loadable] = []

    @asynccontextmanager
    async def use(self, weights: Loadable) -> AsyncGenerator[Endpoint]:
        self._count(1)
        try:
            yield await self.endpoint(weights)
        finally:
            self._count(-1)

    async def endpoint(self, weights: Loadable) -> Endpoint:
        self.loaded.append(weights)
        if self.failure:
            raise self.failure
        return Endpoint(address="http://127.0.0.1:9", key=Secret("k"), marker="<m>")

    async def state(self) -> HealthState:
        return HealthState.STARTING

    async def unload(self) -> bool:
        return self.users == 0

    def _count(self, more: int) -> None:
        self.users += more
        self.changed.set()
        self.changed = anyio.Event()

    async def until(self, users: int) -> None:
        with anyio.fail_after(60):
            while self.users != users:
                await self.changed.wait()


class LanesByHand:
    def __init__(self) -> None:
        self.shared = LaneByHand()
        self.exact = LaneByHand()


class House:
    """A parent, and as many workers as one likes."""

    def __init__(self, tasks: anyio.abc.TaskGroup, stack: AsyncExitStack) -> None:
        self.pools = Pools(SchedulerConfig(queue_limit=2))
        self.lanes = LanesByHand()
        self.serving = 0
        self.console_port: int | None = None
        self._tasks = tasks
        self._stack = stack

    async def worker(self) -> Link:
        ours, theirs = socket.socketpair()
        wire = await Wire[FromWorker].open(ours, FROM_WORKER)
        shared = Shared(turns=self.pools, lanes={"small": self.lanes}, census=Census(Snapshot), console=self._console)
        self._tasks.start_soon(Host(wire, shared, self._note).serve)
        link = await Link.open(theirs)
        self._stack.callback(link.close)
        return link

    def _note(self) -> None:
        self.serving += 1

    async def _console(self) -> int:
        if self.console_port is None:
            raise ApiError(ErrorKind.OVERLOADED, "The console did not start.", retry_after_s=1.5)
        return self.console_port


@asynccontextmanager
async def opened() -> AsyncGenerator[House]:
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks, AsyncExitStack() as stack:
            yield House(tasks, stack)


def claim(account: str) -> Claim:
    return Claim(account_id=account, need=Need(slots=1, kv_tokens=1))


async def waiting(house: House, count: int) -> None:
    while house.pools.waiting() != count:  # noqa: ASYNC110 (the other side of a socket changes it)
        await anyio.sleep(0.001)


async def test_turn_is_fair_over_workers_when_one_account_waits_at_another_worker() -> None:
    order: list[str] = []
    async with opened() as house, anyio.create_task_group() as calls:
        one, two = LinkedTurns(await house.worker()), LinkedTurns(await house.worker())

        async def call(turns: LinkedTurns, account: str) -> None:
            async with turns.turn("echo", ONE, claim(account)):
                order.append(account)
                await anyio.sleep(0.01)

        async with one.turn("echo", ONE, claim("a")):
            calls.start_soon(call, one, "a")
            await waiting(house, 1)
            calls.start_soon(call, two, "b")
            await waiting(house, 2)
            assert (1, 1) == (one.waiting(), two.waiting())
    assert ["b", "a"] == order


async def test_refusal_reaches_the_worker_whole_when_the_queue_is_full() -> None:
    async with opened() as house, anyio.create_task_group() as calls:
        turns = LinkedTurns(await house.worker())

        async def call() -> None:
            async with turns.turn("echo", ONE, claim("a")):
                pass

        async with turns.turn("echo", ONE, claim("a")):
            calls.start_soon(call)
            calls.start_soon(call)
            await waiting(house, 2)
            with pytest.raises(ApiError) as refused:
                await call()
    assert ErrorKind.OVERLOADED is refused.value.kind
    assert refused.value.retry_after_s is not None


async def test_everything_is_free_when_a_worker_dies() -> None:
    async with opened() as house:
        dies, lives = await house.worker(), await house.worker()
        async with anyio.create_task_group() as calls:

            async def call() -> None:
                with pytest.raises(ApiError):
                    async with LinkedTurns(dies).turn("echo", ONE, claim("a")), LinkedLanes(dies, "small").shared.use(WEIGHTS):
                        await dies.lost()
                        raise ApiError(ErrorKind.OVERLOADED)

            calls.start_soon(call)
            await house.lanes.shared.until(1)
            dies.close()
        await house.lanes.shared.until(0)
        async with LinkedTurns(lives).turn("echo", ONE, claim("b")):
            assert 0 == house.pools.waiting()


async def test_place_is_free_when_a_waiting_caller_hangs_up_at_its_worker() -> None:
    async with opened() as house:
        turns = LinkedTurns(await house.worker())
        async with turns.turn("echo", ONE, claim("a")), anyio.create_task_group() as gone:

            async def call() -> None:
                async with turns.turn("echo", ONE, claim("b")):
                    pass

            gone.start_soon(call)
            await waiting(house, 1)
            gone.cancel_scope.cancel()
        await waiting(house, 0)


async def test_child_is_used_until_given_back_and_its_key_and_marker_come_along() -> None:
    async with opened() as house:
        lane = LinkedLanes(await house.worker(), "small").exact
        async with lane.use(WEIGHTS) as endpoint:
            assert Endpoint(address="http://127.0.0.1:9", key=Secret("k"), marker="<m>") == endpoint
            assert endpoint == await lane.endpoint(WEIGHTS)
            assert (1, 0) == (house.lanes.exact.users, house.lanes.shared.users)
            assert HealthState.STARTING is await lane.state()
        await house.lanes.exact.until(0)
        assert [WEIGHTS, WEIGHTS] == house.lanes.exact.loaded


@pytest.mark.parametrize(
    ("failure", "kind"), [(ApiError(ErrorKind.ENGINE_FAILED, "no"), ErrorKind.ENGINE_FAILED), (KeyError("bug"), ErrorKind.INTERNAL)]
)
async def test_failure_at_the_parent_is_one_calls_failure(failure: Exception, kind: ErrorKind) -> None:
    async with opened() as house:
        lane = LinkedLanes(await house.worker(), "small").shared
        house.lanes.shared.failure = failure
        with pytest.raises(ApiError) as failed:
            async with lane.use(WEIGHTS):
                pass
        assert kind is failed.value.kind
        house.lanes.shared.failure = None
        async with lane.use(WEIGHTS):
            assert 1 == house.lanes.shared.users


async def test_serving_is_told_to_the_parent() -> None:
    async with opened() as house:
        link = await house.worker()
        link.serving()
        await LinkedLanes(link, "small").shared.state()  # answered in order
        assert 1 == house.serving


async def test_child_is_unloaded_by_a_worker_unless_another_one_uses_it() -> None:
    async with opened() as house:
        one, two = LinkedLanes(await house.worker(), "small"), LinkedLanes(await house.worker(), "small")
        async with one.shared.use(WEIGHTS):
            assert not await two.shared.unload()
            assert await two.exact.unload()
        await house.lanes.shared.until(0)
        assert await two.shared.unload()


async def test_a_worker_is_told_where_the_console_listens_or_why_it_does_not() -> None:
    async with opened() as house:
        link = await house.worker()
        with pytest.raises(ApiError) as caught:
            await link.get(AskConsole(), GivenConsole)
        assert (ErrorKind.OVERLOADED, "The console did not start.", 1.5) == (
            caught.value.kind,
            caught.value.message,
            caught.value.retry_after_s,
        )
        house.console_port = 8001
        assert 8001 == (await link.get(AskConsole(), GivenConsole)).port
