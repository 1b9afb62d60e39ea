"""Workers without a shared store: their parts together are never more than the whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenbox.clock import SystemClock
from qwenbox.gateway.counters.apart import ApartCounters, part, parted
from qwenbox.gateway.counters.base import Ask, CountersConfig, Lease, Purse, PurseState, Used, Window, Worst
from qwenbox.gateway.counters.memory import MemoryCounters
from qwenbox.terms.errors import ApiError

pytestmark = pytest.mark.anyio

BALANCE = PurseState(id="balance/acc", amount_micros=1_001, version=1)


@given(st.integers(-(10**12), 10**12), st.integers(1, 16))
def test_parts_sum_to_the_whole(whole: int, count: int) -> None:
    parts = [part(whole, place, count) for place in range(1, count + 1)]
    assert whole == sum(parts)
    assert max(parts) - min(parts) <= 1


async def load(ids: tuple[str, ...]) -> tuple[PurseState, ...]:
    return (BALANCE,)


def workers(count: int) -> list[ApartCounters]:
    return [
        ApartCounters(MemoryCounters(CountersConfig(wait_s=0.0), SystemClock(), parted(load, place, count)), place, count)
        for place in range(1, count + 1)
    ]


async def admitted(counting: ApartCounters, asks: list[Ask]) -> list[Lease]:
    leases: list[Lease] = []
    for ask in asks:
        try:
            leases.append(await counting.reserve(ask))
        except ApiError:
            continue
    return leases


async def test_workers_together_admit_the_whole_limit_and_no_more() -> None:
    window = Window(id="acc/m", requests=7, tokens=None, concurrency=None)
    worst = Worst(input_tokens=1, output_tokens=1)
    asks = [Ask(id=str(number), windows=(window,), purses=(), worst=worst) for number in range(10)]
    assert [3, 2, 2] == [len(await admitted(counting, asks)) for counting in workers(3)]


async def test_workers_together_spend_the_whole_balance_and_no_more() -> None:
    purse = Purse(id=BALANCE.id, allowance_micros=0)
    worst = Worst(input_tokens=100, output_tokens=1, input_scaled=100_000_000)
    asks = [Ask(id=str(number), windows=(), purses=(purse,), worst=worst) for number in range(20)]
    crew = workers(2)
    leases = [await admitted(counting, asks) for counting in crew]
    assert [5, 5] == [len(one) for one in leases]
    # A payment elsewhere is shared, too.
    for counting in crew:
        counting.learn((PurseState(id=BALANCE.id, amount_micros=1_201, version=2),))
    assert [1, 1] == [len(await admitted(counting, [Ask(id="later", windows=(), purses=(purse,), worst=worst)])) for counting in crew]


async def test_settled_call_gives_back_what_it_held() -> None:
    counting = workers(2)[0]
    purse = Purse(id=BALANCE.id, allowance_micros=0)
    worst = Worst(input_tokens=500, output_tokens=1, input_scaled=500_000_000)
    (lease,) = await admitted(counting, [Ask(id="1", windows=(), purses=(purse,), worst=worst)])
    assert [] == await admitted(counting, [Ask(id="2", windows=(), purses=(purse,), worst=worst)])
    await counting.settle(lease, Used(tokens=0))
    assert 1 == len(await admitted(counting, [Ask(id="3", windows=(), purses=(purse,), worst=worst)]))
