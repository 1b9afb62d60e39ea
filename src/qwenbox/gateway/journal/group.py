"""This is where bookings are committed in groups, each exactly once, also when the database goes away in the middle.

What is ready together goes together; nobody waits for company. docs/operations.md tells what happens when the database is gone.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import anyio
import msgspec

from qwenbox.clock import Clock
from qwenbox.db import unavailable
from qwenbox.gateway.counters.base import PurseState
from qwenbox.gateway.journal.base import Booking
from qwenbox.gateway.journal.pending import Kind, Pending, refund, refund_id, tombstone
from qwenbox.gateway.journal.store import Found, Gone, Group, Refused, Store
from qwenbox.terms.errors import ApiError, ErrorKind

PROBE_S = 0.2

# So many bookings are kept while the database is away, 2 kB each; calls are refused from the first failure on, so only those count
# that were running then.
KEEP_MOST = 50_000

# The event loop stands still while a group is written at once: 64 bookings are about 2 ms.
_MOST_NOW = 64
_MOST = 512

_log = logging.getLogger(__name__)


class GroupJournal:
    """See journal.base.Journal. Open one per process with journal.registry.open_journal."""

    def __init__(self, store: Store, commit_wait_s: float, clock: Clock, probe_s: float = PROBE_S) -> None:
        self._probe_s = probe_s
        self._store = store
        self._commit_wait_s = commit_wait_s
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        # Open again only when the database is well and everything kept is settled.
        self._is_open = True
        self._is_well = True
        self._is_closing = False
        # Idle: nothing is written or waits to be, so the next booking may be written by a callback instead of the task.
        self._is_idle = True
        self._queue: deque[Pending] = deque()
        self._unsure: list[Pending] = []
        self._by_id: dict[str, Pending] = {}
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()
        self._listeners: list[Callable[[str, tuple[PurseState, ...]], None]] = []
        self._task = self._loop.create_task(self._run(), name="journal")
        self._task.add_done_callback(self._ended)

    @property
    def is_open(self) -> bool:
        return self._is_open

    def when_late(self, listener: Callable[[str, tuple[PurseState, ...]], None]) -> None:
        """Call `listener(booking id, states)` for each booking that comes to its end when nobody waits for it any more.

        An owed one whose commit raised is among them, one whose waiter was cancelled, and one that was paid back; all of them before
        `is_open` turns True again. states: empty for one that was given up.
        """
        self._listeners.append(listener)

    async def commit(self, booking: Booking) -> tuple[PurseState, ...]:
        """See journal.base.Journal.commit."""
        if booking.usage is None and not booking.entries:
            if booking.purses:
                raise ValueError("a booking that changes purses has entries")  # nothing else could tell whether it was written
            return ()
        pending = self._by_id.get(booking.id)
        if pending is None:
            pending = self._submit(booking)
        elif pending.is_late or pending.is_dropped or pending.kind is not Kind.BOOKING:
            raise unavailable()
        future: asyncio.Future[tuple[PurseState, ...]] = self._loop.create_future()
        pending.futures.append(future)
        return await future

    def _submit(self, booking: Booking) -> Pending:
        if self._is_closing or self._task.done() or len(self._by_id) >= KEEP_MOST:
            if booking.is_owed:
                _log_unwritten(booking)
            raise unavailable()
        pending = Pending(booking)
        pending.timer = self._loop.call_later(self._commit_wait_s, self._expire, pending)
        self._add(pending)
        return pending

    def _add(self, pending: Pending) -> None:
        self._by_id[pending.booking.id] = pending
        self._queue.append(pending)
        if self._is_idle:
            self._is_idle = False
            if self._store.can_write_now:
                # Not at once, but after everything else that is ready now: what other calls book goes along.
                self._loop.call_soon(self._write_now)
            else:
                self._wake.set()

    def _write_now(self) -> None:
        is_sound = False
        try:
            self._write_group_now()
            is_sound = True
        finally:
            if not is_sound:
                # A mistake of ours, which the loop logs: nothing may be served any more, and nobody waits for ever.
                self._task.cancel()
                self._is_open = False
                for pending in list(self._by_id.values()):
                    pending.fail(unavailable())

    def _write_group_now(self) -> None:
        group = self._take(_MOST_NOW)
        if not group:
            self._is_idle = True
            return
        try:
            states = self._store.write_now(_rows(group))
        except (Gone, Refused) as trouble:
            self._set_aside(group, trouble)
            self._wake.set()
            return
        if states is None:
            self._queue.extendleft(reversed(group))
            self._wake.set()
            return
        self._written(group, states)
        if self._queue:
            self._loop.call_soon(self._write_now)
        else:
            self._is_idle = True

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue or self._unsure or not self._is_well:
                if not self._is_well:
                    await anyio.sleep(self._probe_s)
                    await self._probe()
                elif self._unsure:
                    await self._ask()
                else:
                    await self._write()
            if not self._is_open:
                self._is_open = True
                _log.warning("The database takes bookings again; everything kept is written.")
            self._is_idle = True

    async def _probe(self) -> None:
        try:
            await self._store.probe()
        except Gone as trouble:
            _log.debug("The database is still away: %s", trouble)
        else:
            self._is_well = True

    async def _write(self) -> None:
        group = self._take(_MOST)
        if not group:
            return
        for pending in group:
            pending.was_tried = True
        try:
            states = await self._store.write(_rows(group))
        except (Gone, Refused) as trouble:
            self._set_aside(group, trouble)
        else:
            self._written(group, states)

    def _take(self, most: int) -> list[Pending]:
        """The next bookings to write together; those that were given up before they were tried are gone."""
        group: list[Pending] = []
        while self._queue and len(group) < most:
            if self._queue[0].is_alone and group:
                break
            pending = self._queue.popleft()
            if pending.is_dropped and not pending.was_tried:
                self._forget(pending)
                continue
            group.append(pending)
            if pending.is_alone:
                break
        return group

    def _set_aside(self, group: list[Pending], trouble: Gone | Refused) -> None:
        """A group that failed. Where it is clear that nothing was written, it is just written again; otherwise the database is asked."""
        if isinstance(trouble, Refused):
            for pending in group:
                if pending.is_alone:
                    _log.error("The database does not take the booking %s: %s", pending.booking.id, trouble)
                pending.is_refused = True
            self._unsure.extend(group)
            return
        self._lose(trouble)
        for pending in group:
            pending.was_tried = pending.is_unclear = pending.is_unclear or trouble.is_unclear
        if trouble.is_unclear:
            self._unsure.extend(group)
        else:
            self._queue.extendleft(reversed(group))

    def _lose(self, trouble: Gone) -> None:
        self._is_well = False
        if self._is_open:
            self._is_open = False
            _log.error("The database takes no bookings, calls are refused until it does: %s", trouble)

    async def _ask(self) -> None:
        """Ask the database which of the unsure bookings it has; the others are written again."""
        asked = self._unsure[:_MOST]
        purses = {change.id for pending in asked for change in pending.booking.purses}
        try:
            ids = [id for pending in asked for id in (pending.booking.id, refund_id(pending.booking.id))]
            found = await self._store.look(ids, sorted(purses))
        except Gone as trouble:
            self._lose(trouble)
            return
        del self._unsure[: len(asked)]
        for pending in reversed(asked):
            if pending.booking.id in found.ids:
                self._landed(pending, found)
            else:
                self._missing(pending)

    def _missing(self, pending: Pending) -> None:
        if pending.is_dropped and not pending.is_unclear:
            self._forget(pending)
        elif pending.is_dropped:
            # The write that failed may still be on its way: what takes its place keeps it out.
            self._replace(pending, tombstone(pending.booking))
        elif pending.is_refused and pending.is_alone:
            if not pending.fail(ApiError(ErrorKind.INTERNAL)):
                self._tell(pending, ())
            self._forget(pending)
            _log_unwritten(pending.booking)
        else:
            # Whatever it is that the database will not have, it keeps nobody else out.
            pending.is_alone = pending.is_refused
            self._queue.appendleft(pending)

    def _landed(self, pending: Pending, found: Found) -> None:
        if pending.kind is Kind.TOMBSTONE and pending.given_up is not None:
            if pending.booking.id in found.charged:
                self._replace(pending, refund(pending.given_up, self._clock.now()))
            else:
                self._forget(pending)
        elif pending.is_dropped and not pending.is_unclear:
            self._forget(pending)  # it was there before it was tried here
        elif pending.kind is Kind.BOOKING and not pending.is_dropped and _is_given_up(pending.booking, found):
            pending.fail(ApiError(ErrorKind.CONFLICT, "This booking was given up before. Please try again under a new id."))
            self._forget(pending)
        else:
            self._written([pending], found.states)

    def _written(self, group: list[Pending], states: dict[str, PurseState]) -> None:
        for pending in group:
            if pending.is_dropped:
                self._replace(pending, refund(pending.booking, self._clock.now()))
                continue
            self._forget(pending)
            if pending.kind is Kind.TOMBSTONE:
                continue
            ids = [change.id for change in pending.booking.purses]
            # A booking that was there before, for somebody else, may name a purse that nothing has changed yet.
            own = tuple([states.get(name) or PurseState(id=name, amount_micros=0, version=0) for name in ids])
            if not pending.give(own):
                self._tell(pending, own)

    def _tell(self, pending: Pending, states: tuple[PurseState, ...]) -> None:
        for listener in self._listeners:
            listener((pending.given_up or pending.booking).id, states)

    def _replace(self, pending: Pending, by: Pending) -> None:
        self._forget(pending)
        self._by_id[by.booking.id] = by
        self._queue.append(by)
        self._wake.set()

    def _forget(self, pending: Pending) -> None:
        if pending.timer is not None:
            pending.timer.cancel()
        del self._by_id[pending.booking.id]
        if not self._by_id:
            self._drained.set()

    def _expire(self, pending: Pending) -> None:
        """Its caller waits no longer: what is owed is kept, anything else is given up."""
        if pending.booking.is_owed:
            pending.is_late = True
        else:
            pending.is_dropped = True
        if not pending.fail(unavailable()) and pending.is_dropped:
            self._tell(pending, ())

    async def close(self, wait_s: float | None = None) -> None:
        """Write what is left, for at most `wait_s` (default: `commit_wait_s`); the log tells what could not be written, line by line."""
        self._is_closing = True
        with anyio.move_on_after(self._commit_wait_s if wait_s is None else wait_s, shield=True):
            while self._by_id and not self._task.done():
                self._drained.clear()
                await self._drained.wait()
        self._task.cancel()
        with anyio.CancelScope(shield=True):
            with suppress(asyncio.CancelledError):
                await self._task
            await self._store.close()
        for pending in list(self._by_id.values()):
            pending.fail(unavailable())
            self._forget(pending)
            if pending.kind is not Kind.BOOKING or (pending.is_dropped and pending.was_tried):
                id = (pending.given_up or pending.booking).id
                _log.critical("NOT CLEAR: %s may be booked, although its caller was told that it failed; refund it by hand if so.", id)
            elif pending.booking.is_owed:
                _log_unwritten(pending.booking)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """The task ends only when the journal is closed, or by a mistake of ours: then nothing may be served any more."""
        self._is_open = False
        self._drained.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.critical("The journal has failed; restart the box.", exc_info=error)


def _rows(group: list[Pending]) -> Group:
    voids = [pending.given_up.id for pending in group if pending.kind is Kind.REFUND and pending.given_up is not None]
    return Group([pending.booking for pending in group], voids)


def _is_given_up(booking: Booking, found: Found) -> bool:
    """Whether what is there under the booking's id is not the booking: a tombstone, or one that was paid back."""
    has_money = any(entry.amount_micros for entry in booking.entries)
    return refund_id(booking.id) in found.ids or (has_money and booking.id not in found.charged)


def _log_unwritten(booking: Booking) -> None:
    """The last trace of what was served and could not be booked; it holds no prompt, no answer and no key."""
    _log.critical("NOT BOOKED, write it down by hand: %s", msgspec.json.encode(booking).decode())
