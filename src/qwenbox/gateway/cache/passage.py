"""This is where a call that may have a kept answer gets one: from memory, from the shelf, from a flight that is under way, or alone."""

from collections.abc import AsyncIterator
from time import monotonic
from types import TracebackType

import msgspec

from qwenbox.gateway.admission import Admission
from qwenbox.gateway.cache.base import Item, Recorded, unpack
from qwenbox.gateway.cache.cache import Cache, Plan
from qwenbox.gateway.cache.flights import Keep, Lead, Reader, is_length
from qwenbox.gateway.catalog import Model, TextRequest
from qwenbox.gateway.metering import Entry, Metering
from qwenbox.gateway.router import Answer
from qwenbox.terms.call import AnyCall
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Completed

HIT, MISS, BYPASS = "hit", "miss", "bypass"

_NOT_CACHED = "There is no kept answer to this call, and its Cache-Control (only-if-cached) wants no other."


class Desk(msgspec.Struct, frozen=True, kw_only=True):
    """What a call with a kept answer still needs of the gateway."""

    cache: Cache
    admission: Admission
    metering: Metering


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """A call, resolved and complete."""

    call: AnyCall
    model: Model
    request: TextRequest


class CachedPassage:
    """One call's way, beside the engines if it can be. lead: its way to an engine, entered at most once, by this call or by a flight."""

    __slots__ = ("_asking", "_desk", "_entry", "_lead", "_own", "_plan", "_reader")

    def __init__(self, desk: Desk, plan: Plan, asking: Asking, lead: Lead) -> None:
        self._desk = desk
        self._plan = plan
        self._asking = asking
        self._lead = lead
        self._entry: Entry | None = None
        self._reader: Reader | None = None
        self._own: Lead | None = None

    async def __aenter__(self) -> Answer:
        cache, plan = self._desk.cache, self._plan
        self._asking.call.timeline.looked_s = monotonic()
        if not plan.wish.may_read:
            return await self._alone(BYPASS)
        item = cache.at_hand(plan)
        if item is None and plan.wish.only_if_cached:
            item = await cache.find(plan)
            if item is None or not cache.suits(plan, item):
                raise ApiError(ErrorKind.NOT_FOUND, _NOT_CACHED)
        if item is not None and (recorded := self._recorded(item)) is not None:
            return await self._replay(recorded)
        return await (self._together() if cache.flights.is_open else self._alone(MISS))

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if self._own is not None:
                await self._own.__aexit__(kind, error, trace)
            if self._reader is not None:
                await self._reader.leave()
        finally:
            if self._entry is not None:
                await self._entry.close(error)

    async def _together(self) -> Answer:
        """Aboard the flight of all who ask the same now."""
        plan = self._plan
        self._reader = reader = self._desk.cache.flights.board(plan.flight, self._lead, self._find, self._keep)
        try:
            answer = await reader.depart()
        except ApiError as failure:
            await reader.leave()
            if reader.has_shared_failure:
                await self._fail_too(failure)
            raise
        except BaseException:
            await reader.leave()
            raise
        if answer is not None:
            if reader.is_leader:
                self._asking.call.timeline.cache = MISS
                return msgspec.structs.replace(answer, events=reader, cache=MISS)
            return await self._hit(answer.deployment, reader)
        await reader.leave()
        self._reader, item = None, reader.item
        if item is not None and self._desk.cache.suits(plan, item) and (recorded := self._recorded(item)) is not None:
            return await self._replay(recorded)
        return await self._alone(MISS)

    async def _alone(self, state: str) -> Answer:
        """By its own way to an engine."""
        self._own = lead = self._lead
        self._asking.call.timeline.cache = state
        try:
            answer = await lead.__aenter__()
        except BaseException:
            self._own = None
            raise
        if not self._plan.wish.may_store:
            return msgspec.structs.replace(answer, cache=state)
        return msgspec.structs.replace(answer, events=_Recording(answer, lead, self._keep), cache=state)

    def _recorded(self, item: Item) -> Recorded | None:
        return unpack(item.data, is_whole=not self._asking.call.is_incremental)

    async def _replay(self, recorded: Recorded) -> Answer:
        return await self._hit(recorded.deployment, _Replay(recorded.events))

    async def _hit(self, deployment: str, events: AsyncIterator[ChatEvent]) -> Answer:
        """Admitted as a request that uses nothing, with a row of its own."""
        try:
            entry, answer = await self._admit(deployment, events)
        except BaseException:
            if self._reader is not None:
                await self._reader.leave()
            raise
        self._entry = entry
        return msgspec.structs.replace(answer, events=entry.watch(events, answer))

    async def _admit(self, deployment: str, events: AsyncIterator[ChatEvent]) -> tuple[Entry, Answer]:
        asking, desk = self._asking, self._desk
        timeline = asking.call.timeline
        timeline.cache, timeline.entered_s = HIT, monotonic()
        admitted = await desk.admission.reserve_hit(asking.call, asking.model, asking.request)
        timeline.admitted_s = monotonic()
        entry = desk.metering.entry(asking.call, admitted, is_cache_hit=True)
        is_named = asking.call.wishes.shows_deployment
        limits = admitted.lease.limits
        applied = next((known.done_to(asking.request) for known in asking.model.deployments if known.name == deployment), ())
        answer = Answer(deployment=deployment, events=events, cache=HIT, attempts=0, limits=limits, is_named=is_named, applied=applied)
        return entry, answer

    async def _fail_too(self, failure: ApiError) -> None:
        """The engine failed for all who asked together: each of them made a request, and each has a row that says so."""
        entry, _ = await self._admit("", _Replay(()))
        await entry.close(failure)

    async def _find(self) -> Item | None:
        return await self._desk.cache.find(self._plan)

    def _keep(self, deployment: str, events: tuple[ChatEvent, ...], is_whole: bool) -> None:
        if is_whole and self._plan.wish.may_store:
            asking = self._asking
            recorded = Recorded(deployment=deployment, events=events)
            self._desk.cache.keep(asking.call, asking.model, asking.request, recorded)


class _Replay(AsyncIterator[ChatEvent]):
    __slots__ = ("_events",)

    def __init__(self, events: tuple[ChatEvent, ...]) -> None:
        self._events = iter(events)

    async def __anext__(self) -> ChatEvent:
        event = next(self._events, None)
        if event is None:
            raise StopAsyncIteration
        return event


class _Recording(AsyncIterator[ChatEvent]):
    """The events of a call that asks alone, kept once they are complete."""

    __slots__ = ("_answer", "_events", "_keep", "_lead")

    def __init__(self, answer: Answer, lead: Lead, keep: Keep) -> None:
        self._answer = answer
        self._lead = lead
        self._keep = keep
        self._events: list[ChatEvent] = []

    async def __anext__(self) -> ChatEvent:
        event = await anext(self._answer.events)
        self._events.append(event)
        if isinstance(event, Completed):
            is_cut = self._lead.is_limited and any(is_length(event) for event in self._events)
            self._keep(self._answer.deployment, tuple(self._events), not is_cut)
        return event
