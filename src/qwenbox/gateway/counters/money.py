"""This is where one process keeps its copies of purses: what the database says of each, what open calls hold, and who waits for it."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import anyio

from qwenbox.gateway.counters.base import PRICE_UNIT_TOKENS, Ask, Lease, Purse, PurseState, Worst
from qwenbox.gateway.counters.window import whole
from qwenbox.terms.errors import ApiError, ErrorKind

Load: TypeAlias = Callable[[tuple[str, ...]], Awaitable[tuple[PurseState, ...]]]

# A purse nobody used for so long is forgotten, and read from the database again when it is needed: months end, accounts go.
IDLE_S = 3600.0


class Waiter:
    """A call that waits for money. number: its place in the order of arrival. rows: its purses. row: the one it waits for.

    It ends with one of lease and error.
    """

    __slots__ = ("ask", "error", "lease", "number", "row", "rows", "wake")

    def __init__(self, ask: Ask, number: int, rows: "tuple[Row, ...]", row: "Row") -> None:
        self.ask = ask
        self.number = number
        self.rows = rows
        self.row = row
        self.wake = anyio.Event()
        self.lease: Lease | None = None
        self.error: ApiError | None = None


class Row:
    """A purse's newest known state, what open calls hold of it, and who waits for it, in order of arrival.

    users: calls open or waiting that have it; as long as there are any it must not be forgotten.
    """

    __slots__ = ("amount", "held", "used_at", "users", "version", "waiting")

    def __init__(self, state: PurseState, now: float) -> None:
        self.amount = state.amount_micros
        self.version = state.version
        self.held = 0
        self.users = 0
        self.used_at = now
        self.waiting: OrderedDict[int, Waiter] = OrderedDict()

    def queue(self, waiter: Waiter) -> None:
        """Wait here, behind who came earlier and before who came later."""
        waiter.row = self
        later = [number for number in self.waiting if number > waiter.number] if self.waiting else []
        self.waiting[waiter.number] = waiter
        for number in later:
            self.waiting.move_to_end(number)

    def is_kept_for_others(self, number: int) -> bool:
        return bool(self.waiting) and next(iter(self.waiting)) < number


class _Loading:
    """One read of purses that everybody who needs them waits for. newest: what was learned in the meantime."""

    def __init__(self) -> None:
        self.is_over = anyio.Event()
        self.error: ApiError | None = None
        self.newest: dict[str, PurseState] = {}


class Purses:
    def __init__(self, load: Load) -> None:
        self._load = load
        self._rows: dict[str, Row] = {}
        self._loading: dict[str, _Loading] = {}
        self._swept_at = 0.0

    def rows(self, purses: tuple[Purse, ...]) -> tuple[Row, ...] | None:
        """None if one of them has to be fetched first."""
        try:
            return tuple([self._rows[purse.id] for purse in purses])
        except KeyError:
            return None

    async def fetch(self, purses: tuple[Purse, ...], now: float) -> tuple[Row, ...]:
        """The purses' rows, read from the database if they are not known. Raises what `load` raises."""
        self._sweep(now)
        while (rows := self.rows(purses)) is None:
            missing = tuple(purse.id for purse in purses if purse.id not in self._rows)
            under_way = next((self._loading[name] for name in missing if name in self._loading), None)
            if under_way is None:
                await self._read(missing, now)
                continue
            await under_way.is_over.wait()
            if under_way.error is not None:
                error = under_way.error
                raise ApiError(error.kind, error.message, param=error.param, retry_after_s=error.retry_after_s) from error
        return rows

    def learn(self, state: PurseState) -> Row | None:
        """Keep a state if it is newer than what is known of a purse in use; its row then, as somebody may wait for it."""
        row = self._rows.get(state.id)
        if row is None:
            # One that is being read may have changed after the database looked: the newest wins below. Any other is read when needed.
            if (loading := self._loading.get(state.id)) is not None:
                known = loading.newest.get(state.id)
                loading.newest[state.id] = state if known is None or state.version > known.version else known
            return None
        if state.version <= row.version:
            return None
        row.amount, row.version = state.amount_micros, state.version
        return row

    async def _read(self, names: tuple[str, ...], now: float) -> None:
        loading = _Loading()
        for name in names:
            self._loading[name] = loading
        try:
            states = {name: PurseState(id=name, amount_micros=0, version=0) for name in names}
            for state in (*await self._load(names), *loading.newest.values()):
                if state.id in states and state.version >= states[state.id].version:
                    states[state.id] = state
            self._rows.update((name, Row(state, now)) for name, state in states.items())
        except ApiError as error:
            loading.error = error
            raise
        finally:
            # Also when the reader was cancelled: one of those who waited then reads for the others.
            for name in names:
                del self._loading[name]
            loading.is_over.set()

    def _sweep(self, now: float) -> None:
        if now - self._swept_at < IDLE_S:
            return
        self._swept_at = now
        idle = [name for name, row in self._rows.items() if not row.users and now - row.used_at > IDLE_S]
        for name in idle:
            del self._rows[name]


def offer(ask: Ask, rows: tuple[Row, ...], output_tokens: int, number: int) -> tuple[int, int] | Row:
    """(output tokens, micro-units to hold) that every purse pays for, or the one that has to be waited for. Takes nothing.

    number: the call's place in the order of arrival. Raises ApiError(OUT_OF_FUNDS).
    """
    worst = ask.worst
    cost = cost_micros(worst, output_tokens)
    for purse, row in zip(ask.purses, rows, strict=True):
        if row.amount + purse.allowance_micros - row.held < cost or row.waiting:
            break
    else:
        return output_tokens, cost
    if cost == 0:
        return output_tokens, 0
    return _tight(ask, rows, output_tokens, number)


def _tight(ask: Ask, rows: tuple[Row, ...], output_tokens: int, number: int) -> tuple[int, int] | Row:
    """As `offer`, where money is short or others wait for it."""
    worst = ask.worst
    cost = cost_micros(worst, output_tokens)
    least = cost_micros(worst, min(worst.choices, output_tokens))
    pairs = [(row, row.amount + purse.allowance_micros) for purse, row in zip(ask.purses, rows, strict=True)]
    for row, settled in pairs:
        if settled < least:
            raise ApiError(ErrorKind.OUT_OF_FUNDS)
        if row.held == 0 and settled < cost and worst.output_price:
            affordable = (settled * PRICE_UNIT_TOKENS - worst.input_scaled) // worst.output_price
            output_tokens = min(output_tokens, whole(affordable, worst.choices))
    cost = cost_micros(worst, output_tokens)
    for row, settled in pairs:
        if settled - row.held < cost or row.is_kept_for_others(number):
            return row
    return output_tokens, cost


def cost_micros(worst: Worst, output_tokens: int) -> int:
    return -(-(worst.input_scaled + output_tokens * worst.output_price) // PRICE_UNIT_TOKENS)
