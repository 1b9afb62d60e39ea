"""This is where a call asks for everything it may use at worst, in one step, and learns how long its answer may be."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias

import msgspec

from qwenbox.clock import Clock
from qwenbox.gateway.calendar import day
from qwenbox.gateway.catalog import ANY_MODEL, Model, Request
from qwenbox.gateway.counters.base import Ask, Counters, Lease, PurseState, Used, Window, Worst
from qwenbox.gateway.counting import most_input
from qwenbox.gateway.journal.base import Journal
from qwenbox.gateway.ledger import purses
from qwenbox.gateway.limits import Tiers
from qwenbox.gateway.prices import Prices, Tariff
from qwenbox.terms.call import AnyCall, Lane
from qwenbox.terms.caller import Caller
from qwenbox.terms.errors import ApiError, ErrorKind

Load: TypeAlias = Callable[[tuple[str, ...]], Awaitable[tuple[PurseState, ...]]]

# A payment from elsewhere, e.g. by the command line, is known within this time.
_FOLLOW_S = 1.0
# Purses nobody has used for so long are not followed any more.
_FORGET_S = 600.0


class Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """A call that may run. model: the public name it is billed under. output_tokens: of each choice.

    day: the account's own, whose month's budget the call counts against.
    """

    lease: Lease
    model: str
    day: str
    tariff: Tariff
    output_tokens: int


def billed_name(model: Model, request: Request) -> str:
    """The public name under which a call counts; behind a catalog's `*` whatever its caller wrote."""
    return request.model if model.entry.name == ANY_MODEL else model.entry.name


class Admission:
    """Between catalog and engine: nothing that is not reserved here is ever asked of an engine."""

    def __init__(self, counters: Counters, tiers: Tiers, prices: Prices, journal: Journal, clock: Clock) -> None:
        self._counters = counters
        self._tiers = tiers
        self._prices = prices
        self._journal = journal
        self._clock = clock
        # When each purse was last asked of, seconds of the monotonic clock.
        self._purses: dict[str, float] = {}

    async def reserve(self, call: AnyCall, model: Model, request: Request, input_tokens: int) -> Admitted:
        """request: complete, its max_output_tokens fitting the context. Raises ApiError as `Counters.reserve`; a call admitted here must
        be given back with `release` or through its metering entry.
        """
        self._check_books()
        name = billed_name(model, request)
        now = self._clock.now()
        # A snapshot or alias may have a price of its own.
        tariff = self._prices.tariff(request.model, now)
        caller = call.caller
        # Batch lines are exempt from the limits on people's calls (wire reference 4.6), not from money.
        windows = () if call.lane is Lane.BATCH else self._tiers.windows(caller, name)
        held = purses(caller, now)
        today = day(caller.time_zone, now)
        most = model.entry.card.output_limit_tokens if request.max_output_tokens is None else request.max_output_tokens
        if not windows and not held:
            ask = Ask(id=call.id, windows=(), purses=(), worst=Worst(input_tokens=input_tokens, output_tokens=most * request.n))
            return Admitted(
                lease=Lease(ask=ask, output_tokens=ask.worst.output_tokens, held_micros=0, at=now),
                model=name,
                day=today,
                tariff=tariff,
                output_tokens=most,
            )
        for purse in held:
            self._purses[purse.id] = self._clock.monotonic()
        if held or any(window.tokens is not None for window in windows):
            input_tokens = await most_input(model, request, input_tokens)
        worst = _worst(call, tariff, input_tokens, most)
        lease = await self._counters.reserve(Ask(id=call.id, windows=windows, purses=held, worst=worst, mark=call.mark))
        return Admitted(lease=lease, model=name, day=today, tariff=tariff, output_tokens=lease.output_tokens // request.n)

    async def reserve_hit(self, call: AnyCall, model: Model, request: Request) -> Admitted:
        """As `reserve`, for a call that no engine is asked for: one request and one open call; no tokens and no money, so limits of
        tokens and empty purses do not refuse it."""
        self._check_books()
        name = billed_name(model, request)
        now = self._clock.now()
        windows = () if call.lane is Lane.BATCH else _without_tokens(self._tiers.windows(call.caller, name))
        ask = Ask(id=call.id, windows=windows, purses=(), worst=Worst(input_tokens=0, output_tokens=0), mark=call.mark)
        lease = await self._counters.reserve(ask) if windows else Lease(ask=ask, output_tokens=0, held_micros=0, at=now)
        tariff = self._prices.tariff(request.model, now)
        return Admitted(lease=lease, model=name, day=day(call.caller.time_zone, now), tariff=tariff, output_tokens=0)

    def weight(self, caller: Caller) -> int:
        """The account's share of a busy engine."""
        return self._tiers.weight(caller)

    async def release(self, admitted: Admitted, used: Used) -> None:
        """Give back what the call did not use."""
        if admitted.lease.ask.windows or admitted.lease.ask.purses:
            await self._counters.settle(admitted.lease, used)

    def _check_books(self) -> None:
        if not self._journal.is_open:
            raise ApiError(
                ErrorKind.OVERLOADED, "The box cannot write its books now, so it serves nothing. Please try again later.", retry_after_s=1
            )

    async def follow(self, load: Load) -> None:
        """Learn for ever what others did to the purses in use; run by whoever owns the box's background tasks."""
        while True:
            await self._clock.sleep(_FOLLOW_S)
            oldest = self._clock.monotonic() - _FORGET_S
            self._purses = {name: used_at for name, used_at in self._purses.items() if used_at >= oldest}
            if self._purses:
                with suppress(ApiError):
                    self._counters.learn(await load(tuple(self._purses)))


def _without_tokens(windows: tuple[Window, ...]) -> tuple[Window, ...]:
    return tuple(
        Window(id=window.id, requests=window.requests, tokens=None, concurrency=window.concurrency)
        for window in windows
        if window.requests is not None or window.concurrency is not None
    )


def _worst(call: AnyCall, tariff: Tariff, input_tokens: int, output_tokens: int) -> Worst:
    """output_tokens: of each choice."""
    input_scaled, output_price = tariff.worst(input_tokens, call.lane)
    return Worst(
        input_tokens=input_tokens,
        output_tokens=output_tokens * call.request.n,
        is_flexible=call.request.max_output_tokens is None,
        input_scaled=input_scaled,
        output_price=output_price,
        choices=call.request.n,
    )
