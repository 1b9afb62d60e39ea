"""When a call came to each hop of its way: kept in its row, told in order, the wait for a busy engine among them."""

from pathlib import Path
from time import monotonic

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenbox.engines.echo.engine import Echo, EchoConfig
from qwenbox.gateway import hops
from qwenbox.gateway.statements import Receipt, Statements
from qwenbox.terms.call import Call
from qwenbox.terms.caller import Caller
from qwenbox.terms.chat import ChatRequest, Message, Role, TextPart
from qwenbox.terms.timeline import Timeline
from support.gateways import Office, open_gateway

MOMENTS = ("looked_s", "entered_s", "counted_s", "admitted_s", "queued_s", "turn_s", "first_s")


def call(name: str) -> Call[ChatRequest]:
    request = ChatRequest(model="m", messages=(Message(role=Role.USER, content=(TextPart(text="hello"),)),))
    return Call(id=name, caller=Caller(account_id="acc", key_id="key"), request=request, dialect="openai", arrived_at=0.0)


async def receipt(office: Office, name: str) -> Receipt:
    found = await Statements(office.database).receipt(name)
    assert found is not None
    return found


@pytest.mark.anyio
async def test_a_queued_call_shows_its_time_in_the_queue(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, Echo(EchoConfig(slots=1))) as office:
        waits, held_s = anyio.Event(), 0.0

        async def second() -> None:
            asked = call("second")
            asked.timeline.begun_s = monotonic()
            waits.set()
            async with office.gateway.chat(asked) as answering:
                _ = [event async for event in answering.events]

        async with anyio.create_task_group() as tasks, office.gateway.chat(call("first")) as answering:
            tasks.start_soon(second)
            await waits.wait()
            await anyio.wait_all_tasks_blocked()
            assert 1 == office.gateway.router.waiting()
            before_s = monotonic()
            _ = [event async for event in answering.events]
            held_s = monotonic() - before_s
        found = {hop.name: hop.at_s for hop in (await receipt(office, "second")).timeline}
        assert found["turn"] - found["queued"] >= held_s
        assert "first_token" in found
    assert ["received", "entered", "counted", "admitted", "queued", "turn", "first", "first_token", "last"] == list(found)


@given(
    st.lists(st.floats(0, 1e5) | st.none(), min_size=len(MOMENTS), max_size=len(MOMENTS)), st.floats(0, 1e5), st.floats(0, 1e5) | st.none()
)
def test_hops_are_read_as_they_were_written(offsets: list[float | None], last_s: float, ttft_s: float | None) -> None:
    begun_s = 1e6
    moments = {name: 0.0 if offset is None else begun_s + offset for name, offset in zip(MOMENTS, offsets, strict=True)}
    written = hops.write(msgspec.structs.replace(Timeline(begun_s=begun_s), **moments), begun_s + last_s)
    found = hops.read(written, ttft_s)
    assert [hop.at_s for hop in found] == sorted(hop.at_s for hop in found)
    told = {hop.name: hop.at_s for hop in found}
    assert {"received", "last"} <= set(told)
    assert (ttft_s is not None) == ("first_token" in told)
    for name, offset in zip(("cache", "entered", "counted", "admitted", "queued", "turn", "first"), offsets, strict=True):
        assert (offset is None) == (name not in told)
        if offset is not None:
            assert pytest.approx(offset, abs=2e-6) == told[name]


def test_a_row_without_hops_tells_none() -> None:
    assert "" == hops.write(Timeline(), 5.0)
    assert () == hops.read("", 0.5)


def test_a_row_of_an_older_box_tells_the_hops_it_has() -> None:
    assert ["received", "cache", "entered"] == [hop.name for hop in hops.read("10,20", None)]
