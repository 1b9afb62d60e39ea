"""This is where the embedded engine is set, the `[engine.NAME]` table with kind = "llamacpp", and what it is built from."""

import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from pathlib import Path, PurePath
from typing import Literal, Protocol

import msgspec

from qwenbox.clock import Clock, SystemClock
from qwenbox.engines.child import ChildConfig
from qwenbox.engines.memory import MemoryBudget
from qwenbox.engines.tokenizer import Vocabularies
from qwenbox.remote import Remote, Timeouts
from qwenbox.terms.caller import SeedPolicy
from qwenbox.terms.engine import HealthState
from qwenbox.terms.secret import Secret


class Serves(StrEnum):
    """What weights are loaded for."""

    TEXT = "text"
    EMBEDDINGS = "embeddings"
    RERANK = "rerank"  # weights made to say how well a document answers a question


class LlamaCppConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="llamacpp"):
    """One set of weights, served by llama.cpp in a child of its own.

    weights: their name in the weights catalog. slots: sequences decoding in parallel. kv_tokens: prompt and answer tokens that all
    of them hold together. context_tokens: the longest prompt and answer of one call, at most kv_tokens and what the weights allow.
    threads: 0 takes every core we may run on. batch_tokens: prompt tokens read in one step; also what another stream waits at most.
    spin_count: how long OpenMP's threads spin at a barrier before they sleep (docs/engines.md, "Children that share cores").
    seeds: EXACT gives seeded calls their own child. seed_wait_s: the longest a seeded call waits for the one before it.
    penalty_window_tokens: how far back penalties look. prompt_cache_mib: prompts of idle slots kept in memory.
    picture_pixels: the largest picture that weights with a projector are shown, whatever a caller asks for; seeing one takes time that
    grows with the square of it.
    serves: embeddings and rerank need weights made for that; those of embeddings order documents, too. pooling: how they make one vector
    of a text; "" as their file says. query_form, document_form: what they read around a text, which "{text}" stands for, and "{instruct}"
    for what the search is for.
    """

    weights: str
    slots: int = 4
    kv_tokens: int = 32_768
    context_tokens: int = 32_768
    threads: int = 0
    batch_tokens: int = 128
    spin_count: int = 1_000
    nice: int = 0
    seed_nice: int = 0
    seeds: SeedPolicy = SeedPolicy.EXACT
    seed_wait_s: float = 300.0
    idle_unload_s: float = 900.0
    seed_idle_unload_s: float = 180.0
    penalty_window_tokens: int = 256
    prompt_cache_mib: int = 256
    picture_pixels: int = 2_621_440
    serves: Serves = Serves.TEXT
    pooling: Literal["", "mean", "cls", "last"] = ""
    query_form: str = "{text}"
    document_form: str = "{text}"
    child: ChildConfig = ChildConfig()
    timeouts: Timeouts = Timeouts(connect_s=5.0, first_byte_s=900.0, between_bytes_s=180.0)

    def __post_init__(self) -> None:
        if not 1 <= self.slots <= 64:
            raise ValueError("slots must be 1 to 64")
        if not 1 <= self.context_tokens <= self.kv_tokens:
            raise ValueError("context_tokens must be at least 1 and at most kv_tokens")
        if "{text}" not in self.query_form or "{text}" not in self.document_form:
            raise ValueError("query_form and document_form need {text} where the text stands")
        if self.picture_pixels < 65_536:
            raise ValueError("picture_pixels must be at least 65536")
        if self.batch_tokens < 1 or self.threads < 0:
            raise ValueError("batch_tokens must be at least 1, threads at least 0")

    @property
    def thread_count(self) -> int:
        return self.threads or available_cores()


def available_cores() -> int:
    """Cores this process may run on; a container may allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where the child listens, and the key it asks for. marker: what stands for a picture in its prompts."""

    address: str
    key: Secret
    marker: str = ""


class Loadable(Protocol):
    """A file of weights, as far as loading it goes. projector: the file that makes them see, "" for a text model."""

    @property
    def path(self) -> PurePath | str: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def kv_bytes_per_token(self) -> int: ...
    @property
    def projector(self) -> str: ...
    @property
    def projector_bytes(self) -> int: ...


class Lane(Protocol):
    """One child in use, of this process or of its parent."""

    def use(self, weights: Loadable) -> AbstractAsyncContextManager[Endpoint]:
        """The child, serving `weights` and kept loaded for as long as the context lasts. Raises ApiError like `Child.ready`."""
        ...

    async def endpoint(self, weights: Loadable) -> Endpoint:
        """For those inside `use`: the child, started anew if it has died."""
        ...

    async def state(self) -> HealthState:
        """READY, STARTING or IDLE."""
        ...

    async def unload(self) -> bool:
        """End the child. False when somebody uses it, or it is being started."""
        ...


class Lanes(Protocol):
    """An engine's two lanes. shared: all calls without an exact seed, many at a time. exact: those with one, one at a time."""

    @property
    def shared(self) -> Lane: ...
    @property
    def exact(self) -> Lane: ...


class LlamaParts(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine is built from.

    locate: the path of the weights; raises ApiError when they are not here. is_here: the same question without waiting.
    locate_projector: the same for the file that makes them see; None for a text model.
    title: of the weights, for people. identity: names the very bytes, "" where they are not known.
    vocabularies: one for the box, so that models of a family share it.
    lanes: of somebody else's children, the parent's; None has children of its own.
    """

    remote: Remote
    memory: MemoryBudget
    locate: Callable[[], Awaitable[Path]]
    is_here: Callable[[], bool]
    title: str
    locate_projector: Callable[[], Awaitable[Path]] | None = None
    identity: Callable[[], str] = str
    vocabularies: Vocabularies = msgspec.field(default_factory=Vocabularies)
    clock: Clock = msgspec.field(default_factory=SystemClock)
    lanes: Lanes | None = None
