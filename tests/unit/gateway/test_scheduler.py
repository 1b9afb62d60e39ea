"""Turns on a busy engine: fair between accounts, people before batches, bounded, and exact in slots and KV tokens."""

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as some

from qwenbox.gateway.scheduler import Claim, Need, Pool, Pools, SchedulerConfig
from qwenbox.terms.call import Lane
from qwenbox.terms.engine import Capacity
from qwenbox.terms.errors import ApiError, ErrorKind

pytestmark = pytest.mark.anyio


class HandClock:
    """Time that only a test moves."""

    def __init__(self) -> None:
        self.at_s = 1_000.0

    def now(self) -> float:
        return self.at_s

    def monotonic(self) -> float:
        return self.at_s

    async def sleep(self, seconds_s: float) -> None:
        self.at_s += seconds_s


class Floor:
    """A pool on a clock held by hand, its calls by name, and the order in which they got their turn."""

    def __init__(self, *, slots: int | None = None, kv_tokens: int | None = None, **config: float) -> None:
        self.clock = HandClock()
        self.pool = Pool(Capacity(slots=slots, kv_tokens=kv_tokens), SchedulerConfig(**config), self.clock)  # type: ignore[arg-type]
        self.order: list[str] = []
        self.refused: dict[str, ApiError] = {}
        self._ends: dict[str, anyio.Event] = {}

    async def call(self, name: str, claim: Claim) -> None:
        """Runs until `end(name)`."""
        self._ends[name] = anyio.Event()
        try:
            async with self.pool.turn(claim):
                self.order.append(name)
                await self._ends[name].wait()
        except ApiError as error:
            self.refused[name] = error

    async def end(self, name: str, after_s: float = 1.0) -> None:
        self.clock.at_s += after_s
        self._ends[name].set()
        await settled()

    async def drain(self, after_s: float = 1.0) -> list[str]:
        """End whoever runs, in the order of their beginning, until nobody is left."""
        ended = 0
        while ended < len(self.order):
            await self.end(self.order[ended], after_s)
            ended += 1
        return self.order


async def settled() -> None:
    for _ in range(6):
        await anyio.lowlevel.checkpoint()


def claim(account: str = "a", *, slots: int = 1, kv_tokens: int = 1, weight: int = 1, lane: Lane = Lane.INTERACTIVE) -> Claim:
    return Claim(account_id=account, need=Need(slots=slots, kv_tokens=kv_tokens), weight=weight, lane=lane)


@pytest.mark.parametrize("slots", [1, 4])
async def test_first_call_of_another_account_is_next_when_one_account_has_a_hundred_open(slots: int) -> None:
    floor = Floor(slots=slots)
    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(floor.call, f"a{number}", claim("a"))
        await settled()
        tasks.start_soon(floor.call, "b", claim("b"))
        await settled()
        await floor.drain()
    assert slots == floor.order.index("b")


async def test_first_call_is_next_when_others_were_charged_too_much_before() -> None:
    """What was charged by estimate and given back must not put the busy account before a newcomer."""
    floor = Floor(slots=4)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(floor.call, "slow", claim("a"))
        await settled()
        await floor.end("slow", after_s=1_000)
        for number in range(40):
            tasks.start_soon(floor.call, f"a{number}", claim("a"))
        await settled()
        for number in range(10):
            await floor.end(f"a{number}", after_s=0.01)
        begun = len(floor.order)
        tasks.start_soon(floor.call, "b", claim("b"))
        await settled()
        await floor.end("a10")
        assert "b" == floor.order[begun]
        floor.order.remove("slow")
        for name in [*floor.order]:
            await floor.end(name)
        await floor.drain()


async def test_turns_follow_the_weights_when_all_accounts_wait() -> None:
    floor = Floor(slots=1)
    async with anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon(floor.call, f"light {number}", claim("light", weight=1))
            tasks.start_soon(floor.call, f"heavy {number}", claim("heavy", weight=3))
        await settled()
        await floor.drain()
    first = [name.split()[0] for name in floor.order[:40]]
    assert 30 == pytest.approx(first.count("heavy"), abs=2)


async def test_turns_are_shared_by_time_when_one_accounts_calls_last_longer() -> None:
    floor = Floor(slots=1)
    async with anyio.create_task_group() as tasks:
        for number in range(60):
            tasks.start_soon(floor.call, f"long {number}", claim("long"))
            tasks.start_soon(floor.call, f"short {number}", claim("short"))
        await settled()
        used = {"long": 0.0, "short": 0.0}
        for place in range(60):
            name = floor.order[place]
            lasts_s = 5.0 if name.startswith("long") else 1.0
            used[name.split()[0]] += lasts_s
            await floor.end(name, lasts_s)
        for name in floor.order[60:]:
            await floor.end(name)
        await floor.drain()
    print(f"\nengine seconds of calls five times as long, and of short ones: {used}")
    assert 1 == pytest.approx(used["long"] / used["short"], rel=0.2)


async def test_turn_keeps_the_order_of_an_accounts_own_calls() -> None:
    floor = Floor(slots=2)
    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(floor.call, f"{number}", claim("a"))
        await settled()
        await floor.drain()
    assert [f"{number}" for number in range(10)] == floor.order


async def test_people_go_before_batch_lines_when_both_wait() -> None:
    floor = Floor(slots=1)
    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(floor.call, f"line {number}", claim("a", lane=Lane.BATCH))
        await settled()
        for number in range(3):
            tasks.start_soon(floor.call, f"person {number}", claim("a"))
        await settled()
        await floor.drain()
    assert ["line 0", "person 0", "person 1", "person 2", "line 1", "line 2"] == floor.order


async def test_one_batch_line_gets_a_turn_when_people_kept_it_waiting_for_its_patience() -> None:
    floor = Floor(slots=1, batch_patience_s=10)
    async with anyio.create_task_group() as tasks:
        for number in range(25):
            tasks.start_soon(floor.call, f"person {number}", claim("a"))
        for number in range(3):
            tasks.start_soon(floor.call, f"line {number}", claim("b", lane=Lane.BATCH))
        await settled()
        await floor.drain(after_s=1)
    assert [10, 20, 27] == [floor.order.index(f"line {number}") for number in range(3)]


async def test_large_call_is_not_starved_when_small_ones_keep_coming() -> None:
    floor = Floor(slots=4, kv_tokens=100)
    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(floor.call, f"first {number}", claim("a", kv_tokens=20))
        await settled()
        tasks.start_soon(floor.call, "large", claim("b", kv_tokens=100))
        await settled()
        for number in range(20):
            tasks.start_soon(floor.call, f"small {number}", claim(f"c{number % 5}", kv_tokens=20))
        await settled()
        await floor.drain()
    assert 4 == floor.order.index("large")


async def test_turn_waits_when_kv_tokens_do_not_fit() -> None:
    floor = Floor(kv_tokens=100)
    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(floor.call, f"{number}", claim(kv_tokens=40))
        await settled()
        assert ["0", "1"] == floor.order
        assert 1 == floor.pool.waiting
        await floor.drain()
    assert 0 == floor.pool.waiting


async def test_turn_refuses_when_the_call_alone_is_larger_than_the_pool() -> None:
    with pytest.raises(ApiError) as refused:
        async with Floor(kv_tokens=100).pool.turn(claim(kv_tokens=101)):
            pass
    assert refused.value.kind is ErrorKind.INVALID_REQUEST
    assert refused.value.param == "max_tokens"


async def test_full_queue_refuses_at_once_and_names_places_nobody_else_was_told() -> None:
    floor = Floor(slots=1, queue_limit=2)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(floor.call, "measured", claim())
        await settled()
        await floor.end("measured", after_s=4)
        for name in ("runs", "waits 1", "waits 2", "refused 1", "refused 2"):
            tasks.start_soon(floor.call, name, claim())
        await settled()
        assert {"refused 1": 4.0, "refused 2": 8.0} == {name: error.retry_after_s for name, error in floor.refused.items()}
        assert {ErrorKind.OVERLOADED} == {error.kind for error in floor.refused.values()}
        for name in ("runs", "waits 1", "waits 2"):
            await floor.end(name)


async def test_full_queue_makes_room_when_the_newcomers_account_has_less_in_it() -> None:
    floor = Floor(slots=1, queue_limit=3)
    async with anyio.create_task_group() as tasks:
        for name in ("a0", "a1", "a2", "a3"):
            tasks.start_soon(floor.call, name, claim("a"))
        await settled()
        tasks.start_soon(floor.call, "b", claim("b"))
        await settled()
        assert ["a3"] == list(floor.refused)
        await floor.drain()
    assert ["a0", "b", "a1", "a2"] == floor.order


async def test_turn_refuses_when_the_wait_is_too_long_and_leaves_nothing_behind() -> None:
    floor = Floor(slots=1, queue_wait_s=0.01)
    async with floor.pool.turn(claim()):
        with pytest.raises(ApiError) as refused:
            async with floor.pool.turn(claim()):
                pass
    assert refused.value.kind is ErrorKind.OVERLOADED
    assert refused.value.retry_after_s is not None
    async with floor.pool.turn(claim()):
        assert floor.pool.waiting == 0


async def test_turn_frees_the_queue_when_a_waiting_caller_hangs_up() -> None:
    floor = Floor(kv_tokens=100)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(floor.call, "runs", claim(kv_tokens=90))
        await settled()
        async with anyio.create_task_group() as gone:
            gone.start_soon(floor.call, "gone", claim(kv_tokens=100))
            await settled()
            tasks.start_soon(floor.call, "small", claim(kv_tokens=10))
            await settled()
            assert ["runs"] == floor.order
            gone.cancel_scope.cancel()
        await settled()
        assert ["runs", "small"] == floor.order
        await floor.drain()


async def test_turn_is_given_back_when_a_caller_hangs_up_while_admitted() -> None:
    floor = Floor(slots=1)
    async with anyio.create_task_group() as gone:
        async with floor.pool.turn(claim()):
            gone.start_soon(floor.call, "gone", claim())
            await settled()
        gone.cancel_scope.cancel()  # it was admitted in this very moment, before it could run
    with anyio.fail_after(60):
        async with floor.pool.turn(claim()):
            assert 0 == floor.pool.waiting


async def test_pools_keep_engines_apart() -> None:
    pools = Pools(SchedulerConfig(queue_limit=0))
    capacity = Capacity(slots=1)
    async with pools.turn("one", capacity, claim()), pools.turn("two", capacity, claim()):
        assert 0 == pools.waiting()


CALLS = some.lists(
    some.tuples(
        some.sampled_from("abc"), some.integers(1, 5), some.integers(1, 100), some.integers(1, 3), some.sampled_from(list(Lane)),
        some.sampled_from(["run", "hang up"]),
    ),
    max_size=30,
)  # fmt: skip


@given(calls=CALLS, limit=some.integers(0, 8))
def test_pool_never_holds_more_than_it_can_and_ends_empty_whatever_comes(calls: list[tuple], limit: int) -> None:
    anyio.run(_storm, calls, limit)


async def _storm(calls: list[tuple], limit: int) -> None:
    floor = Floor(slots=4, kv_tokens=100, queue_limit=limit)
    held = {"slots": 0, "kv_tokens": 0, "calls": 0}

    async def call(asked: Claim, rounds: int) -> None:
        try:
            async with floor.pool.turn(asked):
                held["calls"] += 1
                held["slots"] += asked.need.slots
                held["kv_tokens"] += asked.need.kv_tokens
                assert held["kv_tokens"] <= 100
                assert held["slots"] <= 4 or held["calls"] == 1
                try:
                    for _ in range(rounds):
                        await anyio.lowlevel.checkpoint()
                finally:
                    held["calls"] -= 1
                    held["slots"] -= asked.need.slots
                    held["kv_tokens"] -= asked.need.kv_tokens
        except ApiError as error:
            assert ErrorKind.OVERLOADED is error.kind

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for account, slots, kv_tokens, rounds, lane, end in calls:
                asked = claim(account, slots=slots, kv_tokens=kv_tokens, lane=lane)
                if end == "run":
                    tasks.start_soon(call, asked, rounds)
                else:
                    with anyio.move_on_after(0):
                        await call(asked, rounds)
                await anyio.lowlevel.checkpoint()
    assert {"slots": 0, "kv_tokens": 0, "calls": 0} == held
    assert 0 == floor.pool.waiting
    with anyio.fail_after(60):
        async with floor.pool.turn(claim(slots=4, kv_tokens=100)):
            pass


async def test_batch_lines_share_an_engine_by_one_slot_while_people_call_and_leave_one_free_when_it_is_quiet() -> None:
    floor = Floor(slots=4, batch_quiet_s=30.0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(floor.call, "person", claim())
        await settled()
        for number in range(5):
            tasks.start_soon(floor.call, f"line {number}", claim(lane=Lane.BATCH))
        await settled()
        assert ["person", "line 0"] == floor.order
        await floor.end("person")
        assert ["person", "line 0"] == floor.order
        await floor.end("line 0", after_s=30.0)
        assert ["person", "line 0", "line 1", "line 2", "line 3"] == floor.order
        tasks.start_soon(floor.call, "another", claim())
        await settled()
        assert "another" == floor.order[-1]
        await floor.drain()
