"""The ledger: what a call and a payment write, on both databases; and a check that finds every kind of fault."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import msgspec
import pytest
from sqlalchemy import text

from qwenbox.db import Database
from qwenbox.gateway.accounts import Accounts
from qwenbox.gateway.alerts import Alerts
from qwenbox.gateway.counters.base import Purse, PurseState
from qwenbox.gateway.journal.base import Booking, EntryKind, Journal, Outcome, UsageRow
from qwenbox.gateway.journal.registry import JournalConfig, open_journal
from qwenbox.gateway.ledger import EntryFilter, Ledger, booking, purses
from qwenbox.gateway.statements import Statements
from qwenbox.terms.caller import Caller
from qwenbox.terms.errors import ApiError, ErrorKind
from support.clocks import StillClock

pytestmark = pytest.mark.anyio

MARCH = datetime(2026, 3, 31, 20, tzinfo=UTC).timestamp()


class Books:
    """A database with its journal, one account, and calls on it."""

    def __init__(self, database: Database, journal, clock: StillClock, account_id: str) -> None:
        self.database, self.journal, self.clock, self.account_id = database, journal, clock, account_id
        self.ledger = Ledger(database, journal, clock)
        self.caller = Caller(account_id=account_id, key_id="key-1")

    async def call(self, id: str, cost: int, **changes: object) -> tuple[PurseState, ...]:
        row = msgspec.structs.replace(usage(id, self.account_id, cost), **changes)
        return await self.journal.commit(booking(row, self.caller, is_owed=False))


def usage(id: str, account_id: str, cost: int) -> UsageRow:
    return UsageRow(
        id=id,
        account_id=account_id,
        key_id="key-1",
        model="qwen-plus",
        deployment="large",
        dialect="openai",
        lane="interactive",
        day="2026-03-31",
        arrived_at=MARCH,
        admitted_at=MARCH,
        ttft_s=0.1,
        duration_s=1.0,
        input_tokens=10,
        cached_tokens=None,
        output_tokens=5,
        reasoning_tokens=None,
        outcome=Outcome.COMPLETED,
        finish_reason="stop",
        error_kind=None,
        cost_micros=cost,
        currency="CNY",
        price_version="v",
    )


@pytest.fixture
async def books(url: str, database: Database) -> AsyncIterator[Books]:
    clock = StillClock(MARCH)
    account = await Accounts(database, clock).named("acme")
    async with open_journal(url, JournalConfig(), clock) as journal:
        yield Books(database, journal, clock, account.id)


async def refused(kind: ErrorKind, work) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await work
    assert kind is caught.value.kind
    return caught.value


def test_purses_are_those_that_can_refuse() -> None:
    caller = Caller(account_id="a", key_id="k")
    assert () == purses(caller, MARCH)
    limited = msgspec.structs.replace(caller, is_prepaid=True, account_budget_micros=5, key_budget_micros=3, time_zone="Asia/Shanghai")
    expected = (
        Purse(id="balance/a", allowance_micros=0),
        # 20:00 UTC on the last of March is April in Shanghai.
        Purse(id="spent/a/2026-04", allowance_micros=5),
        Purse(id="spent/k/2026-04", allowance_micros=3),
    )
    assert expected == purses(limited, MARCH)


def test_booking_of_a_free_call_moves_no_money() -> None:
    made = booking(usage("id", "a", 0), Caller(account_id="a", key_id="k"), is_owed=True)
    assert ((), (), True) == (made.entries, made.purses, made.is_owed)


async def test_call_and_payments_move_balance_and_spending(books: Books) -> None:
    await books.ledger.top_up(books.account_id, 1_000)
    await books.call("one", 300)
    await books.call("two", 40, day="2026-04-01")
    state = await books.ledger.adjust(books.account_id, -60, "a correction")
    assert (600, 600) == (state.amount_micros, await books.ledger.balance(books.account_id))
    ids = (f"spent/{books.account_id}/2026-03", "spent/key-1/2026-03", f"spent/{books.account_id}/2026-04", "spent/key-1/2027-01")
    states = await books.ledger.load(ids)
    assert [(ids[0], -300), (ids[1], -300), (ids[2], -40), (ids[3], 0)] == [(one.id, one.amount_micros) for one in states]
    assert [] == await books.ledger.check()


async def test_top_up_counts_once_by_its_reference(books: Books) -> None:
    first = await books.ledger.top_up(books.account_id, 100, "March", "invoice-7")
    books.clock.advance(60)
    again = await books.ledger.top_up(books.account_id, 100, "March", "invoice-7")
    assert first == again
    await books.ledger.top_up(books.account_id, 100)
    await books.ledger.top_up(books.account_id, 100)
    assert 300 == await books.ledger.balance(books.account_id)
    error = await refused(ErrorKind.CONFLICT, books.ledger.top_up(books.account_id, 101, "", "invoice-7"))
    assert "invoice-7" in error.message
    assert [] == await books.ledger.check()


async def test_payment_is_refused_and_the_journal_lives_when_its_reference_is_another_accounts(books: Books) -> None:
    await books.ledger.top_up(books.account_id, 100, reference="invoice-7")
    other = await Accounts(books.database, books.clock).named("other")
    await refused(ErrorKind.CONFLICT, books.ledger.top_up(other.id, 100, reference="invoice-7"))
    assert 5 == (await books.ledger.top_up(other.id, 5)).amount_micros
    assert [] == await books.ledger.check()


class Listening:
    """A journal that hears of a payment before another one writes it."""

    def __init__(self, journal: Journal) -> None:
        self.journal, self.heard = journal, list[Booking]()

    @property
    def is_open(self) -> bool:
        return self.journal.is_open

    async def commit(self, booking: Booking) -> tuple[PurseState, ...]:
        self.heard.append(booking)
        return await self.journal.commit(booking)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_only_a_payment_that_can_be_told_again_may_land_late(books: Books) -> None:
    journal = Listening(books.journal)
    ledger = Ledger(books.database, journal, books.clock)
    await ledger.top_up(books.account_id, 5)
    await ledger.top_up(books.account_id, 5, reference="invoice-7")
    assert [False, True] == [booking.is_owed for booking in journal.heard]


async def test_refund_gives_a_calls_cost_back_once(books: Books) -> None:
    await books.call("one", 300)
    for _ in range(2):
        assert 0 == (await books.ledger.refund("one", "sorry")).amount_micros
    (spent,) = await books.ledger.load((f"spent/{books.account_id}/2026-03",))
    assert -300 == spent.amount_micros
    await refused(ErrorKind.NOT_FOUND, books.ledger.refund("unknown"))
    assert [] == await books.ledger.check()


async def test_refund_is_refused_when_the_journal_took_the_call_back(books: Books) -> None:
    await books.call("one", 300)
    statements = [
        "UPDATE usage SET cost_micros = 0, outcome = 'failed'",
        "INSERT INTO ledger_entries SELECT 'one/refund', ledger_account, -amount_micros, currency, 'refund', at, '' FROM ledger_entries",
        "UPDATE purses SET amount_micros = 0",
    ]
    await books.database.write(*map(text, statements))
    await refused(ErrorKind.NOT_FOUND, books.ledger.refund("one"))
    assert [] == await books.ledger.check()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("micros", "note", "param"), [(0, "why", "amount"), (5, "  ", "note"), (10**15 + 1, "why", "amount")])
async def test_adjust_names_the_field_at_fault(books: Books, micros: int, note: str, param: str) -> None:
    assert param == (await refused(ErrorKind.INVALID_REQUEST, books.ledger.adjust(books.account_id, micros, note))).param


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_payments_need_an_amount_and_an_account(books: Books) -> None:
    assert "amount" == (await refused(ErrorKind.INVALID_REQUEST, books.ledger.top_up(books.account_id, 0))).param
    await refused(ErrorKind.NOT_FOUND, books.ledger.top_up("nobody", 5))


async def test_entries_come_in_pages_newest_first(books: Books) -> None:
    other = await Accounts(books.database, books.clock).named("other")
    for number in range(5):
        # Two in every moment: a page may end between them.
        books.clock.advance(number % 2)
        await books.ledger.top_up(books.account_id, 1 + number, reference=str(number))
    await books.ledger.top_up(other.id, 99)
    wanted, amounts = EntryFilter(account_id=books.account_id, limit=2), []
    while True:
        page = await books.ledger.entries(wanted)
        amounts += [entry.amount_micros for entry in page.entries]
        if not page.next:
            break
        wanted = msgspec.structs.replace(wanted, after=page.next)
    assert [5, 4, 3, 2, 1] == amounts
    assert 6 == len((await books.ledger.entries(EntryFilter())).entries)


async def test_entries_are_found_by_kind_and_time(books: Books) -> None:
    await books.call("one", 7)
    books.clock.advance(100)
    await books.ledger.top_up(books.account_id, 5)
    found = await books.ledger.entries(EntryFilter(kind=EntryKind.CALL))
    assert ["one"] == [entry.transaction_id for entry in found.entries]
    for times, count in (({"since": MARCH + 50}, 1), ({"until": MARCH + 50}, 1), ({"since": MARCH, "until": MARCH + 100}, 1), ({}, 2)):
        assert count == len((await books.ledger.entries(EntryFilter(**times))).entries)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("place", ["x", "1.0", "nan~a", "~a"])
async def test_entries_refuse_a_page_nobody_made(books: Books, place: str) -> None:
    await refused(ErrorKind.INVALID_REQUEST, books.ledger.entries(EntryFilter(after=place)))


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("UPDATE ledger_entries SET amount_micros = amount_micros + 1 WHERE ledger_account = 'revenue'", "sides of a transaction"),
        ("UPDATE purses SET amount_micros = amount_micros + 1 WHERE id LIKE 'balance/%'", "a balance"),
        ("DELETE FROM purses WHERE id LIKE 'balance/%'", "a balance"),
        ("UPDATE purses SET amount_micros = amount_micros + 1 WHERE id LIKE 'spent/acc%'", "a month's spending"),
        ("UPDATE purses SET amount_micros = amount_micros + 1 WHERE id LIKE 'spent/key%'", "a month's spending"),
        ("UPDATE usage SET cost_micros = cost_micros + 1", "a call's entries"),
        ("DELETE FROM usage", "an account's calls"),
        ("INSERT INTO ledger_entries VALUES ('x', 'customer/x', 0, 'USD', 'top_up', 0.0, '')", "more than one currency"),
    ],
)
async def test_check_finds_what_does_not_add_up(books: Books, fault: str, told: str) -> None:
    await books.ledger.top_up(books.account_id, 1_000)
    await books.call("one", 300)
    assert [] == await books.ledger.check()
    await books.database.write(text(fault))
    assert any(told in complaint for complaint in await books.ledger.check())


async def test_check_is_content_after_pruning(books: Books) -> None:
    await books.call("one", 300)
    await books.call("two", 5, day="2026-04-02")
    assert 1 == await Statements(books.database).prune("2026-04-01")
    assert [] == await books.ledger.check()


async def test_books_are_kept_in_one_currency(books: Books) -> None:
    dollars = Ledger(books.database, books.journal, books.clock, "USD")
    await dollars.open()
    await books.call("one", 300)
    await books.ledger.open()
    error = await refused(ErrorKind.CONFLICT, dollars.open())
    assert "CNY" in error.message


def test_alert_is_told_once_a_purse(caplog: pytest.LogCaptureFixture) -> None:
    budgets = {"acc-1": 1_000}
    alerts = Alerts(0.8, budgets.get)

    def spend(month: str, micros: int) -> int:
        caplog.clear()
        states = (
            PurseState(id="balance/acc-1", amount_micros=-micros, version=1),
            PurseState(id=f"spent/acc-1/{month}", amount_micros=-micros, version=1),
            PurseState(id=f"spent/key-1/{month}", amount_micros=-micros, version=1),
        )
        alerts.hear(states)
        return len(caplog.records)

    assert [0, 1, 0, 0, 1] == [spend("03", 799), spend("03", 800), spend("03", 1_200), spend("04", 10), spend("04", 900)]
    assert ("spent/acc-1/04",) == alerts.purses
    budgets["acc-1"] = 2_000
    assert 0 == spend("04", 901)
    assert () == alerts.purses
