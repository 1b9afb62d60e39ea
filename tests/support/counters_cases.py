"""The implementations of Counters that the contract suite runs over. A new one is one more `CountersCase` in CASES.

Tests measure time in parts of `window_s`, because a case that counts by somebody else's clock has to wait for real.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from qwenbox.clock import SystemClock, TestClock
from qwenbox.gateway.counters.base import Counters, CountersConfig, PurseState
from qwenbox.gateway.counters.members import Books
from qwenbox.gateway.counters.memory import MemoryCounters
from support import shared_counters, valkey
from support.clocks import StillClock

Load = Callable[[tuple[str, ...]], Awaitable[tuple[PurseState, ...]]]


@dataclass
class World:
    """Counters and the way to let time pass for them."""

    counters: Counters
    pass_time: Callable[[float], Awaitable[None]]


@dataclass(frozen=True)
class CountersCase:
    """slack_s: by how much a told wait may differ from the exact one, here."""

    name: str
    window_s: float
    slack_s: float
    open: Callable[[CountersConfig, Load], AbstractAsyncContextManager[World]]

    def __str__(self) -> str:
        return self.name


@asynccontextmanager
async def _memory(config: CountersConfig, load: Load) -> AsyncGenerator[World]:
    clock = StillClock()
    yield World(counters=MemoryCounters(config, clock, load), pass_time=clock.sleep)


@asynccontextmanager
async def _valkey(config: CountersConfig, load: Load) -> AsyncGenerator[World]:
    clock = TestClock(SystemClock())

    async def pass_time(seconds_s: float) -> None:
        clock.reach(clock.offset_s + seconds_s)

    async with shared_counters.node(
        shared_counters.setting(valkey.common().url, config), Books(load, shared_counters.nothing_settled), clock
    ) as node:
        yield World(counters=node.counters, pass_time=pass_time)


CASES: tuple[CountersCase, ...] = (
    CountersCase(name="memory", window_s=60.0, slack_s=0.06, open=_memory),
    CountersCase(name="valkey", window_s=60.0, slack_s=1.0, open=_valkey),
)
