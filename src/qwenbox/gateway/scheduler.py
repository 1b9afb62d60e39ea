"""This is where a call waits for its turn on a busy engine: slots and KV tokens are counted before they are spent."""

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import msgspec

from qwenbox.terms.engine import Capacity
from qwenbox.terms.errors import ApiError, ErrorKind


class SchedulerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """queue_limit: calls that may wait for one engine. queue_wait_s: the longest wait before a call is refused."""

    queue_limit: int = 256
    queue_wait_s: float = 280.0


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What a call takes from an engine while it runs: sequences, and tokens of prompt and answer over all of them."""

    slots: int
    kv_tokens: int


class _Waiter:
    __slots__ = ("is_admitted", "need", "wake")

    def __init__(self, need: Need) -> None:
        self.need = need
        self.wake = anyio.Event()
        self.is_admitted = False


class Pool:
    """What one engine can hold, and who waits for it, first come first served.

    A full KV pool makes every running call fail, so a call enters only when its whole worst case fits beside the others'.
    """

    def __init__(self, capacity: Capacity, config: SchedulerConfig) -> None:
        self._config = config
        self._slots_limit = capacity.slots
        self._kv_limit = capacity.kv_tokens
        self._slots = 0
        self._kv_tokens = 0
        self._waiting: deque[_Waiter] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def turn(self, need: Need) -> AsyncGenerator[None]:
        """Hold `need` for as long as the context lasts. Raises ApiError(OVERLOADED) when the queue or the wait is too long."""
        self._check_possible(need)
        if self._waiting or not self._fits(need):
            await self._wait(need)
        else:
            self._take(need)
        try:
            yield
        finally:
            self._give_back(need)

    def _check_possible(self, need: Need) -> None:
        if self._kv_limit is not None and need.kv_tokens > self._kv_limit:
            text = f"n × (input + max_tokens) is {need.kv_tokens} tokens; the engine holds {self._kv_limit}. Lower max_tokens or n."
            raise ApiError(ErrorKind.INVALID_REQUEST, text, param="max_tokens")

    async def _wait(self, need: Need) -> None:
        if len(self._waiting) >= self._config.queue_limit:
            raise ApiError(ErrorKind.OVERLOADED, retry_after_s=self._config.queue_wait_s / 10)
        waiter = _Waiter(need)
        self._waiting.append(waiter)
        try:
            with anyio.fail_after(self._config.queue_wait_s):
                await waiter.wake.wait()
        except TimeoutError as error:
            self._withdraw(waiter)
            raise ApiError(ErrorKind.OVERLOADED, retry_after_s=self._config.queue_wait_s / 10) from error
        except BaseException:
            self._withdraw(waiter)
            raise

    def _withdraw(self, waiter: _Waiter) -> None:
        # A caller can hang up in the very moment in which it is admitted: then it holds what it never used.
        if waiter.is_admitted:
            self._give_back(waiter.need)
        else:
            self._waiting.remove(waiter)
            self._admit()

    def _fits(self, need: Need) -> bool:
        has_slots = self._slots_limit is None or self._slots == 0 or self._slots + need.slots <= self._slots_limit
        return has_slots and (self._kv_limit is None or self._kv_tokens + need.kv_tokens <= self._kv_limit)

    def _take(self, need: Need) -> None:
        self._slots += need.slots
        self._kv_tokens += need.kv_tokens

    def _give_back(self, need: Need) -> None:
        self._slots -= need.slots
        self._kv_tokens -= need.kv_tokens
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._fits(self._waiting[0].need):
            waiter = self._waiting.popleft()
            waiter.is_admitted = True
            self._take(waiter.need)
            waiter.wake.set()
