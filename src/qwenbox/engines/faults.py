"""This is where failures are made on purpose, for people who test their own programs: an engine around an engine.

Only a box started for testing has it. A fault is asked for by one request (`X-Qwenbox-Provoke: NAME;parameter=value`), or drawn for a share
of all calls (`[faults]`). Nobody tries again in the caller's name: what was asked for is what the caller sees.
"""

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import TypeAlias

import anyio
import msgspec

from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.embedding import EmbeddingRequest
from qwenbox.terms.engine import (
    Capacity,
    Embedder,
    EngineFacts,
    Events,
    Health,
    ImageMaker,
    Reranker,
    TextCounter,
    TextEngine,
    TextSplitter,
    Token,
    TokenCounter,
    WeightsHolder,
)
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Completed, Embedded, ImageMade, Ranked, ReasoningDelta, Started, TextDelta, ToolCallDelta
from qwenbox.terms.image import ImageRequest
from qwenbox.terms.rerank import RerankRequest

Asked: TypeAlias = ChatRequest | CompletionRequest | EmbeddingRequest | RerankRequest | ImageRequest

# The request's extension that carries a wish down to here.
EXTENSION = "qwenbox.provoke"

_TOLD_AFTER_S = 1.0
_LONGEST_S = 600.0


class Refusal(msgspec.Struct, frozen=True):
    """An error in place of an answer. message: "" for the dialect's own."""

    kind: ErrorKind
    message: str = ""
    retry_after_s: float | None = None


REFUSALS: Mapping[str, Refusal] = {
    "throttling_rate": Refusal(ErrorKind.RATE_LIMITED, retry_after_s=_TOLD_AFTER_S),
    "throttling_allocation": Refusal(ErrorKind.QUOTA_EXHAUSTED, retry_after_s=_TOLD_AFTER_S),
    "arrearage": Refusal(ErrorKind.OUT_OF_FUNDS),
    "data_inspection": Refusal(ErrorKind.CONTENT_REJECTED),
    "overloaded": Refusal(ErrorKind.OVERLOADED, retry_after_s=_TOLD_AFTER_S),
    "internal_error": Refusal(ErrorKind.INTERNAL),
    "timeout": Refusal(ErrorKind.TIMEOUT),
    "malformed": Refusal(ErrorKind.ENGINE_FAILED, "The model's server sent an answer that cannot be read."),
}
SLOW = "slow_first_token"
CUT = "cut"
RESET = "reset"
NAMES = (*REFUSALS, SLOW, CUT, RESET)


class FaultsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[faults]`, for boxes that somebody tests his own program against. provoke: requests may ask for a fault by header; a box started
    with QWENBOX_TESTING=1 lets them, too. share: how many of all calls fail in which way, by the fault as a header would name it, e.g.
    {"throttling_rate" = 0.1, "cut;after=3" = 0.05}. seed: draws them; the same calls in the same order meet the same faults.
    """

    provoke: bool = False
    share: dict[str, float] = {}
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.share:
            try:
                parse(name)
            except ApiError as error:
                raise ValueError(error.message) from None
        if not all(0 <= share <= 1 for share in self.share.values()) or sum(self.share.values()) > 1:
            raise ValueError("the shares of faults are 0 to 1, and 1 at most together")


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """seconds: of SLOW, until the first event. after: of CUT and RESET, deltas that still come."""

    name: str
    seconds: float = 2.0
    after: int = 1


def parse(text: str) -> Fault:
    """A fault as a header names it. Raises ApiError(INVALID_REQUEST) that says what there is."""
    name, *parameters = (part.strip() for part in text.split(";"))
    values = {key.strip(): value.strip() for key, _, value in (part.partition("=") for part in parameters if part)}
    try:
        fault = msgspec.convert({**values, "name": name}, Fault, strict=False)
    except msgspec.ValidationError:
        raise _unknown() from None
    if name not in NAMES or not values.keys() <= {"seconds", "after"} or not 0 <= fault.seconds <= _LONGEST_S or fault.after < 0:
        raise _unknown()
    return fault


def faulty(inner: TextEngine, config: FaultsConfig) -> TextEngine:
    """The engine with faults on demand; it counts if the inner one does."""
    if isinstance(inner, TokenCounter) and isinstance(inner, TextCounter):
        return _FaultyBoth(inner, (inner, inner), config)
    if isinstance(inner, TokenCounter):
        return _FaultyCounter(inner, inner, config)
    if isinstance(inner, TextCounter):
        return _FaultyTextCounter(inner, inner, config)
    return _Faulty(inner, config)


class _Faulty:
    """Answers as its inner engine does, but for the faults asked of it; what that one cannot do is refused."""

    def __init__(self, inner: TextEngine, config: FaultsConfig) -> None:
        self._inner = inner
        self._faults = tuple((parse(name), share) for name, share in config.share.items())
        self._draw = random.Random(config.seed)

    @property
    def facts(self) -> EngineFacts:
        return self._inner.facts

    @property
    def capacity(self) -> Capacity:
        return self._inner.capacity

    async def health(self) -> Health:
        return await self._inner.health()

    @property
    def is_here(self) -> bool:
        return not isinstance(self._inner, WeightsHolder) or self._inner.is_here

    def chat(self, request: ChatRequest) -> Events:
        fault = self._fault(request)
        events = self._inner.chat(msgspec.structs.replace(request, extensions=_plain(request.extensions)) if fault else request)
        return _Spoilt(events, fault) if fault else events

    def complete(self, request: CompletionRequest) -> Events:
        fault = self._fault(request)
        events = self._inner.complete(msgspec.structs.replace(request, extensions=_plain(request.extensions)) if fault else request)
        return _Spoilt(events, fault) if fault else events

    def embed(self, request: EmbeddingRequest) -> Events:
        if not isinstance(self._inner, Embedder):
            raise ApiError(ErrorKind.WRONG_ENDPOINT, param=request.model)
        fault = self._fault(request)
        events = self._inner.embed(msgspec.structs.replace(request, extensions=_plain(request.extensions)) if fault else request)
        return _Spoilt(events, fault) if fault else events

    def rerank(self, request: RerankRequest) -> Events:
        if not isinstance(self._inner, Reranker):
            raise ApiError(ErrorKind.WRONG_ENDPOINT, param=request.model)
        fault = self._fault(request)
        events = self._inner.rerank(msgspec.structs.replace(request, extensions=_plain(request.extensions)) if fault else request)
        return _Spoilt(events, fault) if fault else events

    def make(self, request: ImageRequest) -> Events:
        if not isinstance(self._inner, ImageMaker):
            raise ApiError(ErrorKind.WRONG_ENDPOINT, param=request.model)
        fault = self._fault(request)
        events = self._inner.make(msgspec.structs.replace(request, extensions=_plain(request.extensions)) if fault else request)
        return _Spoilt(events, fault) if fault else events

    async def split_texts(self, texts: Sequence[str]) -> list[Token] | None:
        return await self._inner.split_texts(texts) if isinstance(self._inner, TextSplitter) else None

    def _fault(self, request: Asked) -> Fault | None:
        """Raises ApiError for a fault that is a refusal."""
        wanted = request.extensions.get(EXTENSION)
        fault = self._drawn() if wanted is None else parse(wanted.decode("utf-8", "replace"))
        if fault is not None and (refusal := REFUSALS.get(fault.name)):
            raise _final(ApiError(refusal.kind, refusal.message, retry_after_s=refusal.retry_after_s))
        return fault

    def _drawn(self) -> Fault | None:
        if not self._faults:
            return None
        point = self._draw.random()
        for fault, share in self._faults:
            if point < share:
                return fault
            point -= share
        return None


class _FaultyTextCounter(_Faulty):
    def __init__(self, inner: TextEngine, counter: TextCounter, config: FaultsConfig) -> None:
        super().__init__(inner, config)
        self._counter = counter

    @property
    def has_own_vocabulary(self) -> bool:
        return self._counter.has_own_vocabulary

    async def count_texts(self, texts: Sequence[str], *, has_controls: bool = False) -> list[int] | None:
        return await self._counter.count_texts(texts, has_controls=has_controls)


class _FaultyCounter(_Faulty):
    def __init__(self, inner: TextEngine, counter: TokenCounter, config: FaultsConfig) -> None:
        super().__init__(inner, config)
        self._counter = counter

    async def count(self, request: ChatRequest | CompletionRequest) -> int:
        return await self._counter.count(request)


class _FaultyBoth(_FaultyTextCounter):
    def __init__(self, inner: TextEngine, counters: tuple[TokenCounter, TextCounter], config: FaultsConfig) -> None:
        super().__init__(inner, counters[1], config)
        self._whole_counter = counters[0]

    async def count(self, request: ChatRequest | CompletionRequest) -> int:
        return await self._whole_counter.count(request)


class _Spoilt:
    """An answer that starts late, or breaks off."""

    def __init__(self, inner: Events, fault: Fault) -> None:
        self._inner = inner
        self._fault = fault

    async def __aenter__(self) -> AsyncIterator[ChatEvent]:
        if self._fault.name == SLOW:
            await anyio.sleep(self._fault.seconds)
            return await self._inner.__aenter__()
        return _Cut(await self._inner.__aenter__(), self._fault)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool | None:
        return await self._inner.__aexit__(kind, error, trace)


class _Cut(AsyncIterator[ChatEvent]):
    def __init__(self, events: AsyncIterator[ChatEvent], fault: Fault) -> None:
        self._events = events
        self._fault = fault
        self._left = fault.after

    async def __anext__(self) -> ChatEvent:
        event = await anext(self._events)
        if isinstance(event, Started):
            return event
        if self._left <= 0 or isinstance(event, Completed):
            error = ApiError(ErrorKind.ENGINE_FAILED, "The model's server broke off in the middle of its answer.")
            error.cuts_connection = self._fault.name == RESET
            raise _final(error)
        if isinstance(event, TextDelta | ReasoningDelta | ToolCallDelta | Embedded | Ranked | ImageMade):
            self._left -= 1
        return event


def _plain(extensions: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: value for name, value in extensions.items() if name != EXTENSION}


def _final(error: ApiError) -> ApiError:
    error.is_final = True
    return error


def _unknown() -> ApiError:
    text = f"There is no such fault. Faults are {', '.join(NAMES)}; {SLOW} takes ;seconds=N, {CUT} and {RESET} take ;after=N."
    return _final(ApiError(ErrorKind.INVALID_REQUEST, text, param="x-qwenbox-provoke"))
