"""Promises: told waits are true, and clients that keep to them get through."""

import heapq
import random
from dataclasses import dataclass, field

import pytest

from qwenbox.gateway.counters.base import CountersConfig, Lease, Used
from qwenbox.gateway.counters.memory import MemoryCounters
from qwenbox.terms.errors import ApiError, ErrorKind
from support.asks import Bank, ask, window
from support.clocks import StillClock
from support.stepping import now as done

WINDOW_S = 5.0
MAX_RETRIES = 5


def told_s(counting: MemoryCounters, *, requests: int | None = None, tokens: int | None = None, need: int = 2, mark: int = 0) -> float:
    with pytest.raises(ApiError) as refused:
        done(counting.reserve(ask(window(requests=requests, tokens=tokens), tokens=(need, 0), mark=mark)))
    assert refused.value.retry_after_s is not None
    return refused.value.retry_after_s


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def counting(clock: StillClock) -> MemoryCounters:
    return MemoryCounters(CountersConfig(window_s=60.0), clock, Bank().load)


def test_promises_lapse_when_nobody_comes_for_them(counting: MemoryCounters, clock: StillClock) -> None:
    done(counting.reserve(ask(window(requests=1))))
    assert pytest.approx([60.0, 120.0, 180.0], abs=0.2) == [told_s(counting, requests=1) for _ in range(3)]
    clock.advance(183.0)
    done(counting.reserve(ask(window(requests=1))))
    assert told_s(counting, requests=1) == pytest.approx(60.0, abs=0.01)


def test_promise_is_kept_by_whoever_comes_first_at_its_moment(counting: MemoryCounters, clock: StillClock) -> None:
    done(counting.reserve(ask(window(requests=1))))
    first = told_s(counting, requests=1)
    assert told_s(counting, requests=1) == pytest.approx(120.0, abs=0.2)
    clock.advance(first)
    done(counting.reserve(ask(window(requests=1))))
    # Who was told 120 s is still first; the next one comes a window later.
    assert told_s(counting, requests=1) == pytest.approx(120.0, abs=0.2)


def test_caller_whose_client_waits_no_longer_than_8_s_is_told_the_same_moment_again(counting: MemoryCounters, clock: StillClock) -> None:
    for _ in range(2):
        done(counting.reserve(ask(window(requests=2))))
    first = told_s(counting, requests=2)
    for passed_s in (8.0, 16.0, 24.0):
        clock.advance(8.0)
        assert told_s(counting, requests=2) == pytest.approx(first - passed_s, abs=0.01)
    clock.advance(1.0)
    assert told_s(counting, requests=2) == pytest.approx(35.0, abs=0.01)  # another one: the second place
    assert told_s(counting, requests=2) == pytest.approx(95.0, abs=0.2)


def test_place_is_kept_for_the_call_it_was_promised_to_when_a_newcomer_is_faster(counting: MemoryCounters, clock: StillClock) -> None:
    limit = window(requests=1)
    done(counting.reserve(ask(limit, mark=1)))
    clock.advance(told_s(counting, requests=1, mark=2))
    assert told_s(counting, requests=1, mark=3) == pytest.approx(60.0, abs=0.1)
    done(counting.reserve(ask(limit, mark=2)))


def test_tokens_are_kept_for_the_call_they_were_promised_to_when_a_newcomer_is_faster(counting: MemoryCounters, clock: StillClock) -> None:
    limit = window(tokens=100)
    done(counting.reserve(ask(limit, tokens=(100, 0), mark=1)))
    clock.advance(told_s(counting, tokens=100, need=70, mark=2))
    with pytest.raises(ApiError) as refused:
        done(counting.reserve(ask(limit, tokens=(31, 0), mark=3)))
    assert refused.value.kind is ErrorKind.QUOTA_EXHAUSTED
    done(counting.reserve(ask(limit, tokens=(30, 0), mark=4)))
    done(counting.reserve(ask(limit, tokens=(70, 0), mark=2)))


def test_place_is_kept_for_a_moment_only(counting: MemoryCounters, clock: StillClock) -> None:
    limit = window(requests=1)
    done(counting.reserve(ask(limit, mark=1)))
    clock.advance(told_s(counting, requests=1, mark=2) + 0.3)
    done(counting.reserve(ask(limit, mark=3)))
    # The late one has lost its place, and is told the next.
    assert told_s(counting, requests=1, mark=2) == pytest.approx(60.0, abs=0.1)


def test_call_that_comes_early_takes_no_place_that_is_somebody_elses(counting: MemoryCounters, clock: StillClock) -> None:
    limit = window(requests=1)
    done(counting.reserve(ask(limit, mark=1)))
    clock.advance(52.0)
    assert told_s(counting, requests=1, mark=2) == pytest.approx(8.0, abs=0.01)
    clock.advance(0.05)
    far = told_s(counting, requests=1, mark=3)
    clock.advance(8.0)
    assert told_s(counting, requests=1, mark=3) == pytest.approx(far - 8.0, abs=0.01)
    done(counting.reserve(ask(limit, mark=2)))


def test_tokens_promised_to_others_count(counting: MemoryCounters, clock: StillClock) -> None:
    for _ in range(4):
        done(counting.reserve(ask(window(tokens=100), tokens=(25, 0))))
        clock.advance(10.0)
    waits = [told_s(counting, tokens=100, need=need) for need in (20, 10, 45, 26)]
    assert pytest.approx([20.0, 30.0, 40.0, 80.0], abs=0.2) == waits


def test_clients_that_do_not_wait_cannot_push_the_moment_out_without_end(counting: MemoryCounters, clock: StillClock) -> None:
    for _ in range(10):
        done(counting.reserve(ask(window(requests=10, tokens=100), tokens=(10, 0))))
    waits = []
    for _ in range(2_000):
        clock.advance(0.001)
        waits.append(told_s(counting, requests=10, tokens=100, need=10))
    assert max(waits) < 5.5 * 60.0


def test_limits_admit_at_least_99_percent_when_clients_never_stop_asking(counting: MemoryCounters, clock: StillClock) -> None:
    admitted = 0
    for _ in range(30_000):
        clock.advance(0.01)
        try:
            lease = done(counting.reserve(ask(window(requests=100, tokens=10_000), tokens=(40, 60))))
        except ApiError:
            continue
        admitted += 1
        done(counting.settle(lease, Used(tokens=100)))
    assert 500 * 0.99 <= admitted <= 500


@dataclass(order=True)
class Step:
    """A client's next step. lease: the call ends; else it asks, after `tries` refusals. mark: the call's, in all its tries."""

    at: float
    client: int
    tries: int = field(default=0, compare=False)
    mark: int = field(default=0, compare=False)
    lease: Lease | None = field(default=None, compare=False)


@dataclass
class Loop:
    """Clients that call again as soon as they are answered, and wait as they are told, but never longer than their SDK lets them."""

    limit: int
    think_s: float
    longest_s: float
    clients: int = 20
    by_tokens: bool = False
    is_marked: bool = True
    start_s: float = 3.0
    latency_s: float = 0.01
    duration_s: float = 0.02
    most_tries: int = 0
    calls: int = 0
    admitted: int = 0

    def run(self, seconds_s: float, rng: random.Random) -> None:
        clock = StillClock()
        start, counting = clock.steady_s, MemoryCounters(CountersConfig(window_s=WINDOW_S), clock, Bank().load)
        steps = [Step(start + rng.random() * self.start_s, number, mark=self._mark()) for number in range(self.clients)]
        heapq.heapify(steps)
        while steps[0].at < start + seconds_s:
            step = heapq.heappop(steps)
            clock.advance(max(0.0, step.at - clock.steady_s))
            heapq.heappush(steps, self._next(step, counting, rng))

    def _next(self, step: Step, counting: MemoryCounters, rng: random.Random) -> Step:
        late_s = rng.random() * self.latency_s
        if step.lease is not None:
            done(counting.settle(step.lease, Used(tokens=100)))
            return Step(step.at + self.think_s + late_s, step.client, mark=self._mark())
        limit = window(tokens=self.limit * 100) if self.by_tokens else window(requests=self.limit)
        try:
            lease = done(counting.reserve(ask(limit, tokens=(50, 50), mark=step.mark)))
        except ApiError as error:
            assert error.retry_after_s is not None
            return Step(step.at + min(self.longest_s, error.retry_after_s) + late_s, step.client, step.tries + 1, step.mark)
        self.admitted += 1
        self.most_tries = max(self.most_tries, step.tries)
        return Step(step.at + self.duration_s, step.client, lease=lease)

    def _mark(self) -> int:
        self.calls += 1
        return self.calls if self.is_marked else 0


@pytest.mark.parametrize("longest_s", [8.0, 120.0], ids=["dashscope", "openai"])
@pytest.mark.parametrize("by_tokens", [False, True], ids=["requests", "tokens"])
@pytest.mark.parametrize("start_s", [0.01, 3.0], ids=["at-once", "one-by-one"])
@pytest.mark.parametrize(("limit", "think_s"), [(10, 0.0), (10, 1.2), (10, 2.5), (10, 4.9), (20, 0.0), (20, 2.5), (40, 0.0)])
def test_clients_need_at_most_5_retries_when_20_of_them_ask_for_twice_the_limit(
    limit: int, think_s: float, start_s: float, by_tokens: bool, longest_s: float
) -> None:
    for seed in range(2):
        loop = Loop(limit=limit, think_s=think_s, start_s=start_s, longest_s=longest_s, by_tokens=by_tokens)
        loop.run(60.0, random.Random(seed))
        assert loop.most_tries <= MAX_RETRIES
        # Neither the first window nor the last is whole; each round comes later by what clients are late.
        assert loop.admitted >= 0.98 * limit * (60.0 - WINDOW_S - start_s) / WINDOW_S


@pytest.mark.parametrize("longest_s", [8.0, 120.0], ids=["dashscope", "openai"])
@pytest.mark.parametrize("limit", [10, 20, 40])
def test_clients_need_at_most_5_retries_when_their_calls_are_not_known_but_they_start_together(limit: int, longest_s: float) -> None:
    loop = Loop(limit=limit, think_s=0.0, start_s=0.01, longest_s=longest_s, is_marked=False)
    loop.run(60.0, random.Random(1))
    assert loop.most_tries <= MAX_RETRIES
