"""This is where embedded engines share the machine's memory: who may load, and who must make room."""

import os
from collections.abc import Mapping
from typing import Protocol

import anyio
import msgspec

from qwenbox.terms.errors import ApiError, ErrorKind

RETRY_WHEN_FULL_S = 5.0


class MemoryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """limit_bytes: what embedded models may take together; 0 takes four fifths of the machine's memory."""

    limit_bytes: int = 0

    @property
    def bytes_allowed(self) -> int:
        return self.limit_bytes or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 4 // 5


class Tenant(Protocol):
    """Something loaded that can be unloaded."""

    @property
    def is_idle(self) -> bool:
        """Nobody uses it now."""
        ...

    @property
    def last_used_s(self) -> float:
        """Monotonic seconds; the smallest goes first."""
        ...

    async def unload(self) -> bool:
        """Give the memory back and `release` it. False when somebody came in between and it stays."""
        ...


class MemoryBudget:
    """Bytes that all embedded engines together may take. Files mapped by several tenants count once."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._own: dict[Tenant, int] = {}
        self._maps: dict[Tenant, Mapping[str, int]] = {}
        self._lock = anyio.Lock()

    @property
    def used_bytes(self) -> int:
        mapped = {file: size for files in self._maps.values() for file, size in files.items()}
        return sum(self._own.values()) + sum(mapped.values())

    async def claim(self, tenant: Tenant, own_bytes: int, mapped: Mapping[str, int]) -> None:
        """Count `tenant` in, before it loads; idle tenants are unloaded, longest unused first, until it fits.

        own_bytes: its own memory. mapped: bytes by file, shared with others that map the same. A second claim replaces the first.
        Raises ApiError(OVERLOADED) when those in use leave no room.
        """
        async with self._lock:
            self.release(tenant)
            self._refuse_hopeless(own_bytes + sum(mapped.values()))
            while self.used_bytes + own_bytes + self._new_bytes(mapped) > self._limit_bytes:
                if not await self._evict(tenant):
                    raise ApiError(
                        ErrorKind.OVERLOADED,
                        "The memory for models is in use by others that are answering now; try again soon.",
                        retry_after_s=RETRY_WHEN_FULL_S,
                    )
            self._own[tenant] = own_bytes
            self._maps[tenant] = dict(mapped)

    def release(self, tenant: Tenant) -> None:
        """Count `tenant` out; nothing happens if it is not in."""
        self._own.pop(tenant, None)
        self._maps.pop(tenant, None)

    def _new_bytes(self, mapped: Mapping[str, int]) -> int:
        known = {file for files in self._maps.values() for file in files}
        return sum(size for file, size in mapped.items() if file not in known)

    async def _evict(self, newcomer: Tenant) -> bool:
        idle = sorted((tenant for tenant in self._own if tenant.is_idle and tenant is not newcomer), key=lambda tenant: tenant.last_used_s)
        for tenant in idle:
            if await tenant.unload():
                return True
        return False

    def _refuse_hopeless(self, need_bytes: int) -> None:
        if need_bytes > self._limit_bytes:
            raise ApiError(
                ErrorKind.OVERLOADED,
                f"This model needs {need_bytes / 1e9:.1f} GB; models may use {self._limit_bytes / 1e9:.1f} GB here. "
                "Raise the memory budget or lower its KV pool.",
            )
