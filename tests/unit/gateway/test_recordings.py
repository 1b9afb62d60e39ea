"""Prompts and answers: kept only where the box is told to, whole or said to be cut, in order, and gone when their time is over."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.lowlevel
import msgspec
import pytest
from sqlalchemy import select

from qwenbox.clock import SystemClock
from qwenbox.db import Database
from qwenbox.engines.echo.engine import Echo, EchoConfig
from qwenbox.gateway.recordings import RECORDINGS, Heard, RecordingConfig, Recordings
from qwenbox.terms.call import AnyCall, Call
from qwenbox.terms.caller import Caller
from qwenbox.terms.chat import ChatRequest, ImagePart, Message, Part, Role, TextPart, ToolCall
from qwenbox.terms.embedding import EmbeddingRequest
from qwenbox.terms.events import ChatEvent, ReasoningDelta, TextDelta, ToolCallDelta
from qwenbox.terms.rerank import RerankRequest
from support.clocks import StillClock
from support.gateways import open_gateway

pytestmark = pytest.mark.anyio

CALLER = Caller(account_id="acc", key_id="key")
NOW = 1_795_400_000.0
DAY_S = 86_400.0


def chat(name: str, *parts: Part, before: tuple[Message, ...] = ()) -> Call[ChatRequest]:
    messages = (*before, Message(role=Role.USER, content=parts or (TextPart(text="hello"),)))
    return Call(id=name, caller=CALLER, request=ChatRequest(model="m", messages=messages), dialect="openai", arrived_at=0.0)


async def said(*events: ChatEvent, most_bytes: int = 1_000) -> Heard:
    async def stream() -> AsyncIterator[ChatEvent]:
        for event in events:
            yield event

    heard = Heard(stream(), most_bytes)
    assert list(events) == [event async for event in heard]
    return heard


def recordings(database: Database, at: float = NOW, **config: int) -> Recordings:
    return Recordings(database, RecordingConfig(enabled=True, **config), StillClock(at))


@pytest.mark.parametrize(
    "table", [{"keep_days": 0}, {"keep_days": -1}, {"max_bytes": 0}, {"max_bytes": -5}, {"max_bytes": 10**9}, {"keep": 3}]
)
def test_settings_that_make_no_sense_are_refused(table: dict[str, int]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(table, RecordingConfig)


async def test_nothing_is_kept_when_recording_is_off(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, Echo(EchoConfig())) as office:
        async with office.gateway.chat(chat("call-1")) as answering:
            assert [event async for event in answering.events]
        assert [] == await office.database.read(select(RECORDINGS))


async def test_a_call_is_recorded_with_what_was_asked_and_said(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, Echo(EchoConfig())) as office:
        kept = Recordings(office.database, RecordingConfig(enabled=True), SystemClock())
        office.metering.record(kept)
        async with office.gateway.chat(chat("call-1")) as answering:
            texts = [event.text async for event in answering.events if isinstance(event, TextDelta)]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kept.follow)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        found = await kept.read("call-1")
    assert found is not None
    assert [("user", "hello")] == [(turn.role, turn.text) for turn in found.prompt]
    assert ["".join(texts)] == [turn.text for turn in found.answer]
    assert not found.is_cut


async def test_a_call_that_a_client_left_is_recorded_as_far_as_it_went(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, Echo(EchoConfig())) as office:
        kept = Recordings(office.database, RecordingConfig(enabled=True), SystemClock())
        office.metering.record(kept)
        first = ""
        async with office.gateway.chat(chat("call-1")) as answering:
            async for event in answering.events:
                if isinstance(event, TextDelta):
                    first = event.text
                    break
        await kept.write()
        found = await kept.read("call-1")
    assert found is not None
    assert [first] == [turn.text for turn in found.answer]


async def test_every_kind_of_turn_is_kept_without_the_bytes_of_pictures(database: Database) -> None:
    kept = recordings(database)
    before = (
        Message(role=Role.SYSTEM, content=(TextPart(text="be kind"),)),
        Message(role=Role.ASSISTANT, reasoning="hm", tool_calls=(ToolCall(id="1", name="look", arguments="{}"),)),
    )
    picture = ImagePart(url="data:image/png;base64,AAAA", data=b"\x00" * 50, width=4, height=3)
    heard = await said(
        ReasoningDelta(text="well"),
        TextDelta(text="a"),
        TextDelta(text="b", index=1),
        TextDelta(text="c"),
        ToolCallDelta(call=0, id="2", name="see", arguments="{1"),
        ToolCallDelta(call=0, arguments="}"),
    )
    kept.add(chat("call-1", TextPart(text="what\x00is"), picture, before=before), heard)
    await kept.write()
    found = await kept.read("call-1")
    assert found is not None
    told = [(turn.role, turn.text, turn.reasoning, turn.tool_calls) for turn in (*found.prompt, *found.answer)]
    assert [
        ("system", "be kind", "", ()),
        ("assistant", "", "hm", (("look", "{}"),)),
        ("user", "what\x00is\n[picture 4×3]", "", ()),
        ("assistant", "ac", "well", (("see", "{1}"),)),
        ("assistant", "b", "", ()),
    ] == told
    assert (NOW, False) == (found.at, found.is_cut)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_calls_that_write_no_text_are_recorded_by_what_was_sent(database: Database) -> None:
    kept = recordings(database)
    asked: list[AnyCall] = [
        Call(id="vectors", caller=CALLER, request=EmbeddingRequest(model="m", texts=("a", "b")), dialect="openai", arrived_at=0.0),
        Call(id="ranks", caller=CALLER, request=RerankRequest(model="m", query="q", documents=("d",)), dialect="openai", arrived_at=0.0),
    ]
    for call in asked:
        kept.add(call, None)
    await kept.write()
    told = [await kept.read(call.id) for call in asked]
    assert [["a", "b"], ["q", "d"]] == [[turn.text for turn in one.prompt] for one in told if one is not None]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_a_long_prompt_keeps_its_end_and_a_long_answer_its_beginning(database: Database) -> None:
    kept = recordings(database, max_bytes=100)
    before = tuple(Message(role=Role.USER, content=(TextPart(text=f"turn {number} {'é' * 20}"),)) for number in range(9))
    heard = await said(TextDelta(text="é" * 30), TextDelta(text="ü" * 30), most_bytes=100)
    kept.add(chat("call-1", TextPart(text="the question"), before=before), heard)
    await kept.write()
    found = await kept.read("call-1")
    assert found is not None
    assert found.is_cut
    assert "the question" == found.prompt[-1].text
    assert sum(len(turn.text.encode()) for turn in found.prompt) <= 100
    assert "é" * 30 + "ü" * 20 == found.answer[0].text


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_calls_are_written_in_the_order_in_which_they_ended_and_once(database: Database) -> None:
    kept = recordings(database)
    for number in range(250):
        kept.add(chat(f"call-{number:03}"), None)
    kept.add(chat("call-000", TextPart(text="told again")), None)
    for _ in range(3):
        await kept.write()
    rows = await database.read(select(RECORDINGS.c.id))
    assert [f"call-{number:03}" for number in range(250)] == [row["id"] for row in rows]
    assert "hello" == (found.prompt[0].text if (found := await kept.read("call-000")) else "")


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_what_waits_is_bounded_and_said_once(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    kept = recordings(database)
    for number in range(2_100):
        kept.add(chat(f"call-{number}"), None)
    assert 1 == sum("not recorded" in record.message for record in caplog.records)
    for _ in range(25):
        await kept.write()
    assert 2_000 == (await kept.kept()).count


async def test_recordings_are_deleted_when_they_are_too_old(database: Database) -> None:
    old = recordings(database, NOW - 8 * DAY_S)
    old.add(chat("old"), None)
    await old.write()
    kept = recordings(database, keep_days=7)
    kept.add(chat("new"), None)
    await kept.write()
    assert (2, NOW - 8 * DAY_S) == ((state := await kept.kept()).count, state.oldest_at)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kept.sweep)
        with anyio.fail_after(60):
            while (await kept.kept()).count > 1:
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert await kept.read("old") is None
    assert await kept.read("new") is not None
