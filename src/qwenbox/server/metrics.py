"""This is where Prometheus reads what the box counted, if it may."""

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TypeAlias

import msgspec

from qwenbox.dialects.base import Head, Page
from qwenbox.server import problems
from qwenbox.server.admin.guard import Guard, is_loopback
from qwenbox.server.exchange import Exchange
from qwenbox.terms.errors import ApiError, ErrorKind

PATH = "/metrics"

# What a proxy in front of the box adds: behind it, everybody comes from loopback.
_FORWARDED = frozenset({b"forwarded", b"via", b"x-forwarded-for", b"x-real-ip"})

# Media type and body for an `Accept` header.
Render: TypeAlias = Callable[[str], Awaitable[tuple[str, bytes]]]


class Access(StrEnum):
    """OPEN: whoever reaches the port. ADMIN: with the admin key. AUTO: from this machine without, from elsewhere with it. OFF: nobody."""

    AUTO = "auto"
    OPEN = "open"
    ADMIN = "admin"
    OFF = "off"


class MetricsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[metrics]`. access: to `/metrics`; see Access and docs/metrics.md."""

    access: Access = Access.AUTO


class MetricsPage:
    """Answers `/metrics`. host: where the box listens."""

    def __init__(self, config: MetricsConfig, host: str, guard: Guard, render: Render) -> None:
        self._access = config.access
        self._is_local = is_loopback(host)
        self._guard = guard
        self._render = render

    async def answer(self, exchange: Exchange) -> None:
        headers = {name: value.decode("latin-1") for name, value in exchange.scope["headers"]}
        try:
            if self._access is Access.OFF:
                raise ApiError(ErrorKind.NOT_FOUND, "This box shows no metrics ([metrics] access).")
            if not self._is_open_to(exchange, headers):
                client = exchange.scope.get("client")
                await self._guard.admit(headers.get(b"authorization", ""), str(client[0]) if client else "")
        except ApiError as error:
            exchange.timeline.error = error.kind.value
            await exchange.page(problems.page(error))
            return
        media_type, body = await self._render(headers.get(b"accept", ""))
        head = Head(status=200, media_type=media_type, headers={"cache-control": "no-store"})
        await exchange.page(Page(head=head, body=b"" if exchange.method == "HEAD" else body))

    def _is_open_to(self, exchange: Exchange, headers: dict[bytes, str]) -> bool:
        """A web page that had its own name resolve to this machine would come with that name as Host."""
        if self._access is not Access.AUTO:
            return self._access is Access.OPEN
        host = exchange.address.partition("://")[2]
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        return self._is_local and is_loopback(name) and not _FORWARDED & headers.keys()
