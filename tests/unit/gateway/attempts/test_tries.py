"""Who is asked, in which order, after what wait, and when it is enough."""

import pytest

from qwenbox.engines.echo.engine import Echo, EchoConfig
from qwenbox.gateway.attempts.breaker import BreakerConfig
from qwenbox.gateway.attempts.policy import RetryConfig
from qwenbox.gateway.attempts.standing import AttemptsConfig, Standings
from qwenbox.gateway.attempts.tries import Tries
from qwenbox.gateway.catalog import Deployment
from qwenbox.terms.engine import Capacity
from qwenbox.terms.errors import ApiError, ErrorKind
from support.clocks import StillClock


class Table:
    """Deployments by name, "up…" somebody else's, and one call's tries over them; `asked` keeps who was, and how long was waited."""

    def __init__(self, *names: str, is_loyal: bool = True, **retries: float) -> None:
        self.clock = StillClock()
        config = AttemptsConfig(
            retries=RetryConfig(**retries),  # type: ignore[arg-type]
            breaker=BreakerConfig(least_attempts=4, open_s=5),
        )
        self.standings = Standings(config, self.clock, draw=lambda: 0.5)
        self.order = [self.standings.of(deployment(name)) for name in names]
        self.is_loyal = is_loyal
        self.asked: list[tuple[str, float]] = []
        self.begin()

    def begin(self) -> None:
        self.asked.clear()
        self.tries = Tries(self.standings, self.order, is_loyal=self.is_loyal)

    def ask(self) -> bool:
        """Returns whether its queue may send the call on."""
        step = self.tries.next()
        self.clock.advance(step.wait_s)
        assert self.tries.begin()
        self.asked.append((step.standing.name, step.wait_s))
        return step.is_spillable

    def fail(self, kind: ErrorKind = ErrorKind.ENGINE_FAILED, retry_after_s: float | None = None) -> None:
        self.ask()
        self.tries.failed(ApiError(kind, retry_after_s=retry_after_s))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.asked]


def deployment(name: str) -> Deployment:
    return Deployment(name=name, engine=Echo(EchoConfig()), counter=None, capacity=Capacity(), is_upstream=name.startswith("up"))


def test_a_failure_that_may_pass_is_tried_again_with_growing_waits_when_there_is_an_order():
    table = Table("up", "other", attempts=3, base_s=1.0)
    for _ in range(3):
        table.fail()
    table.ask()
    assert [("up", 0.0), ("up", 0.5), ("up", 1.0), ("other", 0.0)] == table.asked


def test_equal_deployments_are_asked_before_any_is_asked_twice():
    table = Table("up1", "up2", "up3", is_loyal=False, attempts=2)
    for _ in range(6):
        table.fail()
    assert ["up1", "up2", "up3", "up1", "up2", "up3"] == table.names
    with pytest.raises(ApiError):
        table.tries.next()


def test_what_asks_to_be_left_alone_is_left_for_another():
    table = Table("up", "other", attempts=3)
    table.fail(ErrorKind.RATE_LIMITED, retry_after_s=2)
    table.ask()
    assert [("up", 0.0), ("other", 0.0)] == table.asked


def test_retry_after_is_waited_for_when_nobody_else_is_left():
    table = Table("up", attempts=3, base_s=1.0)
    table.fail(ErrorKind.RATE_LIMITED, retry_after_s=2)
    table.ask()
    assert [("up", 0.0), ("up", 2.5)] == table.asked


def test_a_longer_retry_after_than_is_heeded_ends_it():
    table = Table("up", heeded_s=10)
    table.fail(ErrorKind.RATE_LIMITED, retry_after_s=11)
    with pytest.raises(ApiError) as refused:
        table.tries.next()
    assert (ErrorKind.RATE_LIMITED, 11) == (refused.value.kind, refused.value.retry_after_s)


@pytest.mark.parametrize("kind", [ErrorKind.INVALID_REQUEST, ErrorKind.CONTEXT_TOO_LONG, ErrorKind.CONTENT_REJECTED, ErrorKind.INTERNAL])
def test_the_requests_own_fault_is_not_tried_again(kind: ErrorKind):
    table = Table("up", "other")
    with pytest.raises(ApiError) as refused:
        table.fail(kind)
    assert kind is refused.value.kind


@pytest.mark.parametrize("kind", [ErrorKind.UNAUTHENTICATED, ErrorKind.OUT_OF_FUNDS, ErrorKind.QUOTA_EXHAUSTED])
def test_the_boxes_own_trouble_goes_elsewhere_at_once(kind: ErrorKind):
    table = Table("up", "other")
    table.fail(kind)
    table.fail()
    assert ["up", "other"] == table.names
    with pytest.raises(ApiError):
        table.tries.next()


def test_own_engines_are_asked_once():
    table = Table("own")
    table.fail()
    with pytest.raises(ApiError):
        table.tries.next()


def test_a_spent_budget_goes_elsewhere():
    table = Table("up", "other", attempts=100, budget_share=0, budget_floor_per_s=0, base_s=0)
    for _ in range(3):
        table.fail()
        table.order[0].breaker.succeeded()
        table.order[0].breaker.succeeded()
    while table.order[0].budget.take():
        pass
    table.ask()
    assert ["up", "up", "up", "other"] == table.names


def test_an_open_breaker_is_passed_over_and_probed_later():
    table = Table("up", "other")
    for _ in range(4):
        table.order[0].breaker.failed()
    table.ask()
    assert ["other"] == table.names

    table.clock.advance(5)
    table.begin()
    table.ask()
    assert ["up"] == table.names


def test_open_breakers_everywhere_say_when_to_come_back():
    table = Table("up")
    for _ in range(4):
        table.order[0].breaker.failed()
    table.clock.advance(2)
    with pytest.raises(ApiError) as refused:
        table.tries.next()
    assert (ErrorKind.OVERLOADED, 3.0) == (refused.value.kind, refused.value.retry_after_s)


def test_a_spilled_call_comes_back_when_nobody_else_answers():
    table = Table("own", "up", attempts=1)
    assert table.ask()
    table.tries.spilled(ApiError(ErrorKind.OVERLOADED))
    table.fail()
    assert not table.ask()
    assert ["own", "up", "own"] == table.names
    assert 2 == table.tries.asked
    table.tries.spilled(ApiError(ErrorKind.OVERLOADED))
    with pytest.raises(ApiError):
        table.tries.next()


def test_an_attempt_made_before_anything_was_planned_counts():
    table = Table("up", attempts=2, base_s=1.0)
    table.tries.begun()
    table.tries.failed(ApiError(ErrorKind.ENGINE_FAILED))
    assert not table.ask()
    assert ([("up", 0.5)], 2) == (table.asked, table.tries.asked)
    with pytest.raises(ApiError):
        table.fail()
        table.tries.next()
