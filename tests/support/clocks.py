"""A clock that moves only when it is told to, and whose wall time can jump alone."""

import anyio.lowlevel


class StillClock:
    def __init__(self, wall_s: float = 1_800_000_000.0) -> None:
        self.wall_s = wall_s
        self.steady_s = 1_000.0

    def now(self) -> float:
        return self.wall_s

    def monotonic(self) -> float:
        return self.steady_s

    def advance(self, seconds_s: float) -> None:
        self.wall_s += seconds_s
        self.steady_s += seconds_s

    async def sleep(self, seconds_s: float) -> None:
        self.advance(seconds_s)
        await anyio.lowlevel.checkpoint()
