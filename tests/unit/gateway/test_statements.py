"""Statements: sums that add up before and after pruning, calls in pages, receipts whose lines are the cost."""

from datetime import UTC, date, datetime

import anyio
import msgspec
import pytest
from sqlalchemy import update

from qwenbox.db import Database
from qwenbox.gateway.accounts import Accounts
from qwenbox.gateway.journal.base import Outcome, UsageRow
from qwenbox.gateway.journal.registry import JournalConfig, open_journal
from qwenbox.gateway.journal.tables import USAGE
from qwenbox.gateway.ledger import Ledger, booking
from qwenbox.gateway.prices import PriceRow, Prices, record
from qwenbox.gateway.statements import CallFilter, Group, Hits, RetentionConfig, Statements
from qwenbox.terms.call import Lane
from qwenbox.terms.caller import Caller
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.model import PriceTier
from qwenbox.terms.usage import Usage
from support.clocks import StillClock

pytestmark = pytest.mark.anyio

START = datetime(2026, 3, 30, tzinfo=UTC).timestamp()
PRICES = Prices(
    (
        PriceRow(
            model="qwen-plus",
            since=date(2025, 1, 1),
            currency="CNY",
            tiers=(PriceTier(input_micros=800_000, output_micros=2_000_000, reasoning_micros=8_000_000),),
        ),
    )
)


def row(number: int, **changes: object) -> UsageRow:
    """A call of its own kind: 40 of them over four days, two models, three keys of two accounts, with gaps in what engines tell."""
    usage = Usage(
        input_tokens=100 + number,
        output_tokens=10 * number,
        cached_tokens=None if number % 3 == 0 else 50,
        reasoning_tokens=None if number % 2 else number,
    )
    tariff = PRICES.tariff("qwen-plus", START)
    made = UsageRow(
        id=f"call-{number:03}",
        account_id=f"acc-{number % 3 // 2}",
        key_id=f"key-{number % 3}",
        model="qwen-plus" if number % 4 else "qwen-max",
        deployment="large",
        dialect="openai",
        lane=Lane.INTERACTIVE.value,
        day=f"2026-03-{28 + number // 10}",
        arrived_at=START + number,
        admitted_at=START + number // 2,
        ttft_s=None if number % 5 == 0 else 0.1 * number / 3,
        duration_s=0.7 + number / 7,
        input_tokens=usage.input_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        reusable_tokens=None if number % 4 == 0 else 60,
        is_cache_hit=number == 7,
        outcome=Outcome.COMPLETED if number % 6 else Outcome.HUNG_UP,
        finish_reason="stop",
        error_kind=None,
        cost_micros=tariff.cost_micros(usage, Lane.INTERACTIVE),
        currency=tariff.currency,
        price_version=tariff.version,
    )
    return msgspec.structs.replace(made, **changes)


@pytest.fixture
async def statements(url: str, database: Database) -> Statements:
    async with open_journal(url, JournalConfig(), StillClock()) as journal:
        for number in range(40):
            await journal.commit(booking(row(number), Caller(account_id=row(number).account_id, key_id=row(number).key_id), is_owed=False))
    await record(database, PRICES)
    return Statements(database)


async def test_sums_are_those_of_the_calls(statements: Statements) -> None:
    rows = [row(number) for number in range(40)]
    sums = {one.group: one for one in await statements.by(Group.KEY)}
    assert ["key-0", "key-1", "key-2"] == list(sums)
    for name, one in sums.items():
        mine = [each for each in rows if each.key_id == name]
        assert (len(mine), sum(each.cost_micros for each in mine)) == (one.calls, one.cost_micros)
        assert (sum(each.input_tokens for each in mine), sum(each.output_tokens for each in mine)) == (one.input_tokens, one.output_tokens)
        assert sum(each.is_cache_hit for each in mine) == one.cache_hits
        assert sum(each.reusable_tokens or 0 for each in mine) == one.reusable_tokens > 0
        told = [each for each in mine if each.cached_tokens is not None]
        assert sum(each.cached_tokens or 0 for each in told) == one.cached_tokens
        assert (one.cached_share is None) == (not told)
        if told:
            assert one.cached_tokens / sum(each.input_tokens for each in told) == one.cached_share


@pytest.mark.parametrize("group", Group)
async def test_every_group_holds_every_call_once(statements: Statements, group: Group) -> None:
    found = await statements.by(group)
    assert (40, sum(row(number).cost_micros for number in range(40))) == (
        sum(one.calls for one in found),
        sum(one.cost_micros for one in found),
    )
    assert sorted(one.group for one in found) == [one.group for one in found]


async def test_days_are_both_included_and_accounts_apart(statements: Statements) -> None:
    assert 20 == sum(one.calls for one in await statements.by(Group.DAY, "2026-03-29", "2026-03-30"))
    assert ["2026-03-31"] == [one.group for one in await statements.by(Group.DAY, since="2026-03-31")]
    assert ["acc-1"] == [one.group for one in await statements.by(Group.ACCOUNT, account="acc-1")]
    assert () == await statements.by(Group.DAY, account="nobody'; DROP TABLE usage")


async def test_statements_are_equal_before_and_after_pruning(statements: Statements, database: Database) -> None:
    asked = [(group, None, None) for group in Group] + [(Group.MODEL, "2026-03-29", "2026-03-30")]
    before = [await statements.by(*each) for each in asked]
    assert 20 == await statements.prune("2026-03-30")
    assert before == [await statements.by(*each) for each in asked]
    assert 10 == await statements.prune("2026-03-31")
    assert 0 == await statements.prune("2026-03-31")
    assert before == [await statements.by(*each) for each in asked]
    assert 10 == len((await statements.calls(CallFilter())).calls)


async def test_hits_are_of_all_calls_and_equal_before_and_after_pruning(statements: Statements) -> None:
    assert Hits(calls=40, hits=1) == await statements.hits()
    assert 20 == await statements.prune("2026-03-30")
    assert Hits(calls=40, hits=1) == await statements.hits()


async def test_hits_are_none_before_the_first_call(database: Database) -> None:
    assert Hits(calls=0, hits=0) == await Statements(database).hits()


async def test_pruning_adds_to_a_day_that_has_sums_already(statements: Statements, url: str, database: Database) -> None:
    await statements.prune("2026-03-29")
    async with open_journal(url, JournalConfig(), StillClock()) as journal:
        await journal.commit(booking(row(1, id="late"), Caller(account_id="acc-0", key_id="key-1"), is_owed=False))
    before = await statements.by(Group.DAY)
    assert 1 == await statements.prune("2026-03-29")
    assert before == await statements.by(Group.DAY)


async def test_two_that_prune_at_once_add_each_call_once(statements: Statements, database: Database) -> None:
    before = await statements.by(Group.KEY)
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(Statements(database).prune, "2026-04-01")
    assert before == await statements.by(Group.KEY)
    assert () == (await statements.calls(CallFilter())).calls


async def test_retention_prunes_what_is_older(statements: Statements) -> None:
    clock = StillClock(datetime(2026, 4, 9, 12, tzinfo=UTC).timestamp())
    await statements.follow(RetentionConfig(), clock)
    with anyio.move_on_after(60) as patience:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(statements.follow, RetentionConfig(usage_days=9), clock)
            while len((await statements.calls(CallFilter())).calls) > 0:
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
    assert not patience.cancelled_caught


async def test_calls_come_in_pages_newest_first(statements: Statements) -> None:
    wanted, found = CallFilter(limit=7), []
    while True:
        page = await statements.calls(wanted)
        found += [call.id for call in page.calls]
        if not page.next:
            break
        wanted = msgspec.structs.replace(wanted, after=page.next)
    assert [f"call-{number:03}" for number in reversed(range(40))] == found


async def test_calls_are_found_by_what_they_are(statements: Statements) -> None:
    wanted = CallFilter(account_id="acc-1", model="qwen-max", outcome="completed", since="2026-03-28", until="2026-03-29")
    expected = [
        each
        for each in map(row, range(40))
        if (each.account_id, each.model, each.outcome.value) == ("acc-1", "qwen-max", "completed") and each.day <= "2026-03-29"
    ]
    assert expected
    assert expected[::-1] == list((await statements.calls(wanted)).calls)
    assert () == (await statements.calls(CallFilter(key_id="key-9"))).calls


async def test_receipts_lines_sum_to_the_cost(statements: Statements) -> None:
    for number in (0, 1, 4, 39):
        receipt = await statements.receipt(f"call-{number:03}")
        assert receipt is not None
        assert row(number) == receipt.call
        assert receipt.call.cost_micros == sum(line.amount_micros for line in receipt.lines)
        kinds = ["input", *["cached input"] * bool(number % 3), *["output"] * bool(number), *["reasoning output"] * bool(number == 4)]
        assert kinds == [line.kind for line in receipt.lines]
    assert await statements.receipt("unknown") is None


async def test_receipt_has_no_lines_when_nothing_was_billed(statements: Statements, url: str) -> None:
    free = row(50, cost_micros=0, outcome=Outcome.FAILED)
    async with open_journal(url, JournalConfig(), StillClock()) as journal:
        await journal.commit(booking(free, Caller(account_id="acc-0", key_id="key-0"), is_owed=False))
    receipt = await statements.receipt(free.id)
    assert receipt is not None
    assert ((), 0, free) == (receipt.lines, receipt.refunded_micros, receipt.call)


async def test_receipt_says_what_was_given_back(statements: Statements, url: str, database: Database) -> None:
    account = await Accounts(database, StillClock()).named("acme")
    async with open_journal(url, JournalConfig(), StillClock()) as journal:
        mine = row(60, account_id=account.id)
        await journal.commit(booking(mine, Caller(account_id=account.id, key_id="key-0"), is_owed=False))
        await Ledger(database, journal, StillClock()).refund(mine.id)
    receipt = await statements.receipt(mine.id)
    assert receipt is not None
    assert mine.cost_micros == receipt.refunded_micros


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_calls_refuse_a_page_nobody_made(database: Database) -> None:
    with pytest.raises(ApiError) as refused:
        await Statements(database).calls(CallFilter(after="?"))
    assert refused.value.kind is ErrorKind.INVALID_REQUEST


async def every(statements: Statements, wanted: CallFilter) -> list[str]:
    """All ids of a list, page by page."""
    found: list[str] = []
    while True:
        page = await statements.calls(wanted)
        found += [call.id for call in page.calls]
        if not page.next:
            return found
        wanted = msgspec.structs.replace(wanted, after=page.next)


def fits(wanted: CallFilter, call: UsageRow) -> bool:
    same = (
        wanted.account_id in (None, call.account_id),
        wanted.key_id in (None, call.key_id),
        wanted.model in (None, call.model),
        wanted.outcome in (None, call.outcome),
        wanted.dialect in (None, call.dialect),
        (wanted.since or "") <= call.day,
    )
    times = (wanted.since_at or 0) <= call.admitted_at < (wanted.until_at or 1e12)
    return all(same) and times and call.duration_s >= (wanted.least_s or 0) and (wanted.id_part or "") in call.id


@pytest.mark.parametrize(
    "wanted",
    [
        CallFilter(dialect="openai", limit=7),
        CallFilter(dialect="dashscope"),
        CallFilter(since_at=START + 3, until_at=START + 9),
        CallFilter(least_s=3.0, limit=4),
        CallFilter(id_part="all-01"),
        CallFilter(id_part="%"),
        CallFilter(key_id="key-1", model="qwen-max", limit=2),
        CallFilter(outcome="hung_up", since="2026-03-29"),
    ],
)
@pytest.mark.parametrize("most_looked_at", [3, 20_000])
async def test_filtered_calls_are_all_found_however_many_a_page_looks_at(
    statements: Statements, database: Database, wanted: CallFilter, most_looked_at: int
) -> None:
    await database.write(update(USAGE).values(day="2026-03-30"))
    rows = [row(number, day="2026-03-30") for number in range(40)]
    newest = sorted(rows, key=lambda call: (call.admitted_at, call.id), reverse=True)
    assert [call.id for call in newest if fits(wanted, call)] == await every(Statements(database, most_looked_at), wanted)


async def test_a_page_of_filtered_calls_stops_looking_and_says_where(statements: Statements, database: Database) -> None:
    page = await Statements(database, 10).calls(CallFilter(model="qwen-max", dialect="dashscope"))
    assert () == page.calls
    assert page.next != ""


async def test_calls_of_one_moment_are_read_together_when_they_are_more_than_a_page_looks_at(
    statements: Statements, database: Database
) -> None:
    await database.write(update(USAGE).values(admitted_at=START))
    assert 40 == len(await every(Statements(database, 5), CallFilter(dialect="openai", limit=3)))


async def test_a_call_is_found_by_its_whole_id_however_old_it_is(statements: Statements, database: Database) -> None:
    whole = "2f1c7a52-6f39-4b0a-9d3c-0a9f1b6c5e77"
    await database.write(update(USAGE).where(USAGE.c.id == "call-000").values(id=whole))
    assert [whole] == [call.id for call in (await Statements(database, 3).calls(CallFilter(id_part=whole))).calls]


async def test_a_day_that_no_calendar_has_is_refused(statements: Statements) -> None:
    with pytest.raises(ApiError) as refused:
        await statements.calls(CallFilter(since="2026-02-30"))
    assert ErrorKind.INVALID_REQUEST is refused.value.kind
