"""This is where a call waits for its turn on a busy engine: fair shares, lanes, bounded waits, KV tokens. docs/limits.md, "The queue"."""

import math
from collections import deque
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol

import anyio
import msgspec

from qwenbox.clock import Clock, SystemClock
from qwenbox.terms.call import Lane
from qwenbox.terms.engine import Capacity
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.gauges import QueueState

# Seeded calls of an engine with a lane for them (Capacity.has_seed_lane) run one at a time, in a queue of their own.
SEEDS = Capacity(slots=1)

# How much the latest call says about how long calls take.
_NEWEST_SHARE = 0.125
# Accounts remembered per lane before those that owe nothing are forgotten.
_FLOWS_KEPT = 1_024
# … and when an engine falls idle, which on a quiet box is after every call.
_FLOWS_KEPT_IDLE = 8


class SchedulerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Per engine and lane. queue_limit: calls that may wait. queue_wait_s, batch_wait_s: the longest wait before a call is refused.

    batch_patience_s: a batch line that people kept waiting this long gets the next free place; then one more after as long again.
    batch_quiet_s: where slots are counted, batch lines use one slot only until no person has called for so long, then all but one: whoever
    calls first finds a free slot, and whoever calls on shares the engine with a single line.
    """

    queue_limit: int = 256
    queue_wait_s: float = 280.0
    batch_wait_s: float = 3_600.0
    batch_patience_s: float = 60.0
    batch_quiet_s: float = 30.0


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What a call takes from an engine while it runs: sequences, and tokens of prompt and answer over all of them."""

    slots: int
    kv_tokens: int


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks for a turn, and for how much. weight: the account's share against others', at least 1.

    longest_s: who would have to wait longer, going by the measured times, is refused at once, and who does wait so long, then; None: the
    queue's own longest wait decides.
    """

    account_id: str
    need: Need
    weight: int = 1
    lane: Lane = Lane.INTERACTIVE
    longest_s: float | None = None


class Turns(Protocol):
    """Every engine's queue: of this process (`Pools`), or of the parent of several workers (`workers/turns.py`)."""

    def turn(self, engine: str, capacity: Capacity, claim: Claim) -> AbstractAsyncContextManager[None]:
        """A turn at this engine for as long as the context lasts. Raises ApiError like `Pool.turn`."""
        ...

    def waiting(self) -> int:
        """Calls of this process that wait for a turn, over all engines."""
        ...


def seeds_of(engine: str) -> str:
    """What the queue of an engine's seeded calls is called."""
    return f"{engine} (seeds)"


class Pools:
    """One pool for each engine, made when it is first asked for."""

    def __init__(self, config: SchedulerConfig, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._pools: dict[str, Pool] = {}

    def turn(self, engine: str, capacity: Capacity, claim: Claim) -> "Turn":
        pool = self._pools.get(engine)
        if pool is None:
            pool = self._pools[engine] = Pool(capacity, self._config, self._clock)
        return pool.turn(claim)

    def waiting(self) -> int:
        return sum(pool.waiting for pool in self._pools.values())

    def states(self) -> tuple[QueueState, ...]:
        return tuple(pool.state(name) for name, pool in self._pools.items())


class Pool:
    """What one engine can hold, and who waits for it.

    A full KV pool makes every running call fail, so a call enters only when its whole worst case fits beside the others'.
    Within a lane the account comes next that has used least for its weight (start-time fair queueing over shares of the engine times
    seconds, charged as estimated when a call enters and as measured when it leaves); an account's own calls keep their order. Whoever
    is next is never overtaken, however large.
    """

    def __init__(self, capacity: Capacity, config: SchedulerConfig, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._slots_limit = capacity.slots
        self._kv_limit = capacity.kv_tokens
        self._slots = 0
        self._kv_tokens = 0
        self._running = 0
        self._lines = {lane: _Line() for lane in Lane}
        self._people = self._lines[Lane.INTERACTIVE]
        self._batch = self._lines[Lane.BATCH]
        self._service_s: float | None = None
        self._busy_since_s = 0.0
        self._batch_served_s = 0.0
        # Of what is held, the batch lane's; when a person came or went last.
        self._batch_slots = 0
        self._batch_kv_tokens = 0
        self._people_s = -math.inf
        self._promised_s = 0.0
        self._count = 0

    @property
    def waiting(self) -> int:
        return self._people.waiting + self._batch.waiting

    def state(self, name: str) -> QueueState:
        return QueueState(
            name=name,
            slots=self._slots_limit,
            slots_used=self._slots,
            kv_tokens=self._kv_limit,
            kv_tokens_used=self._kv_tokens,
            waiting={lane.value: line.waiting for lane, line in self._lines.items()},
        )

    def turn(self, claim: Claim) -> "Turn":
        """Hold what is claimed for as long as the context lasts.

        Raises ApiError: OVERLOADED when the queue is full or the wait was too long, with a `retry_after_s` at which a place will be free
        going by the measured times (those refused before count); INVALID_REQUEST for what can never fit.
        """
        return Turn(self, claim)

    def enter(self, turn: "Turn") -> bool:
        """For `Turn`: True when it has its place at once."""
        need = turn.claim.need
        if self._kv_limit is not None and need.kv_tokens > self._kv_limit:
            text = f"n × (input + max_tokens) is {need.kv_tokens} tokens; the engine holds {self._kv_limit}. Lower max_tokens or n."
            raise ApiError(ErrorKind.INVALID_REQUEST, text, param="max_tokens")
        turn.share = self._share(need)
        turn.since_s = self._clock.monotonic()
        line = self._lines[turn.claim.lane]
        turn.flow = line.flow(turn.claim)
        if line is self._people:
            self._people_s = turn.since_s
        if not self.waiting and self._fits(need) and (line is self._people or self._leaves_room(need)):
            self._take(turn)
            return True
        if turn.claim.longest_s is not None and line.work * self._estimate_s(turn.since_s) > turn.claim.longest_s:
            raise ApiError(ErrorKind.OVERLOADED, retry_after_s=line.work * self._estimate_s(turn.since_s))
        if line.waiting >= self._config.queue_limit:
            self._refuse_one(line, turn)
        turn.number = self._count = self._count + 1
        turn.wake = anyio.Event()
        line.join(turn)
        self._admit()
        return turn.is_held

    async def wait(self, turn: "Turn") -> None:
        """For `Turn`: until it has its place."""
        try:
            with anyio.fail_after(self._longest_s(turn)):
                await turn.wake.wait()
        except TimeoutError as error:
            if turn.refusal is None and not turn.is_held:
                line = self._lines[turn.claim.lane]
                line.leave(turn)
                turn.refusal = self._refusal(line, turn)
                self._admit()
                raise turn.refusal from error
        except BaseException:
            self._withdraw(turn)
            raise
        if turn.refusal is not None:
            raise turn.refusal

    def leave(self, turn: "Turn") -> None:
        """For `Turn`: its place is free again; it is charged what it really used."""
        held_s = self._clock.monotonic() - turn.since_s
        self._service_s = held_s if self._service_s is None else self._service_s + _NEWEST_SHARE * (held_s - self._service_s)
        self._free(turn, held_s)

    def _free(self, turn: "Turn", held_s: float) -> None:
        turn.is_held = False
        turn.flow.running -= 1
        self._running -= 1
        self._slots -= turn.claim.need.slots
        self._kv_tokens -= turn.claim.need.kv_tokens
        self._note_lane(turn, -1)
        if self._running or self.waiting:
            self._lines[turn.claim.lane].settle(turn, turn.share * held_s)
            self._admit()
        else:
            self._people.forget()
            self._batch.forget()

    def _withdraw(self, turn: "Turn") -> None:
        # A caller can hang up in the very moment in which it is admitted: then it holds what it never used.
        if turn.is_held:
            self._free(turn, 0.0)
        elif turn.refusal is None:
            self._lines[turn.claim.lane].leave(turn)
            self._admit()

    def _share(self, need: Need) -> float:
        """Of the engine, by what it takes most of; 0 < share <= 1."""
        slots = need.slots / self._slots_limit if self._slots_limit else 0.0
        kv = need.kv_tokens / self._kv_limit if self._kv_limit else 0.0
        return min(max(slots, kv, 1e-6), 1.0)

    def _fits(self, need: Need) -> bool:
        has_slots = self._slots_limit is None or self._slots == 0 or self._slots + need.slots <= self._slots_limit
        return has_slots and (self._kv_limit is None or self._kv_tokens + need.kv_tokens <= self._kv_limit)

    def _leaves_room(self, need: Need) -> bool:
        """Whether a batch line may take its place beside the batch lines that run: people find the rest of the engine free."""
        if self._slots_limit is None or self._batch_slots == 0:
            return True
        if self._clock.monotonic() - self._people_s < self._config.batch_quiet_s:
            return False
        most = self._slots_limit - 1
        has_kv = self._kv_limit is None or self._batch_kv_tokens + need.kv_tokens <= self._kv_limit * most // self._slots_limit
        return has_kv and self._batch_slots + need.slots <= most

    def _note_lane(self, turn: "Turn", sign: int) -> None:
        if turn.claim.lane is Lane.BATCH:
            self._batch_slots += sign * turn.claim.need.slots
            self._batch_kv_tokens += sign * turn.claim.need.kv_tokens
        else:
            self._people_s = self._clock.monotonic()

    def _take(self, turn: "Turn") -> None:
        if not self._running:
            self._busy_since_s = turn.since_s
        self._running += 1
        self._slots += turn.claim.need.slots
        self._kv_tokens += turn.claim.need.kv_tokens
        self._note_lane(turn, 1)
        turn.is_held = True
        turn.flow.running += 1
        self._lines[turn.claim.lane].charge(turn, turn.share * self._estimate_s(turn.since_s))

    def _admit(self) -> None:
        while (line := self._next_line()) is not None:
            turn = line.first()
            if not self._fits(turn.claim.need):
                return
            line.leave(turn)
            turn.since_s = self._clock.monotonic()
            if line is self._batch:
                self._batch_served_s = turn.since_s
            self._take(turn)
            turn.wake.set()

    def _next_line(self) -> "_Line | None":
        may_batch = self._batch.waiting > 0 and self._leaves_room(self._batch.first().claim.need)
        if not self._people.waiting:
            return self._batch if may_batch else None
        if may_batch:
            kept_waiting_since_s = max(self._batch.first().since_s, self._batch_served_s)
            if self._clock.monotonic() - kept_waiting_since_s >= self._config.batch_patience_s:
                return self._batch
        return self._people

    def _refuse_one(self, line: "_Line", newcomer: "Turn") -> None:
        """Make room in a full queue: the account with most calls in it gives up its last, be it the newcomer itself (then raises)."""
        last = line.last_of_greediest(newcomer)
        if last is None:
            raise self._refusal(line, newcomer)
        line.leave(last)
        last.refusal = self._refusal(line, last)
        last.wake.set()

    def _refusal(self, line: "_Line", turn: "Turn") -> ApiError:
        """With the moment at which the next place not yet promised to somebody else comes free."""
        now = self._clock.monotonic()
        work = line.work / line.waiting if line.waiting else turn.share
        self._promised_s = max(self._promised_s, now) + work * self._estimate_s(now)
        return ApiError(ErrorKind.OVERLOADED, retry_after_s=min(self._promised_s - now, self._longest_s(turn)))

    def _longest_s(self, turn: "Turn") -> float:
        longest_s = self._config.batch_wait_s if turn.claim.lane is Lane.BATCH else self._config.queue_wait_s
        return longest_s if turn.claim.longest_s is None else min(turn.claim.longest_s, longest_s)

    def _estimate_s(self, now: float) -> float:
        """How long a call takes; before the first has ended, what we know is how long they have been running."""
        return self._service_s if self._service_s is not None else max(now - self._busy_since_s, 1.0)


class Turn:
    """One call's turn: `async with`. A plain class, since a generator's context manager costs more than the bookkeeping."""

    __slots__ = ("_pool", "charged", "claim", "flow", "is_held", "number", "refusal", "share", "since_s", "wake")

    flow: "_Flow"
    wake: anyio.Event

    def __init__(self, pool: Pool, claim: Claim) -> None:
        self._pool = pool
        self.claim = claim
        self.share = 0.0
        self.since_s = 0.0
        self.charged = 0.0
        self.number = 0
        self.is_held = False
        self.refusal: ApiError | None = None

    async def __aenter__(self) -> None:
        if not self._pool.enter(self):
            await self._pool.wait(self)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.leave(self)


class _Flow:
    """One account in one lane. used: share-seconds per weight, on the scale of the lane's `level`. work: shares that wait."""

    __slots__ = ("running", "used", "waiting", "weight", "work")

    def __init__(self, used: float) -> None:
        self.used = used
        self.running = 0
        self.weight = 1
        self.work = 0.0
        self.waiting: deque[Turn] = deque()


class _Line:
    """One lane's queue. level: what the call admitted last had used before; nobody who comes later starts below it."""

    def __init__(self) -> None:
        self.waiting = 0
        self._level = 0.0
        self._flows: dict[str, _Flow] = {}

    @property
    def work(self) -> float:
        return sum(flow.work for flow in self._flows.values())

    def flow(self, claim: Claim) -> _Flow:
        flow = self._flows.get(claim.account_id)
        if flow is None:
            if len(self._flows) >= _FLOWS_KEPT:
                self._flows = {name: kept for name, kept in self._flows.items() if kept.waiting or kept.running or kept.used > self._level}
            flow = self._flows[claim.account_id] = _Flow(self._level)
        flow.weight = max(claim.weight, 1)
        return flow

    def join(self, turn: Turn) -> None:
        flow = turn.flow
        flow.used = max(flow.used, self._level)
        flow.waiting.append(turn)
        flow.work += turn.share
        self.waiting += 1

    def leave(self, turn: Turn) -> None:
        flow = turn.flow
        flow.waiting.remove(turn)
        flow.work = flow.work - turn.share if flow.waiting else 0.0
        self.waiting -= 1

    def first(self) -> Turn:
        """Of the account that has used least, among equals has least running; then the call that came first."""
        backlogged = (flow for flow in self._flows.values() if flow.waiting)
        return min(backlogged, key=lambda flow: (flow.used, flow.running / flow.weight, flow.waiting[0].number)).waiting[0]

    def last_of_greediest(self, newcomer: Turn) -> Turn | None:
        """The last call of the account with most calls here for its weight; None if that is the newcomer's, counted with it."""
        greediest = max(self._flows.values(), key=lambda flow: len(flow.waiting) / flow.weight)
        own = newcomer.flow
        if greediest is own or not greediest.waiting or (len(own.waiting) + 1) / own.weight >= len(greediest.waiting) / greediest.weight:
            return None
        return greediest.waiting[-1]

    def charge(self, turn: Turn, work: float) -> None:
        flow = turn.flow
        self._level = max(self._level, flow.used)
        turn.charged = work / flow.weight
        flow.used = self._level + turn.charged

    def settle(self, turn: Turn, work: float) -> None:
        """Correct the estimate; never below the level, or a newcomer would wait for what was refunded to others."""
        flow = turn.flow
        flow.used = max(self._level, flow.used + work / flow.weight - turn.charged)

    def forget(self) -> None:
        """The engine is idle: nobody owes anybody anything."""
        if len(self._flows) > _FLOWS_KEPT_IDLE:
            self._flows.clear()
        for flow in self._flows.values():
            flow.used = self._level
