"""The client's half: what we say is what we would understand, and what we hear is what we would write."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenbox.dialects.base import WireRequest
from qwenbox.dialects.dashscope import parse, speak
from qwenbox.dialects.dashscope.render import Manner, Shape, StreamReply
from qwenbox.terms.caller import Compat
from qwenbox.terms.chat import (
    AnyText,
    ChatRequest,
    ImagePart,
    JsonObject,
    JsonSchema,
    Message,
    Role,
    Sampling,
    TextPart,
    Thinking,
    ToolAuto,
    ToolCall,
    ToolNamed,
    ToolNone,
    ToolRequired,
    ToolSpec,
)
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import (
    ChatEvent,
    ChoiceFinished,
    Completed,
    FinishReason,
    ReasoningDelta,
    Started,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
)
from qwenbox.terms.usage import Usage

texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
finite = st.floats(allow_nan=False, allow_infinity=False)
CALL = ToolCall(id="c1", name="now", arguments='{"a": "\\n"}')
DIALOGUE = (
    Message(role=Role.USER, content=(TextPart(text="time?"),), name="me"),
    Message(role=Role.ASSISTANT, tool_calls=(CALL,), reasoning="hm"),
    Message(role=Role.TOOL, content=(TextPart(text="noon"),), tool_call_id="c1", name="now"),
)


@st.composite
def requests(draw: st.DrawFn) -> ChatRequest:
    picture = st.builds(ImagePart, url=st.just("https://example.com/a.jpg"))
    parts = st.one_of(st.tuples(st.builds(TextPart, text=texts)), st.tuples(picture, st.builds(TextPart, text=texts)))
    tools = draw(st.sampled_from([(), (ToolSpec(name="now", description="d", parameters=b'{"type": "object"}'), ToolSpec(name="b"))]))
    choices = [ToolAuto(), ToolNone(), *([ToolRequired(), ToolNamed(name="b")] if tools else [])]
    is_stop_text = draw(st.booleans())
    return ChatRequest(
        model="m",
        messages=(
            *draw(st.sampled_from([(), DIALOGUE])),
            Message(role=Role.USER, content=draw(parts)),
            *draw(st.sampled_from([(), (Message(role=Role.ASSISTANT, content=(TextPart(text="So"),), is_partial=True),)])),
        ),
        sampling=Sampling(
            temperature=draw(st.none() | st.floats(0, 2)),
            top_p=draw(st.none() | st.floats(0, 1)),
            top_k=draw(st.none() | st.integers(0, 100)),
            presence_penalty=draw(st.none() | st.floats(-2, 2)),
            frequency_penalty=draw(st.none() | st.floats(-2, 2)),
            repetition_penalty=draw(st.none() | st.floats(0.1, 3)),
            seed=draw(st.none() | st.integers(0, 2**63 - 1)),
        ),
        max_output_tokens=draw(st.none() | st.integers(1, 9999)),
        stop=tuple(draw(st.lists(texts, max_size=2))) if is_stop_text else (),
        stop_tokens=() if is_stop_text else tuple(draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=2))),
        n=1 if tools else draw(st.integers(1, 4)),
        top_logprobs=draw(st.none() | st.integers(0, 5)),
        tools=tools,
        tool_choice=draw(st.sampled_from(choices)),
        is_parallel_tool_calls=draw(st.booleans()),
        response_format=draw(st.sampled_from([AnyText(), JsonObject(), JsonSchema(name="s", schema=b'{"a":1}'), JsonSchema(schema=b"{}")])),
        thinking=Thinking(is_enabled=draw(st.none() | st.booleans()), budget_tokens=draw(st.none() | st.integers(1, 99))),
    )


@given(requests())
def test_spoken_request_means_the_same_when_parsed(request: ChatRequest) -> None:
    sent = WireRequest(
        id="id",
        method="POST",
        path="/api/v1" + speak.path(request),
        received_at=0.0,
        headers=speak.headers("sk-1"),
        body=speak.chat(request, "m"),
    )
    parsed = parse.chat(sent, Compat.DOCUMENTED)
    assert request == parsed.request
    assert isinstance(parsed.reply, StreamReply)
    assert {} == parsed.reply.head.headers


def test_spoken_body_is_what_the_service_documents() -> None:
    request = ChatRequest(model="ours", messages=(Message(role=Role.USER, content=(TextPart(text="hi"),)),), sampling=Sampling(top_k=0))
    assert {
        "model": "theirs",
        "input": {"messages": [{"role": "user", "content": "hi"}]},
        "parameters": {"result_format": "message", "incremental_output": True, "top_k": None},
    } == msgspec.json.decode(speak.chat(request, "theirs"))
    assert "/services/aigc/text-generation/generation" == speak.path(request)
    assert "Bearer k" == speak.headers("k")["authorization"]
    assert "authorization" not in speak.headers(None)


@st.composite
def answers(draw: st.DrawFn) -> list[ChatEvent]:
    """Events of one or two choices, their tokens adding up to the usage."""
    n = draw(st.integers(1, 2))
    token = st.builds(TokenLogprob, text=texts, raw=st.binary(max_size=4), logprob=finite)
    scored = st.builds(TokenLogprob, text=texts, raw=st.binary(max_size=4), logprob=finite, rivals=st.tuples(token))
    tokens = st.integers(0, 3)
    events: list[ChatEvent] = [Started(input_tokens=draw(tokens), cached_tokens=draw(st.none() | tokens))]
    thought = 0
    for index in range(n):
        for text in draw(st.lists(texts, max_size=2)):
            events.append(ReasoningDelta(text=text, index=index, tokens=draw(st.integers(1, 3))))
            thought += events[-1].tokens
        for text, logprobs in draw(st.lists(st.tuples(texts, st.lists(scored, max_size=1)), max_size=3)):
            events += [TextDelta(text=text, index=index, tokens=draw(tokens), logprobs=tuple(logprobs))]
        calls = draw(st.integers(0, 2))
        for call in range(calls):
            events.append(ToolCallDelta(call=call, id=f"c{call}", name="now", arguments="", index=index, tokens=draw(tokens)))
            events.append(ToolCallDelta(call=call, arguments='{"a":"\\n"}', index=index, tokens=draw(tokens)))
        reason = FinishReason.TOOL_CALLS if calls else draw(st.sampled_from([FinishReason.STOP, FinishReason.LENGTH]))
        events.append(ChoiceFinished(reason=reason, index=index, tokens=draw(tokens)))
    spent = sum(event.tokens for event in events[1:])
    usage = Usage(
        input_tokens=events[0].input_tokens, output_tokens=spent, cached_tokens=events[0].cached_tokens, reasoning_tokens=thought or None
    )
    return [*events, Completed(usage=usage)]


def rendered(events: list[ChatEvent], *, is_forced: bool = False) -> tuple[bytes, int]:
    n = sum(isinstance(event, ChoiceFinished) for event in events)
    reply = StreamReply("id", Manner(shape=Shape.MESSAGE, n=n, is_call_forced=is_forced))
    return reply.heartbeat() + b"".join(reply.event(event) for event in events), n


@given(answers(), st.booleans(), st.integers(1, 40))
def test_heard_stream_is_what_was_rendered_however_it_is_cut(events: list[ChatEvent], is_forced: bool, size: int) -> None:
    data, n = rendered(events, is_forced=is_forced)
    listener = speak.Listener(n)
    heard = [event for at in range(0, len(data), size) for event in listener.feed(data[at : at + size])]
    assert events == heard + listener.finish()


def test_listener_refuses_a_stream_that_breaks_off() -> None:
    data, _ = rendered([Started(input_tokens=1), TextDelta(text="a")])
    listener = speak.Listener()
    assert [Started(input_tokens=1), TextDelta(text="a")] == listener.feed(data)
    with pytest.raises(ApiError, match="ended its stream before"):
        listener.finish()


@pytest.mark.parametrize("data", [b"data:[]\n\n", b"data:{\n\n", b'data:{"output":5}\n\n', b"data:\xff\n\n", b"data:[DONE]\n\n"])
def test_listener_refuses_what_is_not_this_wire(data: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        speak.Listener().feed(data)
    assert ErrorKind.ENGINE_FAILED is caught.value.kind


def test_listener_raises_the_services_error_frame() -> None:
    frame = StreamReply("id", Manner(shape=Shape.MESSAGE)).error(ApiError(ErrorKind.RATE_LIMITED))
    with pytest.raises(ApiError) as caught:
        speak.Listener().feed(frame)
    assert ErrorKind.RATE_LIMITED is caught.value.kind


def test_listener_hears_content_lists_and_reasons_on_the_last_piece() -> None:
    """As captured from the service: a list of texts, the reason beside the last piece, index absent."""
    frame = (
        b'id:1\nevent:result\n:HTTP_STATUS/200\ndata:{"output":{"choices":[{"message":{"content":[{"text":"a"}],"role":"assistant"},'
        b'"finish_reason":"stop"}]},"usage":{"input_tokens":3,"output_tokens":2,"prompt_tokens_details":{}},"request_id":"x"}\n\n'
    )
    expected = [
        Started(input_tokens=3),
        TextDelta(text="a", tokens=2),
        ChoiceFinished(reason=FinishReason.STOP),
        Completed(usage=Usage(input_tokens=3, output_tokens=2)),
    ]
    listener = speak.Listener()
    assert expected == listener.feed(frame) + listener.finish()


def test_a_whole_answer_is_heard_as_events_with_the_sum_of_its_choices() -> None:
    """As captured (2025-10): `n` choices in one body, whose usage is their sum."""
    body = (
        b'{"output":{"choices":[{"finish_reason":"stop","index":0,"message":{"role":"assistant","content":"a"}},'
        b'{"finish_reason":"stop","index":1,"message":{"role":"assistant","content":"b"}}]},'
        b'"usage":{"input_tokens":3,"output_tokens":5,"total_tokens":8}}'
    )
    events = speak.Listener(3).whole(body)
    assert ["a", "b"] == [event.text for event in events if isinstance(event, TextDelta)]
    assert Completed(usage=Usage(input_tokens=3, output_tokens=5)) == events[-1]


def test_pictures_are_counted_where_the_service_tells_them() -> None:
    """As captured 2024-11: image_tokens beside the others."""
    body = (
        '{"output":{"choices":[{"finish_reason":"stop","message":{"role":"assistant","content":[{"text":"海滩。"}]}}]},'
        '"usage":{"output_tokens":3,"input_tokens":3613,"image_tokens":3577},"request_id":"x"}'
    )
    assert Completed(usage=Usage(input_tokens=3613, output_tokens=3, image_tokens=3577)) == speak.Listener().whole(body.encode())[-1]


def test_a_workspace_is_named_in_the_head() -> None:
    assert "ws-1" == speak.headers("k", "ws-1")["x-dashscope-workspace"]
    assert "x-dashscope-workspace" not in speak.headers("k")


def test_a_model_of_the_multimodal_path_gets_lists_though_there_is_no_picture() -> None:
    request = ChatRequest(model="m", messages=(Message(role=Role.USER, content=(TextPart(text="hi"),)),))
    body = msgspec.json.decode(speak.chat(request, "qwen3.5-plus", is_multimodal=True))
    assert [{"text": "hi"}] == body["input"]["messages"][0]["content"]
    assert speak.MULTIMODAL_PATH == speak.path(request, is_multimodal=True)
