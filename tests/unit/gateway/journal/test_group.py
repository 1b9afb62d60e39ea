"""The group-committing writer when writes fail: before they were done, after they were done, and too late."""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from qwenbox.clock import SystemClock
from qwenbox.db import open_database
from qwenbox.gateway.counters.base import PurseState
from qwenbox.gateway.journal.group import GroupJournal
from qwenbox.gateway.journal.sqlite import SqliteStore
from qwenbox.gateway.journal.store import Found, Gone, Group
from qwenbox.gateway.journal.tables import LEDGER_ENTRIES, PURSES, USAGE
from qwenbox.terms.errors import ApiError, ErrorKind
from support.bookings import call, faults, prepare, top_up

pytestmark = pytest.mark.anyio

WELL, BEFORE, AFTER, CLEAR, LATE, BLIND = "well", "gone before", "gone after", "clearly not", "too late", "cannot be asked"


class Failing(SqliteStore):
    """SQLite over a bad line: `plan` says how each write or question ends; all is well when it is used up."""

    can_write_now = False

    def __init__(self, url: str, plan: Sequence[str]) -> None:
        super().__init__(url, 1.0, is_full=False)
        self.plan = list(plan)
        self.is_held = asyncio.Event()
        self.go_on = asyncio.Event()

    async def write(self, group: Group) -> dict[str, PurseState]:
        step = self.plan.pop(0) if self.plan else WELL
        if step in (BEFORE, CLEAR, BLIND):
            raise Gone(OSError("before"), is_unclear=step != CLEAR)
        states = await super().write(group)
        if step == AFTER:
            raise Gone(OSError("after"), is_unclear=True)
        if step == LATE:
            self.is_held.set()
            await self.go_on.wait()
        return states

    async def look(self, ids: Sequence[str], purses: Sequence[str]) -> Found:
        if self.plan and self.plan[0] == BLIND:
            self.plan.pop(0)
            raise Gone(OSError("blind"), is_unclear=False)
        return await super().look(ids, purses)


@pytest.fixture
async def url(tmp_path: Path) -> str:
    return await prepare(f"sqlite:///{tmp_path / 'box.db'}")


async def is_open_again(journal: GroupJournal) -> None:
    for _ in range(4_000):
        if journal.is_open:
            return
        await anyio.sleep(0.005)
    raise TimeoutError("the journal stays closed")


async def rows(url: str) -> dict[str, tuple[str, int]]:
    async with open_database(url) as database:
        assert [] == await faults(database)
        return {str(row["id"]): (str(row["outcome"]), int(str(row["cost_micros"]))) for row in await database.read(select(USAGE))}


async def balance(url: str) -> int:
    async with open_database(url) as database:
        (purse,) = await database.read(select(PURSES).where(PURSES.c.id == "balance/acc-1"))
        return int(str(purse["amount_micros"]))


@pytest.mark.parametrize("step", [BEFORE, AFTER, CLEAR, BLIND])
async def test_commit_returns_after_a_short_failure_and_counts_once(url: str, step: str):
    journal = GroupJournal(Failing(url, [step, step]), 5.0, SystemClock(), probe_s=0.01)
    (balance_state, *_) = await journal.commit(call("one", 7))
    assert -7 == balance_state.amount_micros
    await is_open_again(journal)
    await journal.close()
    assert {"one": ("completed", 7)} == await rows(url)
    assert -7 == await balance(url)


async def test_doors_are_closed_from_the_first_failure_until_what_is_owed_is_written(url: str):
    store = Failing(url, [BEFORE] * 60)
    journal = GroupJournal(store, 0.05, SystemClock(), probe_s=0.01)
    heard: list[tuple[str, int, bool]] = []
    journal.when_late(lambda id, states: heard.append((id, states[0].amount_micros, journal.is_open)))
    with pytest.raises(ApiError) as failed:
        await journal.commit(call("one", 7, is_owed=True))
    assert failed.value.kind is ErrorKind.OVERLOADED
    assert not journal.is_open
    await is_open_again(journal)
    await journal.close()
    assert [("one", -7, False)] == heard
    assert {"one": ("completed", 7)} == await rows(url)


@pytest.mark.parametrize("step", [BEFORE, AFTER, LATE])
async def test_what_was_told_to_have_failed_costs_nothing(url: str, step: str):
    # Blind for longer than anybody waits; a wait that a slow disk does not outlast by itself.
    store = Failing(url, [WELL, step, *[BLIND] * 150])
    journal = GroupJournal(store, 0.5, SystemClock(), probe_s=0.01)
    await journal.commit(top_up("paid", 100))
    with pytest.raises(ApiError):
        await journal.commit(call("one", 7))
    store.plan.clear()
    store.go_on.set()
    await is_open_again(journal)
    await journal.close()
    assert {"one": ("failed", 0)} == await rows(url)
    assert 100 == await balance(url)


async def test_what_was_never_tried_leaves_no_trace(url: str):
    store = Failing(url, [CLEAR] * 80)
    journal = GroupJournal(store, 0.05, SystemClock(), probe_s=0.01)
    with pytest.raises(ApiError):
        await journal.commit(call("one", 7))
    with pytest.raises(ApiError):
        await journal.commit(top_up("paid", 100))
    await is_open_again(journal)
    await journal.close()
    async with open_database(url) as database:
        assert [] == await database.read(select(USAGE.c.id)) == await database.read(select(LEDGER_ENTRIES.c.transaction_id))


@pytest.mark.parametrize("step", [BEFORE, AFTER])
async def test_a_top_up_told_to_have_failed_moves_no_money(url: str, step: str):
    patient = GroupJournal(Failing(url, []), 30.0, SystemClock())
    await patient.commit(top_up("first", 1))
    await patient.close()
    store = Failing(url, [step, *[BLIND] * 80])
    journal = GroupJournal(store, 0.05, SystemClock(), probe_s=0.01)
    with pytest.raises(ApiError):
        await journal.commit(top_up("paid", 100))
    await is_open_again(journal)
    await journal.close()
    assert {} == await rows(url)
    assert 1 == await balance(url)


async def test_closing_logs_what_is_owed_and_could_not_be_written(url: str, caplog: pytest.LogCaptureFixture):
    journal = GroupJournal(Failing(url, [BEFORE] * 1_000), 0.05, SystemClock(), probe_s=0.01)
    with pytest.raises(ApiError):
        await journal.commit(call("kept", 7, is_owed=True))
    with pytest.raises(ApiError):
        await journal.commit(call("dropped", 7))
    await journal.close()
    lost = [record.getMessage() for record in caplog.records if record.levelname == "CRITICAL"]
    assert 2 == len(lost)
    assert lost[0].startswith("NOT BOOKED") and '"id":"kept"' in lost[0] and '"cost_micros":7' in lost[0]
    assert lost[1].startswith("NOT CLEAR: dropped ")


@settings(max_examples=40, deadline=None)
@given(
    plan=st.lists(st.sampled_from([WELL, BEFORE, AFTER, CLEAR, BLIND]), max_size=12),
    bookings=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 2), st.booleans()), min_size=1, max_size=12),
)
async def test_books_add_up_whatever_fails_when(plan: list[str], bookings: list[tuple[int, int, bool]]):
    """Bookings: pause before it, how often it is submitted, whether it is owed."""
    with tempfile.TemporaryDirectory() as folder:
        url = await prepare(f"sqlite:///{folder}/box.db")
        journal = GroupJournal(Failing(url, plan), 0.03, SystemClock(), probe_s=0.01)
        succeeded: set[int] = set()

        async def book(number: int, pause: int, times: int, is_owed: bool) -> None:
            await anyio.sleep(pause / 200)
            waiting = [journal.commit(call(f"{number}", 7, is_owed=is_owed)) for _ in range(times)]
            if not any(isinstance(end, ApiError) for end in await asyncio.gather(*waiting, return_exceptions=True)):
                succeeded.add(number)

        async with anyio.create_task_group() as tasks:
            for number, (pause, times, is_owed) in enumerate(bookings):
                tasks.start_soon(book, number, pause, times, is_owed)
        await is_open_again(journal)
        await journal.close(20)
        found = await rows(url)
        async with open_database(url) as database:
            purses = {row["id"]: row["amount_micros"] for row in await database.read(select(PURSES))}
    for number, (_, _, is_owed) in enumerate(bookings):
        # What is owed is written though its callers were told otherwise; anything else is there for those who were told so, and only them.
        expected = ("completed", 7) if is_owed or number in succeeded else ("failed", 0)
        assert expected == found.get(f"{number}", ("failed", 0))
    assert -sum(cost for _, cost in found.values()) == purses.get("balance/acc-1", 0)


@pytest.mark.parametrize("step", [BEFORE, AFTER])
async def test_a_booking_given_up_is_not_taken_for_done_when_it_comes_again(url: str, step: str):
    # Blind for longer than anybody waits; a wait that a slow disk does not outlast by itself.
    journal = GroupJournal(Failing(url, [WELL, step, *[BLIND] * 150]), 0.5, SystemClock(), probe_s=0.01)
    await journal.commit(top_up("first", 1))
    with pytest.raises(ApiError):
        await journal.commit(top_up("paid", 100))
    await is_open_again(journal)
    with pytest.raises(ApiError) as refused:
        await journal.commit(top_up("paid", 100))
    assert refused.value.kind is ErrorKind.CONFLICT
    await journal.close()
    assert 1 == await balance(url)


async def test_listeners_hear_of_what_nobody_waited_for_to_its_end(url: str):
    journal = GroupJournal(Failing(url, [CLEAR] * 80), 0.05, SystemClock(), probe_s=0.01)
    heard: dict[str, int] = {}
    journal.when_late(lambda id, states: heard.update({id: len(states)}))
    left = [asyncio.ensure_future(journal.commit(call(name, is_owed=name == "owed"))) for name in ("owed", "free")]
    stays = asyncio.ensure_future(journal.commit(call("stays")))
    await asyncio.sleep(0)
    for task in left:
        task.cancel()
    await asyncio.wait([*left, stays])
    assert isinstance(stays.exception(), ApiError)
    await is_open_again(journal)
    await journal.close()
    assert {"owed": 3, "free": 0} == heard
    assert ["owed"] == list(await rows(url))


class Mistaken(SqliteStore):
    """A store with a mistake of ours in it."""

    def write_now(self, group: Group) -> dict[str, PurseState] | None:
        raise KeyError("nobody expected this")


async def test_a_mistake_of_ours_closes_the_books_and_lets_nobody_wait_for_ever(url: str):
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    journal = GroupJournal(Mistaken(url, 1.0, is_full=False), 30.0, SystemClock())
    with anyio.fail_after(20), pytest.raises(ApiError) as failed:
        await journal.commit(call("lost"))
    assert ErrorKind.OVERLOADED is failed.value.kind
    assert not journal.is_open
    await journal.close(wait_s=0.0)
