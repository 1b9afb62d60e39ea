"""This is where retries of one deployment are kept few, so that a server in trouble is not buried under its own failures."""

from qwenbox.clock import Clock
from qwenbox.gateway.attempts.policy import RetryConfig

# What the floor fills in at most: a handful of failures in a row is no trouble yet.
MOST_SAVED = 10.0
# … and so many calls' shares lie above it: calls begin before their failures come, many of them at once.
MOST_CALLS = 100


class Budget:
    """A purse of retries: each call puts a share of one in, time puts in the floor, each retry takes one out."""

    __slots__ = ("_clock", "_filled_at_s", "_floor_per_s", "_most", "_saved", "_share")

    def __init__(self, config: RetryConfig, clock: Clock) -> None:
        self._share = config.budget_share
        self._floor_per_s = config.budget_floor_per_s
        self._clock = clock
        self._filled_at_s = clock.monotonic()
        self._saved = MOST_SAVED
        self._most = MOST_SAVED + config.budget_share * MOST_CALLS

    def earn(self) -> None:
        """A call came for the first time."""
        self._saved = min(self._saved + self._share, self._most)

    def take(self) -> bool:
        """One retry, if there is one left."""
        now = self._clock.monotonic()
        if self._saved < MOST_SAVED:
            self._saved = min(self._saved + (now - self._filled_at_s) * self._floor_per_s, MOST_SAVED)
        self._filled_at_s = now
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True
