"""This is where time comes from, so that tests can hold it still."""

import time
from typing import Protocol

import anyio
import msgspec


class TestingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[testing]`, for people who test their own programs against a box. clock: the admin API may move the box's time forward.

    skew_s: by how much this process's idea of the time of day is wrong, as a node's may be; nothing that is exact may depend on it.
    """

    __test__ = False  # its name makes pytest take it for a test

    clock: bool = False
    skew_s: float = 0.0


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards; only differences mean anything."""
        ...

    async def sleep(self, seconds_s: float) -> None: ...


class SystemClock:
    """The machine's own. skew_s: added to its time of day."""

    def __init__(self, skew_s: float = 0.0) -> None:
        self._skew_s = skew_s

    def now(self) -> float:
        return time.time() + self._skew_s

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds_s: float) -> None:
        await anyio.sleep(seconds_s)


class TestClock:
    """Another clock's time and an offset on top that only grows: windows, budgets and expiries pass as fast as one likes.

    Who sleeps by it is woken when the offset reaches its moment. For one event loop; never for a box that earns money.
    """

    __test__ = False  # as above

    def __init__(self, base: Clock) -> None:
        self._base = base
        self._offset_s = 0.0
        self._moved = anyio.Event()

    @property
    def offset_s(self) -> float:
        """How far this clock is ahead of the one below it."""
        return self._offset_s

    def now(self) -> float:
        return self._base.now() + self._offset_s

    def monotonic(self) -> float:
        return self._base.monotonic() + self._offset_s

    def reach(self, offset_s: float) -> None:
        """Be at least this far ahead; time never runs backwards, so a smaller offset changes nothing."""
        if offset_s > self._offset_s:
            self._offset_s = offset_s
            self._moved.set()
            self._moved = anyio.Event()

    async def sleep(self, seconds_s: float) -> None:
        until = self.monotonic() + seconds_s
        while True:
            await self._nap(until - self.monotonic())
            if self.monotonic() >= until:
                return

    async def _nap(self, seconds_s: float) -> None:
        """Until the clock below has run that long, or this one was moved."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_wake, self._moved, tasks.cancel_scope)
            await self._base.sleep(max(seconds_s, 0.0))
            tasks.cancel_scope.cancel()


async def _wake(moved: anyio.Event, nap: anyio.CancelScope) -> None:
    await moved.wait()
    nap.cancel()
