"""Routing: the first deployment that answers, and never a second one after the first event."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager

import anyio
import msgspec
import pytest

from qwenbox.engines.echo.engine import Echo, EchoConfig
from qwenbox.gateway.attempts.breaker import BreakerConfig
from qwenbox.gateway.attempts.policy import RetryConfig
from qwenbox.gateway.attempts.standing import AttemptsConfig, Standings
from qwenbox.gateway.catalog import Catalog, Model, ModelEntry, Request, complete_chat
from qwenbox.gateway.router import Answer, Party, Router
from qwenbox.gateway.scheduler import SchedulerConfig
from qwenbox.terms.caller import Caller, Compat
from qwenbox.terms.chat import ChatRequest, Message, Role, TextPart
from qwenbox.terms.engine import CONNECT_EXTENSION, Capacity, EngineFacts, Events
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Started, TextDelta, fold
from qwenbox.terms.model import Choice, ModelCard
from qwenbox.terms.wishes import NO_PATIENCE, Patience
from support.clocks import StillClock

pytestmark = pytest.mark.anyio

CALLER = Caller(account_id="a", key_id="k")
CARD = ModelCard(context_tokens=4096)
ASKED = ChatRequest(model="m", messages=(Message(role=Role.USER, content=(TextPart(text="hi"),)),))


class Failing(Echo):
    """Echo that fails: before its first event, or after it."""

    def __init__(self, kind: ErrorKind, *, is_late: bool = False) -> None:
        super().__init__(EchoConfig())
        self._kind = kind
        self._is_late = is_late

    @property
    def capacity(self) -> Capacity:
        return Capacity(slots=1, kv_tokens=100_000)

    def chat(self, request: ChatRequest) -> Events:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[AsyncIterator[ChatEvent]]:
        async def events() -> AsyncGenerator[ChatEvent]:
            if self._is_late:
                yield Started(input_tokens=1)
            raise ApiError(self._kind)

        yield events()


def model(*engines: Echo) -> Model:
    names = tuple(f"e{number}" for number in range(len(engines)))
    entry = ModelEntry(name="m", card=CARD, deployments=names)
    return Catalog((entry,), dict(zip(names, engines, strict=True))).resolve("m", CALLER)


@asynccontextmanager
async def opened(router: Router, model: Model, request: ChatRequest) -> AsyncGenerator[Answer]:
    async with router.open(model, request, await router.count(model, request), Party(account_id="a")) as answer:
        yield answer


def asked() -> ChatRequest:
    return complete_chat(ASKED, CARD, CALLER, Compat.DOCUMENTED)


@pytest.mark.parametrize("kind", [ErrorKind.OVERLOADED, ErrorKind.ENGINE_FAILED, ErrorKind.TIMEOUT, ErrorKind.MODEL_NOT_FOUND])
async def test_open_falls_back_when_a_deployment_fails_before_its_first_event(kind: ErrorKind) -> None:
    async with opened(Router(SchedulerConfig()), model(Failing(kind), Echo(EchoConfig())), asked()) as answer:
        assert "e1" == answer.deployment
        assert "hi" in fold([event async for event in answer.events]).choices[0].text


async def test_open_does_not_try_again_after_the_first_event() -> None:
    late = Failing(ErrorKind.ENGINE_FAILED, is_late=True)
    with pytest.raises(ApiError) as failed:
        async with opened(Router(SchedulerConfig()), model(late, Echo(EchoConfig())), asked()) as answer:
            assert "e0" == answer.deployment
            [event async for event in answer.events]
    assert ErrorKind.ENGINE_FAILED is failed.value.kind


async def test_open_raises_the_requests_own_fault_at_once() -> None:
    with pytest.raises(ApiError) as refused:
        async with opened(Router(SchedulerConfig()), model(Failing(ErrorKind.INVALID_REQUEST), Echo(EchoConfig())), asked()):
            pass
    assert ErrorKind.INVALID_REQUEST is refused.value.kind


async def test_open_raises_the_last_failure_when_nobody_answers() -> None:
    with pytest.raises(ApiError) as failed:
        async with opened(Router(SchedulerConfig()), model(Failing(ErrorKind.TIMEOUT), Failing(ErrorKind.OVERLOADED)), asked()):
            pass
    assert ErrorKind.OVERLOADED is failed.value.kind


async def test_open_gives_the_turn_back_when_the_engine_fails() -> None:
    router, failing = Router(SchedulerConfig(queue_wait_s=0.05)), model(Failing(ErrorKind.ENGINE_FAILED))
    for _ in range(3):
        with pytest.raises(ApiError) as failed:
            async with opened(router, failing, asked()):
                pass
        assert ErrorKind.ENGINE_FAILED is failed.value.kind
    assert 0 == router.waiting()


class Upstream(Echo):
    """Somebody else's server: fails as its script says, `None` is an answer, and so is everything after it. asked: what it was sent."""

    def __init__(
        self, *script: ErrorKind | None, stalls: bool = False, retry_after_s: float | None = None, breaks: ErrorKind | None = None
    ) -> None:
        """breaks: how every answer fails after its first event."""
        super().__init__(EchoConfig())
        self.breaks = breaks
        self.script = list(script)
        self.stalls = stalls
        self.retry_after_s = retry_after_s
        self.asked: list[ChatRequest] = []
        self.open = 0

    @property
    def facts(self) -> EngineFacts:
        return msgspec.structs.replace(super().facts, is_upstream=True)

    def chat(self, request: ChatRequest) -> Events:
        self.asked.append(request)
        kind = self.script.pop(0) if self.script else None
        return self._open(request, kind)

    @asynccontextmanager
    async def _open(self, request: ChatRequest, kind: ErrorKind | None) -> AsyncGenerator[AsyncIterator[ChatEvent]]:
        self.open += 1
        try:
            if kind is not None:
                raise ApiError(kind, retry_after_s=self.retry_after_s)
            if self.stalls:
                await anyio.sleep_forever()
            async with super().chat(request) as events:
                yield events if self.breaks is None else self._cut(events, self.breaks)
        finally:
            self.open -= 1

    @staticmethod
    async def _cut(events: AsyncIterator[ChatEvent], kind: ErrorKind) -> AsyncGenerator[ChatEvent]:
        yield await anext(events)
        raise ApiError(kind)


class Desk:
    """A router on a clock of its own over these deployments. waited_s: in all, before answers."""

    def __init__(self, *engines: Echo, retries: RetryConfig | None = None, **entry: object) -> None:
        self.clock = StillClock()
        retries = retries or RetryConfig(attempts=3)
        self.standings = Standings(AttemptsConfig(retries=retries, breaker=BreakerConfig(least_attempts=6, open_s=5)), self.clock)
        self.router = Router(SchedulerConfig(), standings=self.standings)
        names = tuple(f"e{number}" for number in range(len(engines)))
        self.entry = msgspec.convert({"name": "m", "card": CARD, "deployments": names, **entry}, ModelEntry, from_attributes=True)
        self.catalog = Catalog((self.entry,), dict(zip(names, engines, strict=True)))

    async def ask(self, patience: Patience = NO_PATIENCE) -> Answer:
        """The answer, with its events heard."""
        model, request = self.catalog.resolve("m", CALLER), asked()
        party = Party(account_id="a", patience=patience)
        async with self.router.open(model, request, await self.router.count(model, request), party) as answer:
            async for _ in answer.events:
                pass
            return answer


PASSING = [ErrorKind.RATE_LIMITED, ErrorKind.OVERLOADED, ErrorKind.ENGINE_FAILED, ErrorKind.TIMEOUT]


@pytest.mark.parametrize("kind", PASSING)
async def test_an_upstream_is_asked_again_when_its_failure_may_pass(kind: ErrorKind) -> None:
    upstream = Upstream(kind, kind)
    answer = await Desk(upstream).ask()
    assert (3, {"attempts": 3}) == (answer.attempts, answer.notes)
    assert 3 == len(upstream.asked)
    assert 0 == upstream.open


async def test_an_upstream_is_not_asked_more_often_than_configured() -> None:
    upstream = Upstream(*[ErrorKind.ENGINE_FAILED] * 9)
    with pytest.raises(ApiError):
        await Desk(upstream).ask()
    assert 3 == len(upstream.asked)


async def test_retry_after_is_waited_for() -> None:
    desk = Desk(Upstream(ErrorKind.RATE_LIMITED, retry_after_s=7))
    began_s = desk.clock.monotonic()
    await desk.ask()
    assert 7 <= desk.clock.monotonic() - began_s <= 7.25


@pytest.mark.parametrize("kind", [ErrorKind.UNAUTHENTICATED, ErrorKind.OUT_OF_FUNDS, ErrorKind.FORBIDDEN, ErrorKind.QUOTA_EXHAUSTED])
async def test_the_boxes_own_trouble_at_an_upstream_goes_elsewhere_and_is_never_the_callers(kind: ErrorKind) -> None:
    assert "e1" == (await Desk(Upstream(kind), Echo(EchoConfig())).ask()).deployment
    with pytest.raises(ApiError) as failed:
        await Desk(Upstream(kind)).ask()
    assert failed.value.kind in {ErrorKind.ENGINE_FAILED, ErrorKind.OVERLOADED}


async def test_an_upstream_that_is_down_is_left_alone_and_taken_up_again() -> None:
    upstream = Upstream(*[ErrorKind.ENGINE_FAILED] * 6)
    desk = Desk(upstream, Echo(EchoConfig()))
    for _ in range(10):
        assert "e1" == (await desk.ask()).deployment
    assert 6 == len(upstream.asked)

    desk.clock.advance(5)
    assert "e0" == (await desk.ask()).deployment
    assert "e0" == (await desk.ask()).deployment


@pytest.mark.parametrize("timeouts", [NO_PATIENCE, Patience(total_s=60)], ids=["", "watched"])
async def test_answers_that_break_half_way_open_the_breaker_and_are_asked_for_once(timeouts: Patience) -> None:
    upstream = Upstream(breaks=ErrorKind.ENGINE_FAILED)
    desk = Desk(upstream, Echo(EchoConfig()), timeouts=timeouts)
    for _ in range(6):
        with pytest.raises(ApiError) as failed:
            await desk.ask()
        assert ErrorKind.ENGINE_FAILED is failed.value.kind
    assert 6 == len(upstream.asked)
    assert "e1" == (await desk.ask()).deployment
    assert 6 == len(upstream.asked)

    upstream.breaks = None
    desk.clock.advance(5)
    assert "e0" == (await desk.ask()).deployment


async def test_an_answer_that_ends_for_its_content_is_no_failure_of_the_upstream() -> None:
    upstream = Upstream(breaks=ErrorKind.CONTENT_REJECTED)
    desk = Desk(upstream, Echo(EchoConfig()))
    for _ in range(8):
        with pytest.raises(ApiError):
            await desk.ask()
    assert 8 == len(upstream.asked)


async def test_the_models_first_token_timeout_asks_again_and_frees_what_was_held() -> None:
    upstream = Upstream(stalls=True)
    answer = await Desk(upstream, Echo(EchoConfig()), timeouts=Patience(first_token_s=0.3)).ask()
    assert ("e1", 4) == (answer.deployment, answer.attempts)
    assert 0 == upstream.open


async def test_the_callers_first_token_timeout_is_his_answer_and_no_failure_of_the_upstream() -> None:
    upstream = Upstream(stalls=True)
    desk = Desk(upstream)
    for _ in range(8):
        with pytest.raises(ApiError) as late:
            await desk.ask(Patience(first_token_s=0.01))
        assert "first_token_s" == late.value.param
    assert 8 == len(upstream.asked)  # its breaker would have opened after six
    assert 0 == desk.standings.of(desk.catalog.resolve("m", CALLER).deployments[0]).running


async def test_no_attempt_begins_that_the_callers_total_would_not_see_end() -> None:
    desk = Desk(Upstream(ErrorKind.RATE_LIMITED, retry_after_s=7))
    with pytest.raises(ApiError) as refused:
        await desk.ask(Patience(total_s=5))
    assert (ErrorKind.RATE_LIMITED, 7) == (refused.value.kind, refused.value.retry_after_s)


async def test_the_connections_patience_reaches_upstreams_only() -> None:
    upstream = Upstream()
    await Desk(upstream, timeouts=Patience(connect_s=2.5)).ask()
    assert b"2.5" == upstream.asked[0].extensions[CONNECT_EXTENSION]
    await Desk(upstream, timeouts=Patience(connect_s=2.5)).ask(Patience(connect_s=1.0))
    assert b"1.0" == upstream.asked[1].extensions[CONNECT_EXTENSION]


class OneSlot(Echo):
    @property
    def capacity(self) -> Capacity:
        return Capacity(slots=1)


@pytest.mark.parametrize("spill_after_s", [0.0, 0.02])
async def test_a_busy_engine_spills_to_the_next(spill_after_s: float) -> None:
    desk = Desk(OneSlot(EchoConfig()), Echo(EchoConfig()), spill_after_s=spill_after_s)
    model, request = desk.catalog.resolve("m", CALLER), asked()
    prompt = await desk.router.count(model, request)
    async with desk.router.open(model, request, prompt, Party(account_id="a")) as first:
        assert ("e0", "e1") == (first.deployment, (await desk.ask()).deployment)
    assert "e0" == (await desk.ask()).deployment


class Masked(msgspec.Struct, frozen=True, kw_only=True):
    request: Request
    notes: Mapping[str, object]

    def restore(self, events: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
        async def restored() -> AsyncGenerator[ChatEvent]:
            async for event in events:
                yield msgspec.structs.replace(event, text=event.text.replace("MASK", "hi")) if isinstance(event, TextDelta) else event

        return restored()


class Masking:
    def redact(self, request: Request) -> Masked:
        masked = Message(role=Role.USER, content=(TextPart(text="MASK"),))
        return Masked(request=msgspec.structs.replace(request, messages=(masked,)), notes={"redacted": 1})


async def test_a_deployment_with_a_redactor_never_sees_what_is_hidden() -> None:
    upstream = Upstream(ErrorKind.ENGINE_FAILED)
    desk = Desk(upstream)
    catalog = Catalog((desk.entry,), {"e0": upstream}, {"e0": Masking()})
    model, request = catalog.resolve("m", CALLER), asked()
    async with desk.router.open(model, request, await desk.router.count(model, request), Party(account_id="a")) as answer:
        assert "hi" in fold([event async for event in answer.events]).choices[0].text
    assert {"redacted": 1, "attempts": 2} == answer.notes
    assert ["MASK", "MASK"] == [sent.messages[0].text for sent in upstream.asked]


async def test_least_busy_takes_turns_while_calls_run() -> None:
    desk = Desk(Echo(EchoConfig()), Echo(EchoConfig()), choice=Choice.LEAST_BUSY)
    model, request = desk.catalog.resolve("m", CALLER), asked()
    prompt = await desk.router.count(model, request)
    async with desk.router.open(model, request, prompt, Party(account_id="a")) as first:
        assert ("e0", "e1") == (first.deployment, (await desk.ask()).deployment)
    assert "e0" == (await desk.ask()).deployment
