"""Retries of a deployment stay a share of its calls, plus a floor."""

from qwenbox.gateway.attempts.budget import MOST_CALLS, MOST_SAVED, Budget
from qwenbox.gateway.attempts.policy import RetryConfig
from support.clocks import StillClock


def taken(budget: Budget, asks: int) -> int:
    return sum(budget.take() for _ in range(asks))


def test_budget_is_a_share_of_the_calls_when_every_call_fails():
    budget = Budget(RetryConfig(budget_share=0.2, budget_floor_per_s=0), StillClock())
    granted = 0
    for _ in range(1_000):
        budget.earn()
        granted += taken(budget, 3)
    assert 200 + MOST_SAVED - 1 <= granted <= 200 + MOST_SAVED


def test_budget_has_a_floor_that_time_fills():
    clock = StillClock()
    budget = Budget(RetryConfig(budget_share=0, budget_floor_per_s=2), clock)
    assert int(MOST_SAVED) == taken(budget, 100)
    clock.advance(3)
    assert 6 == taken(budget, 100)
    clock.advance(3_600)
    assert int(MOST_SAVED) == taken(budget, 100)


def test_budget_keeps_the_shares_of_calls_whose_failures_come_later():
    budget = Budget(RetryConfig(budget_share=1, budget_floor_per_s=0), StillClock())
    for _ in range(60):
        budget.earn()
    assert int(MOST_SAVED) + 60 == taken(budget, 200)
    for _ in range(1_000):
        budget.earn()
    assert int(MOST_SAVED) + MOST_CALLS == taken(budget, 2_000)
