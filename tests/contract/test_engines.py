"""Every engine keeps one grammar, frees what it holds when it is left, and means the same by the same request.

openai_server and cloud are opened over real TCP onto a second box, whose echo engine is the first one's equal: their answers must be, too.
"""

from collections.abc import AsyncIterator, Iterable

import anyio
import msgspec
import pytest

import boxes
from boxes import Box
from qwenbox.engines.cloud import Cloud, CloudConfig, Protocol
from qwenbox.engines.echo.engine import Echo, EchoConfig
from qwenbox.engines.openai_server import OpenAiServer, OpenAiServerConfig
from qwenbox.gateway.attempts.policy import shown
from qwenbox.remote import Remote
from qwenbox.terms.chat import (
    ChatRequest,
    JsonObject,
    JsonSchema,
    Message,
    Role,
    Sampling,
    TextPart,
    Thinking,
    ToolNamed,
    ToolRequired,
    ToolSpec,
)
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.engine import Health, HealthState, TextEngine
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import (
    ChatDelta,
    ChatEvent,
    ChatResult,
    ChoiceFinished,
    Completed,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    fold,
)
from support.ports import free_port

KINDS = ("echo", "openai_server", "cloud native", "cloud openai")
WEATHER = ToolSpec(name="get_weather", parameters=b'{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}')
TIME = ToolSpec(name="get_time")


def user(text: str) -> Message:
    return Message(role=Role.USER, content=(TextPart(text=text),))


ASKED = ChatRequest(
    model="qwen-plus",
    messages=(Message(role=Role.SYSTEM, content=(TextPart(text="Be brief."),)), user("Tell me about 上海 🙂, please.\nAnd more.")),
    sampling=Sampling(temperature=1.0, top_p=1.0, top_k=0, presence_penalty=0.0, frequency_penalty=0.0, seed=7),
    max_output_tokens=500,
)


def asked(**changes: object) -> ChatRequest:
    return msgspec.structs.replace(ASKED, **changes)


REQUESTS = {
    "plain": ASKED,
    "greedy": asked(sampling=Sampling(temperature=0.0)),
    "three choices": asked(n=3),
    "cut by length": asked(max_output_tokens=3),
    "stopped": asked(stop=("上海", "never")),
    "json object": asked(response_format=JsonObject()),
    "json schema": asked(
        response_format=JsonSchema(schema=b'{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}', name="n")
    ),
    "one call": asked(tools=(WEATHER, TIME), tool_choice=ToolNamed("get_time")),
    "a call demanded": asked(tools=(WEATHER, TIME), tool_choice=ToolRequired()),
    "calls at once": asked(tools=(WEATHER, TIME), messages=(user("get_weather and get_time"),), is_parallel_tool_calls=True),
    "no call": asked(tools=(WEATHER,)),
    "thinking": asked(thinking=Thinking(is_enabled=True)),
    "thinking cut": asked(thinking=Thinking(is_enabled=True, budget_tokens=4)),
    "logprobs": asked(top_logprobs=2),
    "partial": asked(messages=(user("count"), Message(role=Role.ASSISTANT, content=(TextPart(text="one,"),), is_partial=True))),
    "raw prompt": CompletionRequest(
        model="qwen-plus", prompt="def add(a, b):", sampling=Sampling(temperature=1.0, seed=3), max_output_tokens=50
    ),
    "raw prompt, choices": CompletionRequest(
        model="qwen-plus", prompt="a\nb", sampling=Sampling(temperature=1.0, seed=3), n=2, max_output_tokens=50
    ),
}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


def clouded(box: Box, remote: Remote, protocol: str) -> Cloud:
    config = CloudConfig(address=box.base_url, protocol=Protocol(protocol), sends_defaults=True)
    return Cloud(config, remote, {"DASHSCOPE_API_KEY": boxes.KEY})


def opened(kind: str, box: Box, remote: Remote) -> TextEngine:
    return behind(box, remote) if kind == "openai_server" else clouded(box, remote, kind.removeprefix("cloud "))


def behind(box: Box, remote: Remote, model: str = "qwen-plus", key: str = boxes.KEY) -> OpenAiServer:
    return OpenAiServer(OpenAiServerConfig(address=box.compatible, model=model, key_env="KEY"), remote, {"KEY": key})


@pytest.fixture(params=KINDS)
async def engine(request: pytest.FixtureRequest, box: Box) -> AsyncIterator[TextEngine]:
    if request.param == "echo":
        yield Echo(EchoConfig())
        return
    async with Remote() as remote:
        yield opened(request.param, box, remote)


async def hear(engine: TextEngine, request: ChatRequest | CompletionRequest) -> list[ChatEvent]:
    async with engine.chat(request) if isinstance(request, ChatRequest) else engine.complete(request) as events:
        return [event async for event in events]


def broken_rules(events: Iterable[ChatEvent], choices: int) -> list[str]:
    """What of terms/events.py's grammar these events break."""
    broken: list[str] = []
    finished: set[int] = set()
    named: set[tuple[int, int]] = set()
    is_started = is_over = False
    for event in events:
        if is_over:
            broken.append(f"{event} after Completed")
        match event:
            case Started():
                broken += ["Started twice"] if is_started else []
                is_started = True
            case TextDelta() | ReasoningDelta() | ToolCallDelta():
                broken += _broken_by_delta(event, finished, named)
            case ChoiceFinished():
                broken += [f"choice {event.index} finished twice"] if event.index in finished else []
                finished.add(event.index)
            case Completed():
                is_over = True
        if not is_started:
            broken.append(f"{event} before Started")
    broken += [] if is_over else ["no Completed"]
    return broken if finished == set(range(choices)) else [*broken, f"finished {sorted(finished)} of {choices}"]


def _broken_by_delta(delta: ChatDelta, finished: set[int], named: set[tuple[int, int]]) -> list[str]:
    broken = [f"{delta} after its choice's end"] if delta.index in finished else []
    if isinstance(delta, ToolCallDelta):
        is_first = (delta.index, delta.call) not in named
        named.add((delta.index, delta.call))
        if is_first != bool(delta.id and delta.name):
            broken.append(f"id and name come once, in the first piece: {delta}")
    return broken


def same(result: ChatResult) -> object:
    """What both ways must agree on: everything but who counted what beforehand."""
    return [(c.index, c.text, c.reasoning, c.tool_calls, c.reason, c.logprobs) for c in result.choices]


@pytest.mark.parametrize("name", REQUESTS)
async def test_events_keep_the_grammar(engine: TextEngine, name: str) -> None:
    request = REQUESTS[name]
    events = await hear(engine, request)
    assert [] == broken_rules(events, request.n)
    usage = fold(events).usage
    said = sum(event.tokens for event in events if isinstance(event, TextDelta | ReasoningDelta | ToolCallDelta | ChoiceFinished))
    assert usage.input_tokens > 0
    # A wire tells text, not how many tokens a piece of it took: usage settles it at the end.
    assert said == usage.output_tokens if engine.facts.kind == "echo" else said <= usage.output_tokens


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("name", REQUESTS)
async def test_a_second_box_means_the_same_as_the_first(box: Box, name: str, kind: str) -> None:
    async with Remote() as remote:
        near, far = [fold(await hear(engine, REQUESTS[name])) for engine in (Echo(EchoConfig()), opened(kind, box, remote))]
    assert same(near) == same(far)
    assert (near.usage.input_tokens, near.usage.output_tokens) == (far.usage.input_tokens, far.usage.output_tokens)


async def test_an_engine_says_what_it_is(engine: TextEngine) -> None:
    assert engine.facts.kind in {kind.partition(" ")[0] for kind in KINDS}
    assert Health(state=HealthState.READY) == await engine.health()


async def test_fifty_calls_at_once_do_not_mix(engine: TextEngine) -> None:
    texts = [f"number {n} of fifty" for n in range(50)]
    heard: dict[str, str] = {}

    async def ask(text: str) -> None:
        heard[text] = fold(await hear(engine, asked(messages=(user(text),), sampling=Sampling(temperature=0.0)))).choices[0].text

    async with anyio.create_task_group() as tasks:
        for text in texts:
            tasks.start_soon(ask, text)
    assert {text: f"Echo: {text}" for text in texts} == heard


async def test_leaving_in_the_middle_leaves_the_engine_usable(engine: TextEngine) -> None:
    for _ in range(20):
        async with engine.chat(ASKED) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    break
    assert [] == broken_rules(await hear(engine, ASKED), 1)


async def test_cancelling_is_not_answered_with_another_error(engine: TextEngine) -> None:
    with anyio.CancelScope() as scope:
        async with engine.chat(ASKED) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    scope.cancel()
                    await anyio.sleep(1)
    assert scope.cancelled_caught


async def test_a_prompt_past_the_context_is_refused_as_too_long(engine: TextEngine) -> None:
    with pytest.raises(ApiError) as caught:
        await hear(engine, asked(messages=(user("word " * 140_000),)))
    assert ErrorKind.CONTEXT_TOO_LONG == caught.value.kind


async def test_the_boxs_own_troubles_with_a_server_are_not_the_callers(catalog_box: Box) -> None:
    async with Remote() as remote:
        unknown, keyless = behind(catalog_box, remote, model="nobody"), behind(catalog_box, remote, key="sk-wrong")
        for engine, kind in ((unknown, ErrorKind.FORBIDDEN), (keyless, ErrorKind.UNAUTHENTICATED)):
            with pytest.raises(ApiError) as caught:
                await hear(engine, ASKED)
            assert kind == caught.value.kind
            assert ErrorKind.ENGINE_FAILED == shown(caught.value).kind


async def test_a_server_that_is_not_there_is_overload_not_failure() -> None:
    async with Remote() as remote:
        engine = OpenAiServer(OpenAiServerConfig(address=f"http://127.0.0.1:{free_port()}/v1"), remote)
        with pytest.raises(ApiError) as caught:
            await hear(engine, ASKED)
        assert ErrorKind.OVERLOADED == caught.value.kind
        assert HealthState.DOWN == (await engine.health()).state
