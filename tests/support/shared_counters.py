"""Counters of several processes for tests: each `node` is what one worker has, on a real Valkey."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import anyio
import msgspec
import pytest

from qwenbox.clock import Clock, SystemClock, TestClock
from qwenbox.gateway.counters.base import Counters, CountersConfig, Lease, PurseState
from qwenbox.gateway.counters.members import Books, Setting, ValkeyConfig
from qwenbox.gateway.counters.scripts import SCRIPTS
from qwenbox.gateway.counters.shared import SharedCounters
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret
from qwenbox.valkey.store import Store, open_store
from support import valkey
from support.asks import Bank, ask

Load = Callable[[tuple[str, ...]], Awaitable[tuple[PurseState, ...]]]


async def nothing_settled(ids: tuple[str, ...]) -> dict[str, int]:
    return {}


async def no_purses(ids: tuple[str, ...]) -> tuple[PurseState, ...]:
    return ()


NO_BOOKS = Books(load=no_purses, settled=nothing_settled)

# Deaths are noticed quickly, but not while a busy machine lets all of a test's processes wait.
QUICK = {"beat_s": 0.05, "dead_s": 1.5}


class SkewedClock(SystemClock):
    """A machine whose clock is wrong by so much."""

    def __init__(self, skew_s: float) -> None:
        self._skew_s = skew_s

    def now(self) -> float:
        return super().now() + self._skew_s


def setting(url: str, counters: CountersConfig | None = None, **valkey: object) -> Setting:
    """Nothing warms up unless asked for; keys of its own."""
    config = ValkeyConfig(url=Secret(url), prefix=uuid4().hex, warm_s=0.0)
    return Setting(counters=counters or CountersConfig(), valkey=msgspec.structs.replace(config, **valkey))


class Node:
    """One worker. `crash` ends it as kill -9 would: nothing is given back, nobody says that it lives."""

    def __init__(self, counters: SharedCounters, store: Store, tasks: anyio.abc.TaskGroup) -> None:
        self.counters = counters
        self.store = store
        self._tasks = tasks

    def crash(self) -> None:
        self._tasks.cancel_scope.cancel()


@asynccontextmanager
async def node(setting: Setting, books: Books = NO_BOOKS, clock: Clock | None = None) -> AsyncGenerator[Node]:
    async with open_store(setting.valkey, SCRIPTS) as store, anyio.create_task_group() as tasks:
        counters = SharedCounters(setting, store, clock or TestClock(SystemClock()), books)
        tasks.start_soon(counters.follow)
        yield Node(counters, store, tasks)
        tasks.cancel_scope.cancel()


def settled_by(bank: Bank) -> Books:
    return Books(load=bank.load, settled=nothing_settled)


async def refusal(counters: Counters, *parts: object, **worst: object) -> ApiError:
    with pytest.raises(ApiError) as raised:
        await counters.reserve(ask(*parts, **worst))  # type: ignore[arg-type]
    return raised.value


async def until_admitted(counters: Counters, *parts: object, **worst: object) -> Lease:
    """Tries again for as long as the answer is 503."""
    with anyio.fail_after(60):
        while True:
            try:
                return await counters.reserve(ask(*parts, **worst))  # type: ignore[arg-type]
            except ApiError as error:
                assert error.kind is ErrorKind.OVERLOADED
                await anyio.sleep(0.02)


async def until_free(counters: Counters, *parts: object, **worst: object) -> Lease:
    """Tries again for as long as it is refused."""
    with anyio.fail_after(60):
        while True:
            try:
                return await counters.reserve(ask(*parts, **worst))  # type: ignore[arg-type]
            except ApiError:
                await anyio.sleep(0.02)


async def until(is_so: Callable[[], bool]) -> None:
    with anyio.fail_after(60):
        while True:
            if is_so():
                return
            await anyio.sleep(0.01)


async def lose(server: valkey.Server, *nodes: Node) -> None:
    server.kill()
    with anyio.fail_after(60):
        for one in nodes:
            await one.store.wait_down()
