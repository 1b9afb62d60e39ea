"""This is where the children of an embedded engine are used: loaded on the first call, counted in memory, unloaded when idle.

With several workers the parent has the `ChildLane`s, and a worker's engine reaches them through its link (workers/turns.py).
"""

import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, Self

import anyio
import anyio.abc
import msgspec

from qwenbox.clock import Clock
from qwenbox.engines.child import Child, ChildCommand, ChildConfig
from qwenbox.engines.llamacpp.config import Endpoint, LlamaCppConfig, Loadable, Serves
from qwenbox.engines.memory import MemoryBudget
from qwenbox.terms.engine import HealthState
from qwenbox.terms.gauges import ChildState
from qwenbox.terms.secret import Secret

MODULE: Final = "qwenbox.children.llama"
# Beside weights and KV cache: interpreter, compute buffers and logits of one batch; measured 150 to 250 MB.
OVERHEAD_BYTES: Final = 250_000_000
# What looking at one picture of the usual size takes, beside the projector itself.
PICTURE_BYTES: Final = 400_000_000


class ChildSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The line the child reads; fields as in children/llama.py."""

    parent_pid: int
    model: str
    projector: str
    marker: str
    key: str
    context_tokens: int
    slots: int
    threads: int
    batch_tokens: int
    is_prompt_cached: bool
    cache_mib: int
    nice: int
    pooling: str = ""


class LaneConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What sets one lane apart from another. kv_tokens: of its pool; with 0 slots' worth of cache a prompt is always read anew."""

    name: str
    slots: int
    kv_tokens: int
    threads: int
    batch_tokens: int
    cache_mib: int
    nice: int
    spin_count: int
    idle_unload_s: float
    child: ChildConfig
    pooling: str = ""


class ChildLanes:
    """The lanes of one engine's own children; leaving the context ends them. Build it inside the event loop."""

    def __init__(self, config: LlamaCppConfig, title: str, memory: MemoryBudget, clock: Clock) -> None:
        self._tasks = anyio.create_task_group()
        self.shared = ChildLane(_shared(config, title), memory, self._tasks, clock)
        self.exact = ChildLane(_exact(config, title), memory, self._tasks, clock)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._tasks.start_soon(self.shared.unload_when_idle)
        self._tasks.start_soon(self.exact.unload_when_idle)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with anyio.CancelScope(shield=True):
            await self.shared.close()
            await self.exact.close()
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)  # with the error it would come out wrapped in a group

    def states(self) -> tuple[ChildState, ...]:
        return self.shared.child("shared"), self.exact.child("exact")


class ChildLane:
    """One child and who uses it. A tenant of the memory budget while it is loaded."""

    def __init__(self, config: LaneConfig, memory: MemoryBudget, tasks: anyio.abc.TaskGroup, clock: Clock) -> None:
        environment = {"GOMP_SPINCOUNT": str(config.spin_count)}
        command = ChildCommand(name=config.name, module=MODULE, environment=environment)
        self._config = config
        self._memory = memory
        self._clock = clock
        self._child = Child(command, config.child, tasks, clock)
        self._key = Secret("")
        self._marker = ""
        self._lock = anyio.Lock()
        self._users = 0
        self._last_used_s = clock.monotonic()

    @property
    def is_ready(self) -> bool:
        return self._child.is_ready

    def child(self, role: str) -> ChildState:
        return self._child.state(role)

    async def state(self) -> HealthState:
        if self._child.is_ready:
            return HealthState.READY
        return HealthState.STARTING if self._child.is_starting else HealthState.IDLE

    @property
    def is_idle(self) -> bool:
        return self._users == 0

    @property
    def last_used_s(self) -> float:
        return self._last_used_s

    @property
    def pid(self) -> int | None:
        return self._child.pid

    @property
    def log(self) -> str:
        return self._child.log

    @asynccontextmanager
    async def use(self, weights: Loadable) -> AsyncGenerator[Endpoint]:
        self._users += 1
        try:
            yield await self.endpoint(weights)
        finally:
            self._users -= 1
            self._last_used_s = self._clock.monotonic()

    async def unload(self) -> bool:
        if self._users:
            return False
        try:
            self._lock.acquire_nowait()
        except anyio.WouldBlock:
            return False
        try:
            await self._child.stop()
            self._memory.release(self)
            return True
        finally:
            self._lock.release()

    async def unload_when_idle(self) -> None:
        """Runs for as long as the engine does."""
        while True:
            left_s = self._last_used_s + self._config.idle_unload_s - self._clock.monotonic()
            if self._users == 0 and left_s <= 0:
                await self.unload()
            await self._clock.sleep(max(min(left_s, self._config.idle_unload_s), 0.1 * self._config.idle_unload_s, 0.01))

    async def close(self) -> None:
        """End the child, whoever uses it."""
        await self._child.stop()
        self._memory.release(self)

    async def endpoint(self, weights: Loadable) -> Endpoint:
        async with self._lock:
            if not self._child.is_ready:
                own_bytes = self._config.kv_tokens * weights.kv_bytes_per_token + self._config.cache_mib * 2**20 + OVERHEAD_BYTES
                if weights.projector:  # read into memory, not mapped
                    own_bytes += weights.projector_bytes + PICTURE_BYTES
                await self._memory.claim(self, own_bytes, {str(weights.path): weights.size_bytes})
            ready = await self._child.ready(lambda: self._settings(weights))
            return Endpoint(address=ready.address, key=self._key, marker=self._marker)

    def _settings(self, weights: Loadable) -> bytes:
        key = secrets.token_urlsafe(32)
        self._key = Secret(key)
        self._marker = f"<__media_{secrets.token_hex(16)}__>"
        config = self._config
        settings = ChildSettings(
            parent_pid=os.getpid(),
            model=str(weights.path),
            projector=weights.projector,
            marker=self._marker,
            key=key,
            context_tokens=config.kv_tokens,
            slots=config.slots,
            threads=config.threads,
            batch_tokens=config.batch_tokens,
            is_prompt_cached=config.cache_mib > 0,
            cache_mib=config.cache_mib,
            nice=config.nice,
            pooling=config.pooling,
        )
        return msgspec.json.encode(settings)


def _shared(config: LlamaCppConfig, title: str) -> LaneConfig:
    return LaneConfig(
        name=title,
        slots=config.slots,
        kv_tokens=config.kv_tokens,
        threads=config.thread_count,
        batch_tokens=config.batch_tokens,
        cache_mib=config.prompt_cache_mib,
        nice=config.nice,
        spin_count=config.spin_count,
        idle_unload_s=config.idle_unload_s,
        child=config.child,
        pooling="" if config.serves is Serves.TEXT else "rank" if config.serves is Serves.RERANK else config.pooling or "model",
    )


def _exact(config: LlamaCppConfig, title: str) -> LaneConfig:
    return LaneConfig(
        name=f"{title} (seeds)",
        slots=1,
        kv_tokens=config.context_tokens,
        threads=config.thread_count,
        batch_tokens=config.batch_tokens,
        cache_mib=0,
        nice=config.seed_nice,
        spin_count=config.spin_count,
        idle_unload_s=config.seed_idle_unload_s,
        child=config.child,
    )
