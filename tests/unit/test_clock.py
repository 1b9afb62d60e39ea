"""The test clock: time that can be moved, and who sleeps by it wakes."""

import anyio
import pytest

from qwenbox.clock import SystemClock, TestClock

pytestmark = pytest.mark.anyio


class Still:
    """A clock that stands; whoever sleeps by it sleeps for ever."""

    def __init__(self) -> None:
        self.sleeping = anyio.Event()

    def now(self) -> float:
        return 1_000.0

    def monotonic(self) -> float:
        return 50.0

    async def sleep(self, seconds_s: float) -> None:
        self.sleeping.set()
        await anyio.sleep_forever()


async def test_clock_is_ahead_by_what_it_was_moved() -> None:
    clock = TestClock(Still())
    clock.reach(60.5)
    assert (1_060.5, 110.5, 60.5) == (clock.now(), clock.monotonic(), clock.offset_s)


async def test_clock_never_goes_back() -> None:
    clock = TestClock(Still())
    clock.reach(60.0)
    clock.reach(10.0)
    assert 60.0 == clock.offset_s


async def test_sleep_ends_when_the_clock_is_moved_past_it() -> None:
    base = Still()
    clock = TestClock(base)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(clock.sleep, 3_600.0)
        await base.sleeping.wait()
        clock.reach(3_600.0)
    assert 3_600.0 == clock.offset_s


async def test_sleep_goes_on_when_the_clock_is_moved_short_of_it() -> None:
    base, woken = Still(), anyio.Event()
    clock = TestClock(base)

    async def sleeper() -> None:
        await clock.sleep(100.0)
        woken.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sleeper)
        await base.sleeping.wait()
        base.sleeping = anyio.Event()
        clock.reach(99.0)
        # It fell asleep again, for what is left.
        await base.sleeping.wait()
        assert not woken.is_set()
        clock.reach(100.0)
        await woken.wait()


async def test_sleep_ends_when_it_is_moved_before_it_has_begun() -> None:
    clock = TestClock(Still())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(clock.sleep, 10.0)
        # The sleeper has not run yet, and will sleep from the moment it does.
        clock.reach(5.0)
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        clock.reach(15.0)


async def test_sleep_lasts_by_itself_when_nobody_moves_the_clock() -> None:
    clock = TestClock(SystemClock())
    begun = clock.monotonic()
    await clock.sleep(0.02)
    assert clock.monotonic() - begun >= 0.02
