"""A stop whose JSON does not hold never passes; where nothing was promised nothing is checked."""

from collections.abc import AsyncIterator

import pytest

from qwenbox.gateway.structure import kept
from qwenbox.terms.chat import (
    ChatRequest,
    JsonObject,
    JsonSchema,
    ResponseFormat,
    ToolAuto,
    ToolChoice,
    ToolNamed,
    ToolNone,
    ToolRequired,
    ToolSpec,
)
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, ChoiceFinished, Completed, FinishReason, Started, TextDelta, ToolCallDelta
from qwenbox.terms.usage import Usage

pytestmark = pytest.mark.anyio
TOOL = ToolSpec(name="now", parameters=b'{"type":"object","properties":{"zone":{"type":"string"}},"required":["zone"]}')
SCHEMA = JsonSchema(schema=b'{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}')


async def stream(events: list[ChatEvent]) -> AsyncIterator[ChatEvent]:
    for event in events:
        yield event


def answer(text: str = "", *calls: tuple[str, str], reason: FinishReason = FinishReason.STOP) -> list[ChatEvent]:
    deltas: list[ChatEvent] = [TextDelta(text=char) for char in text]
    for number, (name, arguments) in enumerate(calls):
        deltas += [ToolCallDelta(call=number, id=f"call_{number}", name=name), ToolCallDelta(call=number, arguments=arguments)]
    return [Started(input_tokens=1), *deltas, ChoiceFinished(reason=reason), Completed(usage=Usage(input_tokens=1, output_tokens=1))]


def request(
    form: ResponseFormat | None = None, choice: ToolChoice | None = None, tools: tuple[ToolSpec, ...] = (TOOL,), stop: tuple[str, ...] = ()
) -> ChatRequest:
    plain = ChatRequest(model="m", messages=(), stop=stop)
    return ChatRequest(
        model="m",
        messages=(),
        stop=stop,
        response_format=form or plain.response_format,
        tools=tools if choice is not None else (),
        tool_choice=choice or ToolAuto(),
    )


async def passed(wish: ChatRequest, events: list[ChatEvent]) -> list[ChatEvent]:
    filtered = kept(wish)
    assert filtered is not None
    return [event async for event in filtered(stream(events))]


@pytest.mark.parametrize(
    ("wish", "events"),
    [
        (request(JsonObject()), answer(' {"x": [1]} ')),
        (request(JsonObject()), answer('{"x": [', reason=FinishReason.LENGTH)),
        (request(SCHEMA), answer('{"a": 5}')),
        (request(SCHEMA, ToolAuto()), answer('{"a": 5}')),
        (request(SCHEMA, ToolAuto()), answer("", ("now", '{"zone": "UTC"}'), reason=FinishReason.TOOL_CALLS)),
        (request(choice=ToolAuto()), answer("no call needed")),
        (request(choice=ToolRequired()), answer("", ("now", '{"zone": "UTC"}'), ("now", '{"zone": ""}'), reason=FinishReason.TOOL_CALLS)),
        (request(choice=ToolNamed(name="now")), answer("", ("now", '{"zone": "UTC"}'), reason=FinishReason.STOP)),
    ],
)
async def test_events_pass_unchanged_when_the_promise_holds(wish: ChatRequest, events: list[ChatEvent]) -> None:
    assert events == await passed(wish, events)


@pytest.mark.parametrize(
    ("wish", "events"),
    [
        (request(JsonObject()), answer("[1]")),
        (request(JsonObject()), answer('{"x": ')),
        (request(JsonObject()), answer('{"x": NaN}')),
        (request(SCHEMA), answer('{"a": "5"}')),
        (request(choice=ToolAuto()), answer("", ("now", "{}"), reason=FinishReason.TOOL_CALLS)),
        (request(choice=ToolAuto()), answer("", ("now", '{"zone": "U'), reason=FinishReason.TOOL_CALLS)),
        (request(choice=ToolAuto()), answer("", ("other", "{}"), reason=FinishReason.TOOL_CALLS)),
        (request(choice=ToolRequired()), answer("no")),
        (
            request(choice=ToolNamed(name="now"), tools=(TOOL, ToolSpec(name="else"))),
            answer("", ("else", "{}"), reason=FinishReason.TOOL_CALLS),
        ),
    ],
)
async def test_finish_fails_when_the_promise_is_broken(wish: ChatRequest, events: list[ChatEvent]) -> None:
    with pytest.raises(ApiError) as caught:
        await passed(wish, events)
    assert ErrorKind.ENGINE_FAILED == caught.value.kind


async def test_stop_becomes_length_when_the_callers_own_stop_text_cut_the_json() -> None:
    events = await passed(request(JsonObject(), stop=("}",)), answer('{"x": 1'))
    assert [FinishReason.LENGTH] == [event.reason for event in events if isinstance(event, ChoiceFinished)]


async def test_choices_are_checked_one_by_one_when_there_are_several() -> None:
    events: list[ChatEvent] = [TextDelta(text='{"a":', index=0), TextDelta(text='{"a": 1}', index=1), TextDelta(text=" 2}", index=0)]
    finishes: list[ChatEvent] = [ChoiceFinished(reason=FinishReason.STOP, index=1), ChoiceFinished(reason=FinishReason.STOP, index=0)]
    assert [*events, *finishes] == await passed(request(SCHEMA), [*events, *finishes])


async def test_kept_is_none_when_nothing_was_promised() -> None:
    assert kept(request()) is None
    assert kept(request(choice=ToolNone())) is None


async def test_kept_refuses_when_the_schema_cannot_be_used() -> None:
    with pytest.raises(ApiError) as caught:
        kept(request(JsonSchema(schema=b'{"$ref": "http://example.com/x"}')))
    assert ErrorKind.INVALID_REQUEST == caught.value.kind
