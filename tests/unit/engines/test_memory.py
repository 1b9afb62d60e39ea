import anyio
import pytest

from qwenbox.engines.memory import MemoryBudget
from qwenbox.terms.errors import ApiError, ErrorKind

pytestmark = pytest.mark.anyio


class Guest:
    """A tenant that a test moves in and out."""

    def __init__(self, budget: MemoryBudget, last_used_s: float, *, is_idle: bool = True, is_stubborn: bool = False) -> None:
        self._budget = budget
        self.last_used_s = last_used_s
        self.is_idle = is_idle
        self._is_stubborn = is_stubborn
        self.is_loaded = True

    async def unload(self) -> bool:
        if self._is_stubborn:
            return False
        self.is_loaded = False
        self._budget.release(self)
        return True


async def test_claim_counts_a_shared_file_once() -> None:
    budget = MemoryBudget(1000)

    await budget.claim(Guest(budget, 1), 100, {"weights": 500})
    await budget.claim(Guest(budget, 2), 100, {"weights": 500})

    assert 700 == budget.used_bytes


async def test_claim_unloads_the_longest_unused_first_when_room_is_short() -> None:
    budget = MemoryBudget(1000)
    young, old = Guest(budget, 20), Guest(budget, 10)
    await budget.claim(young, 400, {})
    await budget.claim(old, 400, {})

    await budget.claim(Guest(budget, 30), 500, {})

    assert (True, False, 900) == (young.is_loaded, old.is_loaded, budget.used_bytes)


async def test_claim_passes_over_those_in_use_and_those_just_taken_up() -> None:
    budget = MemoryBudget(1000)
    busy, stubborn, idle = Guest(budget, 1, is_idle=False), Guest(budget, 2, is_stubborn=True), Guest(budget, 3)
    for guest in (busy, stubborn, idle):
        await budget.claim(guest, 300, {})

    await budget.claim(Guest(budget, 9), 300, {})

    assert [True, True, False] == [busy.is_loaded, stubborn.is_loaded, idle.is_loaded]


async def test_claim_is_overloaded_when_all_others_are_in_use() -> None:
    budget = MemoryBudget(1000)
    await budget.claim(Guest(budget, 1, is_idle=False), 800, {})

    with pytest.raises(ApiError) as raised:
        await budget.claim(Guest(budget, 2), 300, {})

    assert (ErrorKind.OVERLOADED, True) == (raised.value.kind, raised.value.retry_after_s is not None)
    assert 800 == budget.used_bytes


async def test_claim_says_so_and_unloads_nobody_when_a_model_can_never_fit() -> None:
    budget = MemoryBudget(1000)
    other = Guest(budget, 1)
    await budget.claim(other, 800, {})

    with pytest.raises(ApiError) as raised:
        await budget.claim(Guest(budget, 2), 900, {"weights": 200})

    assert (None, True) == (raised.value.retry_after_s, other.is_loaded)


async def test_claim_replaces_an_earlier_one_of_the_same_tenant() -> None:
    budget = MemoryBudget(1000)
    guest = Guest(budget, 1)

    await budget.claim(guest, 600, {})
    await budget.claim(guest, 700, {})

    assert 700 == budget.used_bytes


async def test_claims_at_the_same_time_stay_within_the_budget() -> None:
    budget = MemoryBudget(1000)
    guests = [Guest(budget, number) for number in range(10)]

    async with anyio.create_task_group() as tasks:
        for guest in guests:
            tasks.start_soon(budget.claim, guest, 400, {})

    assert 800 == budget.used_bytes
    assert 8 == sum(not guest.is_loaded for guest in guests)
