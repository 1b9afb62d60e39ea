"""This is where identical calls that come together make one call of an engine: the first leads, all read what it hears.

A flight is a task of its own, so the first caller may hang up; when the last reader leaves, it ends as a call whose client left. Who is
refused for its own limits or money is told so, and the next in line leads.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from types import TracebackType
from typing import Protocol, TypeAlias

import anyio
import anyio.abc

from qwenbox.gateway.cache.base import Item
from qwenbox.gateway.router import Answer
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, ChoiceFinished, Completed, FinishReason


class Lead(Protocol):
    """One call's own way to an engine: entered, it is admitted, asks, and is watched; left, it is over and its row is written.

    is_admitted: its limits and money let it through; is_refused: they did not. is_limited: they granted a shorter answer than asked for.
    """

    is_admitted: bool
    is_refused: bool
    is_limited: bool

    async def __aenter__(self) -> Answer: ...

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


# Looks on the shelf, and takes what was completed: its deployment and its events, and whether others may have it later.
Find: TypeAlias = Callable[[], Awaitable[Item | None]]
Keep: TypeAlias = Callable[[str, tuple[ChatEvent, ...], bool], None]


class Flights:
    """All flights of a process. They run while `follow` does."""

    def __init__(self) -> None:
        self._group: anyio.abc.TaskGroup | None = None
        self._open: dict[Hashable, Flight] = {}

    @property
    def is_open(self) -> bool:
        return self._group is not None

    async def follow(self) -> None:
        async with anyio.create_task_group() as group:
            self._group = group
            try:
                await anyio.sleep_forever()
            finally:
                self._group = None

    def board(self, name: Hashable, lead: Lead, find: Find, keep: Keep) -> "Reader":
        """A place in the flight of that name, which begins now if there is none. Only while `is_open`; the reader must `leave`."""
        flight = self._open.get(name)
        if flight is None:
            if self._group is None:
                raise RuntimeError("flights begin only while they are followed")
            flight = self._open[name] = Flight(self, name, find, keep)
            reader = flight.join(lead)
            self._group.start_soon(flight.run)
            return reader
        return flight.join(lead)

    def close(self, flight: "Flight") -> None:
        """Nobody boards it any more."""
        if self._open.get(flight.name) is flight:
            del self._open[flight.name]


class Flight:
    """item: was found on the shelf, so no engine is asked. answer: the leader's, once there is one. failure: how it ended, if badly.

    is_cut: the leader's own limits made its answer shorter than another's would be.
    """

    def __init__(self, flights: Flights, name: Hashable, find: Find, keep: Keep) -> None:
        self.name = name
        self._flights = flights
        self._find = find
        self._keep = keep
        self._scope = anyio.CancelScope()
        self._readers: dict[Reader, None] = {}
        self._leader: Reader | None = None
        self.events: list[ChatEvent] = []
        self.item: Item | None = None
        self.answer: Answer | None = None
        self.failure: Exception | None = None
        self.was_admitted = False
        self.is_limited = False
        self.is_cut = False
        self.is_complete = False
        self.landed = anyio.Event()

    def join(self, lead: Lead) -> "Reader":
        reader = Reader(self, lead)
        self._readers[reader] = None
        return reader

    def is_led_by(self, reader: "Reader") -> bool:
        return self._leader is reader

    def leave(self, reader: "Reader") -> None:
        self._readers.pop(reader, None)
        if not self._readers and not self.is_complete and not self.landed.is_set():
            self._flights.close(self)
            self._scope.cancel()

    async def run(self) -> None:
        try:
            with self._scope:
                await self._fly()
        except Exception as error:  # noqa: BLE001 (nothing is swallowed: every reader raises it)
            self.failure = error
        finally:
            if not (self.is_complete or self.item or self.failure):
                self.failure = ApiError(ErrorKind.OVERLOADED, "The box is stopping. Please try again.", retry_after_s=1)
            self._flights.close(self)
            self.landed.set()
            self._tell()

    async def _fly(self) -> None:
        self.item = await self._find()
        if self.item is not None:
            return
        while (reader := next(iter(self._readers), None)) is not None:
            self._leader, lead = reader, reader.lead
            try:
                async with lead as answer:
                    await self._hear(answer, lead)
                return
            except ApiError as error:
                if not lead.is_refused:
                    raise
                reader.refuse(error)
                self._readers.pop(reader, None)
            finally:
                self.was_admitted = lead.is_admitted

    async def _hear(self, answer: Answer, lead: Lead) -> None:
        self.is_limited = lead.is_limited
        self.answer = answer
        self._tell()
        async for event in answer.events:
            self.events.append(event)
            if self.is_limited and is_length(event):
                self.is_cut = True
            if isinstance(event, Completed):
                # Before anybody reads it: who asks again now finds it.
                self.is_complete = True
                self._keep(answer.deployment, tuple(self.events), not self.is_cut)
                self._flights.close(self)
            self._tell()

    def _tell(self) -> None:
        for reader in self._readers:
            reader.wake()


class Reader(AsyncIterator[ChatEvent]):
    """One caller's place in a flight: the events from the first one on, live."""

    __slots__ = ("_at", "_flight", "_refusal", "_woken", "lead")

    def __init__(self, flight: Flight, lead: Lead) -> None:
        self._flight = flight
        self._at = 0
        self._refusal: ApiError | None = None
        self._woken: anyio.Event | None = None
        self.lead = lead

    @property
    def is_leader(self) -> bool:
        return self._flight.is_led_by(self)

    @property
    def item(self) -> Item | None:
        return self._flight.item

    async def depart(self) -> Answer | None:
        """The leader's answer; None: there is a kept one (`item`), or the leader's is no use to this caller, who must ask alone.

        Raises the leader's failure when no engine was reached for this call's own fault, or what refused this caller as a leader.
        """
        flight = self._flight
        while True:
            if self._refusal is not None:
                raise self._refusal
            if flight.item is not None or (flight.is_cut and not self.is_leader):
                return None
            if flight.answer is not None and (not flight.is_limited or self.is_leader or flight.landed.is_set()):
                return flight.answer
            if flight.failure is not None:
                raise self._failed(flight.failure)
            await self._wait()

    @property
    def has_shared_failure(self) -> bool:
        """Whether what `depart` raised came after the leader's admission, so that it is this caller's failed call as well."""
        return self._flight.was_admitted and self._refusal is None and not self.is_leader

    async def __anext__(self) -> ChatEvent:
        flight = self._flight
        while True:
            if self._at < len(flight.events):
                self._at += 1
                return flight.events[self._at - 1]
            if flight.failure is not None:
                raise self._failed(flight.failure)
            if flight.landed.is_set() or flight.is_complete:
                raise StopAsyncIteration
            await self._wait()

    async def leave(self) -> None:
        """Must be called. A leader that has read everything waits until its engine is let go."""
        flight = self._flight
        try:
            if self.is_leader and flight.is_complete and self._at >= len(flight.events):
                await flight.landed.wait()
        finally:
            flight.leave(self)

    def refuse(self, error: ApiError) -> None:
        self._refusal = error
        self.wake()

    def wake(self) -> None:
        if self._woken is not None:
            self._woken.set()

    async def _wait(self) -> None:
        self._woken = anyio.Event()
        await self._woken.wait()
        self._woken = None

    def _failed(self, error: Exception) -> Exception:
        """The failure for this reader: the leader's own, or a copy, since an exception that many raise grows with each."""
        if self.is_leader:
            return error
        if not isinstance(error, ApiError):
            return ApiError(ErrorKind.INTERNAL)
        copy = ApiError(error.kind, error.message, param=error.param, retry_after_s=error.retry_after_s)
        copy.is_final = error.is_final
        return copy


def is_length(event: ChatEvent) -> bool:
    """Whether a choice ended because no more tokens were granted."""
    return isinstance(event, ChoiceFinished) and event.reason is FinishReason.LENGTH
