"""One frame around every call: what it may use is reserved, how it ended is written, whatever the end."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from sqlalchemy import select

from qwenbox.engines.echo.engine import Echo, EchoConfig
from qwenbox.gateway.counters.base import PurseState
from qwenbox.gateway.journal.base import Booking, EntryKind, LedgerEntry, PurseChange
from qwenbox.gateway.journal.tables import USAGE
from qwenbox.gateway.limits import Tier
from qwenbox.terms.call import Call
from qwenbox.terms.caller import Caller
from qwenbox.terms.chat import ChatRequest, Message, Role, TextPart
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.engine import Events
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Completed, TextDelta
from support.gateways import CARD, Office, open_gateway

pytestmark = pytest.mark.anyio

CALLER = Caller(account_id="acc", key_id="key")
TEXT = "one two three four five"


def call(text: str = TEXT, caller: Caller = CALLER, **options: Any) -> Call[ChatRequest]:
    is_incremental = options.pop("is_incremental", True)
    request = ChatRequest(model="m", messages=(Message(role=Role.USER, content=(TextPart(text=text),)),), **options)
    return Call(id="call-1", caller=caller, request=request, dialect="openai", arrived_at=0.0, is_incremental=is_incremental)


async def rows(office: Office) -> list[dict[str, Any]]:
    return await office.database.read(select(USAGE))


async def answer(office: Office, asked: Call[ChatRequest], deltas: int | None = None) -> list[ChatEvent]:
    """The events; with `deltas`, those up to that many, and then the client leaves."""
    heard: list[ChatEvent] = []
    async with office.gateway.chat(asked) as answer:
        async for event in answer.events:
            heard.append(event)
            if deltas is not None and sum(isinstance(one, TextDelta) for one in heard) == deltas:
                break
    return heard


class Silent(Echo):
    """Echo that says nothing for as long as a test may last."""

    def __init__(self) -> None:
        super().__init__(EchoConfig(first_delay_s=600.0))
        self.is_asked = anyio.Event()

    def chat(self, request: ChatRequest) -> Events:
        self.is_asked.set()
        return super().chat(request)


class Breaking(Echo):
    """Echo that fails after some deltas."""

    def __init__(self, after: int) -> None:
        super().__init__(EchoConfig())
        self._after = after

    def chat(self, request: ChatRequest) -> Events:
        return self._open(super().chat(request))

    @asynccontextmanager
    async def _open(self, inner: Events) -> AsyncGenerator[AsyncIterator[ChatEvent]]:
        async with inner as heard:

            async def events() -> AsyncGenerator[ChatEvent]:
                left = self._after
                async for event in heard:
                    if isinstance(event, TextDelta):
                        left -= 1
                    if left < 0:
                        raise ApiError(ErrorKind.ENGINE_FAILED)
                    yield event

            yield events()


class Closed:
    """A journal whose database is gone: for all, or from the first commit on."""

    def __init__(self, *, is_open: bool) -> None:
        self.is_open = is_open
        self.owed: list[Booking] = []

    async def commit(self, booking: Booking) -> tuple[PurseState, ...]:
        if booking.is_owed:
            self.owed.append(booking)
        raise ApiError(ErrorKind.OVERLOADED)

    def when_late(self, listener: Callable[[str, tuple[PurseState, ...]], None]) -> None:
        self.tell = listener


async def test_row_is_there_before_completed_is_passed_on(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, Echo(EchoConfig())) as office, office.gateway.chat(call()) as answering:
        async for event in answering.events:
            if isinstance(event, Completed):
                (row,) = await rows(office)
                assert (event.usage.input_tokens, event.usage.output_tokens) == (row["input_tokens"], row["output_tokens"])
                assert ("completed", "stop", "e0", "openai", "m") == tuple(
                    row[name] for name in ("outcome", "finish_reason", "deployment", "dialect", "model")
                )
                assert row["input_tokens"] + 2 * row["output_tokens"] == row["cost_micros"]
                assert {-row["cost_micros"]} == {state.amount_micros for state in office.told}
                return
    raise AssertionError("no Completed")


async def test_client_that_leaves_is_billed_what_was_produced(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, Echo(EchoConfig())) as office:
        await answer(office, call(), deltas=2)
        (row,) = await rows(office)
        assert ("hung_up", None, True) == (row["outcome"], row["finish_reason"], bool(row["is_counted"]))
        assert 2 <= row["output_tokens"] < 8
        assert row["input_tokens"] + 2 * row["output_tokens"] == row["cost_micros"]


async def test_client_that_leaves_before_the_first_token_pays_nothing(tmp_path: Path) -> None:
    engine = Silent()
    async with open_gateway(tmp_path, engine) as office:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer, office, call())
            await engine.is_asked.wait()
            tasks.cancel_scope.cancel()
        (row,) = await rows(office)
        assert ("hung_up", 0, 0) == (row["outcome"], row["output_tokens"], row["cost_micros"])
        assert [] == await office.ledger.check()


@pytest.mark.parametrize("is_incremental", [True, False])
async def test_failed_call_is_billed_only_if_its_pieces_reached_the_client(tmp_path: Path, is_incremental: bool) -> None:
    async with open_gateway(tmp_path, Breaking(after=3)) as office:
        with pytest.raises(ApiError) as failed:
            await answer(office, call(is_incremental=is_incremental))
        assert ErrorKind.ENGINE_FAILED is failed.value.kind
        (row,) = await rows(office)
        assert ("failed", "engine_failed") == (row["outcome"], row["error_kind"])
        assert row["output_tokens"] >= 3
        assert (row["cost_micros"] > 0) == is_incremental


async def test_prompt_that_is_too_long_is_refused_without_a_row(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, Echo(EchoConfig()), card=msgspec.structs.replace(CARD, context_tokens=16)) as office:
        with pytest.raises(ApiError) as refused:
            await answer(office, call("one two three four five six seven eight nine ten"))
        assert "Range of input length should be [1, 15]" == refused.value.message
        assert [] == await rows(office)


async def test_nothing_is_asked_of_an_engine_while_the_books_are_closed(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, Breaking(after=0), journal=Closed(is_open=False)) as office:
        with pytest.raises(ApiError) as refused:
            await answer(office, call())
        assert ErrorKind.OVERLOADED is refused.value.kind
        assert refused.value.retry_after_s


@pytest.mark.parametrize("is_incremental", [True, False])
async def test_answer_does_not_end_well_when_its_row_cannot_be_written(tmp_path: Path, is_incremental: bool) -> None:
    closed = Closed(is_open=True)
    async with open_gateway(tmp_path, Echo(EchoConfig()), journal=closed) as office:
        with pytest.raises(ApiError) as failed:
            await answer(office, call(is_incremental=is_incremental))
        assert ErrorKind.OVERLOADED is failed.value.kind
    # What a stream has delivered is owed; a whole answer was never delivered. Neither is booked twice.
    assert [is_incremental] * len(closed.owed) == [True] * len(closed.owed)
    assert int(is_incremental) == len(closed.owed)


async def test_lease_is_settled_with_what_was_used(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, Echo(EchoConfig()), tier=Tier(tpm=1_000, concurrency=1)) as office:
        await answer(office, call(max_output_tokens=500))
        (window,) = office.counters.snapshot()
        (row,) = await rows(office)
        assert (row["input_tokens"] + row["output_tokens"], 0) == (window.tokens, window.open)


async def test_answer_is_as_long_as_the_money_lasts(tmp_path: Path) -> None:
    caller = msgspec.structs.replace(CALLER, is_prepaid=True)
    async with open_gateway(tmp_path, Echo(EchoConfig())) as office:
        prompt = 12
        await office.journal.commit(_payment(prompt + 2 * 3))
        async with office.gateway.chat(call(caller=caller)) as answering:
            events = [event async for event in answering.events]
            limit = answering.output_limit_tokens
        (row,) = await rows(office)
        assert prompt == row["input_tokens"]
        assert 3 == limit == row["output_tokens"]
        assert "length" == row["finish_reason"]
        assert isinstance(events[-1], Completed)
        with pytest.raises(ApiError) as refused:
            await answer(office, call(caller=caller))
        assert ErrorKind.OUT_OF_FUNDS is refused.value.kind


async def test_raw_prompt_is_governed_like_a_chat(tmp_path: Path) -> None:
    request = CompletionRequest(model="m", prompt=TEXT)
    asked = Call(id="call-2", caller=CALLER, request=request, dialect="openai", arrived_at=0.0)
    async with open_gateway(tmp_path, Echo(EchoConfig())) as office:
        async with office.gateway.complete(asked) as answering:
            assert [event async for event in answering.events]
        assert 1 == len(await rows(office))


def _payment(micros: int) -> Booking:
    def entry(account: str, amount: int) -> LedgerEntry:
        return LedgerEntry(transaction_id="t", ledger_account=account, amount_micros=amount, currency="CNY", kind=EntryKind.TOP_UP, at=0.0)

    return Booking(
        id="t",
        entries=(entry("customer/acc", micros), entry("payments", -micros)),
        purses=(PurseChange(id="balance/acc", delta_micros=micros),),
    )


async def test_money_of_an_owed_booking_stays_held_until_it_is_written(tmp_path: Path) -> None:
    closed = Closed(is_open=True)
    tier = Tier(concurrency=1)
    async with open_gateway(tmp_path, Echo(EchoConfig()), tier=tier, journal=closed) as office, anyio.create_task_group() as tasks:
        tasks.start_soon(office.metering.follow)
        with pytest.raises(ApiError):
            await answer(office, call())
        assert 1 == office.counters.snapshot()[0].open
        state = PurseState(id="balance/acc", amount_micros=-20, version=1)
        told = anyio.Event()
        office.metering.told = lambda states: told.set() if states == (state,) else None
        closed.tell("call-1", (state,))
        with anyio.fail_after(60):
            await told.wait()
        assert 0 == office.counters.snapshot()[0].open
        tasks.cancel_scope.cancel()
