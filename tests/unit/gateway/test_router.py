"""Routing: the first deployment that answers, and never a second one after the first event."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest

from qwenbox.engines.echo.engine import Echo, EchoConfig
from qwenbox.gateway.catalog import Catalog, Model, ModelEntry, complete_chat
from qwenbox.gateway.router import Answer, Party, Router
from qwenbox.gateway.scheduler import SchedulerConfig
from qwenbox.terms.caller import Caller, Compat
from qwenbox.terms.chat import ChatRequest, Message, Role, TextPart
from qwenbox.terms.engine import Capacity, Events
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Started, fold
from qwenbox.terms.model import ModelCard

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
