"""This is where a picture is fetched over HTTP: resolved once, vetted, and fetched from the very address that was vetted.

Redirects are followed here, each with the same care. There is no proxy, no cookie, no credential and no second look-up.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import anyio

from qwenbox import __version__
from qwenbox.http1 import Connection
from qwenbox.media import picture, refusals
from qwenbox.media.addresses import Target, Vetting, parse, redirected
from qwenbox.media.config import MediaConfig

# The addresses of a name; raises OSError where it has none.
Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Of a name with many, this many are tried.
_TRIED = 3
_CONNECT_S = 5.0


async def resolve(host: str, port: int) -> Sequence[str]:
    """By the system's own resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


class Downloads:
    def __init__(self, config: MediaConfig, resolve: Resolve = resolve, tls: ssl.SSLContext | None = None) -> None:
        """tls: whom to trust; the system's authorities by default."""
        self._config = config
        self._vetting = Vetting(config)
        self._resolve = resolve
        self._tls = tls

    async def get(self, url: str, most_bytes: int) -> bytes:
        """A file that begins like a picture. Raises ApiError(INVALID_REQUEST) with the service's text for all that can go wrong."""
        try:
            with anyio.fail_after(self._config.item_s):
                target = parse(url)
                for _ in range(self._config.redirects + 1):
                    found = await self._visit(target, most_bytes)
                    if isinstance(found, bytes):
                        return found
                    target = found
        except TimeoutError as error:
            raise refusals.refused(refusals.TIMED_OUT) from error
        raise refusals.refused(refusals.FAILED)

    async def _visit(self, target: Target, most_bytes: int) -> bytes | Target:
        """The body, or where it is instead."""
        connection = await self._connect(target, await self._vetted(target))
        try:
            connection.send(_request(target))
            deadline = connection.loop.time() + self._config.item_s
            while not connection.is_headed:
                await _more(connection, deadline)
            if connection.status in _REDIRECTS and "location" in connection.headers:
                return redirected(target, connection.headers["location"].encode("latin-1").decode("utf-8", "replace"))
            return await _body(connection, most_bytes, deadline)
        finally:
            connection.hang_up()

    async def _vetted(self, target: Target) -> Sequence[str]:
        """All addresses of the host. Raises ApiError(INVALID_REQUEST) if only one of them is not allowed."""
        try:
            addresses = await self._resolve(target.host, target.port)
        except (OSError, UnicodeError) as error:
            raise refusals.refused(refusals.NOT_FETCHED) from error
        if not addresses or not all(self._vetting.is_allowed(target.host, address) for address in addresses):
            raise refusals.refused(refusals.NOT_FETCHED)
        return addresses

    async def _connect(self, target: Target, addresses: Sequence[str]) -> Connection:
        """To one of `addresses`, which are literal: the event loop looks nothing up."""
        loop = asyncio.get_running_loop()
        tls = self._trusted() if target.is_tls else None
        name = target.host if target.is_tls else None
        for address in addresses[:_TRIED]:
            try:
                with anyio.move_on_after(_CONNECT_S):
                    _, connection = await loop.create_connection(Connection, address, target.port, ssl=tls, server_hostname=name)
                    return connection
            except (OSError, ValueError):
                continue
        raise refusals.refused(refusals.FAILED)

    def _trusted(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls


def _request(target: Target) -> bytes:
    lines = (
        f"GET {target.path} HTTP/1.1",
        f"host: {target.authority}",
        f"user-agent: qwenbox/{__version__}",
        "accept: image/*",
        "accept-encoding: identity",
        "connection: close",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


async def _body(connection: Connection, most_bytes: int, deadline: float) -> bytes:
    """Counted as it comes, whatever its head says of its length; given up at its first bytes if they are no picture's."""
    if connection.status != 200 or connection.headers.get("content-encoding", "identity").lower() != "identity":
        raise refusals.refused(refusals.FAILED)
    length = connection.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and (len(length) > 15 or int(length) > most_bytes):
        raise refusals.refused(refusals.TOO_LARGE)
    # Pieces, joined once: a growing buffer takes twice its size whenever it moves.
    pieces: list[bytes] = []
    size = 0
    is_known = False
    while True:
        is_over = connection.is_complete
        piece = connection.take()
        pieces.append(piece)
        size += len(piece)
        if size > most_bytes:
            raise refusals.refused(refusals.TOO_LARGE)
        if not is_known and (is_over or size >= picture.SNIFFED_BYTES):
            is_known = picture.kind(b"".join(pieces)[: picture.SNIFFED_BYTES]) is not None
            if not is_known:
                raise refusals.refused(refusals.NOT_DECODED)
        if is_over:
            return b"".join(pieces)
        if not connection.chunks:
            await _more(connection, deadline)


async def _more(connection: Connection, deadline: float) -> None:
    """Until something came. Raises ApiError(INVALID_REQUEST) where nothing will."""
    if connection.is_open and not connection.is_complete and not connection.chunks:
        await connection.wait(deadline)
    if connection.is_expired:
        raise refusals.refused(refusals.TIMED_OUT)
    if not connection.is_open and not connection.is_complete and not connection.chunks:
        raise refusals.refused(refusals.FAILED)
