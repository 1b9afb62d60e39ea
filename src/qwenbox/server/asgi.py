"""This is where routes of all dialects are mounted and every exchange gets its id, its key check and its last line."""

import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeAlias

import msgspec

from qwenbox.dialects.base import STREAMED_BODIES, Dialect, Page, Verb, WireRequest
from qwenbox.server import heads, problems
from qwenbox.server.answer import ExceptionAfterStart
from qwenbox.server.endpoints import batches, files, tasks, uploads
from qwenbox.server.endpoints.chat import chat
from qwenbox.server.endpoints.complete import complete
from qwenbox.server.endpoints.count import count_prompt
from qwenbox.server.endpoints.embed import embed
from qwenbox.server.endpoints.images import chat_or_image, make_image
from qwenbox.server.endpoints.models import models
from qwenbox.server.endpoints.rerank import rerank
from qwenbox.server.endpoints.responses import count_response, create_response, delete_response, get_response, response_input
from qwenbox.server.endpoints.short_lived import short_lived
from qwenbox.server.endpoints.tokens import tokens
from qwenbox.server.exchange import ClientGone, Exchange, Receive, Scope, Send
from qwenbox.server.lost import Lost
from qwenbox.server.parts import Parts
from qwenbox.server.probes import Probes
from qwenbox.telemetry.logs import REQUEST_ID
from qwenbox.telemetry.metrics import Metrics
from qwenbox.telemetry.watch import Watch
from qwenbox.terms.caller import Caller
from qwenbox.terms.errors import ApiError, ErrorKind

_LOG = logging.getLogger("qwenbox.server")

# In place of a dialect, for what speaks none.
OWN = "qwenbox"

Endpoint: TypeAlias = Callable[[Parts, Dialect, Exchange, WireRequest, Caller], Awaitable[None]]

ENDPOINTS: dict[Verb, Endpoint] = {
    Verb.CHAT: chat,
    Verb.COMPLETE: complete,
    Verb.EMBED: embed,
    Verb.RERANK: rerank,
    Verb.COUNT_TOKENS: tokens,
    Verb.MAKE_IMAGE: make_image,
    Verb.CHAT_OR_IMAGE: chat_or_image,
    Verb.GET_TASK: tasks.get,
    Verb.LIST_TASKS: tasks.list_tasks,
    Verb.CANCEL_TASK: tasks.cancel,
    Verb.COUNT_PROMPT: count_prompt,
    Verb.LIST_MODELS: models,
    Verb.GET_MODEL: models,
    Verb.SHORT_LIVED_KEY: short_lived,
    Verb.UPLOAD_FILE: files.upload,
    Verb.GRANT_UPLOAD: uploads.grant,
    Verb.LIST_FILES: files.list_files,
    Verb.GET_FILE: files.get,
    Verb.DELETE_FILE: files.delete,
    Verb.FILE_CONTENT: files.content,
    Verb.CREATE_BATCH: batches.create,
    Verb.LIST_BATCHES: batches.list_batches,
    Verb.GET_BATCH: batches.get,
    Verb.CANCEL_BATCH: batches.cancel,
    Verb.CREATE_RESPONSE: create_response,
    Verb.GET_RESPONSE: get_response,
    Verb.DELETE_RESPONSE: delete_response,
    Verb.RESPONSE_INPUT: response_input,
    Verb.COUNT_RESPONSE: count_response,
}


class Mounted(msgspec.Struct, frozen=True, kw_only=True):
    """A route under one of its dialect's prefixes."""

    dialect: Dialect
    endpoint: Endpoint
    is_streamed: bool = False
    operation: str = ""


class _Open(msgspec.Struct, frozen=True, kw_only=True):
    """A path with a parameter: what comes before and after it."""

    method: str
    before: str
    name: str
    after: str
    mounted: Mounted

    def value(self, path: str) -> str | None:
        """What the parameter is in this path; None when it is another path. Before more text it is one segment."""
        if not (path.startswith(self.before) and path.endswith(self.after)):
            return None
        value = path[len(self.before) : len(path) - len(self.after)]
        return value if value and not (self.after and "/" in value) else None


class Routes:
    """Exact paths in one table, paths with a parameter in another; a trailing slash means nothing."""

    def __init__(self, dialects: tuple[Dialect, ...]) -> None:
        self._exact: dict[tuple[str, str], Mounted] = {}
        self._open: list[_Open] = []
        for dialect in dialects:
            for prefix in dialect.prefixes:
                for route in dialect.routes:
                    is_streamed = route.verb in STREAMED_BODIES
                    self._add(
                        route.method,
                        f"{prefix}{route.path}",
                        Mounted(dialect=dialect, endpoint=ENDPOINTS[route.verb], is_streamed=is_streamed, operation=route.verb.value),
                    )
        # The path that says most is asked first: /files/{id}/content before /files/{id}.
        self._open.sort(key=lambda route: -len(route.after))

    def _add(self, method: str, path: str, mounted: Mounted) -> None:
        before, brace, rest = path.partition("{")
        if brace:
            name, _, after = rest.partition("}")
            self._open.append(_Open(method=method, before=before, name=name, after=after, mounted=mounted))
        else:
            self._exact[method, path] = mounted

    def find(self, method: str, path: str) -> tuple[Mounted, dict[str, str]] | None:
        mounted = self._exact.get((method, path)) or self._exact.get((method, path.rstrip("/")))
        if mounted is not None:
            return mounted, {}
        bare = path.rstrip("/")
        for route in self._open:
            if method == route.method and (value := route.value(bare)) is not None:
                return route.mounted, {route.name: value}
        return None

    def methods(self, path: str) -> list[str]:
        """Methods under which this path exists."""
        bare = path.rstrip("/")
        exact = [method for method, known in self._exact if known == bare]
        found = [(len(route.after), route.method) for route in self._open if route.value(bare) is not None]
        return exact + [method for length, method in found if length == max(found)[0]]


class Desk(Protocol):
    """Something of our own beside the dialects, with a prefix and a credential of its own."""

    async def answer(self, exchange: Exchange) -> None: ...


def build(
    parts: Parts, dialects: tuple[Dialect, ...], probes: Probes, desks: Mapping[str, Desk], watch: Watch | None = None
) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The box as an ASGI application. desks: by the prefix of their paths. watch: hears of every exchange's end."""
    routes = Routes(dialects)
    lost = Lost(dialects, routes.methods)
    prefixes = tuple(desks)
    watch = watch or Watch(Metrics("box"))

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await _refuse(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, new_id())
        REQUEST_ID.set(exchange.id)
        timeline = exchange.timeline
        watch.metrics.in_progress += 1
        try:
            found = routes.find(exchange.method, exchange.path)
            if found is not None:
                timeline.dialect, timeline.operation = found[0].dialect.name, found[0].operation
                await _serve(parts, found[0], found[1], exchange)
                return
            timeline.dialect = OWN
            if exchange.path.startswith(prefixes):
                prefix = next(prefix for prefix in desks if exchange.path.startswith(prefix))
                timeline.operation = prefix.strip("/").replace("/", "_")
                await _at_desk(desks[prefix], exchange)
            elif await probes.answer(exchange):
                timeline.operation = "probe"
            else:
                timeline.operation = "lost"
                await exchange.page(lost.page(exchange))
        finally:
            watch.metrics.in_progress -= 1
            watch.ended(timeline, exchange.status, time.monotonic(), exchange.scope["headers"])

    return application


def new_id() -> str:
    """A lowercase uuid, as the service's request ids are, of version 7 (RFC 9562): the millisecond first, then 74 random bits.

    Calls that end together so lie together in the indexes of the books, and a group of them touches few pages: wholly random ids
    cost 20 µs of CPU more per call (SQLite, groups of 12).
    """
    at = f"{time.time_ns() // 1_000_000:012x}"
    bits = os.urandom(10).hex()
    return f"{at[:8]}-{at[8:]}-7{bits[:3]}-{'89ab'[int(bits[3], 16) & 3]}{bits[4:7]}-{bits[7:19]}"


async def _serve(parts: Parts, mounted: Mounted, path_params: dict[str, str], exchange: Exchange) -> None:
    """Authenticate and answer; the server's one catch-all: whatever else fails is `internal`, told by its request id."""
    dialect = mounted.dialect
    try:
        if mounted.is_streamed:
            wire = exchange.head(path_params)
        else:
            wire = await exchange.read(parts.config.body_limit_bytes, path_params)
        caller = parts.verify(dialect.credential(wire))
        await mounted.endpoint(parts, dialect, exchange, wire, caller)
    except ClientGone:
        _LOG.debug("request %s was never whole", exchange.id)
    except ApiError as error:
        exchange.timeline.error = error.kind.value
        if mounted.is_streamed:
            await exchange.drain()
        await exchange.page(heads.of_error(dialect.error_page(error, exchange.id), error.limits))
    except ExceptionAfterStart as error:
        exchange.timeline.error = ErrorKind.INTERNAL.value
        _LOG.error("request %s failed after its first byte", exchange.id, exc_info=error.__cause__)
    except Exception as error:  # noqa: BLE001 - the server's last line
        exchange.timeline.error = ErrorKind.INTERNAL.value
        _LOG.error("request %s failed", exchange.id, exc_info=error)
        if not exchange.has_begun:
            await exchange.page(_internal(dialect, exchange))


async def _at_desk(desk: Desk, exchange: Exchange) -> None:
    """The same last line, for what no dialect renders."""
    try:
        await desk.answer(exchange)
    except Exception as error:  # noqa: BLE001 - the server's last line
        _LOG.error("request %s failed", exchange.id, exc_info=error)
        if not exchange.has_begun:
            await exchange.page(problems.page(ApiError(ErrorKind.INTERNAL)))


def _internal(dialect: Dialect, exchange: Exchange) -> Page:
    return dialect.error_page(ApiError(ErrorKind.INTERNAL), exchange.id)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1003, "reason": "qwenbox serves HTTP only"})
