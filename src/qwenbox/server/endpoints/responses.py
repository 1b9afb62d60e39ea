"""This is where responses are asked for, which may go on from stored ones; and where stored ones are shown, deleted and counted."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType

import msgspec

from qwenbox.dialects.base import Dialect, RecordingReply, ResponseDraft, WireRequest
from qwenbox.gateway.conversations import Conversations
from qwenbox.gateway.router import Answer
from qwenbox.server.answer import answer
from qwenbox.server.exchange import Exchange
from qwenbox.server.incoming import call
from qwenbox.server.parts import Parts, missing
from qwenbox.terms.caller import Caller
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.conversation import History, StoredResponse
from qwenbox.terms.events import ChatEvent, Completed

# What an answer without max_output_tokens is left of the context when old turns may go: one part of this many.
_ANSWERS_SHARE = 4


async def create_response(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    speech = dialect.responses or missing(dialect)
    draft = speech.draft(wire, parts.gateway.compat(caller))
    is_stored = parts.conversations.keeps(draft.wants_storing)
    history = await _history(parts, draft, caller)
    parsed = draft.join(() if history is None else history.turns, is_stored=is_stored)
    if draft.is_truncated:
        caller = _truncating(parts, parsed.request, caller)
    opening = parts.gateway.chat(call(parts, dialect, wire, caller, parsed))
    if is_stored:
        opening = _Kept(opening, parsed.reply, _Shelf(parts.conversations, caller.account_id, draft.previous_id, history))
    await answer(parts, exchange, parsed.reply, opening)


async def count_response(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    speech = dialect.responses or missing(dialect)
    draft = speech.draft(wire, parts.gateway.compat(caller))
    history = await _history(parts, draft, caller)
    parsed = draft.join(() if history is None else history.turns, is_stored=False)
    if draft.is_truncated:
        caller = _truncating(parts, parsed.request, caller)
    await exchange.page(speech.counted(await parts.gateway.count(parsed.request, caller)))


async def get_response(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    speech = dialect.responses or missing(dialect)
    await exchange.page(speech.one(wire, await parts.conversations.get(caller.account_id, wire.path_params["id"])))


async def delete_response(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    speech = dialect.responses or missing(dialect)
    await parts.conversations.delete(caller.account_id, wire.path_params["id"])
    await exchange.page(speech.deleted(wire.path_params["id"]))


async def response_input(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    speech = dialect.responses or missing(dialect)
    await exchange.page(speech.input_page(wire, await parts.conversations.get(caller.account_id, wire.path_params["id"])))


async def _history(parts: Parts, draft: ResponseDraft, caller: Caller) -> History | None:
    return None if draft.previous_id is None else await parts.conversations.history(caller.account_id, draft.previous_id)


def _truncating(parts: Parts, request: ChatRequest, caller: Caller) -> Caller:
    """The caller, whose older turns are left out where the model's context cannot hold them and an answer."""
    card = parts.gateway.catalog.resolve(request.model, caller).entry.card
    answer_tokens = request.max_output_tokens or min(card.output_limit_tokens, card.context_tokens // _ANSWERS_SHARE)
    most = max(1, min(card.input_limit_tokens, card.context_tokens - answer_tokens))
    own = caller.thrift.history_tokens
    thrift = msgspec.structs.replace(caller.thrift, history_tokens=most if own is None else min(own, most))
    return msgspec.structs.replace(caller, thrift=thrift)


class _Shelf(msgspec.Struct, frozen=True):
    """Where an answer is kept, and after which."""

    conversations: Conversations
    account_id: str
    previous_id: str | None
    history: History | None


class _Kept:
    """An answer that is stored before its end is seen: what its client has, it can go on from."""

    def __init__(self, opening: AbstractAsyncContextManager[Answer], reply: RecordingReply, shelf: _Shelf) -> None:
        self._opening = opening
        self._reply = reply
        self._shelf = shelf

    async def __aenter__(self) -> Answer:
        answer = await self._opening.__aenter__()
        return msgspec.structs.replace(answer, events=_Keeping(answer.events, self._keep))

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._opening.__aexit__(kind, error, trace)

    async def _keep(self, event: Completed) -> None:
        shelf, turn = self._shelf, self._reply.record(event)
        response = StoredResponse(
            id=turn.id, account_id=shelf.account_id, previous_id=shelf.previous_id, input=turn.input, response=turn.response
        )
        await shelf.conversations.keep(response, shelf.history)


class _Keeping:
    """The events, the last held back until it is kept; a class, since a generator would need closing."""

    __slots__ = ("_events", "_keep")

    def __init__(self, events: AsyncIterator[ChatEvent], keep: Callable[[Completed], Awaitable[None]]) -> None:
        self._events = events
        self._keep = keep

    def __aiter__(self) -> AsyncIterator[ChatEvent]:
        return self

    async def __anext__(self) -> ChatEvent:
        event = await anext(self._events)
        if isinstance(event, Completed):
            await self._keep(event)
        return event
