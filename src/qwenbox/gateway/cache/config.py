"""This is where the response cache is set: `[cache]` (docs/practices/cache.md)."""

from enum import StrEnum

import msgspec


class Scope(StrEnum):
    """Who shares answers: the keys of one account, or everybody on the box."""

    ACCOUNT = "account"
    BOX = "box"


class CacheConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[cache]`. ttl_s: how old an answer may get. scope: see Scope.

    max_bytes: of all answers kept, in the box's database or in Valkey; those not asked for longest go first. memory_bytes: of the copies
    that each process has at hand. max_answer_bytes: a larger answer is not kept.
    """

    enabled: bool = True
    ttl_s: float = 86_400.0
    scope: Scope = Scope.ACCOUNT
    max_bytes: int = 512 * 2**20
    memory_bytes: int = 32 * 2**20
    max_answer_bytes: int = 4 * 2**20

    def __post_init__(self) -> None:
        if not self.ttl_s > 0:
            raise ValueError("ttl_s must be above 0")
        if min(self.max_bytes, self.memory_bytes, self.max_answer_bytes) < 0:
            raise ValueError("max_bytes, memory_bytes and max_answer_bytes must be 0 or more")
