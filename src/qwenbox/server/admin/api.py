"""This is where a request to the admin API meets its operation: credential first, then route, types, answer."""

import re
import uuid
from collections.abc import Mapping

import msgspec

from qwenbox.client.shapes import Nothing
from qwenbox.dialects.base import Head, Page
from qwenbox.server import problems
from qwenbox.server.admin import (
    accounts,
    budgets,
    cache,
    clock,
    console,
    engines,
    jobs,
    keys,
    ledger,
    limits,
    models,
    prices,
    recordings,
    series,
    system,
    usage,
)
from qwenbox.server.admin.guard import Guard
from qwenbox.server.admin.openapi import PREFIX, Json, document
from qwenbox.server.admin.operation import Asked, Operation, asked, operation
from qwenbox.server.admin.parts import AdminParts
from qwenbox.server.exchange import Exchange, Receive, Scope, Send
from qwenbox.terms.errors import ApiError, ErrorKind

_MOST_ID = 256
_PARAMETER = re.compile(r"\\{(\w+)\\}")
_encoder = msgspec.json.Encoder()


async def describe(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> Json:
    """This description of the API."""
    return document(OPERATIONS)


OPERATIONS: tuple[Operation, ...] = (
    *accounts.OPERATIONS,
    *keys.OPERATIONS,
    *usage.OPERATIONS,
    *series.OPERATIONS,
    *budgets.OPERATIONS,
    *recordings.OPERATIONS,
    *ledger.OPERATIONS,
    *limits.OPERATIONS,
    *prices.OPERATIONS,
    *engines.OPERATIONS,
    *models.OPERATIONS,
    *system.OPERATIONS,
    *jobs.OPERATIONS,
    *cache.OPERATIONS,
    *clock.OPERATIONS,
    *console.OPERATIONS,
    operation("GET /openapi.json", describe),
)


class AdminApi:
    """Answers every exchange below PREFIX; what it does not expect is raised, for the server's last line."""

    def __init__(self, parts: AdminParts, guard: Guard, body_limit_bytes: int) -> None:
        self._parts = parts
        self.guard = guard
        self._limit_bytes = body_limit_bytes
        self._routes: dict[str, tuple[re.Pattern[str], dict[str, Operation]]] = {}
        # The longest first: a model's name may have slashes, and would take what follows it for its own.
        for one in sorted(OPERATIONS, key=lambda one: -len(one.path)):
            pattern = re.compile(_PARAMETER.sub(_segment, re.escape(PREFIX + one.path)))
            self._routes.setdefault(one.path, (pattern, {}))[1][one.method] = one

    async def application(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The same as an ASGI application of its own, for a process that serves nothing else."""
        await self.answer(Exchange(scope, receive, send, str(uuid.uuid4())))

    async def answer(self, exchange: Exchange) -> None:
        try:
            await exchange.page(await self._page(exchange))
        except ApiError as error:
            await exchange.page(problems.page(error))

    async def _page(self, exchange: Exchange) -> Page:
        # The body first: a client that is refused while it still sends would see a broken connection, not the reason.
        wire = await exchange.read(self._limit_bytes)
        client = exchange.scope.get("client")
        await self.guard.admit(wire.headers.get("authorization", ""), str(client[0]) if client else "")
        wanted, path = self._find(wire.method, wire.path)
        return _page(wanted, await wanted.run(self._parts, asked(wanted, path, wire.query, wire.body)))

    def _find(self, method: str, path: str) -> tuple[Operation, Mapping[str, str]]:
        for pattern, methods in self._routes.values():
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if method not in methods:
                raise ApiError(ErrorKind.METHOD_NOT_ALLOWED, f"{method[:20]} is not possible here; {' or '.join(methods)} is.")
            return methods[method], _checked(match.groupdict())
        raise ApiError(ErrorKind.NOT_FOUND, f"The admin API has no such path; GET {PREFIX}/openapi.json lists what it has.")


def _segment(parameter: re.Match[str]) -> str:
    return f"(?P<{parameter[1]}>{'.+' if parameter[1] == 'model' else '[^/]+'})"


def _checked(path: dict[str, str]) -> dict[str, str]:
    for name, value in path.items():
        # What no id can be is not asked of a database, which may refuse the very characters.
        if len(value) > _MOST_ID or not value.isprintable():
            raise ApiError(ErrorKind.NOT_FOUND, f"There is no {name} of that id.", param=name)
    return path


def _page(wanted: Operation, made: object) -> Page:
    body = made.encode() if isinstance(made, str) else b"" if made is None else _encoder.encode(made)
    # Secrets, balances: nothing on the way may keep them.
    return Page(head=Head(status=wanted.status, media_type=wanted.media_type, headers={"cache-control": "no-store"}), body=body)
