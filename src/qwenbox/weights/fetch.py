"""This is where one pull keeps what its sources share: the entry, the growing file, and the meter people watch."""

import time
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from qwenbox.weights.entry import Phase, Progress, Source, WeightsEntry
from qwenbox.weights.landing import Landing

ProgressCallback: TypeAlias = Callable[[Progress], None]
REPORT_EVERY_S = 0.1
RATE_WINDOW_S = 5.0


class SourceFailed(Exception):
    """This source did not deliver; the next one may. Never leaves the package. str(): the reason, for people."""


class Meter:
    """Turns byte counts into Progress, at most ten times a second, never running backwards within a source."""

    def __init__(self, name: str, progress: ProgressCallback, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.total_bytes: int | None = None
        self._name = name
        self._progress = progress
        self._monotonic = monotonic
        self._phase = Phase.FETCHING
        self._source: Source | None = None
        self._done_bytes = 0
        self._reported_at = float("-inf")
        self._samples: deque[tuple[float, int]] = deque()

    def begin(self, phase: Phase, source: Source | None, done_bytes: int) -> None:
        """A new phase or source starts at `done_bytes`; reported at once."""
        self._phase, self._source, self._done_bytes = phase, source, done_bytes
        self._samples.clear()
        self._report()

    def at(self, done_bytes: int) -> None:
        self._done_bytes = max(self._done_bytes, done_bytes)
        if self._monotonic() - self._reported_at >= REPORT_EVERY_S:
            self._report()

    def _report(self) -> None:
        now = self._reported_at = self._monotonic()
        self._samples.append((now, self._done_bytes))
        while now - self._samples[0][0] > RATE_WINDOW_S and len(self._samples) > 2:
            self._samples.popleft()
        began_at, began_bytes = self._samples[0]
        rate = (self._done_bytes - began_bytes) / (now - began_at) if now > began_at else 0.0
        self._progress(
            Progress(
                name=self._name,
                phase=self._phase,
                source=self._source,
                done_bytes=self._done_bytes,
                total_bytes=self.total_bytes,
                rate_bytes_s=rate,
            )
        )


class Fetch:
    """One pull under way, as its sources see it."""

    def __init__(self, entry: WeightsEntry, landing: Landing, meter: Meter) -> None:
        self.entry = entry
        self.landing = landing
        self.meter = meter
        meter.total_bytes = entry.bytes or None
