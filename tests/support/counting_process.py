"""A process that counts and books as one worker of a box does, by deeds told it line by line; tests kill it at any moment.

python -m support.counting_process FD — everything is imported once; each message on that socket forks such a process in milliseconds
(`support.nursery` sends them).
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import traceback
from typing import Literal, TypeAlias

import anyio
import anyio.lowlevel
import msgspec
from sqlalchemy import select

from qwenbox.clock import SystemClock, TestClock
from qwenbox.db import Database, open_database
from qwenbox.gateway.calendar import day
from qwenbox.gateway.counters.base import Ask, CountersConfig, Lease, LiveWindow, PurseState, Used, Window, Worst
from qwenbox.gateway.counters.members import Books, Past, Setting, ValkeyConfig
from qwenbox.gateway.counters.memory import MemoryCounters
from qwenbox.gateway.counters.scripts import SCRIPTS
from qwenbox.gateway.counters.shared import SharedCounters
from qwenbox.gateway.journal import postgres, sqlite
from qwenbox.gateway.journal.base import Journal, UsageRow
from qwenbox.gateway.journal.registry import JournalConfig, open_journal
from qwenbox.gateway.journal.tables import USAGE
from qwenbox.gateway.ledger import Ledger, booking, purses
from qwenbox.gateway.recent import Recent
from qwenbox.terms.caller import Caller
from qwenbox.terms.errors import ApiError
from qwenbox.terms.secret import Secret
from qwenbox.valkey.store import Store, StoreDown, open_store

# Opened with the first database of its kind, which would be after the fork.
_PRELOADED = (postgres, sqlite)


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """valkey_url: "" counts in memory. on_outage: as in `[valkey]`. offset_s: how far the test clock is ahead. wait_s: for money."""

    database_url: str
    valkey_url: str = ""
    prefix: str = ""
    on_outage: Literal["closed", "open"] = "closed"
    beat_s: float = 0.1
    dead_s: float = 1.0
    warm_s: float = 0.2
    wait_s: float = 600.0
    skew_s: float = 0.0
    offset_s: float = 0.0


class _Deed(msgspec.Struct, frozen=True, kw_only=True, tag_field="deed", tag=str.lower):
    pass


class Reserve(_Deed, frozen=True, kw_only=True):
    """Ask as admission does: for the caller's purses of this moment, and for a window that counts open calls only.

    Two answers if it has to wait: `is_waiting` at once, the lease or the refusal when there is one.
    """

    call: str
    caller: Caller
    worst: Worst
    window: str
    concurrency: int


class GiveUp(_Deed, frozen=True, kw_only=True):
    """The client of a call that waits hangs up."""

    call: str


class Commit(_Deed, frozen=True, kw_only=True):
    """Book the end of a call. is_last: and settle it, as metering does."""

    row: UsageRow
    caller: Caller
    is_owed: bool = False
    is_last: bool = False


class Settle(_Deed, frozen=True, kw_only=True):
    """With what this process committed of the call; without a row, tokens 0, that is a release. Any number of times."""

    call: str
    tokens: int = 0


class TopUp(_Deed, frozen=True, kw_only=True):
    """is_told: the counters of this process hear of it."""

    account: str
    micros: int
    reference: str
    is_told: bool = True


class Learn(_Deed, frozen=True, kw_only=True):
    """Tell the counters what the database says of these purses, as admission does every second."""

    purses: tuple[str, ...]


class Move(_Deed, frozen=True, kw_only=True):
    offset_s: float


class Look(_Deed, frozen=True, kw_only=True):
    """What the window holds, how many of its calls are open, how many processes the store takes for living.

    is_joined: asked once this process and its calls are known to the store.
    """

    window: str = ""
    is_joined: bool = False


Deed: TypeAlias = Reserve | GiveUp | Commit | Settle | TopUp | Learn | Move | Look


class Order(msgspec.Struct, frozen=True):
    number: int
    deed: Deed


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """day: the account's own at the moment of admission."""

    output_tokens: int
    held_micros: int
    day: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """error: ApiError's kind, or "given_up". owner: the process's name in the store, which changes when it was taken for dead.

    connections: how often it connected to the store.
    """

    number: int
    error: str = ""
    is_waiting: bool = False
    lease: Granted | None = None
    requests: int = 0
    tokens: int = 0
    open: int = 0
    owners: int = 0
    owner: str = ""
    connections: int = 0


class _Worker:
    def __init__(self, counters: MemoryCounters | SharedCounters, journal: Journal, ledger: Ledger, clock: TestClock) -> None:
        self.counters = counters
        self.journal = journal
        self.ledger = ledger
        self.clock = clock
        self.store: Store | None = None
        self.leases: dict[str, Lease] = {}
        self.states: dict[str, tuple[PurseState, ...]] = {}
        self.scopes: dict[str, anyio.CancelScope] = {}

    async def obey(self, order: Order, pipe: asyncio.StreamWriter) -> None:
        try:
            answer = await self._do(order, pipe)
        except ApiError as error:
            answer = Answer(number=order.number, error=error.kind.value)
        await self._calm()
        self._say(answer, pipe)

    def _say(self, answer: Answer, pipe: asyncio.StreamWriter) -> None:
        if self.store is not None and isinstance(self.counters, SharedCounters):
            owner, connections = self.counters._member.owner, self.store.connections
            answer = msgspec.structs.replace(answer, owner=owner, connections=connections)
        pipe.write(msgspec.json.encode(answer) + b"\n")

    async def _calm(self) -> None:
        """Until the store has done what was sent to it so far, also by calls that this one has woken: so that one order follows another."""
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        if self.store is not None:
            with contextlib.suppress(StoreDown):
                await self.store.call("PING")

    async def _do(self, order: Order, pipe: asyncio.StreamWriter) -> Answer:
        match order.deed:
            case Reserve() as deed:
                return await self._reserve(order.number, deed, pipe)
            case GiveUp(call=call):
                self.scopes[call].cancel()
            case Commit() as deed:
                await self._commit(deed)
            case Settle(call=call, tokens=tokens):
                await self.counters.settle(self.leases[call], Used(tokens=tokens, purses=self.states.get(call, ())))
            case TopUp() as deed:
                state = await self.ledger.top_up(deed.account, deed.micros, reference=deed.reference)
                if deed.is_told:
                    self.counters.learn((state,))
            case Learn(purses=names):
                self.counters.learn(await self.ledger.load(names))
            case Move(offset_s=offset_s):
                self.clock.reach(offset_s)
            case Look() as deed:
                return await self._look(order.number, deed)
        return Answer(number=order.number)

    async def _reserve(self, number: int, deed: Reserve, pipe: asyncio.StreamWriter) -> Answer:
        now = self.clock.now()
        window = Window(id=deed.window, requests=None, tokens=None, concurrency=deed.concurrency)
        ask = Ask(id=deed.call, windows=(window,), purses=purses(deed.caller, now), worst=deed.worst)
        lease: Lease | None = None
        async with anyio.create_task_group() as watch:
            watch.start_soon(self._tell_of_waiting, number, deed.call, pipe)
            try:
                with anyio.CancelScope() as self.scopes[deed.call]:
                    lease = await self.counters.reserve(ask)
            except ApiError as error:
                return Answer(number=number, error=error.kind.value)
            finally:
                watch.cancel_scope.cancel()
        if lease is None:
            return Answer(number=number, error="given_up")
        self.leases[deed.call] = lease
        granted = Granted(output_tokens=lease.output_tokens, held_micros=lease.held_micros, day=day(deed.caller.time_zone, now))
        return Answer(number=number, lease=granted)

    async def _tell_of_waiting(self, number: int, call: str, pipe: asyncio.StreamWriter) -> None:
        while not self._waits(call):  # noqa: ASYNC110 (nothing of the product tells it)
            await anyio.sleep(0.001)
        await self._calm()
        self._say(Answer(number=number, is_waiting=True), pipe)

    def _waits(self, call: str) -> bool:
        # Nothing public tells it: a client that waits for money just waits.
        if isinstance(self.counters, SharedCounters):
            return call in self.counters._turns
        return any(waiter.ask.id == call for row in self.counters._purses._rows.values() for waiter in row.waiting.values())

    async def _commit(self, deed: Commit) -> None:
        row = deed.row
        if row.id in self.leases:
            row = msgspec.structs.replace(row, admitted_at=self.leases[row.id].at)
        states = await self.journal.commit(booking(row, deed.caller, is_owed=deed.is_owed))
        # Said a second time, it is answered with purses as they are by then.
        self.states.setdefault(row.id, states)
        if deed.is_last:
            used = Used(tokens=row.input_tokens + row.output_tokens, purses=self.states[row.id])
            await self.counters.settle(self.leases[row.id], used)

    async def _look(self, number: int, deed: Look) -> Answer:
        counters = self.counters
        if isinstance(counters, MemoryCounters):
            return _seen(number, counters.snapshot(), deed.window, 1)
        while deed.is_joined and not counters._member.is_joined:  # noqa: ASYNC110 (the same)
            await anyio.sleep(0.002)
        if not deed.window:
            return Answer(number=number)
        assert self.store is not None
        owners = await self.store.call("ZCARD", f"{counters._member.keys[0].decode()}owners")
        return _seen(number, await counters.snapshot(), deed.window, msgspec.convert(owners, int))


def _seen(number: int, windows: tuple[LiveWindow, ...], name: str, owners: int) -> Answer:
    window = next((window for window in windows if window.id == name), LiveWindow(id=name, requests=0, tokens=0, open=0))
    return Answer(number=number, requests=window.requests, tokens=window.tokens, open=window.open, owners=owners)


async def _work(start: Start, pipe: socket.socket) -> None:
    decoder = msgspec.json.Decoder(Order)
    clock = TestClock(SystemClock(start.skew_s))
    clock.reach(start.offset_s)
    reader, writer = await asyncio.open_connection(sock=pipe, limit=1 << 20)
    async with contextlib.AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(start.database_url))
        journal = await stack.enter_async_context(open_journal(start.database_url, JournalConfig(), clock))
        ledger = Ledger(database, journal, clock)
        counting = CountersConfig(window_s=3_600.0, wait_s=start.wait_s)
        tasks = await stack.enter_async_context(anyio.create_task_group())
        if start.valkey_url:
            store = await stack.enter_async_context(open_store(_valkey(start), SCRIPTS))
            counters = _shared(start, counting, store, clock, database, ledger)
            tasks.start_soon(counters.follow)
            worker = _Worker(counters, journal, ledger, clock)
            worker.store = store
        else:
            worker = _Worker(MemoryCounters(counting, clock, ledger.load), journal, ledger, clock)
        while line := await reader.readline():
            tasks.start_soon(worker.obey, decoder.decode(line), writer)
        tasks.cancel_scope.cancel()


def _valkey(start: Start) -> ValkeyConfig:
    return ValkeyConfig(
        url=Secret(start.valkey_url),
        prefix=start.prefix,
        on_outage=start.on_outage,
        beat_s=start.beat_s,
        dead_s=start.dead_s,
        warm_s=start.warm_s,
    )


def _shared(start: Start, counting: CountersConfig, store: Store, clock: TestClock, database: Database, ledger: Ledger) -> SharedCounters:
    async def recent(since: float) -> list[Past]:
        used = (USAGE.c.input_tokens + USAGE.c.output_tokens).label("tokens")
        query = select(USAGE.c.id, USAGE.c.account_id, USAGE.c.admitted_at, used).where(USAGE.c.admitted_at >= since)
        rows = await database.read(query)
        return [Past(row["id"], row["admitted_at"], row["tokens"], (f"{row['account_id']}/m",)) for row in rows]

    books = Books(load=ledger.load, settled=Recent(database).used, recent=recent)
    return SharedCounters(Setting(counters=counting, valkey=_valkey(start)), store, clock, books)


def _main(pipe: socket.socket) -> None:
    """Forks for every message; ends when nobody can send any more. Who is forked ends with its own pipe."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    while True:
        message, pipes, _, _ = socket.recv_fds(pipe, 1 << 16, 1)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            pipe.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _live(msgspec.json.decode(message, type=Start), socket.socket(fileno=pipes[0]))
        os.close(pipes[0])
        pipe.send(str(pid).encode())


def _live(start: Start, pipe: socket.socket) -> None:
    code = 1
    try:
        pipe.setblocking(False)
        anyio.run(_work, start, pipe)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _main(socket.socket(fileno=int(sys.argv[1])))
