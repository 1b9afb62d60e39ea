"""This is where what an ended call leaves behind is said, and the contract of the journal that writes it.

A booking is written whole or not at all, once. Bookings that are ready together are committed together (group commit).
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

import msgspec

from qwenbox.gateway.counters.base import PurseState


class Outcome(StrEnum):
    """How a call ended, for the one who pays."""

    COMPLETED = "completed"
    HUNG_UP = "hung_up"  # the client left; what was produced by then is billed
    FAILED = "failed"  # billed for what had reached the client; nothing, if that is nothing


class EntryKind(StrEnum):
    CALL = "call"
    TOP_UP = "top_up"
    REFUND = "refund"
    ADJUSTMENT = "adjustment"


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """One call, over. Fields are the columns of USAGE; times are seconds since the epoch, durations seconds.

    id: the request id. model: the public name, without alias. day: "YYYY-MM-DD" of admitted_at in the account's time zone.
    reusable_tokens: input that an earlier prompt had begun with (gateway/prefixes.py), None where nobody looked.
    ttft_s: admission to first delta, None if there was none. is_counted: we counted, since the engine reported nothing.
    is_cache_hit: answered from the response cache; its cost is 0. notes: JSON object of what was done to the call, "{}" mostly.
    cost_micros: in `currency`, by the prices of `price_version`. hops: when it came where (gateway/hops.py), "" for older calls.
    """

    id: str
    account_id: str
    key_id: str
    model: str
    deployment: str
    dialect: str
    lane: str
    day: str
    arrived_at: float
    admitted_at: float
    ttft_s: float | None
    duration_s: float
    input_tokens: int
    cached_tokens: int | None
    output_tokens: int
    reasoning_tokens: int | None
    image_tokens: int | None = None
    reusable_tokens: int | None = None
    is_counted: bool = False
    is_cache_hit: bool = False
    outcome: Outcome
    finish_reason: str | None
    error_kind: str | None
    cost_micros: int
    currency: str
    price_version: str
    notes: str = "{}"
    hops: str = ""


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a transaction; the sides of a transaction sum to 0.

    transaction_id: the request id of a call, else an id of its own. ledger_account: "customer/<account id>", "revenue" or "payments".
    amount_micros: what the ledger account gains; a customer's entries sum to what is left of its payments.
    """

    transaction_id: str
    ledger_account: str
    amount_micros: int
    currency: str
    kind: EntryKind
    at: float
    note: str = ""


class PurseChange(msgspec.Struct, frozen=True, kw_only=True):
    """id: see counters.base.Purse."""

    id: str
    delta_micros: int


class Booking(msgspec.Struct, frozen=True, kw_only=True):
    """What is written in one piece. id: the transaction's; written twice it counts once. What changes purses has entries.

    is_owed: something was served already. If the database is gone, the journal keeps such a booking and writes it when the database is
    back; any other is dropped, and whoever waited for it tells the client that the call failed.
    One that turns out to be in the database after that is paid back, and its usage row says FAILED at no cost.
    """

    id: str
    usage: UsageRow | None = None
    entries: tuple[LedgerEntry, ...] = ()
    purses: tuple[PurseChange, ...] = ()
    is_owed: bool = False


class Journal(Protocol):
    @property
    def is_open(self) -> bool:
        """Whether bookings can be written now. While it is False, calls are refused before they reach an engine."""
        ...

    async def commit(self, booking: Booking) -> tuple[PurseState, ...]:
        """Returns when the booking is in the database for good, with the states of its purses. It is not cancelled half-way:
        a caller that is cancelled while it waits leaves a booking that is written all the same.

        Raises ApiError(OVERLOADED) when the database does not take it within `[journal] commit_wait_s`; see Booking.is_owed.
        """
        ...

    def when_late(self, listener: Callable[[str, tuple[PurseState, ...]], None]) -> None:
        """Tell `listener` of every booking whose end nobody waited for: its id, and the states of its purses; () if it was given up."""
        ...
