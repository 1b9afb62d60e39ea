"""What the SDK does not show of Responses: any answer adds up, any body is read or refused, turns are put together."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract import strategies
from qwenbox.dialects import sse
from qwenbox.dialects.base import ParsedResponse, WireRequest
from qwenbox.dialects.openai.responses.parse import Draft
from qwenbox.terms.caller import Compat
from qwenbox.terms.chat import Message, Role, ToolCall
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Completed, ToolCallDelta

FULL = msgspec.json.encode(
    {
        "model": "m",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "call get_weather"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "a tool"}]},
            {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"city": "x"}'},
            {"type": "function_call_output", "call_id": "call_1", "output": [{"type": "input_text", "text": "rain"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Rain."}]},
            {"role": "user", "content": "and tomorrow?"},
        ],
        "instructions": "be brief",
        "tools": [{"type": "function", "name": "get_weather", "parameters": {"type": "object"}, "strict": True}],
        "tool_choice": {"type": "function", "name": "get_weather"},
        "text": {"format": {"type": "json_schema", "name": "s", "schema": {"type": "object"}}},
        "reasoning": {"effort": "low"},
        "metadata": {"a": "b"},
        "temperature": 0.5,
        "truncation": "auto",
        "stream": True,
    }
)


def wire(body: bytes | dict[str, Any]) -> WireRequest:
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return WireRequest(id="1-2-3", method="POST", path="/v1/responses", received_at=5.5, body=data)


def parse(body: bytes | dict[str, Any], turns: tuple[tuple[bytes, bytes], ...] = ()) -> ParsedResponse:
    return Draft(wire(body), Compat.DOCUMENTED).join(turns, is_stored=True)


def whole(events: list[ChatEvent]) -> dict[str, Any]:
    reply = parse({"model": "m", "input": "hi"}).reply
    return json.loads(b"".join([reply.event(event) for event in events]))


def streamed(events: list[ChatEvent]) -> list[dict[str, Any]]:
    reply = parse({"model": "m", "input": "hi", "stream": True}).reply
    frames = sse.Frames().feed(b"".join([reply.event(event) for event in events]))
    told = [json.loads(frame.data) for frame in frames]
    assert [frame.event for frame in frames] == [event["type"] for event in told]
    return told


def gathered(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items a client makes of the deltas alone."""
    items: list[dict[str, Any]] = []
    for event in told:
        match event["type"]:
            case "response.output_item.added":
                assert len(items) == event["output_index"]
                items.append({"type": event["item"]["type"], "id": event["item"]["id"], "said": ""})
            case "response.output_text.delta" | "response.reasoning_summary_text.delta" | "response.function_call_arguments.delta":
                assert items[event["output_index"]]["id"] == event["item_id"]
                items[event["output_index"]]["said"] += event["delta"]
            case _:
                pass
    return items


def said(item: dict[str, Any]) -> str:
    if item["type"] == "function_call":
        return item["arguments"]
    return "".join(part["text"] for part in item.get("content") or item.get("summary") or [])


@settings(max_examples=150, deadline=None)
@given(events=strategies.answers(1, None))
def test_any_answer_adds_up_to_the_same_streamed_and_whole(events: list[ChatEvent]) -> None:
    told, response = streamed(events), whole(events)

    assert list(range(len(told))) == [event["sequence_number"] for event in told]
    assert response["output"] == told[-1]["response"]["output"]
    assert [(item["type"], item["id"], said(item)) for item in response["output"]] == [
        (item["type"], item["id"], item["said"]) for item in gathered(told)
    ]
    added, done = ([event for event in told if event["type"] == f"response.output_item.{what}"] for what in ("added", "done"))
    assert [event["item"] for event in done] == response["output"]
    assert len(added) == len(done)
    *before, last = [item["status"] for item in response["output"]]
    assert set(before) <= {"completed"}
    assert response["status"] == last


def test_interrupted_call_is_whole_in_the_end() -> None:
    pieces = [(0, "a", '{"x":'), (1, "b", '{"y":'), (0, "", " 1}"), (1, "", " 2}")]
    calls = [ToolCallDelta(call=call, id=name and f"id_{name}", name=name, arguments=text) for call, name, text in pieces]
    finish = [event for event in _ENDED if not isinstance(event, ToolCallDelta)]

    response = whole([_STARTED, *calls, *finish])
    told = streamed([_STARTED, *calls, *finish])

    assert [('{"x": 1}'), ('{"y": 2}')] == [item["arguments"] for item in response["output"]]
    assert [('{"x": 1}'), ('{"y": 2}')] == [item["said"] for item in gathered(told)]


@settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(body=strategies.mutations(FULL))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    try:
        parsed = parse(body)
    except ApiError as error:
        assert ErrorKind.INVALID_REQUEST is error.kind
        for leak in ("msgspec", "Expected `", "$.", "Traceback", "codec"):
            assert leak not in error.message
    else:
        assert parsed.request.messages


def test_what_an_assistant_did_in_one_go_is_one_turn() -> None:
    messages = parse(FULL).request.messages

    assert [Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.TOOL, Role.ASSISTANT, Role.USER] == [message.role for message in messages]
    turn = messages[2]
    assert ("a tool", (ToolCall(id="call_1", name="get_weather", arguments='{"city": "x"}'),)) == (turn.reasoning, turn.tool_calls)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_stored_turn_reads_as_if_it_were_sent(data: st.DataObject) -> None:
    """What is recorded, joined to a new request, means the same as all items sent at once."""
    events = data.draw(strategies.answers(1, None))
    reply = parse({"model": "m", "input": "first"}).reply
    for event in events[:-1]:
        reply.event(event)
    completed = events[-1]
    assert isinstance(completed, Completed)
    turn = reply.record(completed)
    response = json.loads(reply.event(completed))
    assert response == json.loads(turn.response)
    try:
        joined = parse({"model": "m", "input": "second"}, ((turn.input, turn.response),)).request
    except ApiError as error:
        # Arguments that are no JSON object: an engine of ours never says such.
        assert "arguments" in error.message
        return
    sent = parse(
        {"model": "m", "input": [{"role": "user", "content": "first"}, *response["output"], {"role": "user", "content": "second"}]}
    )

    assert sent.request.messages == joined.messages
    assert [Role.USER, Role.USER] == [_first(joined.messages), joined.messages[-1].role]


def test_bytes_that_are_no_text_are_refused_wherever_they_stand() -> None:
    body = b'{"model": "m", "input": "hi", "text": {"format": {"type": "text", "schema": {"a": "\xe6 "}}}}'

    with pytest.raises(ApiError, match="UTF-8"):
        parse(body)


@pytest.mark.parametrize("name", ["background", "conversation", "prompt"])
def test_null_is_as_good_as_absent(name: str) -> None:
    assert parse({"model": "m", "input": "hi", name: None}).request.messages


def _first(messages: tuple[Message, ...]) -> Role:
    return messages[0].role


_EVENTS = msgspec.json.Decoder(list[ChatEvent])
_STARTED, *_ENDED = _EVENTS.decode(
    b'[{"type":"started","input_tokens":1},{"type":"finished","reason":"tool_calls"},'
    b'{"type":"completed","usage":{"input_tokens":1,"output_tokens":2}}]'
)
