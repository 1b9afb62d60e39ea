"""Counters of one process: purses are read once, time is the steady clock's, nothing dead is kept."""

import gc

import anyio
import pytest

from qwenbox.gateway.counters.base import CountersConfig, PurseState, Used
from qwenbox.gateway.counters.memory import MemoryCounters
from qwenbox.gateway.counters.window import Log
from qwenbox.terms.errors import ApiError, ErrorKind
from support.asks import Bank, ask, balance, window
from support.clocks import StillClock

pytestmark = pytest.mark.anyio


def counters(clock: StillClock | None = None, bank: Bank | None = None, window_s: float = 60.0) -> MemoryCounters:
    return MemoryCounters(CountersConfig(window_s=window_s, wait_s=5.0), clock or StillClock(), (bank or Bank()).load)


class SlowBank(Bank):
    """Reads return what there was when they began, once the gate opens."""

    def __init__(self, **amounts: int) -> None:
        super().__init__(**amounts)
        self.gate = anyio.Event()
        self.error: ApiError | None = None

    async def load(self, ids: tuple[str, ...]) -> tuple[PurseState, ...]:
        states = await super().load(ids)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return states


def shown(counting: MemoryCounters) -> list[tuple[str, int, int, int, float, float]]:
    """Windows in use, with the seconds until something and until all of them is free again."""
    found = counting.snapshot()
    return [(one.id, one.requests, one.tokens, one.open, round(one.frees_in_s, 3), round(one.empty_in_s, 3)) for one in found]


async def test_window_is_the_same_when_the_wall_clock_jumps() -> None:
    clock = StillClock()
    counting = counters(clock)
    await counting.reserve(ask(window(requests=1)))
    clock.wall_s += 100_000.0
    with pytest.raises(ApiError):
        await counting.reserve(ask(window(requests=1)))
    clock.wall_s -= 200_000.0
    clock.steady_s += 60.5
    assert (await counting.reserve(ask(window(requests=1)))).at == clock.wall_s


async def test_admission_counts_in_the_last_moment_of_its_window() -> None:
    clock = StillClock()
    counting = counters(clock)
    await counting.reserve(ask(window(requests=1)))
    clock.advance(60.0)
    with pytest.raises(ApiError) as refused:
        await counting.reserve(ask(window(requests=1)))
    clock.advance(refused.value.retry_after_s or 0.0)
    await counting.reserve(ask(window(requests=1)))


async def test_reserve_is_free_when_nothing_limits() -> None:
    counting = counters()
    lease = await counting.reserve(ask(tokens=(5, 7)))
    await counting.settle(lease, Used(tokens=12))
    assert (7, 0, None) == (lease.output_tokens, lease.held_micros, lease.limits)
    assert () == counting.snapshot()


async def test_limits_left_are_those_of_the_tightest_window() -> None:
    clock = StillClock()
    counting = counters(clock)
    await counting.reserve(ask(window("key/m", requests=5), tokens=(1, 1)))
    clock.advance(20.0)
    account, key = window("account/m", requests=3, tokens=100), window("key/m", requests=5, tokens=1_000)
    limits = (await counting.reserve(ask(account, key, tokens=(10, 20)))).limits
    assert limits is not None
    assert (3, 2, 60.0) == (limits.requests_limit, limits.requests_left, limits.requests_reset_s)
    assert (100, 70, 60.0) == (limits.tokens_limit, limits.tokens_left, limits.tokens_reset_s)
    assert (await counting.reserve(ask(window("key/m", concurrency=9)))).limits is None


async def test_purse_is_read_once_when_many_calls_need_it_at_once() -> None:
    bank = SlowBank(**{"acc-1": 1_000, "acc-2": 1_000})
    counting = counters(bank=bank)
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(counting.reserve, ask(balance("acc-1")))
            tasks.start_soon(counting.reserve, ask(balance("acc-1"), balance("acc-2")))
        await anyio.wait_all_tasks_blocked()
        bank.gate.set()
    assert [("balance/acc-1",), ("balance/acc-2",)] == bank.reads


async def test_failed_read_fails_everybody_who_waited_for_it_and_is_tried_anew_by_the_next() -> None:
    bank = SlowBank(**{"acc-1": 1_000})
    bank.error = ApiError(ErrorKind.OVERLOADED, "gone", retry_after_s=1.0)
    counting = counters(bank=bank)
    failed: list[tuple[ErrorKind, str, float | None]] = []

    async def call() -> None:
        with pytest.raises(ApiError) as refused:
            await counting.reserve(ask(balance()))
        failed.append((refused.value.kind, refused.value.message, refused.value.retry_after_s))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        bank.gate.set()
    assert [(ErrorKind.OVERLOADED, "gone", 1.0)] * 3 == failed
    assert len(bank.reads) == 1
    bank.error = None
    await counting.reserve(ask(balance()))


async def test_purse_is_read_by_another_call_when_the_reader_hangs_up() -> None:
    bank = SlowBank(**{"acc-1": 1_000})
    counting = counters(bank=bank)
    async with anyio.create_task_group() as tasks:
        async with anyio.create_task_group() as gone:
            gone.start_soon(counting.reserve, ask(balance()))
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(counting.reserve, ask(balance()))
            await anyio.wait_all_tasks_blocked()
            gone.cancel_scope.cancel()
        await anyio.wait_all_tasks_blocked()
        bank.gate.set()
    assert len(bank.reads) == 2


async def test_purse_is_as_new_as_what_was_learned_while_it_was_read() -> None:
    bank = SlowBank(**{"acc-1": 1_000})
    counting = counters(bank=bank)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(counting.reserve, ask(balance(), tokens=(1, 9)))
        await anyio.wait_all_tasks_blocked()
        counting.learn((bank.change("acc-1", -975),))
        bank.gate.set()
    assert (await counting.reserve(ask(balance(), tokens=(1, 14)))).held_micros == 15
    with pytest.raises(ApiError):
        await counting.reserve(ask(balance(), tokens=(26, 1)))


async def test_purse_is_read_again_when_nobody_used_it_for_long() -> None:
    clock, bank = StillClock(), Bank(**{"acc-1": 1_000, "acc-2": 1_000, "acc-3": 1_000})
    counting = counters(clock, bank)
    held = await counting.reserve(ask(balance("acc-1")))
    await counting.settle(await counting.reserve(ask(balance("acc-2"))), Used(tokens=0))
    clock.advance(7_200.0)
    await counting.reserve(ask(balance("acc-3")))
    await counting.settle(held, Used(tokens=0))
    for name in ("acc-1", "acc-2"):
        await counting.reserve(ask(balance(name)))
    assert [f"balance/{name}" for name in ("acc-1", "acc-2", "acc-3", "acc-2")] == [name for (name,) in bank.reads]


async def test_learn_ignores_a_purse_nobody_uses() -> None:
    bank = Bank(**{"acc-1": 10})
    counting = counters(bank=bank)
    counting.learn((PurseState(id="balance/acc-1", amount_micros=5_000, version=0),))
    assert (await counting.reserve(ask(balance(), tokens=(1, 100)))).held_micros == 10


async def test_restore_counts_calls_of_before_the_start() -> None:
    clock = StillClock()
    clock.steady_s = 3.0  # the machine came up just now
    counting = counters(clock)
    for ago_s, tokens in ((61.0, 500), (10.0, 30), (50.0, 20), (-5.0, 1)):
        counting.restore("acc-1/qwen", clock.now() - ago_s, tokens)
    assert [("acc-1/qwen", 3, 51, 0, 10.0, 60.0)] == shown(counting)
    clock.advance(15.0)
    assert [("acc-1/qwen", 2, 31, 0, 35.0, 45.0)] == shown(counting)
    with pytest.raises(ApiError) as refused:
        await counting.reserve(ask(window(requests=2)))
    assert refused.value.retry_after_s == pytest.approx(35.0, abs=0.01)


async def test_snapshot_shows_what_is_open() -> None:
    counting = counters()
    await counting.reserve(ask(window("a/m", tokens=100), tokens=(10, 20)))
    done = await counting.reserve(ask(window("b/m", requests=9), tokens=(10, 20)))
    await counting.settle(done, Used(tokens=12))
    assert [("a/m", 1, 30, 1), ("b/m", 1, 12, 0)] == [row[:4] for row in shown(counting)]


async def test_settle_lowers_nothing_when_the_admission_has_left_its_window() -> None:
    clock = StillClock()
    counting = counters(clock)
    limit = window(tokens=100)
    old = await counting.reserve(ask(limit, tokens=(10, 90)))
    clock.advance(61.0)
    await counting.reserve(ask(limit, tokens=(10, 50)))
    await counting.settle(old, Used(tokens=20))
    assert [("acc-1/qwen", 1, 60, 1, 60.0, 60.0)] == shown(counting)


async def test_memory_of_windows_is_freed_when_nobody_uses_them() -> None:
    clock = StillClock()
    counting = counters(clock)
    stays = await counting.reserve(ask(window("open/m", concurrency=1)))
    for number in range(200):
        await counting.settle(await counting.reserve(ask(window(f"acc-{number}/m", requests=5))), Used(tokens=1))
    clock.advance(130.0)
    for _ in range(250):
        await counting.settle(await counting.reserve(ask(window("busy/m", requests=1_000))), Used(tokens=1))
    gc.collect()
    assert sum(isinstance(thing, Log) for thing in gc.get_objects()) == 2
    with pytest.raises(ApiError):
        await counting.reserve(ask(window("open/m", concurrency=1)))
    await counting.settle(stays, Used(tokens=1))


async def test_concurrency_wait_is_guessed_from_how_long_calls_take() -> None:
    clock = StillClock()
    counting = counters(clock)
    limit = window(concurrency=2)
    for _ in range(60):
        lease = await counting.reserve(ask(limit))
        clock.advance(4.0)
        await counting.settle(lease, Used(tokens=1))
    for _ in range(2):
        await counting.reserve(ask(limit))
    waits: list[float | None] = []
    for _ in range(3):
        with pytest.raises(ApiError) as refused:
            await counting.reserve(ask(limit))
        waits.append(refused.value.retry_after_s)
    assert pytest.approx([2.0, 4.0, 6.0], abs=0.01) == waits
