"""This is where a wish for pictures enters, in whatever dialect: answered at once, or made a task."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType

import msgspec

from qwenbox.dialects.base import Dialect, Page, ParsedImage, TasksWire, WireRequest
from qwenbox.gateway.catalog import ANY_MODEL
from qwenbox.gateway.router import Answer
from qwenbox.jobs.results import Results
from qwenbox.media import refusals
from qwenbox.server.answer import answer
from qwenbox.server.endpoints.chat import chat
from qwenbox.server.exchange import Exchange
from qwenbox.server.incoming import call
from qwenbox.server.parts import Parts, missing
from qwenbox.terms.call import Call
from qwenbox.terms.caller import Caller
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, ImageMade
from qwenbox.terms.image import ImageRequest
from qwenbox.terms.job import NewTask
from qwenbox.terms.model import Capability
from qwenbox.uploads import SCHEME

HOW_TO_DRAW = (
    "The model {model} does not exist: nothing on this box draws pictures yet. Whoever runs the box: install the extra qwenbox[images] and "
    "name a folder of weights, a server with /v1/images/generations, or the real service (docs/images.md)."
)


async def make_image(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    parse = dialect.parse_image or missing(dialect)
    parsed = parse(wire, parts.gateway.compat(caller))
    try:
        if dialect.tasks is not None and dialect.tasks.is_wanted(wire):
            await exchange.page(await _submitted(parts, dialect.tasks, call(parts, dialect, wire, caller, parsed), wire))
            return
        _check_synchronous(parts, dialect.tasks, parsed, caller)
        opening = parts.gateway.image(call(parts, dialect, wire, caller, parsed))
    except ApiError as error:
        raise _told(parts, error) from error
    if parsed.is_linked:
        opening = _Linked(opening, parts.results, caller, parts.address(exchange))
    await answer(parts, exchange, parsed.reply, opening)


async def chat_or_image(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    """One path for both: a model that draws and does not chat gets a picture's request, every other a chat."""
    name = (dialect.model_of or missing(dialect))(wire)
    await (make_image if draws(parts, dialect, name) else chat)(parts, dialect, exchange, wire, caller)


def draws(parts: Parts, dialect: Dialect, name: str) -> bool:
    model = parts.gateway.catalog.find(name)
    if model is None or model.entry.name == ANY_MODEL:
        return name.startswith(dialect.image_families)
    capabilities = model.entry.card.capabilities
    return Capability.IMAGE in capabilities and Capability.CHAT not in capabilities


async def _submitted(parts: Parts, speech: TasksWire, asked: Call[ImageRequest], wire: WireRequest) -> Page:
    request = asked.request
    # Refused now where it would be refused later; nothing is begun before it is entered.
    parts.gateway.image(asked)
    if not asked.wishes.resolves_uploads and any(image.url.startswith(SCHEME) for image in request.images):
        raise refusals.refused(refusals.WRONG_URL)
    new = NewTask(request_id=wire.id, endpoint=speech.endpoint(wire), model=request.model, prompt=request.prompt, total=request.n)
    return speech.submitted(await parts.tasks.submit(asked.caller, new, request), wire.id)


def _check_synchronous(parts: Parts, speech: TasksWire | None, parsed: ParsedImage, caller: Caller) -> None:
    if speech is not None and parts.gateway.catalog.resolve(parsed.request.model, caller).entry.card.images.is_task_only:
        raise ApiError(ErrorKind.FORBIDDEN, speech.only_tasks)


def _told(parts: Parts, error: ApiError) -> ApiError:
    """Where no model draws at all, whoever asked learns what the box lacks."""
    if error.kind is not ErrorKind.MODEL_NOT_FOUND or error.message:
        return error
    if any(Capability.IMAGE in model.entry.card.capabilities for model in parts.gateway.catalog.every()):
        return error
    return ApiError(ErrorKind.MODEL_NOT_FOUND, HOW_TO_DRAW.format(model=(error.param or "")[:128]), param=error.param)


class _Linked:
    """An answer whose pictures are kept, so that they can be told by their links."""

    __slots__ = ("_address", "_caller", "_opening", "_results")

    def __init__(self, opening: AbstractAsyncContextManager[Answer], results: Results, caller: Caller, address: str) -> None:
        self._opening = opening
        self._results = results
        self._caller = caller
        self._address = address

    async def __aenter__(self) -> Answer:
        opened = await self._opening.__aenter__()
        return msgspec.structs.replace(opened, events=_Links(opened.events, self._results, self._caller, self._address))

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool | None:
        return await self._opening.__aexit__(kind, error, trace)


class _Links:
    """Events whose pictures have links; a class, since a generator would need closing."""

    __slots__ = ("_address", "_caller", "_events", "_results")

    def __init__(self, events: AsyncIterator[ChatEvent], results: Results, caller: Caller, address: str) -> None:
        self._events = events
        self._results = results
        self._caller = caller
        self._address = address

    def __aiter__(self) -> AsyncIterator[ChatEvent]:
        return self

    async def __anext__(self) -> ChatEvent:
        event = await anext(self._events)
        if not isinstance(event, ImageMade) or not event.data:
            return event
        kept = await self._results.keep(self._caller.account_id, event.data, event.media_type)
        return msgspec.structs.replace(event, data=b"", url=self._address + self._results.path(kept))
