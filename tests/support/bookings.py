"""Bookings for tests of the journal, and the arithmetic that any database must satisfy after them."""

from collections import defaultdict

from sqlalchemy import select

from qwenbox.db import Database, open_database
from qwenbox.gateway.journal.base import Booking, EntryKind, LedgerEntry, Outcome, PurseChange, UsageRow
from qwenbox.gateway.journal.tables import LEDGER_ENTRIES, PURSES, USAGE
from qwenbox.migrations.upgrade import upgrade


def call(id: str, cost: int = 7, *, account: str = "acc-1", is_owed: bool = False) -> Booking:
    """A call of the key `key-1`, which cost something."""
    entries = (entry(id, f"customer/{account}", -cost), entry(id, "revenue", cost))
    purses = tuple(
        PurseChange(id=name, delta_micros=-cost) for name in (f"balance/{account}", f"spent/{account}/2026-11", "spent/key-1/2026-11")
    )
    return Booking(id=id, usage=usage(id, cost, account=account), entries=entries, purses=purses, is_owed=is_owed)


def usage(id: str, cost: int = 7, *, account: str = "acc-1") -> UsageRow:
    return UsageRow(
        id=id,
        account_id=account,
        key_id="key-1",
        model="qwen-plus",
        deployment="large",
        dialect="openai",
        lane="interactive",
        day="2026-11-23",
        arrived_at=1_795_000_000.25,
        admitted_at=1_795_000_000.5,
        ttft_s=0.125,
        duration_s=1.5,
        input_tokens=26,
        cached_tokens=None,
        output_tokens=66,
        reasoning_tokens=None,
        outcome=Outcome.COMPLETED,
        finish_reason="stop",
        error_kind=None,
        cost_micros=cost,
        currency="CNY",
        price_version="0123abcd",
    )


def entry(transaction: str, ledger_account: str, amount: int, kind: EntryKind = EntryKind.CALL) -> LedgerEntry:
    return LedgerEntry(
        transaction_id=transaction, ledger_account=ledger_account, amount_micros=amount, currency="CNY", kind=kind, at=1_795_000_000.5
    )


def top_up(id: str, amount: int, *, account: str = "acc-1") -> Booking:
    return Booking(
        id=id,
        entries=(entry(id, f"customer/{account}", amount, EntryKind.TOP_UP), entry(id, "payments", -amount, EntryKind.TOP_UP)),
        purses=(PurseChange(id=f"balance/{account}", delta_micros=amount),),
    )


async def prepare(url: str) -> str:
    """Bring the database to the newest revision; returns its URL."""
    async with open_database(url) as database:
        await database.change(upgrade)
    return url


async def faults(database: Database) -> list[str]:
    """What does not add up: transactions that do not sum to 0, balances that are not the sum of their entries, costs without money."""
    entries, rows = await database.read(select(LEDGER_ENTRIES)), await database.read(select(USAGE))
    sums: dict[object, int] = defaultdict(int)
    customers: dict[str, int] = defaultdict(int)
    billed: dict[str, int] = defaultdict(int)
    for each in entries:
        sums[each["transaction_id"]] += int(str(each["amount_micros"]))
        side = str(each["ledger_account"])
        if side.startswith("customer/"):
            customers[side.removeprefix("customer/")] += int(str(each["amount_micros"]))
            billed[str(each["transaction_id"]).removesuffix("/refund")] -= int(str(each["amount_micros"]))
    found = [f"{name} sums to {total}" for name, total in sums.items() if total]
    purses = {str(row["id"]): int(str(row["amount_micros"])) for row in await database.read(select(PURSES))}
    found += [
        f"balance of {name}: {purses.get(f'balance/{name}')}, entries {total}"
        for name, total in customers.items()
        if purses.get(f"balance/{name}") != total
    ]
    found += [
        f"{row['id']}: cost {row['cost_micros']}, billed {billed[str(row['id'])]}"
        for row in rows
        if row["cost_micros"] != billed[str(row["id"])]
    ]
    return found
