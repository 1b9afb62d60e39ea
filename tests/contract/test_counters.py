"""What every implementation of Counters keeps: limits in any window, money to the last micro-unit."""

import random
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from qwenbox.gateway.counters.base import CountersConfig, Lease, Used
from qwenbox.terms.errors import ApiError, ErrorKind
from support.asks import Bank, ask, balance, window
from support.counters_cases import CASES, CountersCase, World

pytestmark = pytest.mark.anyio

Open = Callable[..., AbstractAsyncContextManager[World]]


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> CountersCase:
    return request.param


@pytest.fixture
def opened(case: CountersCase) -> Open:
    @asynccontextmanager
    async def open_case(bank: Bank | None = None, wait_s: float = 10.0) -> AsyncGenerator[World]:
        async with case.open(CountersConfig(window_s=case.window_s, wait_s=wait_s), (bank or Bank()).load) as world:
            yield world

    return open_case


async def refused(world: World, *parts: object, **worst: object) -> ApiError:
    with pytest.raises(ApiError) as raised:
        await world.counters.reserve(ask(*parts, **worst))  # type: ignore[arg-type]
    return raised.value


async def told_s(world: World, *parts: object, **worst: object) -> float:
    error = await refused(world, *parts, **worst)
    assert error.retry_after_s is not None
    return error.retry_after_s


async def test_reserve_refuses_the_first_request_above_the_limit(opened: Open, case: CountersCase) -> None:
    async with opened() as world:
        leases = [await world.counters.reserve(ask(window(requests=3))) for _ in range(3)]
        assert [2, 1, 0] == [lease.limits.requests_left for lease in leases if lease.limits]
        error = await refused(world, window(requests=3))
        assert error.kind is ErrorKind.RATE_LIMITED
        assert error.retry_after_s == pytest.approx(case.window_s, abs=case.slack_s)
        assert error.limits is not None
        assert (3, 0) == (error.limits.requests_limit, error.limits.requests_left)


async def test_reserve_admits_when_the_told_wait_is_over(opened: Open) -> None:
    async with opened() as world:
        await world.counters.reserve(ask(window(requests=1)))
        await world.pass_time(await told_s(world, window(requests=1)))
        await world.counters.reserve(ask(window(requests=1)))


async def test_reserve_still_counts_a_settled_request_until_its_window_is_over(opened: Open, case: CountersCase) -> None:
    async with opened() as world:
        await world.counters.settle(await world.counters.reserve(ask(window(requests=1))), Used(tokens=0))
        await world.pass_time(case.window_s * 0.9)
        assert (await refused(world, window(requests=1))).kind is ErrorKind.RATE_LIMITED


async def test_refused_callers_are_told_different_moments(opened: Open, case: CountersCase) -> None:
    async with opened() as world:
        for _ in range(2):
            await world.counters.reserve(ask(window(requests=2)))
            await world.pass_time(case.window_s / 4)
        first, second, third = [await told_s(world, window(requests=2)) for _ in range(3)]
        assert first == pytest.approx(case.window_s / 2, abs=case.slack_s)
        assert second == pytest.approx(case.window_s * 3 / 4, abs=case.slack_s)
        assert third == pytest.approx(case.window_s * 3 / 2, abs=2 * case.slack_s)


async def test_reserve_refuses_tokens_and_tells_when_enough_have_flowed_back(opened: Open, case: CountersCase) -> None:
    async with opened() as world:
        limit = window(tokens=1_000)
        for tokens in (300, 600):
            await world.counters.reserve(ask(limit, tokens=(tokens - 1, 1)))
            await world.pass_time(case.window_s / 4)
        error = await refused(world, limit, tokens=(300, 100))
        assert error.kind is ErrorKind.QUOTA_EXHAUSTED
        assert error.retry_after_s == pytest.approx(case.window_s / 2, abs=case.slack_s)
        assert error.limits is not None
        assert (1_000, 100) == (error.limits.tokens_limit, error.limits.tokens_left)
        assert await told_s(world, limit, tokens=(400, 100)) == pytest.approx(case.window_s * 3 / 4, abs=case.slack_s)


async def test_settle_gives_back_the_tokens_that_were_not_used(opened: Open) -> None:
    async with opened() as world:
        limit = window(tokens=100)
        lease = await world.counters.reserve(ask(limit, tokens=(10, 90)))
        await refused(world, limit)
        await world.counters.settle(lease, Used(tokens=40))
        assert (await world.counters.reserve(ask(limit, tokens=(10, 50)))).output_tokens == 50
        await refused(world, limit)


async def test_settle_does_nothing_when_it_comes_again(opened: Open) -> None:
    async with opened() as world:
        limit = window(tokens=100, concurrency=2)
        lease = await world.counters.reserve(ask(limit, tokens=(10, 90)))
        for tokens in (50, 0):
            await world.counters.settle(lease, Used(tokens=tokens))
        assert (await refused(world, limit, tokens=(10, 41))).kind is ErrorKind.QUOTA_EXHAUSTED
        await world.counters.reserve(ask(limit, tokens=(10, 10)))
        await world.counters.reserve(ask(limit, tokens=(10, 10)))
        assert (await refused(world, limit, tokens=(1, 1))).kind is ErrorKind.RATE_LIMITED


async def test_reserve_refuses_open_calls_above_the_limit_until_one_ends(opened: Open, case: CountersCase) -> None:
    async with opened() as world:
        lease = await world.counters.reserve(ask(window(concurrency=1)))
        error = await refused(world, window(concurrency=1))
        assert error.kind is ErrorKind.RATE_LIMITED
        assert 0 < (error.retry_after_s or 0) <= case.window_s + case.slack_s
        await world.counters.settle(lease, Used(tokens=1))
        await world.counters.reserve(ask(window(concurrency=1)))


async def test_reserve_takes_nothing_when_one_of_its_windows_refuses(opened: Open) -> None:
    async with opened(Bank(**{"acc-1": 2})) as world:
        wide, narrow = window("acc-1/qwen", requests=2, tokens=100, concurrency=2), window("key-1/qwen", requests=1)
        await world.counters.settle(await world.counters.reserve(ask(wide, narrow)), Used(tokens=2))
        await refused(world, wide, narrow, balance())
        lease = await world.counters.reserve(ask(wide, balance(), tokens=(1, 1)))
        assert lease.limits is not None
        assert (0, 96) == (lease.limits.requests_left, lease.limits.tokens_left)


async def test_reserve_refuses_for_good_when_the_call_is_larger_than_the_limit(opened: Open) -> None:
    async with opened() as world:
        error = await refused(world, window(tokens=100), tokens=(50, 51))
        assert (ErrorKind.INVALID_REQUEST, "max_tokens", None) == (error.kind, error.param, error.retry_after_s)
        assert "101" in error.message
        assert "100" in error.message
        error = await refused(world, window(tokens=100), tokens=(100, 50), is_flexible=True)
        assert (ErrorKind.INVALID_REQUEST, None) == (error.kind, error.param)


@pytest.mark.parametrize(
    ("used", "output", "choices", "granted"),
    [
        (0, 100_000, 1, 4_500),  # half of what is left after the input
        (0, 3_000, 1, 3_000),  # all that is asked for
        (8_600, 100_000, 1, 256),  # half would be 200
        (0, 99_999, 7, 4_494),  # even shares
        (8_700, 99_999, 7, 259),
        (8_600, 20, 1, 20),
    ],
)
async def test_reserve_grants_half_of_what_is_left_when_max_tokens_is_absent(
    opened: Open, used: int, output: int, choices: int, granted: int
) -> None:
    async with opened() as world:
        limit = window(tokens=10_000)
        if used:
            await world.counters.reserve(ask(limit, tokens=(used, 0)))
        lease = await world.counters.reserve(ask(limit, tokens=(1_000, output), is_flexible=True, choices=choices))
        assert granted == lease.output_tokens
        assert lease.limits is not None
        assert 10_000 - used - 1_000 - granted == lease.limits.tokens_left


async def test_reserve_refuses_when_not_even_the_least_answer_fits(opened: Open) -> None:
    async with opened() as world:
        limit = window(tokens=1_000)
        await world.counters.reserve(ask(limit, tokens=(700, 0)))
        error = await refused(world, limit, tokens=(50, 10_000), is_flexible=True)
        assert error.kind is ErrorKind.QUOTA_EXHAUSTED


async def test_no_window_ever_holds_more_than_its_limits_whatever_is_asked(opened: Open, case: CountersCase) -> None:
    """Admissions of three windows at random moments; every stretch of a window's length is looked at afterwards."""
    rng = random.Random(7)
    admitted: list[tuple[float, int]] = []
    async with opened() as world:
        limit = window(requests=10, tokens=500)
        for _ in range(150):
            try:
                lease = await world.counters.reserve(ask(limit, tokens=(rng.randint(1, 60), rng.randint(0, 60))))
            except ApiError:
                await world.pass_time(case.window_s * rng.random() / 20)
            else:
                admitted.append((lease.at, lease.ask.worst.input_tokens + lease.output_tokens))
    assert len(admitted) > 15
    for start, _ in admitted:
        # A store that tells its time in whole microseconds may round both ends.
        inside = [tokens for at, tokens in admitted if 0 <= at - start <= case.window_s - 2e-6]
        assert len(inside) <= 10
        assert sum(inside) <= 500


@pytest.mark.parametrize("excess", [1, 10])
async def test_balance_serves_exactly_what_it_is_worth_when_everybody_calls_at_once(opened: Open, excess: int) -> None:
    """excess: how many times its cost a call's worst case is."""
    bank = Bank(**{"acc-1": 31 * 20})
    ends: list[ErrorKind | None] = []

    async def call(world: World) -> None:
        try:
            lease = await world.counters.reserve(ask(balance(), tokens=(10, 20 * excess - 10)))
        except ApiError as error:
            ends.append(error.kind)
            return
        await anyio.lowlevel.checkpoint()
        assert lease.output_tokens >= 10
        await world.counters.settle(lease, bank.charge(lease, 20))
        ends.append(None)

    async with opened(bank) as world, anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(call, world)
    assert {None: 31, ErrorKind.OUT_OF_FUNDS: 69} == {end: ends.count(end) for end in set(ends)}
    assert bank.states["acc-1"].amount_micros == 0


async def test_reserve_refuses_at_once_when_settled_money_cannot_pay(opened: Open) -> None:
    async with opened(Bank(**{"acc-1": 100})) as world:
        await world.counters.reserve(ask(balance(), tokens=(50, 50)))
        assert (await refused(world, balance(), tokens=(100, 5))).kind is ErrorKind.OUT_OF_FUNDS


async def test_reserve_is_out_of_funds_when_a_purse_has_no_row(opened: Open) -> None:
    async with opened() as world:
        assert (await refused(world, balance())).kind is ErrorKind.OUT_OF_FUNDS


async def test_reserve_spends_an_allowance_on_top_of_the_amount(opened: Open) -> None:
    async with opened(Bank(**{"acc-1": -70})) as world:
        lease = await world.counters.reserve(ask(balance(allowance=100), tokens=(10, 20)))
        assert (30, 20) == (lease.held_micros, lease.output_tokens)


async def test_reserve_grants_what_the_money_pays_for_when_nothing_is_held(opened: Open) -> None:
    async with opened(Bank(**{"acc-1": 36})) as world:
        lease = await world.counters.reserve(ask(balance(), tokens=(10, 400), choices=4))
        assert (24, 34) == (lease.output_tokens, lease.held_micros)


async def test_reserve_holds_tokens_only_for_what_the_money_pays_for(opened: Open) -> None:
    async with opened(Bank(**{"acc-1": 36})) as world:
        lease = await world.counters.reserve(ask(window(tokens=100), balance(), tokens=(10, 60)))
        assert lease.limits is not None
        assert (26, 64) == (lease.output_tokens, lease.limits.tokens_left)


async def test_reserve_needs_no_money_when_the_call_costs_nothing(opened: Open) -> None:
    async with opened() as world:
        lease = await world.counters.reserve(ask(balance(), tokens=(10, 60), input_scaled=0, output_price=0))
        assert (60, 0) == (lease.output_tokens, lease.held_micros)


async def test_reserve_rounds_what_it_holds_up(opened: Open) -> None:
    async with opened(Bank(**{"acc-1": 10})) as world:
        lease = await world.counters.reserve(ask(balance(), tokens=(1, 1), input_scaled=1_000_001, output_price=1))
        assert lease.held_micros == 2


async def test_waiting_call_is_admitted_when_an_open_one_settles(opened: Open) -> None:
    bank = Bank(**{"acc-1": 100})
    async with opened(bank) as world, anyio.create_task_group() as tasks:
        first = await world.counters.reserve(ask(balance(), tokens=(10, 80)))
        waiting = await started(tasks, world, balance(), tokens=(10, 40))
        await world.counters.settle(first, bank.charge(first, 30))
        assert (await waiting.ended()).held_micros == 50


async def test_waiting_call_is_admitted_when_an_open_one_ends_without_cost(opened: Open) -> None:
    async with opened(Bank(**{"acc-1": 100})) as world, anyio.create_task_group() as tasks:
        first = await world.counters.reserve(ask(balance(), tokens=(10, 80)))
        waiting = await started(tasks, world, balance(), tokens=(10, 40))
        await world.counters.settle(first, Used(tokens=0))
        assert (await waiting.ended()).held_micros == 50


async def test_call_waits_for_open_ones_before_it_is_cut_to_what_is_settled(opened: Open) -> None:
    bank = Bank(**{"acc-1": 100})
    async with opened(bank) as world, anyio.create_task_group() as tasks:
        first = await world.counters.reserve(ask(balance(), tokens=(10, 80)))
        waiting = await started(tasks, world, balance(), tokens=(5, 400))
        assert not waiting.is_over
        await world.counters.settle(first, bank.charge(first, 30))
        assert (await waiting.ended()).held_micros == 70


async def test_waiting_call_is_admitted_when_money_is_paid_in(opened: Open) -> None:
    bank = Bank(**{"acc-1": 100})
    async with opened(bank) as world, anyio.create_task_group() as tasks:
        await world.counters.reserve(ask(balance(), tokens=(10, 80)))
        waiting = await started(tasks, world, balance(), tokens=(10, 40))
        world.counters.learn((bank.change("acc-1", 1_000),))
        assert (await waiting.ended()).held_micros == 50


async def test_waiting_call_is_refused_when_others_have_spent_the_money(opened: Open) -> None:
    bank = Bank(**{"acc-1": 100})
    async with opened(bank) as world, anyio.create_task_group() as tasks:
        first = await world.counters.reserve(ask(balance(), tokens=(10, 90)))
        waiting = await started(tasks, world, balance(), tokens=(10, 40))
        await world.counters.settle(first, bank.charge(first, 95))
        assert (await waiting.failed()).kind is ErrorKind.OUT_OF_FUNDS


async def test_waiting_call_is_refused_when_nothing_settles_in_time(opened: Open) -> None:
    bank = Bank(**{"acc-1": 100})
    async with opened(bank, wait_s=0.05) as world:
        first = await world.counters.reserve(ask(balance(), tokens=(10, 80)))
        error = await refused(world, window(requests=1), balance(), tokens=(10, 40))
        assert error.kind is ErrorKind.OVERLOADED
        assert error.retry_after_s is not None
        await world.counters.settle(first, bank.charge(first, 10))
        await world.counters.reserve(ask(window(requests=1), balance(), tokens=(10, 40)))


async def test_newcomer_does_not_overtake_a_waiting_call_it_could_pay_for(opened: Open) -> None:
    bank = Bank(**{"acc-1": 100})
    async with opened(bank) as world, anyio.create_task_group() as tasks:
        first = await world.counters.reserve(ask(balance(), tokens=(10, 80)))
        large = await started(tasks, world, balance(), tokens=(10, 70))
        small = await started(tasks, world, balance(), tokens=(1, 1))
        assert [False, False] == [large.is_over, small.is_over]
        await world.counters.settle(first, bank.charge(first, 10))
        assert (80, 2) == ((await large.ended()).held_micros, (await small.ended()).held_micros)


async def test_waiting_call_makes_way_when_its_caller_hangs_up(opened: Open) -> None:
    bank = Bank(**{"acc-1": 100})
    async with opened(bank) as world, anyio.create_task_group() as tasks:
        await world.counters.reserve(ask(balance(), tokens=(10, 80)))
        async with anyio.create_task_group() as gone:
            await started(gone, world, balance(), tokens=(10, 70))
            small = await started(tasks, world, balance(), tokens=(1, 1))
            gone.cancel_scope.cancel()
        assert (await small.ended()).held_micros == 2


async def test_call_gives_everything_back_when_its_caller_hangs_up_while_it_is_admitted(opened: Open) -> None:
    bank = Bank(**{"acc-1": 100})
    limit = window(requests=1, tokens=100, concurrency=1)
    async with opened(bank) as world:
        first = await world.counters.reserve(ask(balance(), tokens=(10, 80)))
        async with anyio.create_task_group() as gone:
            await started(gone, world, limit, balance(), tokens=(10, 70))
            await world.counters.settle(first, bank.charge(first, 10))
            gone.cancel_scope.cancel()
        lease = await world.counters.reserve(ask(limit, balance(), tokens=(10, 80)))
        assert lease.held_micros == 90


async def test_waiting_call_holds_no_place_and_is_refused_when_the_window_has_filled(opened: Open) -> None:
    bank = Bank(**{"acc-1": 100})
    limit = window(requests=1)
    async with opened(bank) as world, anyio.create_task_group() as tasks:
        first = await world.counters.reserve(ask(balance(), tokens=(10, 80)))
        waiting = await started(tasks, world, limit, balance(), tokens=(10, 70))
        await world.counters.reserve(ask(limit))
        await world.counters.settle(first, bank.charge(first, 10))
        error = await waiting.failed()
        assert error.kind is ErrorKind.RATE_LIMITED
        assert error.retry_after_s is not None


async def test_reserve_holds_in_every_purse_or_in_none(opened: Open) -> None:
    bank = Bank(**{"rich": 1_000, "poor": 50})
    async with opened(bank) as world:
        error = await refused(world, balance("rich"), balance("poor"), tokens=(51, 10))
        assert error.kind is ErrorKind.OUT_OF_FUNDS
        lease = await world.counters.reserve(ask(balance("rich"), tokens=(500, 500)))
        assert lease.held_micros == 1_000


async def test_call_that_waits_for_its_own_budget_delays_nobody_with_the_same_balance(opened: Open) -> None:
    bank = Bank(shared=1_000, own=50)
    async with opened(bank) as world, anyio.create_task_group() as tasks:
        first = await world.counters.reserve(ask(balance("shared"), balance("own"), tokens=(20, 20)))
        waiting = await started(tasks, world, balance("shared"), balance("own"), tokens=(20, 20))
        await world.counters.reserve(ask(balance("shared"), tokens=(20, 20)))
        assert not waiting.is_over
        await world.counters.settle(first, bank.charge(first, 10))
        assert (await waiting.ended()).held_micros == 40


async def test_learn_keeps_the_newest_state(opened: Open) -> None:
    bank = Bank(**{"acc-1": 100})
    async with opened(bank) as world:
        await world.counters.settle(await world.counters.reserve(ask(balance())), Used(tokens=0))
        old = bank.change("acc-1", 1_000)
        new = bank.change("acc-1", -1_050)
        world.counters.learn((new,))
        world.counters.learn((old,))
        lease = await world.counters.reserve(ask(balance(), tokens=(10, 400)))
        assert lease.held_micros == 50


class Waiting:
    """A reservation in a task of its own."""

    def __init__(self) -> None:
        self._over = anyio.Event()
        self._lease: Lease | None = None
        self._error: ApiError | None = None

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    async def run(self, world: World, parts: tuple[object, ...], worst: dict[str, object]) -> None:
        try:
            self._lease = await world.counters.reserve(ask(*parts, **worst))  # type: ignore[arg-type]
        except ApiError as error:
            self._error = error
        self._over.set()

    async def ended(self) -> Lease:
        with anyio.fail_after(60):
            await self._over.wait()
        assert self._error is None
        assert self._lease is not None
        return self._lease

    async def failed(self) -> ApiError:
        with anyio.fail_after(60):
            await self._over.wait()
        assert self._error is not None
        return self._error


async def started(tasks: anyio.abc.TaskGroup, world: World, *parts: object, **worst: object) -> Waiting:
    """A reservation that has had its chance and, if it can, waits."""
    waiting = Waiting()
    tasks.start_soon(waiting.run, world, parts, worst)
    await anyio.wait_all_tasks_blocked()
    return waiting
