"""This is where the console's process is held: started by the first visit, and by the next one after it has died."""

import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, closing
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import anyio
import msgspec

from qwenbox.clock import Clock
from qwenbox.config import Config
from qwenbox.console.settings import Opening
from qwenbox.engines.child import Child, ChildCommand, ChildConfig
from qwenbox.gateway.sign_in import SignIn
from qwenbox.server.admin.guard import AdminKey, is_loopback
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.workers.link import AskConsole, GivenConsole
from qwenbox.workers.seat import Seat

_LOG = logging.getLogger("qwenbox.console")

MODULE = "qwenbox.console"
PATH = "/console"

# Somebody is waiting: a start that takes longer than this has gone wrong. It is short, too, so that it is soon tried again.
CHILD = ChildConfig(ready_s=60.0, backoff_most_s=5.0)

# A visitor waits this long for a console that rests after a crash.
_PATIENCE_S = 2.0
_MOST_LOGGED = 4_000

_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (an address to replace, not to listen on)

_NONE = "This box has no console: [console] enabled is false in its settings."
_NO_KEY = (
    "The console is closed: the box listens on an address that others can reach, and no admin key was chosen for it. "
    "Set QWENBOX_ADMIN_KEY, or key in the [admin] table of qwenbox.toml, and start the box again."
)
_NO_ADMIN = (
    "The console is closed: the box listens on an address that others can reach, and no administrator has a password. On its machine: "
    "`qwenbox accounts create NAME --role admin`, then `qwenbox accounts password NAME`."
)


class Console:
    """The console's process, and where it listens; leaving the context ends it. Build it inside the event loop."""

    def __init__(self, config: Config, key: AdminKey, clock: Clock, module: str = MODULE) -> None:
        """config: with the port at which the box really listens. module: what is started."""
        self._config = config
        self._key = key
        self._clock = clock
        self._tasks = anyio.create_task_group()
        self._child = Child(ChildCommand(name="console", module=module), CHILD, self._tasks, clock)
        self._trouble = ""
        self._explained_starts = 0
        self._picked = 0

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with anyio.CancelScope(shield=True):
            await self._child.stop()
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)  # with the error it would come out wrapped in a group

    @property
    def pid(self) -> int | None:
        return self._child.pid

    async def port(self) -> int:
        """Where it listens, started if need be. Raises ApiError(OVERLOADED), whose message is for a visitor."""
        try:
            return await self._started()
        except ApiError as error:
            if error.retry_after_s is None or error.retry_after_s > _PATIENCE_S:
                raise
            await self._clock.sleep(error.retry_after_s)
            return await self._started()

    async def _started(self) -> int:
        self._note_end()
        try:
            address = (await self._child.ready(self._opening)).address
        except ApiError as error:
            if error.kind is ErrorKind.ENGINE_FAILED:
                await self._explain()
            trouble = self._trouble or "The console is being started again."
            raise ApiError(ErrorKind.OVERLOADED, trouble, retry_after_s=error.retry_after_s) from error
        self._trouble = ""
        port = urlsplit(address).port or self._config.console.port
        if not self._config.console.port:
            # Cookies are named by it: whoever was signed in stays so when the console is started again.
            self._picked = port
        return port

    def _opening(self) -> bytes:
        config = self._config
        address = box_address(config)
        opening = Opening(
            box=address,
            admin_key=self._key.secret.reveal(),
            host=config.server.host,
            port=config.console.port or self._picked,
            is_local=is_loopback(config.server.host),
            base_url=config.server.public_url or ("" if config.server.host in _EVERYWHERE else address),
        )
        return msgspec.json.encode(opening)

    def _note_end(self) -> None:
        """It was there and has died: the owner's log says what it said last."""
        starts = self._child.state("console").starts
        if starts > self._explained_starts and not self._child.is_ready and not self._child.is_starting:
            self._explained_starts = starts
            _LOG.warning("the console ended and is started again; it said last: %s", self._said())

    async def _explain(self) -> None:
        """Why it did not start: to the owner in its own words, to visitors in ours."""
        starts = self._child.state("console").starts
        if starts == self._explained_starts:
            return
        self._explained_starts = starts
        self._picked = 0
        host, port = self._config.server.host, self._config.console.port
        taken = _refusal(host, port)
        self._trouble = "The console did not start; the box's log says why."
        if taken:
            self._trouble = (
                f"The console cannot listen on {host}:{port}: {taken}. Choose another port with QWENBOX_CONSOLE_PORT, or port in the "
                "[console] table of qwenbox.toml (0 picks a free one), and start the box again."
            )
        _LOG.error("%s", self._trouble if taken else f"the console did not start; it said: {self._said()}")

    def _said(self) -> str:
        return self._child.log[-_MOST_LOGGED:].strip() or "nothing"


async def console_port(
    stack: AsyncExitStack, config: Config, key: AdminKey, clock: Clock, seat: Seat | None
) -> Callable[[], Awaitable[int]]:
    """Where the console listens, started if need be: by this process, or by the parent of several workers."""
    if seat is None:
        return (await stack.enter_async_context(Console(config, key, clock))).port

    async def ask() -> int:
        return (await seat.link.get(AskConsole(), GivenConsole)).port

    return ask


class Entrance:
    """Who may be led to the console. port: where it listens, started if need be."""

    def __init__(self, config: Config, key: AdminKey, sign_in: SignIn, port: Callable[[], Awaitable[int]]) -> None:
        self._config = config
        self._key = key
        self._sign_in = sign_in
        self._port = port

    async def find(self) -> int:
        """The console's port. Raises ApiError in words for a visitor: NOT_FOUND, FORBIDDEN where it is closed, OVERLOADED."""
        closed = await closed_by(self._config, self._key, self._sign_in)
        if closed is not None:
            raise closed
        return await self._port()


async def closed_by(config: Config, key: AdminKey, sign_in: SignIn) -> ApiError | None:
    """Why nobody is let in; None where the console is open."""
    if not config.console.enabled:
        return ApiError(ErrorKind.NOT_FOUND, _NONE)
    if is_loopback(config.server.host):
        return None
    if not key.is_chosen:
        return ApiError(ErrorKind.FORBIDDEN, _NO_KEY)
    if not await sign_in.has_password():
        return ApiError(ErrorKind.FORBIDDEN, _NO_ADMIN)
    return None


async def first_way_in(config: Config, key: AdminKey, sign_in: SignIn) -> str | None:
    """The path that a start shows: with a one-time link, unless people have passwords. None where the console is closed."""
    if await closed_by(config, key, sign_in) is not None:
        return None
    if await sign_in.has_password():
        return PATH
    return f"{PATH}?token={(await sign_in.first_link()).token.reveal()}"


def box_address(config: Config) -> str:
    """Where this machine reaches the box."""
    host = _EVERYWHERE.get(config.server.host, config.server.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{config.server.port}"


def _refusal(host: str, port: int) -> str:
    """What keeps anybody from listening there; "" when nothing does."""
    if not port:
        return ""
    with closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""
