"""This is where every call gets its one frame: the decisions, in the order a call meets them."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from time import monotonic
from types import TracebackType
from typing import TypeAlias

import msgspec

from qwenbox.gateway import structure
from qwenbox.gateway.admission import Admission
from qwenbox.gateway.cache.cache import Cache
from qwenbox.gateway.cache.passage import Asking, CachedPassage, Desk
from qwenbox.gateway.catalog import (
    Catalog,
    Model,
    Request,
    TextRequest,
    complete_chat,
    complete_embedding,
    complete_image,
    complete_prompt,
    complete_rerank,
    fit,
)
from qwenbox.gateway.counting import about_input
from qwenbox.gateway.metering import Metering
from qwenbox.gateway.pictured import DrawnFrom, Pictured, Pictures
from qwenbox.gateway.prefixes import Prefixes
from qwenbox.gateway.router import Answer, Party, Router
from qwenbox.gateway.thrift import Thrifty, trim
from qwenbox.terms.call import AnyCall, Call
from qwenbox.terms.caller import Caller, Compat
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.embedding import EmbeddingRequest
from qwenbox.terms.events import ChatEvent
from qwenbox.terms.image import ImageRequest
from qwenbox.terms.rerank import RerankRequest

Filter: TypeAlias = Callable[[AsyncIterator[ChatEvent]], AsyncIterator[ChatEvent]]


class Gateway:
    """Takes calls in terms, gives answers in events; knows no wire."""

    def __init__(self, catalog: Catalog, router: Router, admission: Admission, metering: Metering, compat: Compat) -> None:
        self.catalog = catalog
        self.router = router
        self.admission = admission
        self.metering = metering
        self._compat = compat
        self._desk: Desk | None = None
        self._pictures: Pictures | None = None
        self.prefixes: Prefixes | None = None

    def remember(self, cache: Cache) -> None:
        """From now on calls may be answered by `cache`, whose `follow` must run."""
        self._desk = Desk(cache=cache, admission=self.admission, metering=self.metering)

    def see(self, pictures: Pictures) -> None:
        """From now on engines get pictures as bytes."""
        self._pictures = pictures

    def watch_prefixes(self, prefixes: Prefixes) -> None:
        """From now on it is noted how much of a chat's prompt an earlier one had begun with."""
        self.prefixes = prefixes

    def compat(self, caller: Caller) -> Compat:
        """The level at which this caller's requests are read."""
        return caller.compat or self._compat

    def chat(self, call: Call[ChatRequest]) -> AbstractAsyncContextManager[Answer]:
        """The answer to a chat, begun once it is entered; leaving it ends the call, writes its row and frees what it held.

        Raises ApiError, here and on entry.
        """
        model = self.catalog.resolve(call.request.model, call.caller)
        call.timeline.model = model.entry.name
        request = complete_chat(call.request, model.entry.card, call.caller, self.compat(call.caller))
        # A schema that cannot be used is refused before an engine is asked.
        kept = structure.kept(request)
        if not call.caller.thrift and not request.has_pictures:
            return self._way(call, model, request, kept)

        def way(call: Call[ChatRequest], request: ChatRequest) -> AbstractAsyncContextManager[Answer]:
            return self._way(call, model, request, kept)

        def shorter(call: Call[ChatRequest], request: ChatRequest) -> AbstractAsyncContextManager[Answer]:
            return Thrifty(call, request, partial(about_input, model), way) if call.caller.thrift else way(call, request)

        if self._pictures is None or not request.has_pictures:
            return shorter(call, request)
        # First of all: without their bytes nobody can count them, not even to leave them out.
        return Pictured(self._pictures, shorter, call, request)

    async def count(self, request: ChatRequest, caller: Caller, *, resolves_uploads: bool = False) -> int:
        """Input tokens this chat would be billed for, policies of the caller's key included; about as many where no engine can count.

        resolves_uploads: as Wishes has it. Raises ApiError as `chat`.
        """
        model = self.catalog.resolve(request.model, caller)
        request = complete_chat(request, model.entry.card, caller, self.compat(caller))
        if self._pictures is not None and request.has_pictures:
            request = await self._pictures.load(request, caller, resolves_uploads=resolves_uploads)
        if caller.thrift:
            request = (await trim(request, caller.thrift, partial(about_input, model))).request
        prompt = await self.router.count(model, request)
        return prompt.input_tokens if prompt.deployment else await about_input(model, request)

    def complete(self, call: Call[CompletionRequest]) -> AbstractAsyncContextManager[Answer]:
        """As `chat`, for a raw prompt."""
        model = self.catalog.resolve(call.request.model, call.caller)
        request = complete_prompt(call.request, model.entry.card, call.caller, self.compat(call.caller))
        return self._way(call, model, request, None)

    def embed(self, call: Call[EmbeddingRequest]) -> AbstractAsyncContextManager[Answer]:
        """As `chat`, for the vectors of texts. The cache has no part in what follows: it keeps texts."""
        model = self.catalog.resolve(call.request.model, call.caller)
        return _Passage(self, call, model, complete_embedding(call.request, model.entry.card), None)

    def rerank(self, call: Call[RerankRequest]) -> AbstractAsyncContextManager[Answer]:
        """As `embed`, for documents that are to be ordered."""
        model = self.catalog.resolve(call.request.model, call.caller)
        return _Passage(self, call, model, complete_rerank(call.request, model.entry.card), None)

    def image(self, call: Call[ImageRequest]) -> AbstractAsyncContextManager[Answer]:
        """As `embed`, for pictures that are to be made."""
        model = self.catalog.resolve(call.request.model, call.caller)
        request = complete_image(call.request, model.entry.card)

        def way(request: ImageRequest) -> AbstractAsyncContextManager[Answer]:
            return _Passage(self, call, model, request, None)

        if self._pictures is None or not request.images:
            return way(request)
        return DrawnFrom(self._pictures, way, call, request)

    def _way(self, call: AnyCall, model: Model, request: TextRequest, kept: Filter | None) -> AbstractAsyncContextManager[Answer]:
        """To an engine; for calls that the cache has a part in, by way of it."""
        passage = _Passage(self, call, model, request, kept)
        if self._desk is None or (plan := self._desk.cache.plan(call, model, request)) is None:
            return passage
        return CachedPassage(self._desk, plan, Asking(call=call, model=model, request=request), passage)


class _Passage:
    """One call's way to an engine, a `cache.flights.Lead`. A class, since a generator's context manager costs five times as much."""

    __slots__ = ("_call", "_entry", "_gateway", "_kept", "_model", "_opening", "_request", "is_admitted", "is_limited", "is_refused")

    def __init__(self, gateway: Gateway, call: AnyCall, model: Model, request: Request, kept: Filter | None) -> None:
        self._gateway = gateway
        self._call = call
        self._model = model
        self._request = request
        self._kept = kept
        call.timeline.model = model.entry.name
        self.is_admitted = self.is_refused = self.is_limited = False

    async def __aenter__(self) -> Answer:
        gateway, call, model, request = self._gateway, self._call, self._model, self._request
        timeline = call.timeline
        timeline.entered_s = monotonic()
        prompt = await gateway.router.count(model, request)
        timeline.counted_s = monotonic()
        if prompt.deployment and isinstance(request, ChatRequest | CompletionRequest):
            request = msgspec.structs.replace(request, max_output_tokens=fit(request, prompt.input_tokens, model.entry.card))
        self.is_refused = True
        admitted = await gateway.admission.reserve(call, model, request, prompt.input_tokens)
        self.is_refused, self.is_admitted = False, True
        timeline.admitted_s = monotonic()
        # From here on the call's row is written, whatever happens.
        self._entry = entry = gateway.metering.entry(call, admitted)
        if gateway.prefixes is not None and isinstance(request, ChatRequest):
            entry.reusable_share = gateway.prefixes.share(call.caller.account_id, request)
        try:
            limit: int | None = None
            if admitted.output_tokens != request.max_output_tokens:
                limit = admitted.output_tokens
                self.is_limited = True
                request = msgspec.structs.replace(request, max_output_tokens=limit)
            weight = gateway.admission.weight(call.caller)
            caller, patience = call.caller, call.wishes.patience
            party = Party(account_id=caller.account_id, weight=weight, lane=call.lane, patience=patience, timeline=timeline)
            self._opening = gateway.router.open(model, request, prompt, party)
            answer = await self._opening.__aenter__()
        except BaseException as error:
            await entry.close(error)
            raise
        events = answer.events if self._kept is None else self._kept(answer.events)
        watched = entry.watch(events, answer)
        return msgspec.structs.replace(
            answer,
            events=watched,
            limits=admitted.lease.limits,
            output_limit_tokens=limit,
            is_named=call.wishes.shows_deployment,
        )

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            await self._opening.__aexit__(kind, error, trace)
        except BaseException as failure:
            error = failure
            raise
        finally:
            await self._entry.close(error)
