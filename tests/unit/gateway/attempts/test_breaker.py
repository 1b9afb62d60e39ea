"""A deployment that keeps failing is left alone, and one call at a time asks whether it is well again."""

import pytest

from qwenbox.gateway.attempts.breaker import Breaker, BreakerConfig, State
from support.clocks import StillClock


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def breaker(clock: StillClock) -> Breaker:
    return Breaker(BreakerConfig(failure_share=0.5, least_attempts=4, window_s=10, open_s=5), clock)


def trip(breaker: Breaker) -> None:
    for _ in range(4):
        assert breaker.enter()
        breaker.failed()
    assert State.OPEN is breaker.state


def test_breaker_opens_at_the_share_but_not_before_the_least_attempts(breaker: Breaker):
    for _ in range(3):
        breaker.failed()
    assert breaker.enter()
    breaker.failed()
    assert not breaker.enter()
    assert 5.0 == breaker.open_for_s


def test_breaker_stays_closed_below_the_share(breaker: Breaker):
    for _ in range(100):
        breaker.succeeded()
        breaker.succeeded()
        breaker.failed()
    assert breaker.enter()


def test_breaker_forgets_what_left_its_window(breaker: Breaker, clock: StillClock):
    for _ in range(3):
        breaker.failed()
    clock.advance(10)
    for _ in range(3):
        breaker.failed()
    assert State.CLOSED is breaker.state
    clock.advance(5)
    breaker.failed()
    assert State.OPEN is breaker.state


def test_breaker_lets_one_probe_in_when_its_time_is_over(breaker: Breaker, clock: StillClock):
    trip(breaker)
    clock.advance(4.9)
    assert not breaker.enter()
    clock.advance(0.2)
    assert breaker.enter()
    assert not breaker.enter()
    breaker.succeeded()
    assert State.CLOSED is breaker.state
    assert breaker.enter()
    assert breaker.enter()


def test_breaker_opens_again_when_the_probe_fails(breaker: Breaker, clock: StillClock):
    trip(breaker)
    clock.advance(5)
    assert breaker.enter()
    breaker.failed()
    assert not breaker.enter()
    assert 5.0 == breaker.open_for_s


def test_the_next_call_may_probe_when_the_probes_caller_hangs_up(breaker: Breaker, clock: StillClock):
    trip(breaker)
    clock.advance(5)
    assert breaker.enter()
    breaker.left()
    assert breaker.enter()


def test_answers_that_broke_open_it_though_their_attempts_had_succeeded(breaker: Breaker):
    for _ in range(4):
        breaker.succeeded()
    breaker.broke()
    assert State.CLOSED is breaker.state
    breaker.broke()
    assert State.OPEN is breaker.state
    breaker.broke()
    assert 5.0 == breaker.open_for_s


def test_answers_that_broke_count_when_their_attempts_have_left_the_window(breaker: Breaker, clock: StillClock):
    for _ in range(4):
        breaker.succeeded()
    clock.advance(10)
    for _ in range(3):
        breaker.broke()
    assert State.CLOSED is breaker.state
    breaker.broke()
    assert State.OPEN is breaker.state


def test_answers_from_before_the_opening_do_not_close_it(breaker: Breaker):
    trip(breaker)
    breaker.succeeded()
    assert not breaker.enter()


def test_a_share_above_one_never_opens(clock: StillClock):
    breaker = Breaker(BreakerConfig(failure_share=2, least_attempts=1), clock)
    for _ in range(100):
        breaker.failed()
    assert breaker.enter()


@pytest.mark.parametrize("wrong", [{"failure_share": 0.0}, {"least_attempts": 0}, {"window_s": 0.0}, {"open_s": -1.0}])
def test_breaker_refuses_settings_that_make_no_sense(wrong: dict[str, float]):
    with pytest.raises(ValueError, match="above 0"):
        BreakerConfig(**wrong)  # type: ignore[arg-type]
