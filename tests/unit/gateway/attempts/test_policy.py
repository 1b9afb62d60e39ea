"""Whose failure it is, and how long to wait before the next attempt."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from qwenbox.gateway.attempts.policy import Backoff, RetryConfig, Verdict, shown, verdict
from qwenbox.terms.errors import ApiError, ErrorKind

PASSING = {ErrorKind.RATE_LIMITED, ErrorKind.OVERLOADED, ErrorKind.ENGINE_FAILED, ErrorKind.TIMEOUT}
THE_BOXES_OWN = {ErrorKind.UNAUTHENTICATED, ErrorKind.FORBIDDEN, ErrorKind.OUT_OF_FUNDS, ErrorKind.QUOTA_EXHAUSTED}


@pytest.mark.parametrize("kind", ErrorKind)
def test_verdict_of_every_kind(kind: ErrorKind):
    judged = verdict(ApiError(kind))
    if kind in PASSING:
        assert Verdict.AGAIN is judged
    elif kind in {*THE_BOXES_OWN, ErrorKind.MODEL_NOT_FOUND, ErrorKind.WRONG_ENDPOINT}:
        assert Verdict.ELSEWHERE is judged
    else:
        assert Verdict.FINAL is judged


@pytest.mark.parametrize("kind", ErrorKind)
def test_final_errors_stay_final_and_are_shown_as_they_are(kind: ErrorKind):
    error = ApiError(kind)
    error.is_final = True
    assert Verdict.FINAL is verdict(error)
    assert error is shown(error)


@pytest.mark.parametrize("kind", sorted(THE_BOXES_OWN))
def test_the_boxes_own_trouble_is_never_shown_as_the_callers(kind: ErrorKind):
    told = shown(ApiError(kind, retry_after_s=3))
    assert told.kind in {ErrorKind.ENGINE_FAILED, ErrorKind.OVERLOADED}
    assert "The model's server" in told.message


@given(asked=some.integers(1, 60), draw=some.floats(0, 1, exclude_max=True))
def test_backoff_is_full_jitter_below_a_doubling_bound(asked: int, draw: float):
    wait_s = Backoff(RetryConfig(base_s=0.5, longest_s=8.0), lambda: draw).wait_s(asked, None)
    assert wait_s == draw * min(0.5 * 2 ** (asked - 1), 8.0)


@given(retry_after_s=some.floats(0, 100), draw=some.floats(0, 1, exclude_max=True))
def test_retry_after_is_waited_in_full_or_left_to_the_caller(retry_after_s: float, draw: float):
    wait_s = Backoff(RetryConfig(heeded_s=20), lambda: draw).wait_s(1, retry_after_s)
    if retry_after_s > 20:
        assert wait_s is None
    else:
        assert wait_s is not None
        assert retry_after_s <= wait_s <= retry_after_s + 0.25


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"attempts": 101}, {"base_s": -1.0}, {"budget_share": -0.1}])
def test_retries_refuse_what_makes_no_sense(wrong: dict[str, float]):
    with pytest.raises(ValueError, match=r"attempts|retries"):
        RetryConfig(**wrong)  # type: ignore[arg-type]
