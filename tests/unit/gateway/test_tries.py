"""Wrong passwords, counted: five are free, then one in thirty seconds, for each name and address by itself."""

import pytest

from qwenbox.gateway.tries import FREE_FAILURES, PENALTY_S, Tries
from qwenbox.terms.errors import ApiError, ErrorKind
from support.clocks import StillClock

ANN, BOB = ("ann", "10.0.0.1"), ("bob", "10.0.0.1")
ANYBODY = ("", "10.0.0.1")


def waits(tries: Tries, *guessers: tuple[str, str]) -> float:
    """How long they have to wait; 0.0 if that was a try."""
    try:
        tries.enter(*guessers)
    except ApiError as error:
        assert ErrorKind.RATE_LIMITED is error.kind
        return error.retry_after_s or -1.0
    return 0.0


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def tries(clock: StillClock) -> Tries:
    return Tries(clock)


def test_each_further_try_waits_after_the_free_ones(tries: Tries, clock: StillClock) -> None:
    assert [0.0] * FREE_FAILURES + [PENALTY_S] == [waits(tries, ANN) for _ in range(FREE_FAILURES + 1)]
    clock.advance(PENALTY_S - 1)
    assert 1.0 == waits(tries, ANN)
    clock.advance(1)
    assert [0.0, PENALTY_S] == [waits(tries, ANN), waits(tries, ANN)]


def test_one_guesser_does_not_wait_for_another(tries: Tries) -> None:
    for _ in range(FREE_FAILURES):
        tries.enter(ANN)
    assert (PENALTY_S, 0.0) == (waits(tries, ANN), waits(tries, BOB))


def test_a_try_of_two_waits_for_either_and_then_counts_for_neither(tries: Tries, clock: StillClock) -> None:
    for _ in range(FREE_FAILURES):
        tries.enter(ANYBODY)
    assert {PENALTY_S} == {waits(tries, ANN, ANYBODY) for _ in range(FREE_FAILURES + 1)}
    assert 0.0 == waits(tries, ANN)
    clock.advance(PENALTY_S)
    assert 0.0 == waits(tries, ANN, ANYBODY)


def test_who_was_right_begins_anew(tries: Tries) -> None:
    for _ in range(FREE_FAILURES):
        tries.enter(ANN, ANYBODY)
    tries.clear(ANN, ANYBODY)
    assert 0.0 == waits(tries, ANN, ANYBODY)


def test_names_that_are_made_up_do_not_fill_the_memory(tries: Tries) -> None:
    for _ in range(FREE_FAILURES):
        tries.enter(ANYBODY)
    for number in range(9_999):
        tries.enter((f"name-{number}", "10.0.0.1"))
    assert (10_000, PENALTY_S) == (len(tries), waits(tries, ANYBODY))
    tries.enter(BOB)
    # The oldest is forgotten.
    assert (10_000, 0.0) == (len(tries), waits(tries, ANYBODY))
