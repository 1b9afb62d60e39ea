"""What every journal promises, on SQLite (written at once, and by its thread) and on PostgreSQL: each booking once, whole, and counted."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from sqlalchemy import select

from qwenbox.clock import SystemClock
from qwenbox.db import open_database
from qwenbox.gateway.counters.base import PurseState
from qwenbox.gateway.journal.base import Booking, Outcome, PurseChange
from qwenbox.gateway.journal.group import GroupJournal
from qwenbox.gateway.journal.registry import JournalConfig, open_journal
from qwenbox.gateway.journal.tables import LEDGER_ENTRIES, PURSES, USAGE
from qwenbox.terms.errors import ApiError, ErrorKind
from support.bookings import call, faults, prepare, top_up, usage

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "sqlite-full", "postgres", "postgres-full"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param.startswith("sqlite"):
        return await prepare(f"sqlite:///{tmp_path / 'box.db'}")
    return await prepare(request.getfixturevalue("postgres").new_database())


@pytest.fixture
async def journal(url: str, request: pytest.FixtureRequest) -> AsyncIterator[GroupJournal]:
    is_full = "-full" in request.node.name
    async with open_journal(url, JournalConfig(sync="full" if is_full else "normal"), SystemClock()) as opened:
        yield opened


async def test_commit_writes_the_row_its_entries_and_its_purses(journal: GroupJournal, url: str):
    states = await journal.commit(call("one", 7))
    assert tuple(PurseState(id=change.id, amount_micros=-7, version=1) for change in call("one").purses) == states
    async with open_database(url) as database:
        (row,) = await database.read(select(USAGE))
        entries = await database.read(select(LEDGER_ENTRIES).order_by(LEDGER_ENTRIES.c.ledger_account))
        assert [] == await faults(database)
    expected = usage("one", 7)
    assert {name: getattr(expected, name) for name in expected.__struct_fields__} == row
    assert [("customer/acc-1", -7, "call"), ("revenue", 7, "call")] == [
        (each["ledger_account"], each["amount_micros"], each["kind"]) for each in entries
    ]


async def test_commits_together_count_every_change_and_versions_only_rise(journal: GroupJournal, url: str):
    results: list[tuple[PurseState, ...]] = []

    async def book(number: int) -> None:
        results.extend([await journal.commit(call(f"{number}-{round}", 1 + number)) for round in range(5)])

    await journal.commit(top_up("paid", 1_000_000))
    async with anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon(book, number)
    last = max((states[0] for states in results), key=lambda state: state.version)
    total = 5 * sum(range(1, 41))
    assert 1_000_000 - total == last.amount_micros
    async with open_database(url) as database:
        assert 200 == len(await database.read(select(USAGE.c.id)))
        assert [] == await faults(database)
        (balance,) = await database.read(select(PURSES).where(PURSES.c.id == "balance/acc-1"))
    assert (last.amount_micros, last.version) == (balance["amount_micros"], balance["version"])


async def test_a_booking_counts_once_when_it_is_submitted_again(journal: GroupJournal, url: str):
    first, second = await asyncio.gather(journal.commit(call("one")), journal.commit(call("one")))
    again = await journal.commit(call("one"))
    assert first == second == again
    # A known one among new ones keeps none of them out.
    await asyncio.gather(*[journal.commit(call(name)) for name in ("two", "one", "three")])
    async with open_database(url) as database:
        assert {"one", "two", "three"} == {row["id"] for row in await database.read(select(USAGE.c.id))}
        assert [{"amount_micros": -21}] == await database.read(select(PURSES.c.amount_micros).where(PURSES.c.id == "balance/acc-1"))


async def test_a_top_up_counts_once_when_it_is_submitted_again(journal: GroupJournal):
    first = await journal.commit(top_up("paid", 5))
    assert first == await journal.commit(top_up("paid", 5))
    assert 5 == first[0].amount_micros


async def test_commit_of_a_cancelled_caller_is_written_all_the_same(journal: GroupJournal, url: str):
    heard: list[tuple[str, tuple[PurseState, ...]]] = []
    journal.when_late(lambda id, states: heard.append((id, states)))
    task = asyncio.ensure_future(journal.commit(call("gone")))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await journal.commit(call("next"))
    async with open_database(url) as database:
        assert {"gone", "next"} == {row["id"] for row in await database.read(select(USAGE.c.id))}
    assert task.cancelled()
    assert ["gone"] == [id for id, _ in heard]


async def test_what_the_database_cannot_hold_fails_alone(journal: GroupJournal, url: str):
    wrong = call("wrong", 2**70)
    results = await asyncio.gather(*[journal.commit(one) for one in (call("a"), wrong, call("b"))], return_exceptions=True)
    assert isinstance(results[1], ApiError) and results[1].kind is ErrorKind.INTERNAL
    assert journal.is_open
    async with open_database(url) as database:
        assert {"a", "b"} == {row["id"] for row in await database.read(select(USAGE.c.id))}
        assert [] == await faults(database)


async def test_a_booking_without_entries_is_written_too(journal: GroupJournal, url: str):
    free = Booking(id="free", usage=usage("free", 0))
    assert () == await journal.commit(free)
    assert () == await journal.commit(Booking(id="nothing"))
    async with open_database(url) as database:
        assert ["free"] == [row["id"] for row in await database.read(select(USAGE.c.id))]


async def test_purses_without_entries_are_refused(journal: GroupJournal):
    with pytest.raises(ValueError, match="has entries"):
        await journal.commit(Booking(id="odd", purses=(PurseChange(id="balance/acc-1", delta_micros=1),)))


async def test_closing_writes_what_nobody_waited_for(url: str):
    async with open_journal(url, JournalConfig(), SystemClock()) as journal:
        tasks = [asyncio.ensure_future(journal.commit(call(f"{number}"))) for number in range(100)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
    await asyncio.wait(tasks)
    with pytest.raises(ApiError):
        await journal.commit(call("late"))
    async with open_database(url) as database:
        assert 100 == len(await database.read(select(USAGE.c.id)))


async def test_two_processes_journals_share_purses_without_losing_a_change(url: str):
    async with open_journal(url, JournalConfig(), SystemClock()) as one, open_journal(url, JournalConfig(), SystemClock()) as other:

        async def book(journal: GroupJournal, name: str) -> None:
            for number in range(50):
                await journal.commit(call(f"{name}-{number}", 1, account=f"acc-{number % 3}"))

        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(book, one, f"one-{number}")
                tasks.start_soon(book, other, f"other-{number}")
    async with open_database(url) as database:
        assert 800 == len(await database.read(select(USAGE.c.id)))
        assert [] == await faults(database)
        assert Outcome.COMPLETED in {row["outcome"] for row in await database.read(select(USAGE.c.outcome))}
