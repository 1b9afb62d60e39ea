"""The echo engine keeps every promise of terms/engine.py, so that everything above it can be tested without weights."""

import json
import time
import zlib

import anyio
import anyio.lowlevel
import msgspec
import pytest

from qwenbox.engines.echo.engine import Echo, EchoConfig
from qwenbox.terms.chat import (
    ChatRequest,
    ImagePart,
    JsonObject,
    JsonSchema,
    Message,
    Role,
    Sampling,
    TextPart,
    Thinking,
    ToolCall,
    ToolNamed,
    ToolNone,
    ToolRequired,
    ToolSpec,
)
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.engine import HealthState
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChoiceFinished, Completed, FinishReason, ReasoningDelta, Started, TextDelta, ToolCallDelta, fold

WEATHER = ToolSpec(
    name="get_weather",
    description="Weather of a city",
    parameters=b'{"type":"object","properties":{"city":{"type":"string"},"unit":{"enum":["c","f"]}},"required":["city","unit"]}',
)
TIME = ToolSpec(name="get_time")


def user(text: str) -> Message:
    return Message(role=Role.USER, content=(TextPart(text=text),))


def asking(text: str = "hello there", **fields) -> ChatRequest:
    fields.setdefault("messages", (user(text),))
    return ChatRequest(model="qwen-turbo", **fields)


async def events_of(request, config: EchoConfig | None = None, engine: Echo | None = None):
    engine = engine or Echo(config or EchoConfig())
    opened = engine.complete(request) if isinstance(request, CompletionRequest) else engine.chat(request)
    async with opened as events:
        return [event async for event in events]


async def answer_of(request, **more):
    return fold(await events_of(request, **more))


async def text_of(request, **more) -> str:
    return (await answer_of(request, **more)).choices[0].text


async def test_chat_echoes_last_user_turn_when_greedy():
    messages = (user("first"), Message(role=Role.ASSISTANT, content=(TextPart(text="no"),)), user("请介绍一下。"))

    assert await text_of(asking(messages=messages)) == "Echo: 请介绍一下。"


async def test_chat_keeps_the_grammar_when_several_choices_interleave():
    request = asking("one two three", n=3, sampling=Sampling(temperature=1.0))

    events = await events_of(request)

    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Completed)
    assert [event.index for event in events[1:4]] == [0, 1, 2]
    finished = [event.index for event in events if isinstance(event, ChoiceFinished)]
    assert sorted(finished) == [0, 1, 2]
    for index in range(3):
        own = [event for event in events[1:-1] if event.index == index]
        assert [isinstance(event, ChoiceFinished) for event in own] == [False] * (len(own) - 1) + [True]
    assert len({choice.text for choice in fold(events).choices}) == 3


async def test_usage_is_the_sum_of_the_deltas_when_all_kinds_come():
    request = asking("call get_weather now", n=2, tools=(WEATHER,), thinking=Thinking(is_enabled=True))

    events = await events_of(request)

    tokens = sum(event.tokens for event in events[1:-1])
    thought = sum(event.tokens for event in events if isinstance(event, ReasoningDelta))
    usage = events[-1].usage
    assert (usage.output_tokens, usage.reasoning_tokens) == (tokens, thought)
    assert usage.input_tokens == await Echo(EchoConfig()).count(request) == events[0].input_tokens


async def test_count_follows_the_documented_rule_when_given_messages_and_tools():
    tool = ToolSpec(name="f", description="does it", parameters=b"{}")
    request = asking(messages=(Message(role=Role.SYSTEM, content=(TextPart(text="be brief"),)), user("你好 world_wide_web")), tools=(tool,))

    system, words, spec, opening = 4 + 2, 4 + 2 + 2, 8 + 1 + 2 + 2, 3
    assert await Echo(EchoConfig()).count(request) == system + words + spec + opening


async def test_count_takes_the_prompt_as_it_stands_when_raw():
    assert await Echo(EchoConfig()).count(CompletionRequest(model="m", prompt="def f():", suffix="\n")) == 2 + 3 + 1


@pytest.mark.parametrize("sampling", [Sampling(temperature=0.0), Sampling(temperature=1.0, top_k=1), Sampling(temperature=1.0, top_p=0.0)])
async def test_unseeded_answers_are_alike_when_greedy(sampling):
    engine = Echo(EchoConfig())

    assert {await text_of(asking(sampling=sampling), engine=engine) for _ in range(3)} == {"Echo: hello there"}


async def test_unseeded_answers_differ_when_drawn():
    engine = Echo(EchoConfig())

    assert len({await text_of(asking(sampling=Sampling(temperature=1.0)), engine=engine) for _ in range(5)}) == 5


async def test_seeded_answers_are_alike_after_other_calls_and_a_restart():
    seeded = asking(sampling=Sampling(temperature=1.0, seed=7))
    engine = Echo(EchoConfig())
    first = await text_of(seeded, engine=engine)
    await text_of(asking(sampling=Sampling(temperature=1.0)), engine=engine)

    assert await text_of(seeded, engine=engine) == first == await text_of(seeded)


async def test_seeded_answers_differ_when_seeds_differ():
    texts = {await text_of(asking(sampling=Sampling(temperature=1.0, seed=seed))) for seed in range(20)}

    assert len(texts) == 20


@pytest.mark.parametrize(
    ("limit", "text", "reason"), [(1, "Echo", "length"), (3, "Echo: hello", "length"), (4, "Echo: hello there", "stop")]
)
async def test_chat_keeps_to_the_limit_when_the_answer_is_longer(limit, text, reason):
    answer = await answer_of(asking(max_output_tokens=limit))

    assert (answer.choices[0].text, answer.choices[0].reason, answer.usage.output_tokens) == (text, reason, limit)


@pytest.mark.parametrize(
    ("stop", "text", "tokens"),
    [
        (("there",), "Echo: hello ", 4),
        (("lo th", "there"), "Echo: hel", 4),
        (("E",), "", 1),
        (("o: h", "Echo: hello"), "Ech", 3),
        (("absent",), "Echo: hello there", 4),
        (("", "ello"), "Echo: h", 3),
    ],
)
async def test_chat_ends_before_a_stop_text_when_one_is_written(stop, text, tokens):
    answer = await answer_of(asking(stop=stop))

    assert (answer.choices[0].text, answer.choices[0].reason, answer.usage.output_tokens) == (text, FinishReason.STOP, tokens)


async def test_chat_is_cut_by_length_when_the_stop_comes_after_it():
    answer = await answer_of(asking(stop=("there",), max_output_tokens=3))

    assert (answer.choices[0].text, answer.choices[0].reason) == ("Echo: hello", FinishReason.LENGTH)


async def test_chat_ends_before_stop_tokens_when_their_sequence_is_written():
    ids = tuple(zlib.crc32(token.encode()) for token in (" hello", " there"))

    both = await answer_of(asking(stop_tokens=(ids,)))
    one = await answer_of(asking(stop_tokens=((1,), ids[1:])))

    assert (both.choices[0].text, both.usage.output_tokens) == ("Echo:", 4)
    assert (one.choices[0].text, one.choices[0].reason) == ("Echo: hello", FinishReason.STOP)


@pytest.mark.parametrize("top", [0, 1, 5, 20])
async def test_logprobs_cover_the_text_when_wanted(top):
    choice = (await answer_of(asking(top_logprobs=top))).choices[0]

    assert "".join(entry.text for entry in choice.logprobs) == choice.text
    assert b"".join(entry.raw for entry in choice.logprobs).decode() == choice.text
    assert {len(entry.rivals) for entry in choice.logprobs} == {top}
    for entry in choice.logprobs:
        assert [rival.logprob for rival in entry.rivals] == sorted((rival.logprob for rival in entry.rivals), reverse=True)
        assert len({rival.text for rival in entry.rivals}) == top


async def test_logprobs_are_absent_when_not_wanted():
    assert (await answer_of(asking())).choices[0].logprobs == ()


async def test_auto_calls_the_tool_when_the_user_names_it():
    answer = await answer_of(asking("请用get_weather查一下", tools=(TIME, WEATHER)))

    choice = answer.choices[0]
    assert (choice.reason, choice.text) == (FinishReason.TOOL_CALLS, "")
    assert [(call.name, json.loads(call.arguments)) for call in choice.tool_calls] == [("get_weather", {"city": "echo", "unit": "c"})]
    assert choice.tool_calls[0].id.startswith("call_")
    assert len(choice.tool_calls[0].id) == 29


@pytest.mark.parametrize("text", ["forget_weather it", "get_weather_now", "hello", "get-weather"])
async def test_auto_calls_nothing_when_no_tool_is_named(text):
    choice = (await answer_of(asking(text, tools=(WEATHER,)))).choices[0]

    assert (choice.tool_calls, choice.text, choice.reason) == ((), f"Echo: {text}", FinishReason.STOP)


async def test_calls_come_in_the_users_order_when_parallel():
    request = asking("get_weather then get_time", tools=(TIME, WEATHER), is_parallel_tool_calls=True)

    calls = (await answer_of(request)).choices[0].tool_calls

    assert [call.name for call in calls] == ["get_weather", "get_time"]
    assert len({call.id for call in calls}) == 2


async def test_only_one_call_comes_when_not_parallel():
    calls = (await answer_of(asking("get_weather then get_time", tools=(TIME, WEATHER)))).choices[0].tool_calls

    assert [call.name for call in calls] == ["get_weather"]


@pytest.mark.parametrize(
    ("choice", "names"), [(ToolRequired(), ["get_time"]), (ToolNamed(name="get_weather"), ["get_weather"]), (ToolNone(), [])]
)
async def test_tool_choice_is_kept_when_the_user_names_no_tool(choice, names):
    answer = (await answer_of(asking("hello", tools=(TIME, WEATHER), tool_choice=choice))).choices[0]

    assert [call.name for call in answer.tool_calls] == names
    assert answer.reason == (FinishReason.TOOL_CALLS if names else FinishReason.STOP)


async def test_chat_refuses_when_the_demanded_tool_is_unknown():
    with pytest.raises(ApiError) as caught:
        await events_of(asking(tools=(TIME,), tool_choice=ToolNamed(name="other")))

    assert (caught.value.kind, caught.value.param) == (ErrorKind.INVALID_REQUEST, "tool_choice")


async def test_chat_refuses_when_a_called_tools_schema_has_no_instance():
    with pytest.raises(ApiError) as caught:
        await events_of(asking(tools=(ToolSpec(name="f", parameters=b'{"not":{}}'),), tool_choice=ToolRequired()))

    assert caught.value.kind == ErrorKind.INVALID_REQUEST


async def test_call_comes_in_pieces_when_streamed():
    events = await events_of(asking(tools=(WEATHER,), tool_choice=ToolRequired()))

    deltas = [event for event in events if isinstance(event, ToolCallDelta)]
    assert [bool(delta.id and delta.name) for delta in deltas] == [True] + [False] * (len(deltas) - 1)
    assert len(deltas) > 3


async def test_call_is_cut_when_the_limit_comes_first():
    answer = await answer_of(asking(tools=(WEATHER,), tool_choice=ToolRequired(), max_output_tokens=3))

    assert (answer.choices[0].reason, answer.usage.output_tokens) == (FinishReason.LENGTH, 3)


async def test_tool_results_are_quoted_when_they_end_the_history():
    messages = (
        user("get_weather and get_time"),
        Message(
            role=Role.ASSISTANT,
            tool_calls=tuple(ToolCall(id=i, name=n, arguments="{}") for i, n in (("a", "get_weather"), ("b", "get_time"))),
        ),
        Message(role=Role.TOOL, content=(TextPart(text="22 °C"),), tool_call_id="a"),
        Message(role=Role.TOOL, content=(TextPart(text="noon"),), tool_call_id="b"),
    )

    choice = (await answer_of(asking(messages=messages, tools=(WEATHER, TIME)))).choices[0]

    assert (choice.text, choice.tool_calls) == ("Echo: get_weather returned 22 °C; get_time returned noon", ())


async def test_json_object_is_an_object_with_the_text():
    greedy = await text_of(asking('say "hi"', response_format=JsonObject()))
    drawn = await text_of(asking("x", response_format=JsonObject(), sampling=Sampling(temperature=1.0, seed=1)))

    assert json.loads(greedy) == {"echo": 'say "hi"'}
    assert sorted(json.loads(drawn)) == ["echo", "variant"]


async def test_json_schema_is_an_instance():
    schema = msgspec.json.encode({"type": "object", "properties": {"n": {"type": "integer", "minimum": 4}}, "required": ["n"]})

    assert json.loads(await text_of(asking(response_format=JsonSchema(schema=schema)))) == {"n": 4}


async def test_thinking_comes_first_and_keeps_its_budget_when_enabled():
    free = await events_of(asking(thinking=Thinking(is_enabled=True)))
    bound = await answer_of(asking(thinking=Thinking(is_enabled=True, budget_tokens=5)))

    kinds = [type(event) for event in free if isinstance(event, ReasoningDelta | TextDelta)]
    assert kinds == sorted(kinds, key=lambda kind: kind is TextDelta)
    assert "hello there" in fold(free).choices[0].reasoning
    assert bound.usage.reasoning_tokens == 5
    assert bound.choices[0].text == "Echo: hello there"


async def test_thinking_takes_of_the_limit_when_it_is_small():
    answer = await answer_of(asking(thinking=Thinking(is_enabled=True), max_output_tokens=4))

    assert (answer.choices[0].text, answer.choices[0].reason, answer.usage.reasoning_tokens) == ("", FinishReason.LENGTH, 4)


async def test_reasoning_tokens_are_unknown_when_nothing_thinks():
    assert (await answer_of(asking())).usage.reasoning_tokens is None


async def test_partial_turn_is_continued():
    partial = Message(role=Role.ASSISTANT, content=(TextPart(text="You wrote"),), is_partial=True)

    assert await text_of(asking(messages=(user("hello"), partial))) == " hello"


async def test_partial_turn_is_refused_when_json_is_wanted():
    begun = Message(role=Role.ASSISTANT, content=(TextPart(text='{"echo":'),), is_partial=True)

    with pytest.raises(ApiError) as caught:
        await events_of(asking(messages=(user("hello"), begun), response_format=JsonObject()))

    assert (caught.value.kind, caught.value.param) == (ErrorKind.INVALID_REQUEST, "response_format")


async def test_context_is_kept_to_exactly():
    request = asking("a " * 80)
    size = await Echo(EchoConfig()).count(request)

    fits = await answer_of(request, config=EchoConfig(context_tokens=size + 1))
    assert (fits.choices[0].reason, fits.usage.output_tokens) == (FinishReason.LENGTH, 1)
    with pytest.raises(ApiError) as caught:
        await events_of(request, config=EchoConfig(context_tokens=size))
    assert (caught.value.kind, caught.value.message) == (ErrorKind.CONTEXT_TOO_LONG, f"Range of input length should be [1, {size - 1}]")


async def test_pictures_are_refused():
    message = Message(role=Role.USER, content=(ImagePart(url="https://example.com/a.png"),))

    with pytest.raises(ApiError) as caught:
        await events_of(asking(messages=(message,)))

    assert caught.value.kind == ErrorKind.INVALID_REQUEST


async def test_complete_echoes_the_last_line_of_the_prompt():
    answer = await answer_of(CompletionRequest(model="m", prompt="first\ndef f():\n\n", stop=("()",)))

    assert (answer.choices[0].text, answer.choices[0].reason) == ("Echo: def f", FinishReason.STOP)


async def test_delays_hold_when_configured():
    started = time.monotonic()
    await events_of(asking(), config=EchoConfig(first_delay_s=0.05, delay_s=0.01))

    assert time.monotonic() - started >= 0.05 + 4 * 0.01


async def test_long_answers_let_others_run():
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        await events_of(asking("word " * 10_000))
        group.cancel_scope.cancel()
    assert ticks > 50


async def test_engine_says_what_it_is():
    engine = Echo(EchoConfig(context_tokens=1_000))

    assert (await engine.health()).state == HealthState.READY
    assert (engine.facts.kind, engine.facts.context_tokens, engine.facts.keeps_seeds) == ("echo", 1_000, True)
    assert engine.capacity.slots is None


def test_config_refuses_unknown_fields():
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"kind":"echo","delay":1}', type=EchoConfig)
