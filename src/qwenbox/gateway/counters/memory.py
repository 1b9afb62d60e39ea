"""This is where one process counts: windows and money in its own memory. docs/limits.md and docs/money.md tell the rules.

Nothing here waits between looking and taking, so no two calls ever see the same last place.
"""

from itertools import count
from typing import TypeAlias

import anyio
import anyio.lowlevel

from qwenbox.clock import Clock
from qwenbox.gateway.counters.base import Ask, CountersConfig, Lease, LiveWindow, PurseState, Used
from qwenbox.gateway.counters.money import Load, Purses, Row, Waiter, offer
from qwenbox.gateway.counters.window import Entry, Log, Windows
from qwenbox.terms.errors import ApiError, ErrorKind

# What an open call has taken: admissions by window, purses. How much money is in its lease.
_Taken: TypeAlias = tuple[tuple[tuple[Log, Entry], ...], tuple[Row, ...]]


# The time of day drifts less than this against the monotonic clock while nobody sets it.
_SET_ANEW_S = 1.0


class MemoryCounters:
    """Counters of one process. load: reads purses from the database; one that has no row yet may be left out."""

    def __init__(self, config: CountersConfig, clock: Clock, load: Load) -> None:
        self._config = config
        self._clock = clock
        self._windows = Windows(config.window_s)
        self._purses = Purses(load)
        self._open: dict[str, _Taken] = {}
        self._numbers = count()
        self._ahead = clock.now() - clock.monotonic()

    async def reserve(self, ask: Ask) -> Lease:
        rows = self._purses.rows(ask.purses) if ask.purses else ()
        if rows is None:
            rows = await self._purses.fetch(ask.purses, self._clock.monotonic())
        number = next(self._numbers)
        outcome = self._attempt(ask, rows, number)
        if isinstance(outcome, Lease):
            return outcome
        return await self._wait(Waiter(ask, number, rows, outcome))

    async def settle(self, lease: Lease, used: Used) -> None:
        taken = self._open.pop(lease.ask.id, None)
        changed = [row for state in used.purses if (row := self._purses.learn(state)) is not None]
        if taken is not None:
            now = self._clock.monotonic()
            entries, rows = taken
            for log, entry in entries:
                log.end(entry, used.tokens, now)
            _release(rows, lease.held_micros)
            changed += rows
        self._admit(changed)

    def learn(self, states: tuple[PurseState, ...]) -> None:
        self._admit([row for state in states if (row := self._purses.learn(state)) is not None])

    def restore(self, window_id: str, at: float, tokens: int) -> None:
        """Count a call of before the start. at: when it was admitted, seconds since the epoch. tokens: what it used."""
        now = self._clock.monotonic()
        self._windows.restore(window_id, now - (self._clock.now() - at), tokens, now)

    def snapshot(self) -> tuple[LiveWindow, ...]:
        """What every window holds now."""
        return self._windows.live(self._clock.monotonic())

    def _attempt(self, ask: Ask, rows: tuple[Row, ...], number: int) -> Lease | Row:
        """Take everything, or say which purse has to be waited for; then nothing is taken. Raises as `reserve`."""
        now = self._clock.monotonic()
        output_tokens, held, logs = ask.worst.output_tokens, 0, ()
        if ask.windows:
            output_tokens, logs = self._windows.grant(ask, now)
        if rows:
            paid = offer(ask, rows, output_tokens, number)
            if isinstance(paid, Row):
                return paid
            output_tokens, held = paid
            for row in rows:
                row.held += held
                row.users += 1
                row.used_at = now
        limits = None
        tokens = ask.worst.input_tokens + output_tokens
        if logs:
            entries = tuple([(log, log.add(now, tokens, ask.mark)) for log in logs])
            limits = self._windows.state(ask.windows, now)
        else:
            entries = ()
        if entries or rows:
            self._open[ask.id] = (entries, rows)
        return Lease(ask=ask, output_tokens=output_tokens, held_micros=held, at=self._moment(now), limits=limits)

    def _moment(self, now: float) -> float:
        """The time of day of a monotonic moment. Rows tell it, so it must not differ from what the windows count by; only a clock that
        was set anew changes what one means by the other."""
        ahead = self._clock.now() - now
        if abs(ahead - self._ahead) > _SET_ANEW_S:
            self._ahead = ahead
        return now + self._ahead

    async def _wait(self, waiter: Waiter) -> Lease:
        waiter.row.queue(waiter)
        for row in waiter.rows:
            row.users += 1
        try:
            with anyio.move_on_after(self._config.wait_s):
                await waiter.wake.wait()
            # Woken and cancelled in one moment: it must not come back with a lease that nobody would settle.
            await anyio.lowlevel.checkpoint_if_cancelled()
        except BaseException:
            self._withdraw(waiter)
            raise
        finally:
            for row in waiter.rows:
                row.users -= 1
        if waiter.lease is not None:
            return waiter.lease
        if waiter.error is not None:
            raise waiter.error
        self._withdraw(waiter)
        text = "Calls still open hold the money this call needs. Please try again when they have ended."
        raise ApiError(ErrorKind.OVERLOADED, text, retry_after_s=self._config.wait_s / 10)

    def _withdraw(self, waiter: Waiter) -> None:
        # A caller can hang up in the very moment in which it is admitted: then it gives everything back, its request too.
        if waiter.lease is not None:
            entries, rows = self._open.pop(waiter.ask.id)
            for log, entry in entries:
                log.undo(entry)
            _release(rows, waiter.lease.held_micros)
            self._admit(rows)
        elif waiter.error is None:
            del waiter.row.waiting[waiter.number]
            self._admit((waiter.row,))

    def _admit(self, rows: tuple[Row, ...] | list[Row]) -> None:
        """Let in whom these purses can pay for now, in order of arrival; windows may have filled meanwhile."""
        for row in rows:
            while row.waiting and self._is_head_done(row):
                pass

    def _is_head_done(self, row: Row) -> bool:
        """Whether the first of those who wait here is admitted, refused or waits elsewhere now."""
        waiter = next(iter(row.waiting.values()))
        try:
            outcome = self._attempt(waiter.ask, waiter.rows, waiter.number)
        except ApiError as error:
            waiter.error = error
        else:
            if outcome is row:
                return False
            if isinstance(outcome, Row):
                del row.waiting[waiter.number]
                outcome.queue(waiter)
                return True
            waiter.lease = outcome
        del row.waiting[waiter.number]
        waiter.wake.set()
        return True


def _release(rows: tuple[Row, ...], held_micros: int) -> None:
    for row in rows:
        row.held -= held_micros
        row.users -= 1
