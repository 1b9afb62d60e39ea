"""This is where every call gets its one frame: the decisions, in the order a call meets them."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec

from qwenbox.gateway import structure
from qwenbox.gateway.catalog import Catalog, complete_chat, complete_prompt
from qwenbox.gateway.router import Answer, Router
from qwenbox.terms.call import Call
from qwenbox.terms.caller import Caller, Compat
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.completion import CompletionRequest


class Gateway:
    """Takes calls in terms, gives answers in events; knows no wire."""

    def __init__(self, catalog: Catalog, router: Router, compat: Compat) -> None:
        self.catalog = catalog
        self._router = router
        self._compat = compat

    def compat(self, caller: Caller) -> Compat:
        """The level at which this caller's requests are read."""
        return caller.compat or self._compat

    @asynccontextmanager
    async def chat(self, call: Call[ChatRequest]) -> AsyncGenerator[Answer]:
        """The answer to a chat, begun; leaving the context ends the call and frees what it held. Raises ApiError."""
        model = self.catalog.resolve(call.request.model, call.caller)
        request = complete_chat(call.request, model.entry.card, call.caller, self.compat(call.caller))
        # A schema that cannot be used is refused before an engine is asked.
        kept = structure.kept(request)
        async with self._router.open(model, request) as answer:
            yield answer if kept is None else msgspec.structs.replace(answer, events=kept(answer.events))

    @asynccontextmanager
    async def complete(self, call: Call[CompletionRequest]) -> AsyncGenerator[Answer]:
        """As `chat`, for a raw prompt."""
        model = self.catalog.resolve(call.request.model, call.caller)
        request = complete_prompt(call.request, model.entry.card, call.caller, self.compat(call.caller))
        async with self._router.open(model, request) as answer:
            yield answer
