"""This is where a deployment that keeps failing is left alone for a while, and asked again by one call at a time."""

from enum import StrEnum

import msgspec

from qwenbox.clock import Clock

_SLICES = 10


class BreakerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[breaker]`, of each deployment that is somebody else's server.

    It opens when at least `failure_share` of the attempts of the last `window_s` failed, and there were at least `least_attempts`;
    failure_share above 1 switches it off. After `open_s` one call may probe: its success closes the breaker, its failure opens it again.
    """

    failure_share: float = 0.6
    least_attempts: int = 20
    window_s: float = 30.0
    open_s: float = 5.0

    def __post_init__(self) -> None:
        if self.failure_share <= 0 or self.least_attempts < 1 or self.window_s <= 0 or self.open_s <= 0:
            raise ValueError("failure_share, window_s and open_s must be above 0, least_attempts at least 1")


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


class Breaker:
    """Of one deployment. Whoever was let in by `enter` says how it went, by one of `succeeded`, `failed` and `left`; and by `broke` when
    what had succeeded failed after all."""

    __slots__ = ("_clock", "_config", "_counts", "_opened_at_s", "_slice", "_slice_s", "state")

    def __init__(self, config: BreakerConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._slice_s = config.window_s / _SLICES
        self._opened_at_s = 0.0
        self._clear()
        self.state = State.CLOSED

    def _clear(self) -> None:
        # Attempts and failures of each slice of the window, the current one's place, and when that began.
        self._counts = [[0, 0] for _ in range(_SLICES)]
        self._slice = self._now_slice()

    @property
    def open_for_s(self) -> float:
        """Seconds until a probe may go; 0 when one may now, or when nothing is wrong."""
        if self.state is not State.OPEN:
            return 0.0
        return max(self._opened_at_s + self._config.open_s - self._clock.monotonic(), 0.0)

    @property
    def lets_in(self) -> bool:
        """Whether `enter` would."""
        return self.state is State.CLOSED or (self.state is State.OPEN and self.open_for_s <= 0)

    def enter(self) -> bool:
        """Whether a call may go; when the time of being open is over, the first that asks is the probe."""
        if self.state is State.CLOSED:
            return True
        if not self.lets_in:
            return False
        self.state = State.PROBING
        return True

    def succeeded(self) -> None:
        if self.state is State.CLOSED:
            self._count()[0] += 1
        elif self.state is State.PROBING:
            self.state = State.CLOSED
            self._clear()

    def failed(self) -> None:
        if self.state is State.PROBING:
            self._open()
        if self.state is State.OPEN:
            return
        self._count()[0] += 1
        self._fail()

    def broke(self) -> None:
        """An answer that had begun, so that its attempt is counted already, failed half-way."""
        if self.state is State.CLOSED:
            self._fail()

    def left(self) -> None:
        """The attempt ended before it could tell: its caller hung up, or lost patience of his own."""
        if self.state is State.PROBING:
            self.state = State.OPEN  # for no longer than before: the next call may probe

    def _fail(self) -> None:
        self._count()[1] += 1
        attempts, failures = (sum(column) for column in zip(*self._counts, strict=True))
        # Attempts may have left the window, or been forgotten, before their answers broke.
        attempts = max(attempts, failures)
        if attempts >= self._config.least_attempts and failures >= self._config.failure_share * attempts:
            self._open()

    def _open(self) -> None:
        self.state = State.OPEN
        self._opened_at_s = self._clock.monotonic()
        self._clear()

    def _now_slice(self) -> int:
        return int(self._clock.monotonic() / self._slice_s)

    def _count(self) -> list[int]:
        """The current slice's counts, with those forgotten that left the window."""
        now = self._now_slice()
        if now != self._slice:
            for passed in range(max(self._slice + 1, now - _SLICES + 1), now + 1):
                self._counts[passed % _SLICES] = [0, 0]
            self._slice = now
        return self._counts[now % _SLICES]
