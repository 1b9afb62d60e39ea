"""This is where a process counts what its calls did, once for each, at its end.

Plain numbers in plain objects, one look-up for each call; they become Prometheus text only when somebody asks (docs/metrics.md).
"""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable

from qwenbox import __version__
from qwenbox.telemetry import names
from qwenbox.telemetry.names import Family
from qwenbox.telemetry.snapshot import Sample, Snapshot, Spread, sample
from qwenbox.terms.errors import ErrorKind
from qwenbox.terms.timeline import CallRecord, Timeline

# In place of names that somebody outside made up: every label has as many values as the configuration has names.
OTHER = "other"

COMPLETED, HUNG_UP, FAILED, REFUSED = "completed", "hung_up", "failed", "refused"

_LIMITS = {ErrorKind.RATE_LIMITED.value: "requests", ErrorKind.QUOTA_EXHAUSTED.value: "tokens", ErrorKind.OUT_OF_FUNDS.value: "money"}

_MICROS = 1_000_000


class _Histogram:
    __slots__ = ("bounds", "counts", "sum_s")

    def __init__(self, family: Family) -> None:
        self.bounds = family.buckets_s
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum_s = 0.0

    def note(self, value_s: float) -> None:
        self.counts[bisect_left(self.bounds, value_s)] += 1
        self.sum_s += value_s


class _Tally:
    """Calls of one model on one deployment in one lane."""

    __slots__ = ("cached", "duration", "image", "input", "outcomes", "output", "queue", "reasoning", "tpot", "ttft")

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.input = self.cached = self.output = self.reasoning = self.image = 0
        self.ttft = _Histogram(names.TTFT)
        self.tpot = _Histogram(names.TPOT)
        self.duration = _Histogram(names.DURATION)
        self.queue = _Histogram(names.QUEUE)

    def note(self, record: CallRecord, timeline: Timeline) -> None:
        self.outcomes[record.outcome] += 1
        if record.is_cache_hit:
            return
        output_tokens, ttft_s, duration_s = record.output_tokens, record.ttft_s, record.duration_s
        self.input += record.input_tokens
        self.output += output_tokens
        self.cached += record.cached_tokens or 0
        self.reasoning += record.reasoning_tokens or 0
        self.image += record.image_tokens or 0
        self.duration.note(duration_s)
        if timeline.turn_s:
            self.queue.note(timeline.turn_s - timeline.queued_s)
        if ttft_s is not None:
            self.ttft.note(ttft_s)
            if output_tokens > 1:
                self.tpot.note((duration_s - ttft_s) / (output_tokens - 1))

    def samples(self, labels: tuple[str, ...]) -> Iterable[Sample]:
        for outcome, count in self.outcomes.items():
            yield sample(names.CALLS, count, *labels, outcome)
        if sum(self.duration.counts) == 0:
            return
        for kind, tokens in (
            ("input", self.input),
            ("cached", self.cached),
            ("output", self.output),
            ("reasoning", self.reasoning),
            ("image", self.image),
        ):
            yield sample(names.TOKENS, tokens, *labels, kind)

    def spreads(self, labels: tuple[str, ...]) -> Iterable[Spread]:
        for family, histogram in (
            (names.TTFT, self.ttft),
            (names.TPOT, self.tpot),
            (names.DURATION, self.duration),
            (names.QUEUE, self.queue),
        ):
            if any(histogram.counts):
                yield Spread(family.name, labels, tuple(histogram.counts), histogram.sum_s)


class Metrics:
    """Of one process. process: its name among those of the box. models, deployments: names that may be labels.

    gauges: what is to be told of the present moment, asked at each snapshot.
    """

    def __init__(self, process: str, models: frozenset[str] = frozenset(), deployments: frozenset[str] = frozenset()) -> None:
        self._process = process
        self._models = models
        self._deployments = deployments
        self._calls: dict[tuple[str, str, str], _Tally] = {}
        self._requests: Counter[tuple[str, str, str, int, str]] = Counter()
        self._errors: Counter[tuple[str, str]] = Counter()
        self._limits: Counter[str] = Counter()
        self._cache: Counter[tuple[str, str]] = Counter()
        self._micros: Counter[tuple[str, str]] = Counter()
        self._lines: Counter[str] = Counter()
        self._gauges: list[Callable[[], Iterable[Sample]]] = []
        self.in_progress = 0

    def watch(self, gauge: Callable[[], Iterable[Sample]]) -> None:
        """Ask this at each snapshot."""
        self._gauges.append(gauge)

    def model(self, name: str) -> str:
        """The name as a label."""
        return name if name in self._models or not name else OTHER

    def call_ended(self, record: CallRecord, timeline: Timeline) -> None:
        """An observer of `gateway.metering`: the call's row is on its way to the books."""
        model, deployment = record.model, record.deployment
        tally = self._calls.get((model, deployment, record.lane))
        if tally is None:
            model = self.model(model)
            if deployment and deployment not in self._deployments:
                deployment = OTHER
            tally = self._calls.setdefault((model, deployment, record.lane), _Tally())
        tally.note(record, timeline)
        if record.cost_micros:
            self._micros[self.model(record.model), record.currency] += record.cost_micros

    def answered(self, timeline: Timeline, status: int, outcome: str) -> None:
        """An HTTP exchange is over. status: 0 if its client left before it had one."""
        model = self.model(timeline.model)
        self._requests[timeline.dialect, timeline.operation, model, status, outcome] += 1
        if timeline.cache:
            self._cache[model, timeline.cache] += 1
        record = timeline.record
        error = timeline.error or (record.error_kind if record is not None else None)
        if error:
            self._errors[timeline.dialect, error] += 1
            if record is None and error in _LIMITS:
                self._limits[_LIMITS[error]] += 1

    def line_ended(self, is_failed: bool) -> None:
        """A batch line has its result."""
        self._lines[FAILED if is_failed else COMPLETED] += 1

    def snapshot(self) -> Snapshot:
        return Snapshot(
            tuple(self._samples()),
            tuple(spread for labels, tally in self._calls.items() for spread in tally.spreads(labels)),
        )

    def _samples(self) -> Iterable[Sample]:
        for (dialect, operation, model, status, outcome), count in self._requests.items():
            yield sample(names.REQUESTS, count, dialect, operation, model, str(status) if status else "none", outcome)
        yield sample(names.IN_PROGRESS, self.in_progress)
        for (dialect, kind), count in self._errors.items():
            yield sample(names.ERRORS, count, dialect, kind)
        # From 0, so that the first refusal is seen as one by whoever takes differences.
        for limit in _LIMITS.values():
            yield sample(names.LIMIT_REFUSALS, self._limits[limit], limit)
        for labels, tally in self._calls.items():
            yield from tally.samples(labels)
        for (model, state), count in self._cache.items():
            yield sample(names.CACHE, count, model, state)
        for (model, currency), micros in self._micros.items():
            yield sample(names.MONEY, micros / _MICROS, model, currency)
        for outcome in (COMPLETED, FAILED):
            yield sample(names.BATCH_LINES, self._lines[outcome], outcome)
        yield sample(names.CPU, time.process_time(), self._process)
        yield sample(names.MEMORY, _resident_bytes(), self._process)
        yield sample(names.INFO, 1, __version__)
        for gauge in self._gauges:
            yield from gauge()


def _resident_bytes() -> int:
    """0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * 4096
    except OSError:
        return 0
