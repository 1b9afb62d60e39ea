"""The anthropic SDK, unmodified, against a box: messages whole and streamed, tools, JSON, errors, counting, models."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pydantic
import pytest

import wire
from boxes import Box

MODEL = "qwen-turbo"
STORY = "Echo: 讲个故事"
ASKED: Any = [{"role": "user", "content": "讲个故事"}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "Weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TIME: Any = {"name": "get_time", "input_schema": {"type": "object", "properties": {}}}
# The SDK has no arguments for these any more.
GREEDY: Any = {"temperature": 0}
MESSAGES = "/apps/anthropic/v1/messages"


def client_of(box: Box, key: str = "") -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key=key or box.key, base_url=f"{box.base_url}/apps/anthropic", max_retries=0)


@pytest.fixture
def client(box: Box) -> Iterator[anthropic.Anthropic]:
    with client_of(box) as opened:
        yield opened


def ask(client: anthropic.Anthropic, messages: Any = ASKED, **more: Any) -> anthropic.types.Message:
    return client.messages.create(**{"model": MODEL, "max_tokens": 200, "messages": messages, "extra_body": GREEDY, **more})


def test_whole_message_has_the_wires_fields(client: anthropic.Anthropic):
    message = ask(client)

    assert (message.type, message.role, message.model, message.stop_reason) == ("message", "assistant", MODEL, "end_turn")
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": STORY}]
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens, message.usage.output_tokens) == (11, 0, 7)
    assert message.id == f"msg_{message._request_id}"


def test_streamed_message_is_the_whole_one(client: anthropic.Anthropic):
    with client.messages.stream(model=MODEL, max_tokens=200, messages=ASKED, extra_body=GREEDY) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()

    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta", "text"}
    # The SDK's accumulator sets stop_details, which a whole message leaves out.
    assert final.to_dict() | {"id": ""} == ask(client).to_dict() | {"id": "", "stop_details": None}


def test_raw_stream_has_one_delta_a_token(client: anthropic.Anthropic):
    events = list(client.messages.create(model=MODEL, max_tokens=200, messages=ASKED, stream=True, extra_body=GREEDY))

    assert [event.delta.text for event in events if event.type == "content_block_delta"] == ["Echo", ":", " ", "讲", "个", "故", "事"]
    assert events[0].message.usage.input_tokens == 11


@pytest.mark.parametrize("is_streamed", [False, True])
def test_tools_go_round(client: anthropic.Anthropic, is_streamed: bool):
    asked: Any = [{"role": "user", "content": "call get_weather and get_time"}]
    if is_streamed:
        with client.messages.stream(model=MODEL, max_tokens=200, messages=asked, tools=[WEATHER, TIME], extra_body=GREEDY) as stream:
            first = stream.get_final_message()
    else:
        first = ask(client, asked, tools=[WEATHER, TIME])
    calls = [block for block in first.content if block.type == "tool_use"]
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": f"it is {call.name}"} for call in calls]
    second = ask(
        client, [*asked, {"role": "assistant", "content": first.content}, {"role": "user", "content": results}], tools=[WEATHER, TIME]
    )

    assert first.stop_reason == "tool_use"
    assert [(call.name, call.input) for call in calls] == [("get_weather", {"city": "echo"}), ("get_time", {})]
    assert (second.content[0].text, second.stop_reason) == (
        "Echo: get_weather returned it is get_weather; get_time returned it is get_time",
        "end_turn",
    )


def test_one_call_at_most_when_parallel_use_is_off(client: anthropic.Anthropic):
    asked: Any = [{"role": "user", "content": "call get_weather and get_time"}]
    message = ask(client, asked, tools=[WEATHER, TIME], tool_choice={"type": "any", "disable_parallel_tool_use": True})
    named = ask(client, tools=[WEATHER, TIME], tool_choice={"type": "tool", "name": "get_time"})
    none = ask(client, asked, tools=[WEATHER], tool_choice={"type": "none"})

    assert [block.type for block in message.content] == ["tool_use"]
    assert (named.content[0].name, named.stop_reason) == ("get_time", "tool_use")
    assert none.content[0].type == "text"


def test_failed_tool_says_so_to_the_model(client: anthropic.Anthropic):
    history: Any = [
        {"role": "user", "content": "call get_weather"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "x"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "no network", "is_error": True}]},
    ]

    assert ask(client, history, tools=[WEATHER]).content[0].text == "Echo: get_weather returned Error: no network"


def test_thinking_comes_first_in_a_block_of_its_own(client: anthropic.Anthropic):
    with client.messages.stream(
        model=MODEL, max_tokens=2000, messages=ASKED, thinking={"type": "enabled", "budget_tokens": 1024}, extra_body=GREEDY
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    going_on = ask(client, [*ASKED, {"role": "assistant", "content": final.content}, {"role": "user", "content": "und?"}])

    assert [block.type for block in final.content] == ["thinking", "text"]
    assert kinds.index("thinking") < kinds.index("text")
    assert final.content[0].thinking.startswith("The user says")
    assert final.usage.output_tokens_details.thinking_tokens > 5
    assert going_on.content[0].text == "Echo: und?"


def test_a_model_that_cannot_think_answers_all_the_same(serve):
    plain = """
[[model]]
name = "plain"
aliases = ["claude-of-ours"]
deployments = ["echo"]
[model.card]
context_tokens = 4096
capabilities = ["chat"]
"""
    with client_of(serve(toml=plain)) as client:
        for thinking in ({"type": "enabled", "budget_tokens": 1024}, {"type": "adaptive"}):
            message = ask(client, model="claude-of-ours", thinking=thinking)
            assert ([block.type for block in message.content], message.model) == (["text"], "claude-of-ours")
        assert client.models.retrieve("claude-of-ours").max_input_tokens == 4095


def test_stop_sequence_is_named(client: anthropic.Anthropic):
    stopped = ask(client, stop_sequences=["never", "故"])
    cut = ask(client, max_tokens=2)

    assert (stopped.content[0].text, stopped.stop_reason, stopped.stop_sequence) == ("Echo: 讲个", "stop_sequence", "故")
    assert (cut.content[0].text, cut.stop_reason, cut.stop_sequence) == ("Echo:", "max_tokens", None)


def test_prefilled_turn_is_continued(client: anthropic.Anthropic):
    assert ask(client, [*ASKED, {"role": "assistant", "content": "Es war"}]).content[0].text == " 讲个故事"


def test_system_is_text_or_blocks(client: anthropic.Anthropic):
    text = client.messages.count_tokens(model=MODEL, messages=ASKED, system="one two\n\nthree")
    blocks = client.messages.count_tokens(
        model=MODEL,
        messages=ASKED,
        system=[{"type": "text", "text": "one two", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "three"}],
    )

    assert text == blocks
    assert text.input_tokens > client.messages.count_tokens(model=MODEL, messages=ASKED).input_tokens


class Fruit(pydantic.BaseModel):
    name: str
    price: float


def test_sdk_parses_an_answer_into_a_model(client: anthropic.Anthropic):
    message = client.messages.parse(model=MODEL, max_tokens=200, messages=ASKED, output_format=Fruit)

    assert isinstance(message.parsed_output, Fruit)


def test_counted_tokens_are_those_of_the_call(client: anthropic.Anthropic):
    history: Any = [
        {"role": "user", "content": [{"type": "text", "text": "天气 in 杭州? 🌦"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "杭州"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "25 °C"}, {"type": "text", "text": "und?"}]},
    ]
    counted = client.messages.count_tokens(model=MODEL, messages=history, tools=[WEATHER], system="Be brief.")
    usage = ask(client, history, tools=[WEATHER], system="Be brief.").usage

    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens


def test_models_are_listed_and_found(catalog_box: Box):
    with client_of(catalog_box) as client:
        listed = list(client.models.list())
        one = client.models.retrieve("qwen-plus")
        with pytest.raises(anthropic.NotFoundError):
            client.models.retrieve("claude-imaginary")

    assert [model.id for model in listed][:3] == ["qwen-turbo", "qwen-plus", "qwen-max"]
    assert (one.id, one.created_at.year) == ("qwen-plus", 2025)
    assert one.max_input_tokens > one.max_tokens > 0


def test_async_client_asks_streams_and_counts(box: Box):
    async def run() -> tuple[str, str, int]:
        async with anthropic.AsyncAnthropic(api_key=box.key, base_url=f"{box.base_url}/apps/anthropic", max_retries=0) as client:
            whole = await client.messages.create(model=MODEL, max_tokens=200, messages=ASKED, extra_body=GREEDY)
            async with client.messages.stream(model=MODEL, max_tokens=200, messages=ASKED, extra_body=GREEDY) as stream:
                streamed = "".join([text async for text in stream.text_stream])
            counted = await client.messages.count_tokens(model=MODEL, messages=ASKED)
        return whole.content[0].text, streamed, counted.input_tokens

    assert asyncio.run(run()) == (STORY, STORY, 11)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"extra_body": {"temperature": 3}}, "temperature: range: 0..2"),
        ({"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
        ({"max_tokens": 20_000}, "Range of max_tokens should be [1, 16384]"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role: 'tool' is not one of"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content: Input should be"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages.0.content.0.type: blocks of type 'video'"),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            "tools.0.type: 'web_search_20250305' is a tool of Anthropic's",
        ),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens: Field required"),
        ({"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "base64", "data": "eA=="}}]}]}, "documents"),
    ],
)
def test_bad_request_names_its_field(client: anthropic.Anthropic, changed: dict[str, Any], told: str):
    with pytest.raises(anthropic.BadRequestError) as caught:
        ask(client, **changed)

    assert told in str(caught.value)
    assert caught.value.body["error"]["type"] == "invalid_request_error"
    assert caught.value.request_id == caught.value.body["request_id"]


def test_documents_and_search_results_that_are_text_are_read(client: anthropic.Anthropic):
    document = {"type": "document", "title": "Plan", "source": {"type": "text", "media_type": "text/plain", "data": "Buy milk."}}
    result = {"type": "search_result", "title": "Milk", "source": "https://example.com", "content": [{"type": "text", "text": "White."}]}

    message = ask(client, [{"role": "user", "content": [document, result, {"type": "text", "text": " Then?"}]}])

    assert message.content[0].text == "Echo: Plan\nBuy milk.Milk (https://example.com)\nWhite. Then?"


def test_picture_is_refused_by_a_model_that_reads_text(client: anthropic.Anthropic):
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}

    with pytest.raises(anthropic.BadRequestError, match="text"):
        ask(client, [{"role": "user", "content": [picture]}])


def test_key_comes_as_x_api_key_or_bearer(box: Box):
    body = {"model": MODEL, "max_tokens": 5, "messages": ASKED}

    by_bearer = wire.post(box, MESSAGES, body)
    by_header = wire.post(box, MESSAGES, body, key=None, headers={"x-api-key": box.key, "anthropic-version": "2023-06-01"})
    without = wire.post(box, MESSAGES, body, key=None)

    assert (by_bearer.status, by_header.status, without.status) == (200, 200, 401)
    assert without.json["error"]["type"] == "authentication_error"


def test_token_variable_of_coding_tools_is_a_key(box: Box, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", f"{box.base_url}/apps/anthropic")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", box.key)

    with anthropic.Anthropic() as client:
        assert ask(client).content[0].text == STORY


def test_lost_client_is_told_the_base_url(box: Box):
    heard = wire.post(box, "/v1/messages", {"model": MODEL, "max_tokens": 5, "messages": ASKED})

    assert heard.status == 404
    assert f"{box.base_url}/apps/anthropic" in json.loads(heard.body)["error"]["message"]
