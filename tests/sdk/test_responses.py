"""The openai SDK's Responses, unmodified, against a box: whole and streamed, tools, JSON, stored and continued, errors."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest

import boxes
import wire
from boxes import Box
from sdk import forms

MODEL = "qwen-turbo"
STORY = "Echo: 讲个故事"
ASKED = "讲个故事"
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False},
    "strict": True,
}
TIME: Any = {"type": "function", "name": "get_time", "parameters": {"type": "object", "properties": {}}, "strict": False}
RESPONSES = "/compatible-mode/v1/responses"


@pytest.fixture
def client(box: Box) -> Iterator[openai.OpenAI]:
    with forms.openai_client(box) as opened:
        yield opened


def ask(client: openai.OpenAI, asked: Any = ASKED, **more: Any) -> Any:
    return client.responses.create(**{"model": MODEL, "input": asked, "temperature": 0, **more})


def test_whole_response_has_the_wires_fields(client: openai.OpenAI):
    response = ask(client, instructions="Be brief.", metadata={"a": "b"}, max_output_tokens=100)

    assert (response.object, response.status, response.model, response.error) == ("response", "completed", MODEL, None)
    assert (response.output_text, response.instructions, response.metadata) == (STORY, "Be brief.", {"a": "b"})
    assert (response.temperature, response.max_output_tokens, response.store, response.truncation) == (0, 100, True, "disabled")
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert response.id == f"resp_{response._request_id}"


def test_stream_keeps_the_order_and_counts_its_events(client: openai.OpenAI):
    events = list(ask(client, stream=True))

    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert kinds[4:-4] == ["output_text.delta"] * 7
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "completed"]
    assert "".join(event.delta for event in events[4:-4]) == events[-4].text == events[-1].response.output_text == STORY
    assert events[0].response.status == events[1].response.status == "in_progress"


def test_sdk_gathers_a_stream_into_the_whole_response(client: openai.OpenAI):
    tools: Any = [WEATHER, TIME]
    asked: Any = {
        "model": MODEL,
        "input": "call get_weather and get_time",
        "temperature": 0,
        "tools": tools,
        "reasoning": {"effort": "low"},
    }
    with client.responses.stream(**asked) as stream:
        kinds = [event.type.removeprefix("response.") for event in stream]
        final = stream.get_final_response()
    whole = client.responses.create(**asked)

    assert [item.type for item in final.output] == ["reasoning", "function_call", "function_call"]
    assert kinds[2:4] == ["output_item.added", "reasoning_summary_part.added"]
    first = kinds.index("function_call_arguments.delta")
    assert (
        kinds[first - 5 : first]
        == [
            "reasoning_summary_text.done",
            "reasoning_summary_part.done",
            "output_item.done",
            "output_item.added",
        ]
        or kinds[first - 1] == "output_item.added"
    )
    assert kinds[-3:] == ["function_call_arguments.done", "output_item.done", "completed"]

    def shown(response: Any) -> Any:
        fields = {"id", "parsed_arguments", "parsed"}
        return [{name: value for name, value in item.to_dict().items() if name not in fields} for item in response.output]

    assert shown(final) == shown(whole)


def test_tools_go_round_without_storing(client: openai.OpenAI):
    asked: Any = [{"role": "user", "content": "call get_weather and get_time"}]
    first = ask(client, asked, tools=[WEATHER, TIME], store=False)
    calls = [item for item in first.output if item.type == "function_call"]
    outputs = [{"type": "function_call_output", "call_id": call.call_id, "output": f"it is {call.name}"} for call in calls]
    second = ask(client, [*asked, *first.output, *outputs], tools=[WEATHER, TIME], store=False)

    assert [(call.name, json.loads(call.arguments)) for call in calls] == [("get_weather", {"city": "echo"}), ("get_time", {})]
    assert second.output_text == "Echo: get_weather returned it is get_weather; get_time returned it is get_time"
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


def test_response_is_continued_by_its_id(client: openai.OpenAI):
    first = ask(client, "call get_weather", tools=[WEATHER], instructions="Not carried over.")
    call = first.output[0]
    second = ask(
        client,
        [{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}],
        previous_response_id=first.id,
        tools=[WEATHER],
    )
    third = ask(client, "und?", previous_response_id=second.id)
    same = ask(
        client,
        [
            {"role": "user", "content": "call get_weather"},
            {"type": "function_call", "call_id": call.call_id, "name": "get_weather", "arguments": call.arguments},
            {"type": "function_call_output", "call_id": call.call_id, "output": "rain"},
            {"role": "assistant", "content": second.output_text},
            {"role": "user", "content": [{"type": "input_text", "text": "und?"}]},
        ],
        store=False,
    )

    assert (second.output_text, second.previous_response_id) == ("Echo: get_weather returned rain", first.id)
    assert third.output_text == "Echo: und?"
    assert third.usage.input_tokens == same.usage.input_tokens


def test_streamed_response_is_stored_too(client: openai.OpenAI):
    with client.responses.stream(model=MODEL, input="one", temperature=0) as stream:
        first = stream.get_final_response()

    assert client.responses.retrieve(first.id).output_text == "Echo: one"
    assert ask(client, "two", previous_response_id=first.id).usage.input_tokens > first.usage.input_tokens


def test_stored_response_is_shown_with_its_input_and_deleted(client: openai.OpenAI):
    stored = ask(client, [{"role": "user", "content": str(number)} for number in range(5)])
    again = client.responses.retrieve(stored.id)
    pages = client.responses.input_items.list(stored.id, limit=2, order="asc")
    texts = [item.content[0].text for item in pages]
    client.responses.delete(stored.id)

    assert again.to_dict() == stored.to_dict()
    assert texts == ["0", "1", "2", "3", "4"]
    assert [item.content[0].text for item in pages.data] == ["0", "1"]
    for gone in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list):
        with pytest.raises(openai.NotFoundError):
            gone(stored.id)
    with pytest.raises(openai.BadRequestError, match="not found"):
        ask(client, previous_response_id=stored.id)


def test_deleted_turn_breaks_its_chain(client: openai.OpenAI):
    first = ask(client)
    second = ask(client, previous_response_id=first.id)
    client.responses.delete(first.id)

    assert client.responses.retrieve(second.id).output_text == STORY
    with pytest.raises(openai.BadRequestError, match="deleted"):
        ask(client, previous_response_id=second.id)


def test_conversation_goes_on_after_a_restart(tmp_path: Path):
    with boxes.serve(tmp_path) as box, forms.openai_client(box) as client:
        first = ask(client, "one")
    with boxes.serve(tmp_path) as box, forms.openai_client(box) as client:
        second = ask(client, "two", previous_response_id=first.id)

        assert second.usage.input_tokens > first.usage.input_tokens
        assert second.previous_response_id == first.id
        assert client.responses.retrieve(first.id).output_text == "Echo: one"


def test_box_that_stores_nothing_says_so(serve):
    box = serve(toml="[conversations]\nenabled = false\n")
    with forms.openai_client(box) as client:
        response = ask(client)

        assert (response.output_text, response.store) == (STORY, False)
        for more in ({"store": True}, {"previous_response_id": response.id}):
            with pytest.raises(openai.BadRequestError, match="stores no responses"):
                ask(client, **more)


def test_cut_answer_is_incomplete(client: openai.OpenAI):
    cut = ask(client, max_output_tokens=2)
    events = list(ask(client, max_output_tokens=2, stream=True))

    assert (cut.status, cut.incomplete_details.reason, cut.output_text) == ("incomplete", "max_output_tokens", "Echo:")
    assert (events[-1].type, events[-1].response.output[0].status) == ("response.incomplete", "incomplete")


class Fruit(pydantic.BaseModel):
    name: str
    price: float


def test_sdk_parses_an_answer_into_a_model(client: openai.OpenAI):
    parsed = client.responses.parse(model=MODEL, input=ASKED, text_format=Fruit)

    assert isinstance(parsed.output_parsed, Fruit)
    assert json.loads(ask(client, text={"format": {"type": "json_object"}}).output_text) == {"echo": ASKED}


def test_thinking_is_switched_by_effort_or_by_its_own_name(client: openai.OpenAI):
    kinds = [
        [item.type for item in ask(client, **more).output]
        for more in ({"reasoning": {"effort": "high"}}, {"reasoning": {"effort": "none"}}, {"extra_body": {"enable_thinking": True}})
    ]

    assert kinds == [["reasoning", "message"], ["message"], ["reasoning", "message"]]


def test_counted_tokens_are_those_of_the_call(client: openai.OpenAI):
    first = ask(client)
    asked: Any = {"model": MODEL, "input": "天气 in 杭州? 🌦", "tools": [WEATHER], "previous_response_id": first.id}

    counted = client.responses.input_tokens.count(**asked)

    assert counted.input_tokens == client.responses.create(**asked).usage.input_tokens


def test_old_turns_are_left_out_when_truncation_is_automatic(serve):
    small = """
[[model]]
name = "small"
deployments = ["echo"]
[model.card]
context_tokens = 400
capabilities = ["chat"]
"""
    turns: Any = [{"role": ("user", "assistant")[number % 2], "content": f"turn {number} " * 10} for number in range(41)]
    with forms.openai_client(serve(toml=small)) as client:
        with pytest.raises(openai.BadRequestError, match="input length"):
            ask(client, turns, model="small")
        response = ask(client, turns, model="small", truncation="auto")

    assert response.output_text.startswith("Echo: turn 40")
    assert response.usage.input_tokens <= 300


def test_async_client_asks_streams_and_continues(box: Box):
    async def run() -> tuple[str, str, str]:
        async with forms.openai_async_client(box) as client:
            whole = await client.responses.create(model=MODEL, input=ASKED, temperature=0)
            async with client.responses.stream(model=MODEL, input="more", previous_response_id=whole.id, temperature=0) as stream:
                streamed = "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])
            return whole.output_text, streamed, (await client.responses.retrieve(whole.id)).output_text

    assert asyncio.run(run()) == (STORY, "Echo: more", STORY)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"temperature": 3}, "Temperature should be in"),
        ({"max_output_tokens": 0}, "Range of max_output_tokens"),
        ({"input": []}, "Field required: input"),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "items of type 'web_search_call'"),
        ({"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}, "No tool call found"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}]}, "content of type 'input_file'"),
        ({"tools": [{"type": "web_search"}]}, "'web_search' is a tool this box does not have"),
        ({"tools": [{"type": "function", "name": "a b", "parameters": None, "strict": None}]}, "is not a tool name"),
        ({"tool_choice": "required"}, "there are no tools"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"reasoning": {"effort": "enormous"}}, "reasoning.effort"),
        ({"truncation": "maybe"}, "truncation"),
        ({"background": True}, "background is not supported"),
        ({"conversation": "conv_1"}, "conversation is not supported"),
        ({"previous_response_id": "resp_nobody"}, "Previous response with id 'resp_nobody' not found"),
        ({"metadata": {"a": "b" * 600}}, "metadata"),
        ({"top_logprobs": 3}, "logprobs"),
    ],
)
def test_bad_request_names_its_field(client: openai.OpenAI, changed: dict[str, Any], told: str):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **changed)

    assert told in str(caught.value)
    assert caught.value.param


def test_picture_is_refused_by_a_model_that_reads_text(client: openai.OpenAI):
    picture = {"type": "input_image", "image_url": "data:image/png;base64,aGk=", "detail": "auto"}

    with pytest.raises(openai.BadRequestError, match="text"):
        ask(client, [{"role": "user", "content": [picture]}])


def test_first_path_of_the_service_is_the_same(box: Box):
    heard = wire.post(box, "/api/v2/apps/protocols/compatible-mode/v1/responses", {"model": MODEL, "input": "hi"})

    assert (heard.status, heard.json["status"]) == (200, "completed")
