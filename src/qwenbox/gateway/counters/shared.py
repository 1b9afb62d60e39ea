"""This is where several workers and nodes count together: windows and money in a Valkey store, by its clock, in one round trip a call.

The scripts beside this file keep the same rules as window.py and money.py. docs/limits.md, "Several workers and nodes", tells what
holds, also while the store is away.
"""

import logging
import random
from bisect import insort
from itertools import count

import anyio
import msgspec

from qwenbox.clock import Clock
from qwenbox.gateway.counters.base import Ask, Lease, LiveWindow, PurseState, Used
from qwenbox.gateway.counters.members import NEVER_ADMITTED, Books, Member, Owed, Setting, known_or_new
from qwenbox.gateway.counters.outage import Outage, away
from qwenbox.gateway.counters.scripts import (
    MICROS,
    RESERVE,
    Admitted,
    Answer,
    Broke,
    Refused,
    Stranger,
    Unknown,
    Wait,
    Warming,
    limit_state,
    read_answer,
    reserve_words,
)
from qwenbox.gateway.counters.window import impossible
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.valkey.resp import ReplyError
from qwenbox.valkey.store import Store, StoreDown

_LOG = logging.getLogger(__name__)

# How often a call is asked for again because the store was warming up, did not know its purses or not even this process.
_TRIES = 8
# How often the first of those who wait for money looks whether another process gave some back.
_POLL_S = 0.02


class _Turn:
    """A call that waits for money. number: its place in the order of arrival. wake: there is a reason to ask the store.

    is_called: the store says that this call is the first of all, whatever its place here.
    """

    __slots__ = ("ask", "is_called", "number", "wake")

    def __init__(self, ask: Ask, number: int) -> None:
        self.ask = ask
        self.number = number
        self.wake = anyio.Event()
        self.is_called = False


class SharedCounters:
    """Counters of all processes that share the store. Nothing is admitted before `follow` runs."""

    def __init__(self, setting: Setting, store: Store, clock: Clock, books: Books) -> None:
        self._setting = setting
        self._store = store
        self._clock = clock
        self._books = books
        self._member = Member(setting, store, clock, books)
        self._outage = Outage(setting, clock, books.load)
        # The connection to the store whose loss began the latest outage.
        self._lost = -1
        self._queues: dict[str, list[_Turn]] = {}
        self._turns: dict[str, _Turn] = {}
        self._numbers = count()
        self._loading: dict[str, anyio.Lock] = {}

    @property
    def owners(self) -> int:
        """How many processes shared the store when it was last asked."""
        return self._member.owners

    @property
    def is_up(self) -> bool:
        """Whether the store answers."""
        return self._store.is_up

    async def follow(self) -> None:
        """Says that this process lives, gives back what dead ones hold, joins again after an outage; for as long as it runs."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._member.follow)
            while True:
                await self._store.wait_down()
                self._begin_outage()
                await self._store.wait_up()

    def _begin_outage(self) -> None:
        """Once for each connection that was lost: calls under way may hear of it before `follow` does."""
        if not self._store.is_up and self._lost != self._store.connections:
            self._lost = self._store.connections
            self._outage.begin(self._member.place, self._member.owners)

    async def reserve(self, ask: Ask) -> Lease:
        if not ask.windows and not ask.purses:
            return Lease(ask=ask, output_tokens=ask.worst.output_tokens, held_micros=0, at=self._clock.now())
        refusal = impossible(ask)
        if refusal is not None:
            raise refusal
        number = next(self._numbers)
        purse_id = next((purse.id for purse in ask.purses if purse.id in self._queues), None) if self._queues else None
        if purse_id is None:
            outcome = await self._attempt(ask, has_waited=False)
            if isinstance(outcome, Lease):
                return outcome
            purse_id = outcome
        return await self._wait(_Turn(ask, number), purse_id)

    async def settle(self, lease: Lease, used: Used) -> None:
        held = self._member.open.pop(lease.ask.id, None)
        if held is not None:
            await self._outage.settle(lease.ask, used)
            self._member.finish(Owed(lease.ask, used, held))
            for purse in lease.ask.purses:
                self._wake(purse.id)
        elif used.purses:
            self.learn(used.purses)

    def learn(self, states: tuple[PurseState, ...]) -> None:
        self._member.learn(states)
        for state in states:
            self._wake(state.id)

    async def snapshot(self) -> tuple[LiveWindow, ...]:
        """What every window holds now. Looks through all keys of the store, a page at a time: for people, not for programs."""
        try:
            return tuple(
                [
                    LiveWindow(id=name, requests=n, tokens=tokens, open=many, frees_in_s=frees_us / 1e6, empty_in_s=empty_us / 1e6)
                    for name, n, tokens, many, frees_us, empty_us in await self._member.live()
                ]
            )
        except (StoreDown, ReplyError) as error:
            raise away() from error

    # One try.

    async def _attempt(self, ask: Ask, *, has_waited: bool) -> Lease | str:
        """A lease, or the purse that has to be waited for. Raises as `reserve`."""
        member = self._member
        states: tuple[PurseState, ...] = ()
        for _ in range(_TRIES):
            if not member.is_joined and not await member.joins():
                lease = await self._alone(ask)
                if lease is not None:
                    return lease
                continue
            try:
                answer = await self._ask(ask, states, has_waited)
            except StoreDown:
                continue
            match answer:
                case Admitted():
                    return self._lease(ask, answer)
                case Wait():
                    self._call(answer.first)
                    return ask.purses[answer.purse].id
                case Unknown():
                    states = await self._fetch(ask, answer.purses)
                case Warming():
                    await anyio.sleep(answer.wait_us / MICROS)
                case Stranger():
                    states = ()
                    member.leave()
                case _:
                    raise _refusal(ask, answer)
        raise away()

    async def _alone(self, ask: Ask) -> Lease | None:
        """None if this process has joined again meanwhile: then the store is asked. Raises as `Outage.reserve`."""
        self._begin_outage()
        lease = await self._outage.reserve(ask)
        if self._member.is_joined:
            await self._outage.settle(ask, Used(tokens=0))
            return None
        lease = msgspec.structs.replace(lease, at=self._member.now)
        self._member.hold(lease)
        return lease

    async def _ask(self, ask: Ask, states: tuple[PurseState, ...], has_waited: bool) -> Answer:
        """Raises StoreDown, ApiError(OVERLOADED)."""
        member = self._member
        words = reserve_words(member.owner, ask, (member.shift_us, member.span_us), states, has_waited)
        try:
            reply = await self._store.call_script(RESERVE, member.keys, (words,))
        except BaseException as error:
            # Whether the store has run it is unknown (it went away) or of no interest (the caller left): it is undone after it.
            self._undo(ask)
            if not isinstance(error, ReplyError):
                raise
            _LOG.error("The shared store cannot count: %s", error)
            raise away() from error
        return read_answer(reply) if isinstance(reply, bytes) else Stranger()

    def _lease(self, ask: Ask, answer: Admitted) -> Lease:
        lease = Lease(
            ask=ask,
            output_tokens=answer.output_tokens,
            held_micros=answer.held_micros,
            at=answer.at_us / MICROS,
            limits=limit_state(ask.windows, answer.pictures) if ask.windows else None,
        )
        self._member.hold(lease)
        self._outage.note(ask, answer)
        return lease

    async def _fetch(self, ask: Ask, ids: tuple[str, ...]) -> tuple[PurseState, ...]:
        """Purses the store does not know, from the database; who comes while they are read waits and finds them known."""
        lock = self._loading.setdefault(ids[0], anyio.Lock())
        is_first = not lock.locked()
        async with lock:
            try:
                return known_or_new(ids, await self._books.load(ids)) if is_first else ()
            finally:
                if not lock.statistics().tasks_waiting:
                    self._loading.pop(ids[0], None)

    def _undo(self, ask: Ask) -> None:
        self._member.finish(Owed(ask, Used(tokens=NEVER_ADMITTED)))

    # Waiting for money. The store keeps one line for all processes; of this one, only the first asks how far it is.

    async def _wait(self, turn: _Turn, purse_id: str) -> Lease:
        ask = turn.ask
        self._turns[ask.id] = turn
        try:
            with anyio.move_on_after(self._setting.counters.wait_s):
                while True:
                    outcome = await self._stand(turn, purse_id)
                    if isinstance(outcome, Lease):
                        return outcome
                    purse_id = outcome
        except BaseException:
            # Refused by the store it stands in no line any more; refused without it, it may.
            self._undo(ask)
            raise
        finally:
            del self._turns[ask.id]
        self._undo(ask)
        text = "Calls still open hold the money this call needs. Please try again when they have ended."
        raise ApiError(ErrorKind.OVERLOADED, text, retry_after_s=self._setting.counters.wait_s / 10)

    async def _stand(self, turn: _Turn, purse_id: str) -> Lease | str:
        """Until this call is admitted or refused, or another purse has to be waited for."""
        queue = self._queues.setdefault(purse_id, [])
        insort(queue, turn, key=_number)
        try:
            while queue[0] is not turn and not turn.is_called:
                await turn.wake.wait()
                turn.wake = anyio.Event()
            while (outcome := await self._attempt(turn.ask, has_waited=True)) == purse_id:
                with anyio.move_on_after(_POLL_S * random.uniform(0.5, 1.5)):
                    await turn.wake.wait()
                turn.wake = anyio.Event()
            return outcome
        finally:
            queue.remove(turn)
            if queue:
                queue[0].wake.set()
            else:
                del self._queues[purse_id]

    def _wake(self, purse_id: str) -> None:
        queue = self._queues.get(purse_id)
        if queue:
            queue[0].wake.set()

    def _call(self, call_id: str) -> None:
        turn = self._turns.get(call_id)
        if turn is not None and not turn.is_called:
            turn.is_called = True
            turn.wake.set()


def _number(turn: _Turn) -> int:
    return turn.number


def _refusal(ask: Ask, answer: Refused | Broke) -> ApiError:
    if isinstance(answer, Broke):
        return ApiError(ErrorKind.OUT_OF_FUNDS)
    kind = ErrorKind.QUOTA_EXHAUSTED if answer.is_tokens else ErrorKind.RATE_LIMITED
    error = ApiError(kind, retry_after_s=answer.wait_us / MICROS)
    error.limits = limit_state(ask.windows, answer.pictures)
    return error
