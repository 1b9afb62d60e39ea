"""This is where a process is one of several that share the store: it says that it lives, says its open calls again after an outage,
and gives back what a process left behind that died.

docs/limits.md, "Several workers and nodes", tells what is promised.
"""

import logging
import random
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias
from uuid import uuid4

import anyio
import msgspec

from qwenbox.clock import Clock, TestClock
from qwenbox.gateway.counters.base import Ask, CountersConfig, Lease, PurseState, Used
from qwenbox.gateway.counters.scripts import (
    DEAD,
    JOIN,
    LIVE,
    MICROS,
    PAST_IS_ANOTHERS,
    PAST_IS_OURS,
    RESTORE,
    SETTLE,
    Gone,
    Joined,
    pack,
    read_gone,
    read_joined,
    read_live,
    read_unknown,
    state_words,
)
from qwenbox.terms.errors import ApiError
from qwenbox.terms.secret import Secret
from qwenbox.valkey.resp import Reply, ReplyError
from qwenbox.valkey.store import Script, Store, StoreConfig, StoreDown

_LOG = logging.getLogger(__name__)

_PAGE = 200  # calls told to the store, or taken from a dead owner, in one script
_RETRY_S = 0.2
# How often a process that joins looks whether another one has told the past.
_LOOK_S = 0.05

# Tokens that undo an admission instead of correcting it.
NEVER_ADMITTED = -1


class ValkeyConfig(StoreConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[valkey]`: the store that several workers and nodes share, and how its failures are met; the rest is told at StoreConfig.

    url: "" counts in this process's memory. prefix: of all keys, so that several boxes can share a store.
    on_outage: "closed" answers 503 while the store is away; "open" admits for `open_for_s` more seconds from what was known last.
    beat_s: how often a process says that it lives. dead_s: after how long without that its open calls are given back.
    warm_s: how long a store that was started anew waits, so that every process can say its open calls again.
    """

    url: Secret = Secret("")
    prefix: str = "qwenbox"
    on_outage: Literal["closed", "open"] = "closed"
    open_for_s: float = 30.0
    beat_s: float = 1.0
    dead_s: float = 5.0
    warm_s: float = 1.0


class Past(NamedTuple):
    """A call that has a usage row. at: Lease.at, the store's clock. tokens: what it used. windows: ids of those it counts in."""

    id: str
    at: float
    tokens: int
    windows: tuple[str, ...]


class Books(NamedTuple):
    """The database, as the counters need it.

    load: purses as they are now; one that has no row yet may be left out. settled: those of these request ids that have a usage row,
    with their input and output tokens. recent: calls admitted at or after a moment of the store's clock, for a store that starts anew.
    """

    load: Callable[[tuple[str, ...]], Awaitable[tuple[PurseState, ...]]]
    settled: Callable[[tuple[str, ...]], Awaitable[dict[str, int]]]
    recent: Callable[[float], Awaitable[Sequence[Past]]] | None = None


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    counters: CountersConfig
    valkey: ValkeyConfig


class Held(NamedTuple):
    """A lease of this process. since: monotonic seconds of this machine, and as many as the test clock was ahead."""

    lease: Lease
    since: float


class Owed(NamedTuple):
    """The end of a call that the store has not heard of yet. held: None if the store may have admitted it unheard; that is undone."""

    ask: Ask
    used: Used
    held: Held | None = None

    @property
    def end(self) -> tuple[str, int, tuple[str, ...]]:
        """As settle.lua wants it: a call that was not admitted may stand in the line of its purses."""
        lines = () if self.held else tuple(purse.id for purse in self.ask.purses)
        return self.ask.id, self.used.tokens, lines


# id, age, tokens, held, windows, purses, is_open: as restore.lua wants them.
_CallWords: TypeAlias = tuple[str, int, int, int, list[str], list[str], int]


class Member:
    """This process among the others. open: its leases. is_joined: the store knows it and all its open calls.

    place, owners: it is number `place` (from 0) of `owners` processes, when the store was last asked.
    """

    def __init__(self, setting: Setting, store: Store, clock: Clock, books: Books) -> None:
        self._setting = setting
        self._store = store
        self._clock = clock
        self._books = books
        self._joined_on = 0
        self._joined_at = 0.0
        self._ahead_s = 0.0
        self._heard_us = 0
        self._joined = anyio.Event()
        self._expelled = anyio.Event()
        self._run_id = ""
        self._unheard: dict[str, PurseState] = {}
        self._owed: dict[str, Owed] = {}
        self._former: list[str] = []
        self._buried: list[str] = []
        self.open: dict[str, Held] = {}
        self.keys = (f"{{{setting.valkey.prefix}}}:".encode(),)
        self.owner = uuid4().hex
        self.place, self.owners = 0, 0
        self.span_us = round(setting.counters.window_s * MICROS)

    @property
    def is_joined(self) -> bool:
        return self._store.is_up and self._joined_on == self._store.connections

    @property
    def shift_us(self) -> int:
        """How far the test clock is ahead; otherwise the store's clock is the only one."""
        return round(self._clock.offset_s * MICROS) if isinstance(self._clock, TestClock) else 0

    @property
    def now(self) -> float:
        """The time by the store's clock, also while it is away; never earlier than it is."""
        return self._elapsed_s + self._ahead_s

    @property
    def _elapsed_s(self) -> float:
        return time.monotonic() + self.shift_us / MICROS

    async def joins(self) -> bool:
        """Waits while joining is under way; whether it went well."""
        if not self.is_joined and self._store.is_up:
            with anyio.move_on_after(self._setting.valkey.command_s):
                await self._joined.wait()
        return self.is_joined

    def leave(self) -> None:
        """The store said that it does not know this process."""
        self._joined_on = 0
        self._expelled.set()

    def hold(self, lease: Lease) -> None:
        """A call is open from now on, whoever admitted it."""
        self.open[lease.ask.id] = Held(lease, self._elapsed_s)
        self._owed.pop(lease.ask.id, None)

    def finish(self, owed: Owed) -> None:
        """Tell the store that a call is over, now or as soon as it can hear it. The rest of the process need not wait."""
        if not self.is_joined:
            self._owe(owed)
            return
        words = pack((self.owner, self.shift_us, self.span_us, (owed.end,), state_words(owed.used.purses), ""))
        self._store.post_script(SETTLE, self.keys, (words,), lambda: self._owe(owed))

    def learn(self, states: Sequence[PurseState]) -> None:
        """Tell the store what purses are, now or as soon as it can hear it."""

        def keep() -> None:
            for state in states:
                known = self._unheard.get(state.id)
                if known is None or state.version > known.version:
                    self._unheard[state.id] = state

        if self.is_joined:
            self._store.post_script(SETTLE, self.keys, (pack((self.owner, 0, 0, (), state_words(states), "")),), keep)
        else:
            keep()

    async def live(self) -> list[tuple[str, int, int, int, float, float]]:
        """Every window that holds anything: id, requests, tokens, calls open, microseconds until the oldest of it and all of it is gone."""
        found: list[tuple[str, int, int, int, float, float]] = []
        head, cursor = self.keys[0].decode() + "window:", "0"
        while True:
            page = await self._store.call("SCAN", cursor, "MATCH", f"{head}*", "TYPE", "string", "COUNT", "1000")
            following, keys = msgspec.convert(page, tuple[bytes, list[bytes]])
            names = [key.decode().removeprefix(head) for key in keys]
            if names:
                found += read_live(_bytes(await self._run(LIVE, self.shift_us, self.span_us, names)))
            if following == b"0":
                return found
            cursor = following.decode()

    def _owe(self, owed: Owed) -> None:
        self._owed[owed.ask.id] = owed

    async def follow(self) -> None:
        """Joins, joins again, beats, and buries the dead, for as long as it runs."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._bury_always)
            while True:
                await self._store.wait_up()
                try:
                    await self._join()
                    await self._beat()
                except (StoreDown, ReplyError, ApiError) as error:
                    _LOG.warning("This process could not join the shared store: %s", error)
                    await anyio.sleep(_RETRY_S)

    async def _run(self, script: Script, *words: object) -> Reply:
        return await self._store.call_script(script, self.keys, (pack(words),))

    # Joining.

    async def _join(self) -> None:
        self._expelled = anyio.Event()
        connection = self._store.connections
        run = re.search(rb"run_id:(\w+)", _bytes(await self._store.call("INFO", "server")))
        self._run_id = run[1].decode() if run else ""
        joined = await self._enter()
        said: set[str] = set()
        await self._say_calls(said)
        if joined.past == PAST_IS_OURS:
            await self._say_past(0.0, is_all=True)
        elif self._is_open:
            await self._say_past(joined.heard_us / MICROS)
        # Those that were admitted alone meanwhile; after the last of them nothing is waited for.
        await self._say_calls(said)
        if connection != self._store.connections:
            raise StoreDown("the connection changed meanwhile")
        self._joined_on, self._joined_at, self._former = connection, time.monotonic(), []
        owed, self._owed = self._owed, {}
        for it in owed.values():
            self.finish(it)
        unheard, self._unheard = self._unheard, {}
        self.learn(tuple(unheard.values()))
        self._joined.set()
        self._joined = anyio.Event()

    async def _enter(self) -> Joined:
        """Under the name the store knows, or a new one; once nobody else is about to tell the past."""
        while True:
            candidate = uuid4().hex
            joined = await self._say(candidate)
            if not joined.is_known:
                self._former.append(self.owner)
                self.owner = candidate
            if joined.past != PAST_IS_ANOTHERS:
                return joined
            await anyio.sleep(_LOOK_S)

    async def _say(self, candidate: str = "") -> Joined:
        valkey, asked_s = self._setting.valkey, time.monotonic()
        times = (round(valkey.dead_s * MICROS), round(valkey.warm_s * MICROS), self._heard_us)
        joined = read_joined(_bytes(await self._run(JOIN, self.owner, candidate, self._run_id, *times)))
        self.place, self.owners = joined.place, joined.owners
        self._ahead_s, self._heard_us = joined.at_us / MICROS - asked_s, joined.at_us
        return joined

    async def _say_calls(self, said: set[str]) -> None:
        """Every call that is open here is open there, under the present name, and every one that ended meanwhile has its place.

        said: those that were said before; it grows.
        """
        while page := [call_id for call_id in (*self.open, *self._owed) if call_id not in said][:_PAGE]:
            states: tuple[PurseState, ...] = ()
            while unknown := await self._restore(page, states):
                states = known_or_new(unknown, await self._books.load(unknown))
            said.update(page)

    async def _say_past(self, since: float, *, is_all: bool = False) -> None:
        """What was used in the last window by calls that nobody might tell otherwise. since: by the store's own clock. is_all: from now
        on the store knows everything."""
        past: Sequence[Past] = ()
        if self._books.recent is not None:
            past = await self._books.recent(max(since + self.shift_us / MICROS, self.now - self._setting.counters.window_s))
        for start in range(0, len(past), _PAGE):
            now = self.now
            calls = [(it.id, round((now - it.at) * MICROS), it.tokens, 0, it.windows, (), 0) for it in past[start : start + _PAGE]]
            await self._run(RESTORE, self.owner, (), self.shift_us, self.span_us, calls, (), 0)
        if is_all:
            await self._run(RESTORE, self.owner, (), self.shift_us, self.span_us, (), (), 1)

    async def _restore(self, page: list[str], states: tuple[PurseState, ...]) -> tuple[str, ...]:
        # Made anew for every try: a call that ended while purses were read must not be opened again.
        calls = [words for call_id in page if (words := self._call_words(call_id)) is not None]
        reply = await self._run(RESTORE, self.owner, self._former, self.shift_us, self.span_us, calls, state_words(states), 0)
        return read_unknown(_bytes(reply))

    def _call_words(self, call_id: str) -> _CallWords | None:
        owed = self._owed.get(call_id)
        held = owed.held if owed else self.open.get(call_id)
        if owed is not None:
            ask, tokens = owed.ask, owed.used.tokens
        elif held is not None:
            ask, tokens = held.lease.ask, held.lease.ask.worst.input_tokens + held.lease.output_tokens
        else:
            return None
        age_us = round((self._elapsed_s - held.since) * MICROS) if held else 0
        names, purses = [window.id for window in ask.windows], [purse.id for purse in ask.purses]
        return call_id, age_us, tokens, held.lease.held_micros if held else 0, names, purses, 0 if owed else 1

    # Living.

    async def _beat(self) -> None:
        """Until the store is lost or has lost us."""
        while self.is_joined:
            with anyio.move_on_after(self._setting.valkey.beat_s):
                await self._expelled.wait()
            if not self.is_joined or not (await self._say()).is_known:
                self._joined_on = 0
                return

    async def _bury_always(self) -> None:
        valkey = self._setting.valkey
        while True:
            await anyio.sleep(valkey.beat_s * random.uniform(0.75, 1.25))
            # After an outage the others get as much time to come back as they have at any other moment.
            if self.is_joined and time.monotonic() - self._joined_at > valkey.dead_s:
                try:
                    await self.bury()
                except (StoreDown, ReplyError, ApiError) as error:
                    _LOG.warning("Calls of a process that died are not given back yet: %s", error)

    async def bury(self) -> int:
        """Give back what dead owners hold: calls with a usage row used its tokens, the others none. How many there were.

        Whatever of several processes do this at once, each call is given back once.
        """
        count = 0
        reply = await self._run(DEAD, round(self._setting.valkey.dead_s * MICROS), _PAGE, self._buried)
        self._buried = []
        for gone in read_gone(_bytes(reply)):
            if gone.calls:
                count += await self._give_back(gone)
            if self._is_open and not gone.is_past:
                await self._say_past(gone.heard_us / MICROS)
            self._buried.append(gone.name)
        return count

    async def _give_back(self, gone: Gone) -> int:
        tokens = await self._books.settled(tuple(call_id for call_id, _ in gone.calls))
        purses = tuple({name for _, names in gone.calls for name in names})
        states = await self._books.load(purses) if purses else ()
        ends = [(call_id, tokens.get(call_id, 0), ()) for call_id, _ in gone.calls]
        closed = await self._run(SETTLE, self.owner, self.shift_us, self.span_us, ends, state_words(states), gone.name)
        _LOG.warning("A process died; %d of its calls had a usage row, %d had none", len(tokens), len(gone.calls) - len(tokens))
        return closed if isinstance(closed, int) else 0

    @property
    def _is_open(self) -> bool:
        """Whether processes may have admitted calls that the store never heard of."""
        return self._setting.valkey.on_outage == "open"


def known_or_new(ids: tuple[str, ...], states: tuple[PurseState, ...]) -> tuple[PurseState, ...]:
    """States for all of them; a purse without a row holds nothing yet."""
    known = {state.id for state in states}
    return (*states, *(PurseState(id=name, amount_micros=0, version=0) for name in ids if name not in known))


def _bytes(reply: Reply) -> bytes:
    if not isinstance(reply, bytes):
        raise StoreDown("the shared store answered something else than asked")
    return reply
