"""This is where the contract stands between the group-committing writer and the database it writes to."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from qwenbox.gateway.counters.base import PurseState
from qwenbox.gateway.journal.base import Booking, LedgerEntry, Outcome, UsageRow
from qwenbox.gateway.journal.tables import LEDGER_ENTRIES, USAGE

# Counting its version up is the smallest write that proves that the database takes writes again.
PROBE_ID = "probe"

# What a call is marked with when its booking landed after its caller had been told that it failed.
VOIDED = {"outcome": Outcome.FAILED.value, "cost_micros": 0}

USAGE_COLUMNS = tuple(column.name for column in USAGE.columns)
ENTRY_COLUMNS = tuple(column.name for column in LEDGER_ENTRIES.columns)

# What lets a row be taken out of its struct in one piece.
if (UsageRow.__struct_fields__, LedgerEntry.__struct_fields__) != (USAGE_COLUMNS, ENTRY_COLUMNS):
    raise AssertionError("the fields of a usage row or a ledger entry are not the columns of its table, in their order")

_row = msgspec.structs.astuple


class Gone(Exception):
    """The database did not take it. is_unclear: it may have, all the same; ask it for the ids before anything is written again."""

    def __init__(self, why: BaseException, *, is_unclear: bool) -> None:
        super().__init__(f"{type(why).__name__}: {why}")
        self.is_unclear = is_unclear


class Refused(Exception):
    """Nothing was written, and the data are why: an id that is there already, or a value no column takes."""


class Group:
    """Bookings written in one transaction, as rows in the order of the tables' columns.

    purses: id → summed change, sorted by id, so that two workers take their locks in the same order. voids: usage rows to mark as failed.
    """

    __slots__ = ("entries", "purses", "size", "usage", "voids")

    def __init__(self, bookings: Sequence[Booking], voids: Sequence[str]) -> None:
        self.size = len(bookings)
        self.voids = voids
        self.usage = [_row(booking.usage) for booking in bookings if booking.usage is not None]
        self.entries = [_row(entry) for booking in bookings for entry in booking.entries]
        sums: dict[str, int] = {}
        for booking in bookings:
            for change in booking.purses:
                sums[change.id] = sums.get(change.id, 0) + change.delta_micros
        self.purses: Sequence[tuple[str, int]] = sorted(sums.items())


def probe() -> Group:
    """The smallest group that changes something: a version of a purse that is nobody's."""
    group = Group((), ())
    group.purses = [(PROBE_ID, 0)]
    return group


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What the database says it has. ids: bookings that are there. charged: those of them that moved money."""

    ids: frozenset[str]
    charged: frozenset[str]
    states: dict[str, PurseState]


class Store(Protocol):
    """One database. Every method but `close` raises Gone; `write` and `write_now` raise Refused, too.

    A group is written whole or not at all. Called from one task at a time.
    """

    @property
    def can_write_now(self) -> bool:
        """Whether `write_now` is worth trying."""
        ...

    def write_now(self, group: Group) -> dict[str, PurseState] | None:
        """Write without waiting for anything; None if that would mean to wait: nothing was written then. Returns the purses' new states."""
        ...

    async def write(self, group: Group) -> dict[str, PurseState]: ...

    async def look(self, ids: Sequence[str], purses: Sequence[str]) -> Found: ...

    async def probe(self) -> None:
        """Write something that changes nothing."""
        ...

    async def close(self) -> None:
        """Never raises."""
        ...
