"""What we say to other servers, and what we make of their answers, however odd."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract import strategies
from qwenbox.dialects.base import WireRequest
from qwenbox.dialects.openai import completions, parse, speak
from qwenbox.terms.caller import Compat
from qwenbox.terms.chat import ChatRequest, Message, Role, TextPart, Thinking
from qwenbox.terms.completion import CompletionRequest
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
    fold,
)
from qwenbox.terms.usage import Usage

STOP = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def wire(body: bytes) -> WireRequest:
    return WireRequest(id="id", method="POST", path="/v1/completions", received_at=0.0, body=body)


def heard(*chunks: dict[str, Any], end: bytes = b"data: [DONE]\n\n") -> list[ChatEvent]:
    stream = b"".join([b"data: " + msgspec.json.encode(chunk) + b"\n\n" for chunk in chunks]) + end
    listener = speak.Listener(input_tokens=3)
    return listener.feed(stream) + listener.finish()


def delta(**said: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": said}]}


def failure(status: int, error: Any, **headers: str) -> ApiError:
    return speak.failure(status, msgspec.json.encode({"error": error}), headers)


def test_chat_always_streams_with_usage_under_the_servers_name() -> None:
    request = ChatRequest(model="qwen-plus", messages=(Message(role=Role.USER, content=(TextPart(text="hi"),)),))
    expected = {
        "model": "Qwen/Qwen3-8B",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert expected == msgspec.json.decode(speak.chat(request, "Qwen/Qwen3-8B"))


def test_chat_says_the_thinking_switch_both_ways() -> None:
    body = msgspec.json.decode(speak.chat(ChatRequest(model="m", messages=(), thinking=Thinking(is_enabled=False)), "m"))
    assert (False, {"enable_thinking": False}) == (body["enable_thinking"], body["chat_template_kwargs"])


@settings(max_examples=60, deadline=None)
@given(asked=strategies.completion_requests)
def test_completion_is_parsed_back(asked: CompletionRequest) -> None:
    assert asked == completions.parse(wire(speak.completion(asked, asked.model)), Compat.DOCUMENTED).request


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_listener_hears_completions_however_they_are_cut(data: st.DataObject) -> None:
    asked = data.draw(strategies.completion_requests)
    # Completions carry neither bytes nor two rivals of one text; their logprobs have a test of their own.
    events = data.draw(strategies.answers(asked.n, None, has_calls=False))
    reply = completions.parse(wire(speak.completion(asked, asked.model)), Compat.DOCUMENTED).reply
    stream = b"".join([reply.event(event) for event in events])
    assert isinstance(events[0], Started)
    listener = speak.Listener(input_tokens=events[0].input_tokens)
    pieces = strategies.pieces(stream, data.draw(strategies.cuts))
    assert events == [event for piece in pieces for event in listener.feed(piece)] + listener.finish()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_listener_hears_whole_answers(data: st.DataObject) -> None:
    asked, events = data.draw(strategies.conversed())
    body = msgspec.json.decode(speak.chat(asked, asked.model)) | {"stream": False}
    reply = parse.chat(wire(msgspec.json.encode(body)), Compat.DOCUMENTED).reply
    assert fold(events) == fold(speak.Listener().whole(b"".join([reply.event(event) for event in events])))


def test_listener_counts_tokens_when_the_server_sends_no_usage() -> None:
    events = heard(delta(role="assistant", content=""), delta(content="a"), delta(content="b"), STOP)
    assert Completed(usage=Usage(input_tokens=3, output_tokens=2, is_counted=True)) == events[-1]


def test_listener_takes_the_prompt_from_the_first_chunk_when_it_brings_a_usage() -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}}
    assert Started(input_tokens=7, cached_tokens=4) == heard(delta(content="a") | {"usage": usage}, STOP)[0]


def test_listener_hears_reasoning_under_both_names() -> None:
    events = heard(delta(reasoning_content="a"), delta(reasoning="b"), STOP)
    assert [ReasoningDelta(text="a", tokens=1), ReasoningDelta(text="b", tokens=1)] == events[1:3]


def test_listener_says_id_and_name_once_when_the_server_repeats_them() -> None:
    piece = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}
    events = heard(delta(tool_calls=[piece]), delta(tool_calls=[piece]), STOP)
    expected = [ToolCallDelta(call=0, id="c", name="f", arguments="{", tokens=1), ToolCallDelta(call=0, arguments="{", tokens=1)]
    assert expected == events[1:3]


def test_listener_needs_no_done_when_every_choice_is_finished() -> None:
    assert ChoiceFinished(reason=FinishReason.STOP) == heard(delta(content="a"), STOP, end=b"")[-2]


def test_listener_reads_logprobs_of_completions() -> None:
    said = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"a": -0.5, "b": -1.0}]}
    chunk = {"choices": [{"index": 0, "text": "a", "logprobs": said, "finish_reason": None}]}
    a, b = (TokenLogprob(text=text, raw=text.encode(), logprob=logprob) for text, logprob in (("a", -0.5), ("b", -1.0)))
    chosen = TokenLogprob(text="a", raw=b"a", logprob=-0.5, rivals=(a, b))
    assert TextDelta(text="a", tokens=1, logprobs=(chosen,)) == heard(chunk, STOP)[1]


@pytest.mark.parametrize(
    ("chunks", "kind"),
    [
        ([delta(content="a")], ErrorKind.ENGINE_FAILED),
        ([], ErrorKind.ENGINE_FAILED),
        ([{"choices": [{"index": 0, "delta": {}, "finish_reason": "abort"}]}], ErrorKind.ENGINE_FAILED),
        ([{"choices": 5}], ErrorKind.ENGINE_FAILED),
        ([{"error": {"message": "boom", "code": 500}}], ErrorKind.ENGINE_FAILED),
        ([{"error": "boom"}], ErrorKind.ENGINE_FAILED),
        ([{"error": {"message": "slow", "type": "ServiceUnavailable"}}], ErrorKind.OVERLOADED),
        ([{"error": {"message": "bad words", "code": "data_inspection_failed"}}], ErrorKind.CONTENT_REJECTED),
        ([{"error": {"message": "too long", "code": 400, "type": "exceed_context_size_error"}}], ErrorKind.CONTEXT_TOO_LONG),
    ],
)
def test_listener_raises_when_the_answer_fails(chunks: list[dict[str, Any]], kind: ErrorKind) -> None:
    with pytest.raises(ApiError) as caught:
        heard(*chunks)
    assert kind is caught.value.kind


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"message": "bad", "type": "invalid_request_error", "code": "invalid_parameter_error"}, ErrorKind.INVALID_REQUEST),
        (400, {"message": "This model's maximum context length is 4096 tokens"}, ErrorKind.CONTEXT_TOO_LONG),
        (400, {"message": "Range of input length should be [1, 6000]"}, ErrorKind.CONTEXT_TOO_LONG),
        (400, {"message": "Access denied", "code": "Arrearage", "type": "Arrearage"}, ErrorKind.OUT_OF_FUNDS),
        (400, {"message": "bad words", "code": "data_inspection_failed"}, ErrorKind.CONTENT_REJECTED),
        (401, {"message": "Incorrect API key provided."}, ErrorKind.UNAUTHENTICATED),
        (403, None, ErrorKind.FORBIDDEN),
        (404, {"message": "The model `x` does not exist."}, ErrorKind.ENGINE_FAILED),
        (408, None, ErrorKind.TIMEOUT),
        (413, None, ErrorKind.TOO_LARGE),
        (422, "bad", ErrorKind.INVALID_REQUEST),
        (429, {"message": "limit_requests"}, ErrorKind.OVERLOADED),
        (500, {"message": "json.exception.type_error.302"}, ErrorKind.ENGINE_FAILED),
        (502, None, ErrorKind.ENGINE_FAILED),
        (503, {"message": "Loading model"}, ErrorKind.OVERLOADED),
        (504, None, ErrorKind.TIMEOUT),
    ],
)
def test_failure_becomes_our_kind(status: int, error: Any, kind: ErrorKind) -> None:
    assert kind is failure(status, error).kind


@pytest.mark.parametrize("body", [b"", b"<html>502</html>", b"[" * 5000, b"\xff", b'{"error": 5}', b'{"detail": "x"}'])
def test_failure_reads_any_body(body: bytes) -> None:
    assert ErrorKind.ENGINE_FAILED is speak.failure(500, body, {}).kind


def test_failure_keeps_the_retry_after_of_the_server() -> None:
    assert 7.0 == failure(429, None, **{"retry-after": "7"}).retry_after_s


@pytest.mark.parametrize(
    ("error", "is_said"),
    [
        ({"message": "'seed' must be Integer", "type": "invalid_request_error", "code": "invalid_value"}, True),
        ({"message": "top_k must be -1 or more", "type": "BadRequestError", "code": 400}, True),
        ({"message": "[json.exception.type_error.302] type must be number", "type": "invalid_request_error", "code": 400}, False),
        ({"message": "first line\nTraceback"}, False),
        ({"message": "x" * 401}, False),
    ],
)
def test_failure_passes_on_only_words_written_for_callers(error: dict[str, Any], is_said: bool) -> None:
    assert is_said == (error["message"] in failure(400, error).message)
