"""Anthropic's Messages and OpenAI's Responses on real weights: the SDKs stream text and a tool's round trip, and a conversation goes on."""

from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

import boxes
from boxes import Box

pytestmark = pytest.mark.e2e

MODEL = "qwen-turbo"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
QUESTION = "What is the weather in Hangzhou? Use the tool."
RESULT = "Light rain, 21 degrees"
WORDS = "Tell me the weather in one sentence."
# The SDK has no arguments for these any more.
EXACT: Any = {"temperature": 0, "seed": 7}


def messages(box: Box) -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key=box.key, base_url=f"{box.base_url}/apps/anthropic", max_retries=0)


def responses(box: Box) -> openai.OpenAI:
    return openai.OpenAI(api_key=box.key, base_url=box.compatible, max_retries=0)


def test_messages_stream_text_as_counted(weights_box: Box):
    asked: Any = [{"role": "user", "content": "Count from 1 to 5, digits only, separated by commas."}]
    with messages(weights_box) as client:
        counted = client.messages.count_tokens(model=MODEL, messages=asked, system="Be brief.").input_tokens
        with client.messages.stream(model=MODEL, max_tokens=60, messages=asked, system="Be brief.", extra_body=EXACT) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        whole = client.messages.create(model=MODEL, max_tokens=60, messages=asked, system="Be brief.", extra_body=EXACT)
        stopped = client.messages.create(
            model=MODEL, max_tokens=60, messages=asked, system="Be brief.", stop_sequences=["3"], extra_body=EXACT
        )

    print(f"\nmessages: {text!r}, {final.usage}")
    assert text == final.content[0].text == whole.content[0].text
    assert "1" in text and final.stop_reason == "end_turn"
    for usage in (final.usage, whole.usage):
        assert counted == usage.input_tokens + usage.cache_read_input_tokens
    assert "3" in text
    assert (stopped.content[0].text, stopped.stop_reason, stopped.stop_sequence) == (text[: text.index("3")], "stop_sequence", "3")


def test_messages_tools_go_round(weights_box: Box):
    tools: Any = [{"name": "get_weather", "description": "Current weather of a city", "input_schema": CITY}]
    asked: Any = [{"role": "user", "content": QUESTION}]
    with messages(weights_box) as client:
        with client.messages.stream(
            model=MODEL, max_tokens=200, messages=asked, tools=tools, tool_choice={"type": "any"}, extra_body=EXACT
        ) as stream:
            kinds = [event.type for event in stream]
            first = stream.get_final_message()
        call = first.content[-1]
        result: Any = {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": call.id, "content": RESULT}, {"type": "text", "text": WORDS}],
        }
        second = client.messages.create(
            model=MODEL,
            max_tokens=200,
            messages=[*asked, {"role": "assistant", "content": first.content}, result],
            extra_body=EXACT,  # no tools: the smallest weights would ask them once more
        )

    print(f"\nmessages: {call.input}, {second.content[0].text!r}")
    assert (call.type, call.name, set(call.input), first.stop_reason) == ("tool_use", "get_weather", {"city"}, "tool_use")
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == len(first.content)
    assert "rain" in second.content[0].text.lower() or "21" in second.content[0].text


def test_responses_stream_tools_go_round_and_continue_after_a_restart(weights_box: Box, tmp_path: Path):
    tools: Any = [
        {"type": "function", "name": "get_weather", "description": "Current weather of a city", "parameters": CITY, "strict": False}
    ]
    (tmp_path / "weights").symlink_to((weights_box.home / "weights").resolve())
    toml = (weights_box.home / "qwenbox.toml").read_text("utf-8")
    with boxes.serve(tmp_path, profile="laptop", toml=toml, start_s=600) as box, responses(box) as client:
        with client.responses.stream(model=MODEL, input="My name is Xiaoming. Say hello.", temperature=0, extra_body={"seed": 7}) as stream:
            kinds = [event.type for event in stream]
            hello = stream.get_final_response()
        with client.responses.stream(
            model=MODEL,
            input=QUESTION,
            previous_response_id=hello.id,
            tools=tools,
            tool_choice="required",
            temperature=0,
            extra_body={"seed": 7},
        ) as stream:
            asked = stream.get_final_response()
        call = asked.output[-1]
    with boxes.serve(tmp_path, profile="laptop", toml=toml, start_s=600) as box, responses(box) as client:
        told = client.responses.create(
            model=MODEL,
            input=[{"type": "function_call_output", "call_id": call.call_id, "output": RESULT}, {"role": "user", "content": WORDS}],
            previous_response_id=asked.id,
            temperature=0,
            extra_body={"seed": 7},
        )
        named = client.responses.create(
            model=MODEL, input="What is my name?", previous_response_id=told.id, temperature=0, extra_body={"seed": 7}
        )

    print(f"\nresponses: {hello.output_text!r}, {call.arguments}, {told.output_text!r}, {named.output_text!r}")
    assert kinds[:4] == ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"]
    assert kinds[-1] == "response.completed" and hello.output_text
    assert (call.type, call.name) == ("function_call", "get_weather")
    assert "rain" in told.output_text.lower() or "21" in told.output_text
    assert "xiaoming" in named.output_text.lower()
