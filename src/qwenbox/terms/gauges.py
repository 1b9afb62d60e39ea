"""This is where the state of queues, deployments and children at a moment is said, for whoever watches the box."""

from typing import Protocol, runtime_checkable

import msgspec


class QueueState(msgspec.Struct, frozen=True, kw_only=True):
    """One engine's queue. slots, kv_tokens: what the engine holds, None where that is not counted. waiting: calls, by lane."""

    name: str
    slots: int | None
    slots_used: int
    kv_tokens: int | None
    kv_tokens_used: int
    waiting: dict[str, int]


class DeploymentState(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the attempts at one deployment since the start, each counted once its first event or its failure was there."""

    name: str
    answered: int
    failed: int
    retries: int
    is_open: bool


class ChildState(msgspec.Struct, frozen=True, kw_only=True):
    """A child process of an engine. role: which of its children. starts: since our start; restarts: those of them after a crash.

    memory_bytes: what of it is in memory, the weights it mapped included; 0 while it does not run, and where the system does not tell.
    """

    role: str
    starts: int
    restarts: int
    is_ready: bool
    memory_bytes: int = 0


@runtime_checkable
class HasChildren(Protocol):
    """An engine whose work is done by processes of its own."""

    def children(self) -> tuple[ChildState, ...]: ...
