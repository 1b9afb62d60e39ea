"""This is where every call gets its one frame: the decisions, in the order a call meets them."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import msgspec

from qwenbox.gateway import structure
from qwenbox.gateway.admission import Admission
from qwenbox.gateway.catalog import Catalog, Model, Request, complete_chat, complete_prompt, fit
from qwenbox.gateway.metering import Metering
from qwenbox.gateway.router import Answer, Party, Router
from qwenbox.terms.call import AnyCall, Call
from qwenbox.terms.caller import Caller, Compat
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.events import ChatEvent

Filter: TypeAlias = Callable[[AsyncIterator[ChatEvent]], AsyncIterator[ChatEvent]]


class Gateway:
    """Takes calls in terms, gives answers in events; knows no wire."""

    def __init__(self, catalog: Catalog, router: Router, admission: Admission, metering: Metering, compat: Compat) -> None:
        self.catalog = catalog
        self._router = router
        self._admission = admission
        self._metering = metering
        self._compat = compat

    def compat(self, caller: Caller) -> Compat:
        """The level at which this caller's requests are read."""
        return caller.compat or self._compat

    @asynccontextmanager
    async def chat(self, call: Call[ChatRequest]) -> AsyncGenerator[Answer]:
        """The answer to a chat, begun; leaving the context ends the call, writes its row and frees what it held. Raises ApiError."""
        model = self.catalog.resolve(call.request.model, call.caller)
        request = complete_chat(call.request, model.entry.card, call.caller, self.compat(call.caller))
        # A schema that cannot be used is refused before an engine is asked.
        kept = structure.kept(request)
        async with self._answer(call, model, request, kept) as answer:
            yield answer

    @asynccontextmanager
    async def complete(self, call: Call[CompletionRequest]) -> AsyncGenerator[Answer]:
        """As `chat`, for a raw prompt."""
        model = self.catalog.resolve(call.request.model, call.caller)
        request = complete_prompt(call.request, model.entry.card, call.caller, self.compat(call.caller))
        async with self._answer(call, model, request, None) as answer:
            yield answer

    @asynccontextmanager
    async def _answer(self, call: AnyCall, model: Model, request: Request, kept: Filter | None) -> AsyncGenerator[Answer]:
        prompt = await self._router.count(model, request)
        if prompt.deployment:
            request = msgspec.structs.replace(request, max_output_tokens=fit(request, prompt.input_tokens, model.entry.card))
        admitted = await self._admission.reserve(call, model, request, prompt.input_tokens)
        entry = self._metering.entry(call, admitted)
        failure: BaseException | None = None
        try:
            limit: int | None = None
            if admitted.output_tokens != request.max_output_tokens:
                limit = admitted.output_tokens
                request = msgspec.structs.replace(request, max_output_tokens=limit)
            party = Party(account_id=call.caller.account_id, weight=self._admission.weight(call.caller), lane=call.lane)
            async with self._router.open(model, request, prompt, party) as answer:
                events = answer.events if kept is None else kept(answer.events)
                watched = entry.watch(events, answer)
                yield msgspec.structs.replace(answer, events=watched, limits=admitted.lease.limits, output_limit_tokens=limit)
        except BaseException as error:
            failure = error
            raise
        finally:
            await entry.close(failure)
