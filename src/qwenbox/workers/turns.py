"""This is where workers share the parent's engines: whose turn it is, and who uses which child.

The parent's `Host` serves one worker each, all of them from the same pools and lanes, so the fair queue is exact over all workers of
one parent. `LinkedTurns` and `LinkedLanes` are what a worker has in their place.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar, assert_never

import anyio
import anyio.abc
import msgspec

from qwenbox.engines.llamacpp.config import Endpoint, Lane, Lanes, Loadable
from qwenbox.gateway.scheduler import Claim, Turns
from qwenbox.terms.engine import Capacity, HealthState
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret
from qwenbox.workers.census import Census
from qwenbox.workers.link import (
    Ask,
    AskChild,
    AskChildAgain,
    AskConsole,
    AskMetrics,
    AskState,
    AskTurn,
    AskUnload,
    Back,
    Counted,
    FromParent,
    FromWorker,
    GivenChild,
    GivenConsole,
    GivenMetrics,
    GivenState,
    GivenUnload,
    Granted,
    LaneName,
    Link,
    Load,
    Refused,
    Serving,
    Wire,
)

_LOG = logging.getLogger("qwenbox.workers")

T = TypeVar("T")


class LinkedTurns:
    """A worker's `Turns`: the parent decides."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting = 0

    @asynccontextmanager
    async def turn(self, engine: str, capacity: Capacity, claim: Claim) -> AsyncGenerator[None]:
        held = self._link.hold(AskTurn(queue=engine, capacity=capacity, claim=claim), Granted)
        self._waiting += 1
        try:
            await held.__aenter__()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            await held.__aexit__(None, None, None)

    def waiting(self) -> int:
        return self._waiting


class LinkedLanes:
    """A worker's lanes of one engine: the parent's children."""

    def __init__(self, link: Link, engine: str) -> None:
        self.shared: Lane = _LinkedLane(link, LaneName(engine=engine, is_exact=False))
        self.exact: Lane = _LinkedLane(link, LaneName(engine=engine, is_exact=True))


class _LinkedLane:
    def __init__(self, link: Link, name: LaneName) -> None:
        self._link = link
        self._name = name

    @asynccontextmanager
    async def use(self, weights: Loadable) -> AsyncGenerator[Endpoint]:
        async with self._link.hold(AskChild(lane=self._name, weights=_load(weights)), GivenChild) as given:
            yield _endpoint(given)

    async def endpoint(self, weights: Loadable) -> Endpoint:
        return _endpoint(await self._link.get(AskChildAgain(lane=self._name, weights=_load(weights)), GivenChild))

    async def state(self) -> HealthState:
        return (await self._link.get(AskState(lane=self._name), GivenState)).state

    async def unload(self) -> bool:
        return (await self._link.get(AskUnload(lane=self._name), GivenUnload)).is_unloaded


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """What workers have together, in their parent's process.

    lanes: of the engines with children, by name. census: what all of them count. console: its port, started if need be.
    """

    turns: Turns
    lanes: Mapping[str, Lanes]
    census: Census
    console: Callable[[], Awaitable[int]]


class Host:
    """The parent's side of one worker's link. on_serving: called when the worker says that it answers calls."""

    def __init__(self, wire: Wire[FromWorker], shared: Shared, on_serving: Callable[[], None]) -> None:
        self._wire = wire
        self._shared = shared
        self._on_serving = on_serving
        self._holds: dict[int, anyio.CancelScope] = {}

    async def serve(self) -> None:
        """Until the worker's end; whatever it held or waited for is free then."""
        with self._shared.census.member(self._wire):
            async with anyio.create_task_group() as tasks:
                self._wire.listen(lambda message: self._hear(message, tasks))
                await self._wire.over.wait()
                tasks.cancel_scope.cancel()

    def _hear(self, message: FromWorker, tasks: anyio.abc.TaskGroup) -> None:
        match message:
            case Serving():
                self._on_serving()
            case Counted():
                self._shared.census.heard(self._wire, message)
            case Back():
                scope = self._holds.pop(message.id, None)
                if scope is not None:
                    scope.cancel()
            case AskTurn() | AskChild() | AskChildAgain() | AskState() | AskUnload() | AskMetrics() | AskConsole():
                scope = self._holds[message.id] = anyio.CancelScope()
                tasks.start_soon(self._answer, message, scope)
            case _:
                assert_never(message)

    async def _answer(self, ask: Ask, scope: anyio.CancelScope) -> None:
        with scope:
            try:
                match ask:
                    case AskTurn():
                        await self._hold(self._shared.turns.turn(ask.queue, ask.capacity, ask.claim), lambda _: Granted(id=ask.id))
                    case AskChild():
                        await self._hold(self._lane(ask.lane).use(ask.weights), lambda endpoint: _given(ask.id, endpoint))
                    case AskChildAgain():
                        self._wire.send(_given(ask.id, await self._lane(ask.lane).endpoint(ask.weights)))
                    case AskState():
                        self._wire.send(GivenState(id=ask.id, state=await self._lane(ask.lane).state()))
                    case AskUnload():
                        self._wire.send(GivenUnload(id=ask.id, is_unloaded=await self._lane(ask.lane).unload()))
                    case AskMetrics():
                        self._wire.send(GivenMetrics(id=ask.id, snapshot=await self._shared.census.gather()))
                    case AskConsole():
                        self._wire.send(GivenConsole(id=ask.id, port=await self._shared.console()))
                    case _:
                        assert_never(ask)
            except ApiError as error:
                self._wire.send(_refused(ask.id, error))
            except Exception as error:  # noqa: BLE001 - the last line of a worker's call in this process; all others go on
                _LOG.error("a worker's ask failed", exc_info=error)
                self._wire.send(_refused(ask.id, ApiError(ErrorKind.INTERNAL)))
        self._holds.pop(ask.id, None)

    async def _hold(self, opening: AbstractAsyncContextManager[T], told: Callable[[T], FromParent]) -> None:
        async with opening as given:
            self._wire.send(told(given))
            await anyio.sleep_forever()

    def _lane(self, name: LaneName) -> Lane:
        lanes = self._shared.lanes[name.engine]
        return lanes.exact if name.is_exact else lanes.shared


def _load(weights: Loadable) -> Load:
    return Load(
        path=str(weights.path),
        size_bytes=weights.size_bytes,
        kv_bytes_per_token=weights.kv_bytes_per_token,
        projector=weights.projector,
        projector_bytes=weights.projector_bytes,
    )


def _endpoint(given: GivenChild) -> Endpoint:
    return Endpoint(address=given.address, key=Secret(given.key), marker=given.marker)


def _given(ask_id: int, endpoint: Endpoint) -> GivenChild:
    return GivenChild(id=ask_id, address=endpoint.address, key=endpoint.key.reveal(), marker=endpoint.marker)


def _refused(ask_id: int, error: ApiError) -> Refused:
    return Refused(id=ask_id, kind=error.kind, message=error.message, param=error.param, retry_after_s=error.retry_after_s)
