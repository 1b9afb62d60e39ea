"""This is where the store that several workers share is reached: a script runs in one round trip, an outage shows at once.

One connection on the event loop's transport carries everything, in order; commands are written as they come and answers are matched to
them by that order (docs/decisions/004-valkey-client.md). Who asks, and what to do without the store, is no business of this file.
"""

import asyncio
import hashlib
import logging
import random
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import TypeAlias, cast
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import anyio
import msgspec

from qwenbox.terms.secret import Secret
from qwenbox.valkey.resp import ProtocolError, Reader, Reply, ReplyError, command

_LOG = logging.getLogger(__name__)

_TLS_SCHEMES = ("rediss", "valkeys")
_SCHEMES = ("redis", "valkey", *_TLS_SCHEMES)
_SOCKET_SCHEMES = ("unix", "redis+unix", "valkey+unix")

# Answers that say: this server cannot serve now; another try may find it, or the one that took its place.
_AWAY = frozenset({"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "NOAUTH"})
_FIRST_BACKOFF_S = 0.05
_LAST_BACKOFF_S = 0.5


class StoreConfig(msgspec.Struct, frozen=True, kw_only=True):
    """url: redis://, valkey://, rediss:// or valkeys:// (TLS) [user[:password]@]host[:port][/database], or unix:///path[?db=N].

    ca: a file with the authorities to trust over TLS, "" for the system's. connect_s: for one try to connect, greeting included.
    command_s: a command unanswered for that long means the connection is dead.
    """

    url: Secret
    ca: str = ""
    connect_s: float = 2.0
    command_s: float = 2.0


class StoreDown(Exception):
    """The store cannot be reached, or was lost before it answered: whether the command ran is unknown."""


class StoreRefused(Exception):
    """The address makes no sense, or the store refuses us (password, database): waiting will not help."""


# Told what a command was answered, or that it will not be.
Answered: TypeAlias = "Callable[[Reply | StoreDown], None]"


class Script:
    """A Lua script, run by its digest. The store learns it when the connection opens, or when it says that it forgot it."""

    def __init__(self, source: str) -> None:
        text = source.encode()
        digest = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
        self.load = command(b"SCRIPT", b"LOAD", text)
        self.by_digest = b"$7\r\nEVALSHA\r\n$40\r\n%b\r\n" % digest
        self.by_source = b"$4\r\nEVAL\r\n$%d\r\n%b\r\n" % (len(text), text)


class Store:
    """What counters and caches use. connections: how often we connected; another figure means another connection, maybe another server."""

    def __init__(self, config: StoreConfig, scripts: Sequence[Script] = ()) -> None:
        self._config = config
        self._address = _Address(config.url)
        self._hello = self._address.greeting() + [script.load for script in scripts]
        self._wire: _Wire | None = None
        self._change = anyio.Event()
        self.connections = 0

    def __repr__(self) -> str:
        return f"Store({self._address})"

    @property
    def is_up(self) -> bool:
        return self._wire is not None

    async def call(self, *parts: str) -> Reply:
        """One plain command. Raises StoreDown, ReplyError."""
        return await self._send(command(*[part.encode() for part in parts]))

    async def call_script(self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes]) -> Reply:
        """What the script returns; its keys must share one hash tag. Raises StoreDown, ReplyError."""
        head, tail = b"*%d\r\n" % (3 + len(keys) + len(arguments)), _tail(keys, arguments)
        try:
            return await self._send(head + script.by_digest + tail)
        except ReplyError as error:
            if error.code != "NOSCRIPT":
                raise
        return await self._send(head + script.by_source + tail)

    def post_script(self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes], lost: Callable[[], None]) -> None:
        """Run it after everything sent before, without waiting. lost: called, perhaps at once, if the store may not have run it."""
        if self._wire is None:
            lost()
            return
        head, tail = b"*%d\r\n" % (3 + len(keys) + len(arguments)), _tail(keys, arguments)

        def check(reply: "Reply | StoreDown") -> None:
            if isinstance(reply, ReplyError) and reply.code == "NOSCRIPT" and self._wire is not None:
                self._wire.send(head + script.by_source + tail, accept)
            else:
                accept(reply)

        def accept(reply: "Reply | StoreDown") -> None:
            if isinstance(reply, ReplyError):
                _LOG.error("The shared store answered: %s", reply)
            if isinstance(reply, (ReplyError, StoreDown)):
                lost()

        self._wire.send(head + script.by_digest + tail, check)

    async def wait_up(self) -> None:
        while self._wire is None:
            await self._change.wait()

    async def wait_down(self) -> None:
        while self._wire is not None:
            await self._change.wait()

    async def connect(self) -> None:
        """One try. Raises StoreDown, StoreRefused."""
        loop = asyncio.get_running_loop()
        wire = _Wire(loop, self._config.command_s, self._lose)
        try:
            async with asyncio.timeout(self._config.connect_s):
                await self._address.connect(loop, wire, self._config.ca)
                for greeting in self._hello:
                    await wire.ask(greeting)
        except ReplyError as error:
            wire.hang_up()
            raise (StoreDown if error.code in _AWAY - {"NOAUTH"} else StoreRefused)(f"{self._address} answered: {error}") from error
        except ssl.SSLCertVerificationError as error:
            raise StoreRefused(f"{self._address} is not trusted: {error.verify_message}") from error
        except (OSError, TimeoutError) as error:
            wire.hang_up()
            raise StoreDown(f"{self._address} cannot be reached: {type(error).__name__}") from error
        except BaseException:
            wire.hang_up()
            raise
        self._wire = wire
        self.connections += 1
        self._changed()

    async def stay_connected(self) -> None:
        """Connects again, sooner at first, for as long as it runs."""
        while True:
            await self.wait_down()
            backoff_s = _FIRST_BACKOFF_S
            while self._wire is None:
                try:
                    await self.connect()
                    _LOG.info("The shared store is back: %s", self._address)
                except (StoreDown, StoreRefused) as error:
                    _LOG.debug("%s", error)
                    await anyio.sleep(backoff_s * random.uniform(0.5, 1.0))
                    backoff_s = min(backoff_s * 2, _LAST_BACKOFF_S)

    def close(self) -> None:
        """Everything written so far still leaves."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    async def _send(self, data: bytes) -> Reply:
        if self._wire is None:
            raise StoreDown(f"{self._address} is not connected")
        wire = self._wire
        try:
            return await wire.ask(data)
        except ReplyError as error:
            if error.code in _AWAY:
                wire.hang_up()
                raise StoreDown(f"{self._address} answered: {error}") from error
            raise

    def _lose(self, wire: "_Wire", reason: str) -> None:
        if self._wire is wire:  # neither a try to connect nor a close is an outage
            _LOG.warning("The shared store is gone: %s (%s)", self._address, reason)
            self._wire = None
            self._changed()

    def _changed(self) -> None:
        self._change.set()
        self._change = anyio.Event()


@asynccontextmanager
async def open_store(config: StoreConfig, scripts: Sequence[Script] = ()) -> AsyncGenerator[Store]:
    """The store for as long as the context lasts, whether it can be reached or not. Raises StoreRefused."""
    store = Store(config, scripts)
    try:
        await store.connect()
    except StoreDown as error:
        _LOG.warning("The shared store is not there yet: %s", error)
    async with anyio.create_task_group() as group:
        group.start_soon(store.stay_connected)
        try:
            yield store
        finally:
            group.cancel_scope.cancel()
            store.close()


class _Address:
    """Where the store is, and what to say there first. Its text never holds the password."""

    def __init__(self, url: Secret) -> None:
        parts = urlsplit(url.reveal())
        if parts.scheme not in (*_SCHEMES, *_SOCKET_SCHEMES):
            raise StoreRefused(f"[valkey] url must begin with one of: {', '.join(f'{name}://' for name in (*_SCHEMES, 'unix'))}")
        self._path = unquote(parts.path) if parts.scheme in _SOCKET_SCHEMES else ""
        self._is_tls = parts.scheme in _TLS_SCHEMES
        self._host = parts.hostname or "127.0.0.1"
        self._user = unquote(parts.username or "")
        self._password = Secret(unquote(parts.password or ""))
        self._database = _database(parts)
        try:
            self._port = parts.port or 6379
        except ValueError as error:
            raise StoreRefused("[valkey] url: the port must be a number below 65,536") from error

    def __str__(self) -> str:
        return f"unix://{self._path}" if self._path else f"{self._host}:{self._port}"

    def greeting(self) -> list[bytes]:
        user, password = self._user.encode(), self._password.reveal().encode()
        words = [command(b"AUTH", *([user] if user else []), password)] if password else []
        return [*words, command(b"PING"), *([command(b"SELECT", b"%d" % self._database)] if self._database else [])]

    async def connect(self, loop: asyncio.AbstractEventLoop, wire: "_Wire", ca: str) -> None:
        if self._path:
            await loop.create_unix_connection(lambda: wire, self._path)
            return
        context = ssl.create_default_context(cafile=ca or None) if self._is_tls else None
        await loop.create_connection(lambda: wire, self._host, self._port, ssl=context)


def _database(parts: SplitResult) -> int:
    text = parse_qs(parts.query).get("db", ["0"])[0] if parts.scheme in _SOCKET_SCHEMES else parts.path.strip("/") or "0"
    if not text.isdecimal():
        raise StoreRefused("[valkey] url: the database after the last / must be a number")
    return int(text)


def _tail(keys: Sequence[bytes], arguments: Sequence[bytes]) -> bytes:
    return b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in (b"%d" % len(keys), *keys, *arguments)])


class _Wire(asyncio.Protocol):
    """One connection. Answers come in the order of the commands; one timer watches the oldest command that has none."""

    def __init__(self, loop: asyncio.AbstractEventLoop, command_s: float, lose: "Callable[[_Wire, str], None]") -> None:
        self._loop = loop
        self._command_s = command_s
        self._lose = lose
        self._transport: asyncio.Transport | None = None
        self._reader = Reader()
        self._pending: deque[tuple[float, Answered]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def send(self, data: bytes, answered: Answered) -> None:
        if self._transport is None:
            answered(StoreDown("not connected"))
            return
        deadline = self._loop.time() + self._command_s
        self._pending.append((deadline, answered))
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._look)
        self._transport.write(data)

    async def ask(self, data: bytes) -> Reply:
        future: asyncio.Future[Reply] = self._loop.create_future()

        def answered(reply: "Reply | StoreDown") -> None:
            if future.done():
                return
            if isinstance(reply, (ReplyError, StoreDown)):
                future.set_exception(reply)
            else:
                future.set_result(reply)

        self.send(data, answered)
        return await future

    def hang_up(self, reason: str = "hung up") -> None:
        if self._transport is not None:
            self._transport.abort()
        self._end(reason)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _look(self) -> None:
        self._timer = None
        deadline = self._pending[0][0] if self._pending else inf
        if deadline <= self._loop.time():
            self.hang_up(f"no answer within {self._command_s} s")
        elif deadline < inf:
            self._timer = self._loop.call_at(deadline, self._look)

    def _end(self, reason: str) -> None:
        """Once: whoever waits learns of it after the owner, so that nobody asks a dead wire again."""
        if self._transport is None:
            return
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._lose(self, reason)
        pending, self._pending = self._pending, deque()
        for _, answered in pending:
            answered(StoreDown(f"the connection was lost: {reason}"))

    # What the event loop tells us.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports keep the interface without the class

    def data_received(self, data: bytes) -> None:
        try:
            for reply in self._reader.feed(data):
                if not self._pending:
                    raise ProtocolError("an answer nobody asked for")
                self._pending.popleft()[1](reply)
        except ProtocolError as error:
            self.hang_up(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(type(exc).__name__ if exc else "closed by the other side")
