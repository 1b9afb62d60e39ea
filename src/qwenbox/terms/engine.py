"""This is where an engine promises what it can do; every back-end keeps one or more of these protocols."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Protocol, TypeAlias, runtime_checkable

import msgspec

from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.embedding import EmbeddingRequest
from qwenbox.terms.events import ChatEvent
from qwenbox.terms.image import ImageRequest
from qwenbox.terms.model import Capability
from qwenbox.terms.rerank import RerankRequest

# The request's extension that says how long an upstream may take to take the connection: seconds, as JSON.
CONNECT_EXTENSION = "qwenbox.connect_s"

Events: TypeAlias = AbstractAsyncContextManager[AsyncIterator[ChatEvent]]


class HealthState(StrEnum):
    READY = "ready"
    IDLE = "idle"  # not loaded; the first call loads it
    STARTING = "starting"
    MISSING = "missing"  # weights are not here
    DOWN = "down"


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """detail: for people; says what to do when the state is MISSING or DOWN."""

    state: HealthState
    detail: str = ""


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine can hold at once. None: it queues by itself, admit everything.

    slots: sequences decoding in parallel. kv_tokens: tokens of prompt and answer together, over all sequences.
    has_seed_lane: seeded requests run apart and take nothing of these. queue: the deployment whose turns these are; "": its own.
    """

    slots: int | None = None
    kv_tokens: int | None = None
    has_seed_lane: bool = False
    queue: str = ""


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the models list and the box's state may tell people about who answers.

    weights: e.g. "Qwen2.5-Coder-0.5B-Instruct Q4_K_M". context_tokens: the engine's own limit, None if unknown.
    identity: names these weights as they are run here, so that no others have the same; "" where nobody knows what answers.
    keeps_seeds: same request and seed give the same text, by our promise; False where an upstream answers for it itself.
    is_upstream: somebody else's server, so that another attempt may find it in a better moment.
    applied: what it does to every prompt with pictures, for the answer's head; "": nothing.
    """

    kind: str
    weights: str
    context_tokens: int | None = None
    identity: str = ""
    keeps_seeds: bool = False
    is_upstream: bool = False
    applied: str = ""
    capabilities: frozenset[Capability] = frozenset()


class Engine(Protocol):
    """Every engine. Requests that reach it are complete: sampling and max_output_tokens are filled in."""

    @property
    def facts(self) -> EngineFacts: ...

    @property
    def capacity(self) -> Capacity: ...

    async def health(self) -> Health: ...


class ChatEngine(Engine, Protocol):
    def chat(self, request: ChatRequest) -> Events:
        """Open the answer; entering waits until the engine took the request, leaving frees its slot.

        Raises ApiError, on entry or from the iterator: CONTEXT_TOO_LONG, OVERLOADED, ENGINE_FAILED, TIMEOUT,
        INVALID_REQUEST for what this engine cannot honour.
        """
        ...


class Completer(Engine, Protocol):
    def complete(self, request: CompletionRequest) -> Events:
        """As `ChatEngine.chat`, for a raw prompt."""
        ...


@runtime_checkable
class TextEngine(ChatEngine, Completer, Protocol):
    """What a text model's deployment needs."""


@runtime_checkable
class Embedder(Engine, Protocol):
    def embed(self, request: EmbeddingRequest) -> Events:
        """As `ChatEngine.chat`: Started, one Embedded per text in order, Completed. Raises ApiError(INVALID_REQUEST) for dimensions that
        these weights cannot give, and ApiError(CONTEXT_TOO_LONG) for a text that they cannot read as a whole."""
        ...


@runtime_checkable
class Reranker(Engine, Protocol):
    def rerank(self, request: RerankRequest) -> Events:
        """As `Embedder.embed`: Started, the Ranked that are wanted, best first, Completed."""
        ...


@runtime_checkable
class ImageMaker(Engine, Protocol):
    def make(self, request: ImageRequest) -> Events:
        """As `Embedder.embed`: Started, one ImageMade per picture in order, Completed."""
        ...


@runtime_checkable
class WeightsHolder(Protocol):
    """An engine that runs files of weights, which may not be here yet."""

    @property
    def is_here(self) -> bool:
        """Whether a call could load them now. Asked at every call of a model that others could answer: two file look-ups at most."""
        ...


@runtime_checkable
class Unloadable(Protocol):
    """An engine that takes memory from its first call on, until it is unloaded."""

    async def warm(self) -> None:
        """Load now instead of on the first call. Raises ApiError like `chat`."""
        ...

    async def unload(self) -> bool:
        """Give the memory back. False when calls are using it, which go on undisturbed."""
        ...


@runtime_checkable
class TokenCounter(Protocol):
    """An engine that can count before it generates. Counts are exact: template and tools included."""

    async def count(self, request: ChatRequest | CompletionRequest) -> int:
        """Input tokens of the request. Raises ApiError like `chat`."""
        ...


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """id: in the vocabulary. text: what it stands for; U+FFFD for a part of a character."""

    id: int
    text: str


@runtime_checkable
class TextSplitter(Protocol):
    """An engine that can show the tokens of texts."""

    async def split_texts(self, texts: Sequence[str]) -> list[Token] | None:
        """Of all texts, one after the other, without a template around them; None when there is no vocabulary to split with."""
        ...


@runtime_checkable
class TextCounter(Protocol):
    """An engine that can count texts where its server does not say what they took; what a template adds is not its to know."""

    @property
    def has_own_vocabulary(self) -> bool:
        """Whether it counts as its server does. False: with another vocabulary, so a count may be a little above or below the server's."""
        ...

    async def count_texts(self, texts: Sequence[str], *, has_controls: bool = False) -> list[int] | None:
        """Tokens of each text by itself; None when there is no vocabulary to count with.

        has_controls: names of control tokens in them are those tokens, as in a raw prompt. May take a second the first time.
        """
        ...
