"""This is where one booking on its way into the database is followed, and what undoes one that should not be there."""

import asyncio
from enum import Enum, auto

import msgspec

from qwenbox.gateway.counters.base import PurseState
from qwenbox.gateway.journal.base import Booking, EntryKind, Outcome, PurseChange


class Kind(Enum):
    BOOKING = auto()
    TOMBSTONE = auto()  # takes a given-up booking's id, so that it can never land any more
    REFUND = auto()  # takes back a given-up booking that had landed


class Pending:
    """A booking and whoever waits for it.

    is_late: owed, and nobody waits any more. is_dropped: not owed, and its caller was told that it failed.
    was_tried: it may land right now. is_unclear: it may have landed, in a write that failed.
    is_refused: the database would not have it in a group; is_alone: it goes without others now.
    given_up: of a tombstone or refund, the booking it is for.
    """

    __slots__ = (
        "booking",
        "futures",
        "given_up",
        "is_alone",
        "is_dropped",
        "is_late",
        "is_refused",
        "is_unclear",
        "kind",
        "timer",
        "was_tried",
    )

    def __init__(self, booking: Booking, kind: Kind = Kind.BOOKING, given_up: Booking | None = None) -> None:
        self.booking = booking
        self.kind = kind
        self.given_up = given_up
        self.futures: list[asyncio.Future[tuple[PurseState, ...]]] = []
        self.timer: asyncio.TimerHandle | None = None
        self.is_late = self.is_dropped = self.was_tried = self.is_refused = self.is_alone = self.is_unclear = False

    def give(self, states: tuple[PurseState, ...]) -> bool:
        """Whether anybody was still there to take it."""
        is_taken = False
        for future in self.futures:
            if not future.done():
                future.set_result(states)
                is_taken = True
        return is_taken

    def fail(self, error: Exception) -> bool:
        """Whether anybody was still there to be told."""
        is_told = False
        for future in self.futures:
            if not future.done():
                future.set_exception(error)
                is_told = True
        return is_told


def tombstone(booking: Booking) -> Pending:
    """The booking without its money: whichever of the two lands first keeps the other out, by the primary key."""
    if booking.usage is not None:
        row = msgspec.structs.replace(booking.usage, outcome=Outcome.FAILED, cost_micros=0)
        return Pending(Booking(id=booking.id, usage=row, is_owed=True), Kind.TOMBSTONE, booking)
    entries = tuple(msgspec.structs.replace(entry, amount_micros=0) for entry in booking.entries)
    return Pending(Booking(id=booking.id, entries=entries, is_owed=True), Kind.TOMBSTONE, booking)


def refund_id(id: str) -> str:
    return f"{id}/refund"


def refund(booking: Booking, at: float) -> Pending:
    """Everything the booking moved, moved back; its usage row is marked failed at no cost along with it."""
    id = refund_id(booking.id)
    entries = tuple(
        msgspec.structs.replace(
            entry,
            transaction_id=id,
            amount_micros=-entry.amount_micros,
            kind=EntryKind.REFUND,
            at=at,
            note="not served: the books were late",
        )
        for entry in booking.entries
    )
    purses = tuple(PurseChange(id=change.id, delta_micros=-change.delta_micros) for change in booking.purses)
    return Pending(Booking(id=id, entries=entries, purses=purses, is_owed=True), Kind.REFUND, booking)
