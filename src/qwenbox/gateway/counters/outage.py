"""This is where calls are admitted while the shared store is away, if `[valkey] on_outage` says so: each process on its own share of what
was left when it last heard.

A share is the whole divided by the processes there were, limits as well as money; so all together never admit more than there was.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec

from qwenbox.clock import Clock
from qwenbox.gateway.counters.base import Ask, CountersConfig, Lease, PurseState, Used, Window
from qwenbox.gateway.counters.members import Setting
from qwenbox.gateway.counters.memory import MemoryCounters
from qwenbox.gateway.counters.scripts import Admitted
from qwenbox.terms.errors import ApiError, ErrorKind

# Windows and purses remembered for an outage; past that the oldest half is forgotten.
_MOST_KNOWN = 20_000
_RETRY_AFTER_S = 1.0


class _Heard(NamedTuple):
    """A window when we heard of it last. at: monotonic. own: how many of its open calls were this process's."""

    at: float = 0.0
    requests: int = 0
    tokens: int = 0
    open: int = 0
    own: int = 0


class Outage:
    """What this process may do alone. Nothing, with `on_outage = "closed"`, or when it has never heard of the others."""

    def __init__(self, setting: Setting, clock: Clock, load: Callable[[tuple[str, ...]], Awaitable[tuple[PurseState, ...]]]) -> None:
        self._setting = setting
        self._clock = clock
        self._load = load
        self._is_open = setting.valkey.on_outage == "open"
        # By purse: what was free when we heard, and the allowance in that.
        self._windows: dict[str, _Heard] = {}
        self._frees: dict[str, tuple[int, int]] = {}
        self._alone: MemoryCounters | None = None
        self._leases: dict[str, Lease] = {}
        self._shares: dict[str, PurseState] = {}
        self._seeded: set[str] = set()
        # Taken alone since we heard: by window requests and tokens, by purse micro-units, at their worst.
        self._taken: dict[str, tuple[int, int]] = {}
        self._held: dict[str, int] = {}
        # Calls of this process that are open, by window: all of them, and those that were admitted in this outage.
        self._own: Counter[str] = Counter()
        self._own_alone: Counter[str] = Counter()
        self._ends_at = 0.0
        self._place, self._owners = 0, 0

    def note(self, ask: Ask, answer: Admitted) -> None:
        """What the store said of windows and purses, for the case that it says no more."""
        if not self._is_open:
            return
        now = time.monotonic()
        for window, picture in zip(ask.windows, answer.pictures, strict=True):
            self._own[window.id] += 1
            self._windows[window.id] = _Heard(now, picture.requests, picture.tokens, picture.open, self._own[window.id])
            self._taken.pop(window.id, None)
        for purse, free in zip(ask.purses, answer.frees, strict=True):
            self._frees[purse.id] = (free, purse.allowance_micros)
            self._held.pop(purse.id, None)
        for known in (self._windows, self._frees):
            if len(known) > _MOST_KNOWN:
                for name in list(known)[: _MOST_KNOWN // 2]:
                    del known[name]

    def begin(self, place: int, owners: int) -> None:
        """The store is gone. place, owners: see Member; no owners means that this process never heard of any."""
        self._place, self._owners = place, owners
        self._ends_at = time.monotonic() + self._setting.valkey.open_for_s
        self._shares, self._seeded, self._leases = {}, set(), {}
        self._remember()
        self._own_alone.clear()
        # No waiting for money: nothing that other processes give back reaches this one.
        config = CountersConfig(window_s=self._setting.counters.window_s, wait_s=0.0)
        self._alone = MemoryCounters(config, self._clock, self._load_shares)

    async def reserve(self, ask: Ask) -> Lease:
        """Raises ApiError: as Counters.reserve for limits that are reached, OVERLOADED for everything a share is too small for."""
        if not self._is_open or self._alone is None or not self._owners or time.monotonic() > self._ends_at:
            raise away()
        windows = tuple(self._share_of(window) for window in ask.windows)
        for purse in ask.purses:
            self._frees.setdefault(purse.id, (-1, purse.allowance_micros))
        try:
            lease = await self._alone.reserve(msgspec.structs.replace(ask, windows=windows))
        except ApiError as error:
            if error.kind in (ErrorKind.RATE_LIMITED, ErrorKind.QUOTA_EXHAUSTED):
                raise
            raise away() from error
        self._leases[ask.id] = lease
        self._take(lease)
        for window in windows:
            self._own[window.id] += 1
            self._own_alone[window.id] += 1
        return msgspec.structs.replace(lease, ask=ask)

    async def settle(self, ask: Ask, used: Used) -> None:
        """The call's worst case stays taken from this process's share of the money: what others spent meanwhile is not known."""
        if not self._is_open:
            return
        lease = self._leases.pop(ask.id, None)
        for window in ask.windows:
            _count_down(self._own, window.id)
            if lease is not None:
                _count_down(self._own_alone, window.id)
        if lease is None or self._alone is None:
            return
        for purse in lease.ask.purses:
            if (share := self._shares.get(purse.id)) is not None:
                amount = share.amount_micros - lease.held_micros
                self._shares[purse.id] = PurseState(id=purse.id, amount_micros=amount, version=share.version + 1)
        states = tuple(self._shares[purse.id] for purse in lease.ask.purses if purse.id in self._shares)
        await self._alone.settle(lease, Used(tokens=used.tokens, purses=states))

    def _take(self, lease: Lease) -> None:
        for window in lease.ask.windows:
            requests, tokens = self._taken.get(window.id, (0, 0))
            self._taken[window.id] = (requests + 1, tokens + lease.ask.worst.input_tokens + lease.output_tokens)
        for purse in lease.ask.purses:
            self._held[purse.id] = self._held.get(purse.id, 0) + lease.held_micros

    def _remember(self) -> None:
        """What this process took alone in another outage is gone from what is left, unless the store was heard of it since."""
        for name, (requests, tokens) in self._taken.items():
            known = self._windows.get(name, _Heard())
            self._windows[name] = known._replace(at=time.monotonic(), requests=known.requests + requests, tokens=known.tokens + tokens)
        for name, held in self._held.items():
            if name in self._frees:
                free, allowance = self._frees[name]
                self._frees[name] = (max(0, free - held), allowance)
        self._taken, self._held = {}, {}

    def _part(self, whole: int) -> int:
        return whole // self._owners + (1 if self._place < whole % self._owners else 0)

    def _share_of(self, window: Window) -> Window:
        """Raises ApiError(OVERLOADED): there are more processes than there is to share."""
        requests = None if window.requests is None else self._part(window.requests)
        tokens = None if window.tokens is None else self._part(window.tokens)
        concurrency = None if window.concurrency is None else self._room(window.id, window.concurrency)
        if requests == 0 or tokens == 0 or (concurrency is not None and concurrency <= 0):
            raise away()
        if self._alone is not None and window.id not in self._seeded:
            self._seeded.add(window.id)
            self._seed(self._alone, window)
        return Window(id=window.id, requests=requests, tokens=tokens, concurrency=concurrency)

    def _room(self, name: str, concurrency: int) -> int:
        """How many calls admitted alone may be open at once: this process's own of before the outage have their places, too."""
        heard = self._windows.get(name, _Heard())
        return heard.own + self._part(max(0, concurrency - heard.open)) - (self._own[name] - self._own_alone[name])

    def _seed(self, alone: MemoryCounters, window: Window) -> None:
        """What counted when we last heard counts here as well, in such parts that what is left is shared to the last request."""
        if window.id not in self._windows:
            return
        heard = self._windows[window.id]
        at = self._clock.now() - (time.monotonic() - heard.at)
        many = 1 if window.requests is None else self._part(window.requests) - self._part(max(0, window.requests - heard.requests))
        much = 0 if window.tokens is None else self._part(window.tokens) - self._part(max(0, window.tokens - heard.tokens))
        for number in range(max(many, 1 if much > 0 else 0)):
            alone.restore(window.id, at, max(0, much) if number == 0 else 0)

    async def _load_shares(self, ids: tuple[str, ...]) -> tuple[PurseState, ...]:
        unknown = tuple(name for name in ids if self._frees[name][0] < 0)
        if unknown:
            read = {state.id: state.amount_micros for state in await self._load(unknown)}
            for name in unknown:
                self._frees[name] = (max(0, read.get(name, 0) + self._frees[name][1]), self._frees[name][1])
        for name in ids:
            free, allowance = self._frees[name]
            self._shares[name] = PurseState(id=name, amount_micros=self._part(free) - allowance, version=1)
        return tuple(self._shares[name] for name in ids)


def _count_down(counts: Counter[str], name: str) -> None:
    counts[name] -= 1
    if counts[name] <= 0:
        del counts[name]


def away() -> ApiError:
    text = "The box's processes cannot agree on what is left: their shared store does not answer. Please try again."
    return ApiError(ErrorKind.OVERLOADED, text, retry_after_s=_RETRY_AFTER_S)
