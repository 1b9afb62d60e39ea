"""This is where one call carries what we know and decided about it, apart from what the client sent."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Generic, TypeAlias, TypeVar

import msgspec

from qwenbox.terms.caller import Caller
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.embedding import EmbeddingRequest
from qwenbox.terms.image import ImageRequest
from qwenbox.terms.rerank import RerankRequest
from qwenbox.terms.timeline import Timeline
from qwenbox.terms.wishes import NO_WISHES, Wishes

R = TypeVar("R", ChatRequest, CompletionRequest, EmbeddingRequest, RerankRequest, ImageRequest)


class Lane(StrEnum):
    """People wait on INTERACTIVE; BATCH waits for them."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


class Call(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """id: lowercase uuid, the caller's request id everywhere. arrived_at: seconds since the epoch.

    is_incremental: what is produced reaches the caller as it is produced, so a call that fails half-way has served something.
    mark: a checksum of what was sent, by which a caller that was told to come back is known; 0: unknown.
    wishes: what was asked of the box itself. notes: what was done to the call before it was admitted, for its row: JSON values by name.
    timeline: its moments, for those who watch.
    """

    id: str
    caller: Caller
    request: R
    dialect: str
    arrived_at: float
    lane: Lane = Lane.INTERACTIVE
    is_incremental: bool = False
    mark: int = 0
    wishes: Wishes = NO_WISHES
    notes: Mapping[str, object] = {}
    timeline: Timeline = msgspec.field(default_factory=Timeline)


AnyCall: TypeAlias = Call[ChatRequest] | Call[CompletionRequest] | Call[EmbeddingRequest] | Call[RerankRequest] | Call[ImageRequest]
