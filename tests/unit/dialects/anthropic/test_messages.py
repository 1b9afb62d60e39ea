"""What the SDK does not show of Anthropic's Messages: any answer adds up, any body is read or refused, turns come apart in order."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from contract import strategies
from qwenbox.dialects import sse
from qwenbox.dialects.anthropic import parse
from qwenbox.dialects.base import Parsed, WireRequest
from qwenbox.terms.caller import Compat
from qwenbox.terms.chat import ChatRequest, Role
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent

FULL = msgspec.json.encode(
    {
        "model": "m",
        "max_tokens": 9,
        "system": [{"type": "text", "text": "be brief"}],
        "messages": [
            {"role": "user", "content": "call both"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "two tools", "signature": "s"},
                    {"type": "redacted_thinking", "data": "x"},
                    {"type": "text", "text": "I will."},
                    {"type": "tool_use", "id": "t1", "name": "a", "input": {"x": 1}},
                    {"type": "tool_use", "id": "t2", "name": "b", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": "one"},
                    {"type": "tool_result", "tool_use_id": "t2", "content": [{"type": "text", "text": "two"}], "is_error": True},
                    {"type": "text", "text": "so?"},
                ],
            },
        ],
        "tools": [{"name": "a", "input_schema": {"type": "object"}}, {"name": "b", "type": "custom", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "tool", "name": "a"},
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}},
    }
)


def read(body: bytes | dict[str, Any]) -> Parsed[ChatRequest]:
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return parse.chat(WireRequest(id="1-2-3", method="POST", path="/v1/messages", received_at=5.5, body=data), Compat.DOCUMENTED)


def small(**more: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], **more}


def said(events: list[ChatEvent], **more: Any) -> bytes:
    reply = read(small(**more)).reply
    return b"".join([reply.event(event) for event in events])


def gathered(stream: bytes) -> dict[str, Any]:
    """The message a client builds of the events."""
    message: dict[str, Any] = {}
    text: list[str] = []
    for frame in sse.Frames().feed(stream):
        event = json.loads(frame.data)
        assert frame.event == event["type"]
        match event["type"]:
            case "message_start":
                message = event["message"]
            case "content_block_start":
                assert event["index"] == len(message["content"])
                message["content"].append(event["content_block"])
                text = []
            case "content_block_delta":
                text.append(next(value for name, value in event["delta"].items() if name != "type"))
            case "content_block_stop":
                block = message["content"][event["index"]]
                _fill(block, "".join(text))
            case "message_delta":
                message |= event["delta"] | {"usage": event["usage"]}
            case _:
                pass
    return message


def _fill(block: dict[str, Any], text: str) -> None:
    if block["type"] != "tool_use":
        block[block["type"]] = text
        return
    try:
        value = json.loads(text or "{}")
    except ValueError:
        value = {}
    block["input"] = value if isinstance(value, dict) else {}


@settings(max_examples=150, deadline=None)
@given(events=strategies.answers(1, None))
def test_any_answer_adds_up_to_the_same_streamed_and_whole(events: list[ChatEvent]) -> None:
    stream = said(events, stream=True)

    assert stream.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
    assert json.loads(said(events)) == gathered(stream)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(body=strategies.mutations(FULL))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    try:
        assert read(body).request.messages
    except ApiError as error:
        assert ErrorKind.INVALID_REQUEST is error.kind
        for leak in ("msgspec", "Expected `", "$.", "Traceback", "codec"):
            assert leak not in error.message


def test_bytes_that_are_no_text_are_refused_wherever_they_stand() -> None:
    with pytest.raises(ApiError, match="UTF-8"):
        read(FULL.replace(b'"x":1', b'"x":"\xe6 "'))


def test_turns_come_apart_in_order() -> None:
    system, user, assistant, one, two, rest = read(FULL).request.messages

    assert ["be brief", "call both", "I will.", "one", "Error: two", "so?"] == [
        message.text for message in (system, user, assistant, one, two, rest)
    ]
    assert ("two tools", ["t1", "t2"], "t1", "t2") == (
        assistant.reasoning,
        [call.id for call in assistant.tool_calls],
        one.tool_call_id,
        two.tool_call_id,
    )
    assert (Role.TOOL, Role.TOOL, Role.USER) == (one.role, two.role, rest.role)


def test_thinking_is_a_leave_and_effort_its_budget() -> None:
    thinking = read(FULL).request.thinking

    assert (True, True, 4096) == (thinking.is_enabled, thinking.is_optional, thinking.budget_tokens)
