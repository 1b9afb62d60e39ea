"""The admin API's answers for the console's first pages: calls over time, single calls, budgets, recordings, spreadsheets."""

import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from qwenbox.client.budgets import BudgetsAsked
from qwenbox.client.recordings import RecordingsForgotten
from qwenbox.client.series import SeriesAsked
from qwenbox.client.shapes import NewAccount, NewKey
from qwenbox.client.usage import CallsAsked
from qwenbox.gateway.calendar import month
from qwenbox.gateway.journal.base import Outcome
from qwenbox.terms.call import Call
from qwenbox.terms.caller import Caller
from qwenbox.terms.chat import ChatRequest, Message, Role, TextPart
from qwenbox.terms.errors import ApiError, ErrorKind
from support.administration import Administration, administration

pytestmark = pytest.mark.anyio

AT = 1_795_400_000.0


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Administration]:
    async with administration(f"sqlite+aiosqlite:///{tmp_path / 'box.db'}") as opened:
        yield opened


async def test_series_tells_every_step_of_its_span(admin: Administration) -> None:
    await admin.used("acc-1")
    await admin.used("acc-1", outcome=Outcome.FAILED, error_kind="timeout", ttft_s=None)
    told = await admin.client.series(SeriesAsked(since=AT, until=AT + 100, step_s=10))
    assert (10, "CNY", True, 2) == (len(told.steps), told.currency, told.is_whole, told.total.calls)
    assert ({"timeout": 1}, 720, 2_000) == (told.total.errors, told.total.cost_micros, told.total.input_tokens)
    assert told.steps[0].ttft is not None
    assert told.steps[1].ttft is None


async def test_series_is_of_the_last_hour_when_nothing_is_said(admin: Administration) -> None:
    told = await admin.client.series(SeriesAsked())
    assert (60, 60.0) == (len(told.steps), pytest.approx(told.step_s))
    assert pytest.approx(admin.clock.now(), abs=60) == told.until


async def test_series_of_the_last_seconds_has_whole_steps_up_to_now(admin: Administration) -> None:
    now = admin.clock.now()
    await admin.used("acc-1", admitted_at=now - 1)
    told = await admin.client.series(SeriesAsked(last_s=3_600, step_s=60))
    assert (60, 0, 1) == (len(told.steps), told.since % 60, told.total.calls)
    assert now <= told.until <= now + 120


@pytest.mark.parametrize(
    "query",
    [
        "last_s=60&since=5",
        "last_s=0",
        "since=5&until=5",
        "since=9&until=5",
        "since=0&until=1001&step_s=1",
        "step_s=0",
        "step_s=-1",
        "since=x",
    ],
)
async def test_series_refuses_a_span_that_makes_no_sense(admin: Administration, query: str) -> None:
    assert 400 == (await admin.call("GET", "/series", query=query)).status


async def test_series_has_an_unknown_account_or_key_not_found(admin: Administration) -> None:
    for query in ("account=nobody", "key=none"):
        assert 404 == (await admin.call("GET", "/series", query=query)).status


async def test_calls_are_found_by_what_the_console_filters(admin: Administration) -> None:
    for number, dialect in enumerate(("openai", "dashscope", "openai")):
        await admin.used("acc-1", dialect=dialect, duration_s=float(number))
    found = {
        "dialect": await admin.client.calls(CallsAsked(dialect="dashscope")),
        "time": await admin.client.calls(CallsAsked(since_at=AT + 2, until_at=AT + 6)),
        "length": await admin.client.calls(CallsAsked(least_s=1.5)),
        "id": await admin.client.calls(CallsAsked(request_id="chatcmpl-CALL-1")),
    }
    assert {"dialect": 1, "length": 1, "id": 1} == {name: len(page.items) for name, page in found.items() if name != "time"}
    assert all(AT + 2 <= call.admitted_at < AT + 6 for call in found["time"].items)


async def test_csv_of_calls_holds_them_all_and_runs_nothing(admin: Administration) -> None:
    formulas = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "  =1", "＝1"]
    for formula in formulas:
        await admin.used("acc-1", model=formula)
    rows = list(csv.DictReader(io.StringIO(await admin.client.calls_csv(CallsAsked(limit=2)))))
    assert len(formulas) == len(rows)
    assert {f"'{formula}" for formula in formulas} == {row["model"] for row in rows}
    assert {"completed"} == {row["outcome"] for row in rows}
    assert "hops" not in rows[0]


async def test_csv_of_sums_runs_nothing(admin: Administration) -> None:
    await admin.used("acc-1", model="  @cmd")
    rows = list(csv.DictReader(io.StringIO((await admin.call("GET", "/usage.csv", query="by=model")).body.decode())))
    assert ["'  @cmd"] == [row["model"] for row in rows]


async def test_budgets_tell_what_was_spent_this_month(admin: Administration) -> None:
    account = await admin.client.create_account(NewAccount(name="alice", budget_micros=1_000, time_zone="Asia/Shanghai"))
    await admin.client.create_account(NewAccount(name="bob"))
    key = await admin.client.create_key(NewKey(account="alice", name="ci", budget_micros=500))
    idle = await admin.client.create_key(NewKey(account="alice", name="idle"))
    await admin.client.revoke_key(idle.id)
    day = month("Asia/Shanghai", admin.clock.now()) + "-15"
    await admin.used(account.id, key.id, day=day, admitted_at=admin.clock.now())
    alice, bob = (await admin.client.budgets(BudgetsAsked())).items
    assert ("alice", day[:7], 1_000, 360, -360, 0.8) == (
        alice.name,
        alice.month,
        alice.budget_micros,
        alice.spent_micros,
        alice.balance_micros,
        alice.alert_share,
    )
    assert [("ci", 500, 360)] == [(one.name, one.budget_micros, one.spent_micros) for one in alice.keys]
    assert ("bob", None, 0, ()) == (bob.name, bob.budget_micros, bob.spent_micros, bob.keys)
    assert alice.ends_at > admin.clock.now()
    assert ["bob"] == [one.name for one in (await admin.client.budgets(BudgetsAsked(account="bob"))).items]


async def test_budgets_come_in_pages(admin: Administration) -> None:
    for number in range(3):
        await admin.client.create_account(NewAccount(name=f"account {number}"))
    first = await admin.client.budgets(BudgetsAsked(limit=2))
    assert first.next_cursor is not None
    second = await admin.client.budgets(BudgetsAsked(limit=2, cursor=first.next_cursor))
    assert (["account 0", "account 1"], ["account 2"], None) == (
        [one.name for one in first.items],
        [one.name for one in second.items],
        second.next_cursor,
    )


async def record(admin: Administration, call_id: str, account_id: str, text: str = "hello") -> None:
    """A recorded prompt, written as the box writes it."""
    request = ChatRequest(model="m", messages=(Message(role=Role.USER, content=(TextPart(text=text),)),))
    caller = Caller(account_id=account_id, key_id="key-1")
    call = Call(id=call_id, caller=caller, request=request, dialect="openai", arrived_at=AT)
    recordings = admin.parts.recordings
    recordings.add(call, None)
    await recordings.write()


async def test_recording_is_shown_until_it_is_deleted(admin: Administration) -> None:
    await record(admin, "call-1", "acc-1")
    told = await admin.client.recording("call-1")
    assert [("user", "hello")] == [(turn.role, turn.text) for turn in told.prompt]
    assert (True, 1) == ((state := await admin.client.recordings()).is_enabled, state.count)
    assert 1 == (await admin.client.forget_recording("call-1")).recordings
    with pytest.raises(ApiError) as refused:
        await admin.client.recording("call-1")
    assert ErrorKind.NOT_FOUND is refused.value.kind
    assert (0, None) == ((state := await admin.client.recordings()).count, state.oldest_at)


async def test_recordings_are_deleted_by_account_and_age(admin: Administration) -> None:
    alice = await admin.client.create_account(NewAccount(name="alice"))
    await record(admin, "call-1", alice.id)
    await record(admin, "call-2", "acc-2")
    assert 0 == (await admin.client.forget_recordings(RecordingsForgotten(before=AT))).recordings
    assert 1 == (await admin.client.forget_recordings(RecordingsForgotten(account="alice"))).recordings
    assert 1 == (await admin.client.forget_recordings(RecordingsForgotten())).recordings


async def test_a_receipt_without_hops_has_no_timeline(admin: Administration) -> None:
    made = await admin.used("acc-1")
    assert () == (await admin.client.receipt(made.id)).timeline


async def test_a_receipt_tells_its_hops_in_order(admin: Administration) -> None:
    made = await admin.used("acc-1", hops="-1,100,200,300,400,1500000,1600000,2000000", ttft_s=1.7)
    timeline = (await admin.client.receipt(made.id)).timeline
    names = ["received", "entered", "counted", "admitted", "queued", "turn", "first", "first_token", "last"]
    assert names == [hop.name for hop in timeline]
    assert [0.0, 0.0001, 0.0002, 0.0003, 0.0004, 1.5, 1.6, pytest.approx(1.7003), 2.0] == [hop.at_s for hop in timeline]
