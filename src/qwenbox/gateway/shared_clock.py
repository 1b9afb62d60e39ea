"""This is where the test clocks of all processes on one database keep together; only in a box started for testing."""

import logging

from qwenbox.clock import Clock, TestClock
from qwenbox.gateway.settings import Settings
from qwenbox.terms.errors import ApiError

_LOG = logging.getLogger("qwenbox.clock")

# A process hears within this time of what another one did to the clock.
FOLLOW_S = 0.5

# What one request may skip: a century. More is a slip, and dates end somewhere.
MOST_ADVANCE_S = 100 * 366 * 86_400.0

_OFFSET = "test_clock_offset_ms"


class SharedClock:
    """Moves a TestClock and tells the others. The offset is the database's: a restart goes on where time was.

    real: the clock below, for waiting between two looks at what others did.
    """

    def __init__(self, settings: Settings, clock: TestClock, real: Clock) -> None:
        self.clock = clock
        self._settings = settings
        self._real = real

    async def advance(self, seconds_s: float) -> None:
        """Move time forward; here at once, in other processes within FOLLOW_S."""
        self.clock.reach(await self._settings.add(_OFFSET, round(seconds_s * 1000)) / 1000)

    async def refresh(self) -> None:
        """Catch up with what others did; also the first thing after opening."""
        self.clock.reach(int(await self._settings.get(_OFFSET) or 0) / 1000)

    async def follow(self) -> None:
        """Refresh for ever; run by whoever owns the box's background tasks. An outage keeps what was known."""
        _LOG.warning("FOR TESTING ONLY: whoever has the admin key can move this box's time (QWENBOX_TESTING, [testing] clock).")
        while True:
            await self._real.sleep(FOLLOW_S)
            try:
                await self.refresh()
            except ApiError:
                continue
