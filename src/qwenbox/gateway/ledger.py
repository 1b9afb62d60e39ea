"""This is where money moves: what a call or a payment writes, what may be spent, and whether the books add up. docs/money.md."""

import uuid
from enum import StrEnum

import msgspec
from sqlalchemy import select, tuple_

from qwenbox.clock import Clock
from qwenbox.db import Database
from qwenbox.gateway import audit, pages
from qwenbox.gateway.accounts import ACCOUNTS, MOST_MICROS
from qwenbox.gateway.calendar import month
from qwenbox.gateway.counters.base import Purse, PurseState
from qwenbox.gateway.journal.base import Booking, EntryKind, Journal, LedgerEntry, PurseChange, UsageRow
from qwenbox.gateway.journal.tables import LEDGER_ENTRIES, NOT_A_CALL, PURSES
from qwenbox.terms.caller import Caller
from qwenbox.terms.errors import ApiError, ErrorKind

_CUSTOMER = "customer/"


class OtherSide(StrEnum):
    """Ledger accounts that are nobody's."""

    REVENUE = "revenue"
    PAYMENTS = "payments"


class EntryFilter(msgspec.Struct, frozen=True, kw_only=True):
    """since <= at < until, seconds since the epoch. after: `next` of the page before."""

    account_id: str | None = None
    kind: EntryKind | None = None
    since: float | None = None
    until: float | None = None
    after: str = ""
    limit: int = 100


class EntryPage(msgspec.Struct, frozen=True, kw_only=True):
    """Entries of customers, newest first. next: goes into `after`, "" on the last page."""

    entries: tuple[LedgerEntry, ...]
    next: str


def purses(caller: Caller, at: float) -> tuple[Purse, ...]:
    """The purses that can refuse a call admitted at `at`; none for most callers."""
    if not caller.is_prepaid and caller.account_budget_micros is None and caller.key_budget_micros is None:
        return ()
    found: list[Purse] = []
    if caller.is_prepaid:
        found.append(Purse(id=f"balance/{caller.account_id}", allowance_micros=0))
    for owner, budget in ((caller.account_id, caller.account_budget_micros), (caller.key_id, caller.key_budget_micros)):
        if budget is not None:
            found.append(Purse(id=f"spent/{owner}/{month(caller.time_zone, at)}", allowance_micros=budget))
    return tuple(found)


def booking(row: UsageRow, caller: Caller, *, is_owed: bool) -> Booking:
    """What a call that is over writes. Months are those of `row.day`, which must come from the moment that `purses` was asked for.

    Spending is noted for everybody, so that a budget set in the middle of a month knows what was spent by then.
    """
    if row.cost_micros == 0:
        return Booking(id=row.id, usage=row, is_owed=is_owed)
    when = row.day[:7]
    entry = LedgerEntry(
        transaction_id=row.id,
        ledger_account=_CUSTOMER + caller.account_id,
        amount_micros=-row.cost_micros,
        currency=row.currency,
        kind=EntryKind.CALL,
        at=row.admitted_at + row.duration_s,
    )
    return Booking(
        id=row.id,
        usage=row,
        entries=_both(entry, OtherSide.REVENUE),
        purses=(
            PurseChange(id=f"balance/{caller.account_id}", delta_micros=-row.cost_micros),
            PurseChange(id=f"spent/{caller.account_id}/{when}", delta_micros=-row.cost_micros),
            PurseChange(id=f"spent/{caller.key_id}/{when}", delta_micros=-row.cost_micros),
        ),
        is_owed=is_owed,
    )


class Ledger:
    """Payments in, corrections, and questions about both. currency: the price book's."""

    def __init__(self, database: Database, journal: Journal, clock: Clock, currency: str = "CNY") -> None:
        self._database = database
        self._journal = journal
        self._clock = clock
        self._currency = currency

    async def open(self) -> None:
        """Before the first call. Raises ApiError(CONFLICT) when the books are kept in another currency than the price book."""
        rows = await self._database.read(select(LEDGER_ENTRIES.c.currency).limit(1))
        if rows and rows[0]["currency"] != self._currency:
            raise ApiError(
                ErrorKind.CONFLICT,
                f"The books of this box are kept in {rows[0]['currency']}, its prices are in {self._currency}. "
                "Another currency needs another database.",
            )

    async def top_up(self, account_id: str, micros: int, note: str = "", reference: str = "") -> PurseState:
        """Money was paid in; returns the balance after it.

        reference: the payment's own name, e.g. an invoice's number; told again, it counts once. "": another payment each time.
        Raises ApiError: INVALID_REQUEST for an amount that is not above 0, NOT_FOUND without such an account, CONFLICT for a reference
        that already names another payment.
        """
        if micros <= 0:
            raise ApiError(ErrorKind.INVALID_REQUEST, "A top-up must be above 0; `adjust` takes money away.", param="amount")
        entry = await self._entry(account_id, micros, EntryKind.TOP_UP, note)
        return await self._move(entry, OtherSide.PAYMENTS, reference)

    async def adjust(self, account_id: str, micros: int, note: str, reference: str = "") -> PurseState:
        """A correction by hand, up or down, against revenue; returns the balance after it. Raises as `top_up`; it needs a note."""
        if micros == 0 or not note.strip():
            what = "amount" if micros == 0 else "note"
            raise ApiError(ErrorKind.INVALID_REQUEST, "An adjustment needs an amount other than 0, and a note that says why.", param=what)
        entry = await self._entry(account_id, micros, EntryKind.ADJUSTMENT, note)
        return await self._move(entry, OtherSide.REVENUE, reference)

    async def refund(self, request_id: str, note: str = "") -> PurseState:
        """Give a call's whole cost back to the balance, once; the month's spending stays. Raises ApiError(NOT_FOUND): it cost nothing."""
        call = next((entry for entry in await self._transaction(request_id) if entry.kind is EntryKind.CALL), None)
        # The journal takes back by itself what landed too late.
        if call is None or await self._transaction(f"{request_id}/refund"):
            raise ApiError(ErrorKind.NOT_FOUND, f"No call with the request id {request_id!r} was billed.", param="request_id")
        entry = await self._entry(call.ledger_account.removeprefix(_CUSTOMER), -call.amount_micros, EntryKind.REFUND, note)
        return await self._move(entry, OtherSide.REVENUE, request_id)

    async def balance(self, account_id: str) -> int:
        """What is left of what the account paid, micro-units; below 0 if it owes."""
        (state,) = await self.load((f"balance/{account_id}",))
        return state.amount_micros

    async def load(self, ids: tuple[str, ...]) -> tuple[PurseState, ...]:
        """Purses as the database has them, in the order asked for; one that nothing has changed yet holds 0 at version 0."""
        rows = await self._database.read(select(PURSES).where(PURSES.c.id.in_(ids)))
        known = {state.id: state for state in msgspec.convert(rows, list[PurseState])}
        return tuple(known.get(name) or PurseState(id=name, amount_micros=0, version=0) for name in ids)

    async def entries(self, wanted: EntryFilter) -> EntryPage:
        """What customers gained and lost, newest first."""
        columns = LEDGER_ENTRIES.c
        account = columns.ledger_account
        query = select(LEDGER_ENTRIES).order_by(columns.at.desc(), columns.transaction_id.desc()).limit(wanted.limit + 1)
        query = query.where(account == _CUSTOMER + wanted.account_id if wanted.account_id else account.startswith(_CUSTOMER))
        if wanted.kind is not None:
            query = query.where(columns.kind == wanted.kind.value, *([] if wanted.kind is EntryKind.CALL else [NOT_A_CALL]))
        if wanted.since is not None:
            query = query.where(columns.at >= wanted.since)
        if wanted.until is not None:
            query = query.where(columns.at < wanted.until)
        if wanted.after:
            query = query.where(tuple_(columns.at, columns.transaction_id) < tuple_(*pages.read(wanted.after)))
        found = msgspec.convert(await self._database.read(query), tuple[LedgerEntry, ...])
        shown = found[: wanted.limit]
        return EntryPage(entries=shown, next=pages.write(shown[-1].at, shown[-1].transaction_id) if len(found) > len(shown) else "")

    async def check(self) -> list[str]:
        """What does not add up, in words; empty when the books are right."""
        return await audit.complaints(self._database)

    async def _entry(self, account_id: str, micros: int, kind: EntryKind, note: str) -> LedgerEntry:
        """The customer's side, still without a transaction."""
        if abs(micros) > MOST_MICROS:
            raise ApiError(ErrorKind.INVALID_REQUEST, f"No more than {MOST_MICROS} micro-units move at once.", param="amount")
        if not await self._database.read(select(ACCOUNTS.c.id).where(ACCOUNTS.c.id == account_id)):
            raise ApiError(ErrorKind.NOT_FOUND, f"There is no account with the id {account_id!r}.", param="account")
        return LedgerEntry(
            transaction_id="",
            ledger_account=_CUSTOMER + account_id,
            amount_micros=micros,
            currency=self._currency,
            kind=kind,
            at=self._clock.now(),
            note=note,
        )

    async def _move(self, entry: LedgerEntry, other: OtherSide, reference: str) -> PurseState:
        entry = msgspec.structs.replace(entry, transaction_id=f"{entry.kind.value}/{reference or uuid.uuid4()}")
        balance = f"balance/{entry.ledger_account.removeprefix(_CUSTOMER)}"
        change = PurseChange(id=balance, delta_micros=entry.amount_micros)
        # With a name of its own it may land later, and be told again; without, it must not land once this has raised.
        moved = Booking(id=entry.transaction_id, entries=_both(entry, other), purses=(change,), is_owed=bool(reference))
        await self._journal.commit(moved)
        # Read, not assumed: the reference may have been there before, for this payment or for another.
        written = {(side.ledger_account, side.amount_micros) for side in await self._transaction(entry.transaction_id)}
        if (entry.ledger_account, entry.amount_micros) not in written:
            raise ApiError(ErrorKind.CONFLICT, f"The reference {reference!r} already names another payment.", param="reference")
        (state,) = await self.load((balance,))
        return state

    async def _transaction(self, transaction_id: str) -> tuple[LedgerEntry, ...]:
        """The customers' sides of it."""
        query = select(LEDGER_ENTRIES).where(
            LEDGER_ENTRIES.c.transaction_id == transaction_id, LEDGER_ENTRIES.c.ledger_account.startswith(_CUSTOMER)
        )
        return msgspec.convert(await self._database.read(query), tuple[LedgerEntry, ...])


def _both(entry: LedgerEntry, other: OtherSide) -> tuple[LedgerEntry, ...]:
    return entry, msgspec.structs.replace(entry, ledger_account=other.value, amount_micros=-entry.amount_micros)
