"""This is where one child of the embedded engine is used: loaded on the first call, counted in memory, unloaded when idle."""

import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import anyio
import anyio.abc
import msgspec

from qwenbox.clock import Clock
from qwenbox.engines.child import Child, ChildCommand, ChildConfig
from qwenbox.engines.gguf import Gguf
from qwenbox.engines.memory import MemoryBudget
from qwenbox.terms.secret import Secret

MODULE: Final = "qwenbox.children.llama"
# Beside weights and KV cache: interpreter, compute buffers and logits of one batch; measured 150 to 250 MB.
OVERHEAD_BYTES: Final = 250_000_000


class ChildSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The line the child reads; fields as in children/llama.py."""

    parent_pid: int
    model: str
    key: str
    context_tokens: int
    slots: int
    threads: int
    batch_tokens: int
    is_prompt_cached: bool
    cache_mib: int
    nice: int


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


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where the child listens, and the key it asks for."""

    address: str
    key: Secret


class Lane:
    """One child and who uses it. A tenant of the memory budget while it is loaded."""

    def __init__(self, config: LaneConfig, memory: MemoryBudget, tasks: anyio.abc.TaskGroup, clock: Clock) -> None:
        environment = {"GOMP_SPINCOUNT": str(config.spin_count)}
        command = ChildCommand(name=config.name, module=MODULE, environment=environment)
        self._config = config
        self._memory = memory
        self._clock = clock
        self._child = Child(command, config.child, tasks, clock)
        self._key = Secret("")
        self._lock = anyio.Lock()
        self._users = 0
        self._last_used_s = clock.monotonic()

    @property
    def is_ready(self) -> bool:
        return self._child.is_ready

    @property
    def is_starting(self) -> bool:
        return self._child.is_starting

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
    async def use(self, gguf: Gguf) -> AsyncGenerator[Endpoint]:
        """The child, serving `gguf` and kept loaded for as long as the context lasts. Raises ApiError like `Child.ready`."""
        self._users += 1
        try:
            yield await self.endpoint(gguf)
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

    async def endpoint(self, gguf: Gguf) -> Endpoint:
        """For those inside `use`: the child, started anew if it has died."""
        async with self._lock:
            if not self._child.is_ready:
                own_bytes = self._config.kv_tokens * gguf.kv_bytes_per_token + self._config.cache_mib * 2**20 + OVERHEAD_BYTES
                await self._memory.claim(self, own_bytes, {str(gguf.path): gguf.size_bytes})
            ready = await self._child.ready(lambda: self._settings(gguf))
            return Endpoint(address=ready.address, key=self._key)

    def _settings(self, gguf: Gguf) -> bytes:
        key = secrets.token_urlsafe(32)
        self._key = Secret(key)
        config = self._config
        settings = ChildSettings(
            parent_pid=os.getpid(),
            model=str(gguf.path),
            key=key,
            context_tokens=config.kv_tokens,
            slots=config.slots,
            threads=config.threads,
            batch_tokens=config.batch_tokens,
            is_prompt_cached=config.cache_mib > 0,
            cache_mib=config.cache_mib,
            nice=config.nice,
        )
        return msgspec.json.encode(settings)
