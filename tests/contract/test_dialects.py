"""What every dialect promises, whoever wrote it: run over the registry."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from contract import strategies
from qwenbox.dialects.base import Dialect, Parsed, Reply, Verb, WireRequest
from qwenbox.dialects.dashscope import speak as dashscope_speak
from qwenbox.dialects.openai import speak as openai_speak
from qwenbox.dialects.registry import DIALECTS
from qwenbox.terms.caller import Compat
from qwenbox.terms.chat import ChatRequest, ImagePart, Message, Role, TextPart
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, ChoiceFinished, Completed, FinishReason, Started, TextDelta, fold
from qwenbox.terms.usage import Usage

GOLDEN = Path(__file__).parent.parent / "golden"
REQUEST_ID = "6ada9ed2-7f33-9de2-8bb0-78bd4035025a"
SECRET = "sk-secret-of-the-box"

STATUS_OF_KIND = {
    ErrorKind.INVALID_REQUEST: 400,
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.FORBIDDEN: 403,
    ErrorKind.MODEL_NOT_FOUND: 404,
    ErrorKind.WRONG_ENDPOINT: 400,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.METHOD_NOT_ALLOWED: 405,
    ErrorKind.CONFLICT: 409,
    ErrorKind.TOO_LARGE: 413,
    ErrorKind.CONTEXT_TOO_LONG: 400,
    ErrorKind.RATE_LIMITED: 429,
    ErrorKind.QUOTA_EXHAUSTED: 429,
    ErrorKind.OUT_OF_FUNDS: 400,
    ErrorKind.CONTENT_REJECTED: 400,
    ErrorKind.OVERLOADED: 503,
    ErrorKind.ENGINE_FAILED: 500,
    ErrorKind.TIMEOUT: 500,
    ErrorKind.INTERNAL: 500,
}
# Where a wire has another one (wire reference 5.4).
OWN_STATUS = {
    ("openai", ErrorKind.WRONG_ENDPOINT): 404,
    ("anthropic", ErrorKind.OUT_OF_FUNDS): 402,
    ("anthropic", ErrorKind.OVERLOADED): 529,
    ("anthropic", ErrorKind.TIMEOUT): 504,
}
EVENTS: tuple[ChatEvent, ...] = (
    Started(input_tokens=3),
    TextDelta(text="你好", tokens=1),
    ChoiceFinished(reason=FinishReason.STOP, tokens=1),
    Completed(usage=Usage(input_tokens=3, output_tokens=2)),
)

_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_HISTORY = [
    {"role": "system", "content": "Answer in json."},
    {"role": "user", "content": "杭州天气?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": "call_1", "type": "function", "index": 0, "function": {"name": "get_weather", "arguments": '{"city": "杭州"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "25 °C"},
    {"role": "user", "content": "And tomorrow?"},
]
_PARAMETERS = {
    "temperature": 0.7,
    "top_p": 0.8,
    "top_k": 20,
    "max_tokens": 100,
    "seed": 1234,
    "stop": ["a", "b"],
    "presence_penalty": 0.5,
    "repetition_penalty": 1.1,
    "logprobs": True,
    "top_logprobs": 2,
    "n": 1,
    "tools": [_TOOL],
    "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
    "parallel_tool_calls": True,
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
    "enable_thinking": False,
    "thinking_budget": 100,
}


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """How a dialect is asked: a small chat and a full one, whole and streamed."""

    path: str
    small: bytes
    full: bytes
    stream_headers: dict[str, str] = {}
    stream_body: bytes = b""

    def whole(self, body: bytes | None = None) -> WireRequest:
        return WireRequest(
            id=REQUEST_ID, method="POST", path=self.path, received_at=1735120033.5, body=self.small if body is None else body
        )

    def stream(self) -> WireRequest:
        return msgspec.structs.replace(self.whole(self.stream_body or self.small), headers=self.stream_headers)


_ANTHROPIC_HISTORY = [
    {"role": "user", "content": "杭州天气?"},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "A tool knows.", "signature": "x"},
            {"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {"city": "杭州"}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "25 °C"}], "is_error": False},
            {"type": "text", "text": "And tomorrow?"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
        ],
    },
]
_SMALL_MESSAGES = [{"role": "user", "content": "Say json"}]
SAMPLES = {
    "openai": Sample(
        path="/compatible-mode/v1/chat/completions",
        small=msgspec.json.encode({"model": "qwen-plus", "messages": _SMALL_MESSAGES}),
        full=msgspec.json.encode(
            {
                "model": "qwen-plus",
                "messages": [*_HISTORY, {"role": "user", "content": [{"type": "text", "text": "And"}, {"type": "text", "text": "now?"}]}],
                **_PARAMETERS,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        ),
        stream_body=msgspec.json.encode({"model": "qwen-plus", "messages": _SMALL_MESSAGES, "stream": True}),
    ),
    "dashscope": Sample(
        path="/api/v1/services/aigc/text-generation/generation",
        small=msgspec.json.encode({"model": "qwen-plus", "input": {"messages": _SMALL_MESSAGES}, "parameters": {}}),
        full=msgspec.json.encode(
            {
                "model": "qwen-plus",
                "input": {"messages": _HISTORY},
                "parameters": {**_PARAMETERS, "result_format": "message", "incremental_output": True},
            }
        ),
        stream_headers={"x-dashscope-sse": "enable"},
    ),
    "anthropic": Sample(
        path="/apps/anthropic/v1/messages",
        small=msgspec.json.encode({"model": "qwen-plus", "max_tokens": 100, "messages": _SMALL_MESSAGES}),
        full=msgspec.json.encode(
            {
                "model": "qwen-plus",
                "max_tokens": 100,
                "system": [{"type": "text", "text": "Answer in json.", "cache_control": {"type": "ephemeral"}}],
                "messages": _ANTHROPIC_HISTORY,
                "temperature": 0.7,
                "top_p": 0.8,
                "top_k": 20,
                "seed": 1234,
                "stop_sequences": ["a", "b"],
                "tools": [{"name": "get_weather", "description": "Weather of a city", "input_schema": {"type": "object"}}],
                "tool_choice": {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True},
                "thinking": {"type": "enabled", "budget_tokens": 1024},
                "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
                "metadata": {"user_id": "somebody"},
                "stream": True,
            }
        ),
        stream_body=msgspec.json.encode({"model": "qwen-plus", "max_tokens": 100, "messages": _SMALL_MESSAGES, "stream": True}),
    ),
}


class Speaker(msgspec.Struct, frozen=True, kw_only=True):
    """The client's half of a dialect.

    carried: a request as this wire can say it. is_exact: it carries every event as it was, not only what they add up to.
    """

    carried: Callable[[ChatRequest], ChatRequest]
    chat: Callable[[ChatRequest], WireRequest]
    listen: Callable[[Sequence[bytes], int, int], list[ChatEvent]]
    is_exact: bool


class Listening(Protocol):
    def feed(self, chunk: bytes) -> list[ChatEvent]: ...
    def finish(self) -> list[ChatEvent]: ...


def _heard(listener: Listening, chunks: Sequence[bytes]) -> list[ChatEvent]:
    return [event for chunk in chunks for event in listener.feed(chunk)] + listener.finish()


def _native_request(asked: ChatRequest) -> WireRequest:
    request = SAMPLES["dashscope"].whole(dashscope_speak.chat(asked, asked.model))
    return msgspec.structs.replace(request, path="/api/v1" + dashscope_speak.path(asked), headers=dashscope_speak.headers("key"))


def _native_carried(asked: ChatRequest) -> ChatRequest:
    """Native text is one string a message; somebody must have asked something; tools come with one choice."""
    messages = [_one_text(message) for message in asked.messages]
    question = Message(role=Role.USER, content=(TextPart(text="?"),))
    return msgspec.structs.replace(asked, messages=(question, *messages), n=1 if asked.tools else asked.n)


def _one_text(message: Message) -> Message:
    if any(isinstance(part, ImagePart) for part in message.content):
        return msgspec.structs.replace(message, content=(TextPart(text="a picture"),))
    return msgspec.structs.replace(message, content=(TextPart(text=message.text),) if message.text else ())


SPEAKERS = {
    "openai": Speaker(
        carried=lambda asked: asked,
        chat=lambda asked: SAMPLES["openai"].whole(openai_speak.chat(asked, asked.model)),
        listen=lambda chunks, n, input_tokens: _heard(openai_speak.Listener(input_tokens=input_tokens), chunks),
        is_exact=True,
    ),
    "dashscope": Speaker(
        carried=_native_carried,
        chat=_native_request,
        listen=lambda chunks, n, input_tokens: _heard(dashscope_speak.Listener(n), chunks),
        is_exact=False,
    ),
}

every_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
every_speaker = pytest.mark.parametrize("dialect", [dialect for dialect in DIALECTS if dialect.name in SPEAKERS], ids=lambda d: d.name)
every_level = pytest.mark.parametrize("compat", list(Compat))


def parse_chat(dialect: Dialect, request: WireRequest, compat: Compat = Compat.DOCUMENTED) -> Parsed[ChatRequest]:
    assert dialect.parse_chat is not None
    return dialect.parse_chat(request, compat)


def said(reply: Reply, events: Sequence[ChatEvent]) -> bytes:
    return b"".join([reply.event(event) for event in events])


@every_dialect
def test_dialect_has_golden_cases(dialect: Dialect) -> None:
    assert list((GOLDEN / dialect.name).glob("*/request.http"))


@every_dialect
def test_dialect_has_a_sample_here(dialect: Dialect) -> None:
    assert dialect.name in SAMPLES


def test_routes_are_found_once_over_all_dialects() -> None:
    paths = [(route.method, prefix + route.path) for dialect in DIALECTS for prefix in dialect.prefixes for route in dialect.routes]
    assert sorted(set(paths)) == sorted(paths)


@every_dialect
def test_verbs_have_their_functions_when_routed(dialect: Dialect) -> None:
    functions = {
        Verb.CHAT: dialect.parse_chat,
        Verb.COMPLETE: dialect.parse_completion,
        Verb.LIST_MODELS: dialect.parse_models and dialect.render_models,
        Verb.GET_MODEL: dialect.parse_models and dialect.render_models,
        Verb.COUNT_PROMPT: dialect.parse_prompt and dialect.render_prompt,
        Verb.EMBED: dialect.parse_embedding,
        Verb.RERANK: dialect.parse_rerank,
        Verb.COUNT_TOKENS: dialect.parse_tokens and dialect.render_tokens,
        Verb.MAKE_IMAGE: dialect.parse_image,
        Verb.CHAT_OR_IMAGE: dialect.parse_chat and dialect.parse_image and dialect.model_of,
        Verb.GRANT_UPLOAD: dialect.uploads,
        **dict.fromkeys((Verb.GET_TASK, Verb.LIST_TASKS, Verb.CANCEL_TASK), dialect.tasks),
        Verb.SHORT_LIVED_KEY: dialect.parse_short_lived and dialect.render_short_lived,
        **dict.fromkeys((Verb.UPLOAD_FILE, Verb.LIST_FILES, Verb.GET_FILE, Verb.DELETE_FILE, Verb.FILE_CONTENT), dialect.files),
        **dict.fromkeys(
            (Verb.CREATE_RESPONSE, Verb.GET_RESPONSE, Verb.DELETE_RESPONSE, Verb.RESPONSE_INPUT, Verb.COUNT_RESPONSE), dialect.responses
        ),
        **dict.fromkeys((Verb.CREATE_BATCH, Verb.LIST_BATCHES, Verb.GET_BATCH, Verb.CANCEL_BATCH), dialect.batches),
    }
    assert [] == [route for route in dialect.routes if functions[route.verb] is None]


@every_dialect
def test_credential_is_the_bearer_key(dialect: Dialect) -> None:
    request = msgspec.structs.replace(SAMPLES[dialect.name].whole(), headers={"authorization": "Bearer sk-123"})
    assert "sk-123" == dialect.credential(request)


@every_dialect
@pytest.mark.parametrize("headers", [{}, {"authorization": ""}, {"authorization": "Bearer "}, {"authorization": "Basic c2s="}])
def test_credential_refuses_when_there_is_no_key(dialect: Dialect, headers: dict[str, str]) -> None:
    with pytest.raises(ApiError) as caught:
        dialect.credential(msgspec.structs.replace(SAMPLES[dialect.name].whole(), headers=headers))
    assert ErrorKind.UNAUTHENTICATED is caught.value.kind


@every_dialect
@pytest.mark.parametrize("kind", list(ErrorKind))
@pytest.mark.parametrize("message", ["", "What was wrong."])
def test_error_page_renders_when_any_kind_comes(dialect: Dialect, kind: ErrorKind, message: str) -> None:
    page = dialect.error_page(ApiError(kind, message, param="qwen-nothing"), REQUEST_ID)
    body = msgspec.json.decode(page.body)
    assert OWN_STATUS.get((dialect.name, kind), STATUS_OF_KIND[kind]) == page.head.status
    assert "application/json" == page.head.media_type.partition(";")[0]
    assert REQUEST_ID == body["request_id"]
    error = body.get("error", body)
    # Anthropic's errors have a type where others have a code.
    assert error["message"] and (error.get("code") or error["type"])
    assert (bool(message) and kind is not ErrorKind.INTERNAL) == (message != "" and message in error["message"])


@every_dialect
def test_error_page_keeps_the_reason_when_it_is_internal(dialect: Dialect) -> None:
    page = dialect.error_page(ApiError(ErrorKind.INTERNAL, f"Traceback: {SECRET}"), REQUEST_ID)
    assert SECRET.encode() not in page.body


@every_dialect
def test_error_page_names_the_model_when_it_is_unknown(dialect: Dialect) -> None:
    page = dialect.error_page(ApiError(ErrorKind.MODEL_NOT_FOUND, param="qwen-nothing"), REQUEST_ID)
    assert b"qwen-nothing" in page.body


@every_dialect
@pytest.mark.parametrize("kind", [ErrorKind.RATE_LIMITED, ErrorKind.OVERLOADED])
def test_error_page_rounds_retry_after_up(dialect: Dialect, kind: ErrorKind) -> None:
    page = dialect.error_page(ApiError(kind, retry_after_s=1.2), REQUEST_ID)
    assert "2" == page.head.headers["retry-after"]


@every_dialect
@every_level
def test_whole_reply_is_silent_until_completed(dialect: Dialect, compat: Compat) -> None:
    reply = parse_chat(dialect, SAMPLES[dialect.name].whole(), compat).reply
    assert (200, "application/json") == (reply.head.status, reply.head.media_type.partition(";")[0])
    assert [b"", b"", b""] == [reply.event(event) for event in EVENTS[:-1]]
    assert b"" == reply.heartbeat()
    assert "你好" in reply.event(EVENTS[-1]).decode()


@every_dialect
@every_level
def test_stream_reply_speaks_with_every_delta(dialect: Dialect, compat: Compat) -> None:
    reply = parse_chat(dialect, SAMPLES[dialect.name].stream(), compat).reply
    assert (200, "text/event-stream") == (reply.head.status, reply.head.media_type.partition(";")[0])
    reply.event(EVENTS[0])
    assert "你好" in reply.event(EVENTS[1]).decode()
    assert reply.heartbeat().startswith((b":", b"event: ping\n")) and reply.heartbeat().endswith(b"\n\n")


@every_dialect
def test_stream_reply_ends_with_an_error_frame_when_the_engine_fails(dialect: Dialect) -> None:
    reply = parse_chat(dialect, SAMPLES[dialect.name].stream()).reply
    said(reply, EVENTS[:2])
    frame = reply.error(ApiError(ErrorKind.ENGINE_FAILED))
    assert REQUEST_ID.encode() in frame and b"data:" in frame and frame.endswith(b"\n\n") and b"[DONE]" not in frame


@every_dialect
@every_level
def test_full_sample_is_valid(dialect: Dialect, compat: Compat) -> None:
    asked = parse_chat(dialect, SAMPLES[dialect.name].whole(SAMPLES[dialect.name].full), compat).request
    assert ("And tomorrow?", 1, 1234) == (asked.messages[4].text, len(asked.tools), asked.sampling.seed)


@every_dialect
@every_level
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_parse_raises_nothing_but_api_error_when_one_thing_is_wrong(dialect: Dialect, compat: Compat, data: st.DataObject) -> None:
    sample = SAMPLES[dialect.name]
    body = data.draw(strategies.mutations(data.draw(st.sampled_from([sample.small, sample.full]))))
    try:
        parsed = parse_chat(dialect, sample.whole(body), compat)
    except ApiError as error:
        assert error.kind in (ErrorKind.INVALID_REQUEST, ErrorKind.MODEL_NOT_FOUND)
        page = dialect.error_page(error, REQUEST_ID)
        assert 400 <= page.head.status < 500
        for leak in (b"msgspec", b"Expected `", b"$.", b"Traceback", b"codec"):
            assert leak not in page.body
    else:
        assert said(parsed.reply, EVENTS)


@every_speaker
@settings(max_examples=100, deadline=None)
@given(asked=strategies.chat_requests())
def test_parse_hears_what_speak_said(dialect: Dialect, asked: ChatRequest) -> None:
    carried = SPEAKERS[dialect.name].carried(asked)
    assert carried == parse_chat(dialect, SPEAKERS[dialect.name].chat(carried)).request


@every_speaker
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_listener_hears_what_render_said_however_it_is_cut(dialect: Dialect, data: st.DataObject) -> None:
    speaker = SPEAKERS[dialect.name]
    asked, events = data.draw(strategies.conversed())
    stream = said(parse_chat(dialect, speaker.chat(asked)).reply, events)
    assert isinstance(events[0], Started)
    pieces = strategies.pieces(stream, data.draw(strategies.cuts))
    heard = speaker.listen(pieces, asked.n, events[0].input_tokens)
    assert fold(events).choices == fold(heard).choices
    assert fold(events).usage.total_tokens == fold(heard).usage.total_tokens
    if speaker.is_exact:
        assert events == heard


@every_speaker
@settings(max_examples=40, deadline=None)
@given(data=st.data(), line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_listener_hears_the_same_when_fed_byte_by_byte(dialect: Dialect, data: st.DataObject, line_end: bytes) -> None:
    speaker = SPEAKERS[dialect.name]
    asked, events = data.draw(strategies.conversed())
    stream = said(parse_chat(dialect, speaker.chat(asked)).reply, events)
    single = [bytes([byte]) for byte in stream.replace(b"\n", line_end)]
    assert speaker.listen([stream], asked.n, 1) == speaker.listen(single, asked.n, 1)


@every_speaker
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_listener_raises_when_the_stream_is_cut_short(dialect: Dialect, data: st.DataObject) -> None:
    speaker = SPEAKERS[dialect.name]
    asked, events = data.draw(strategies.conversed())
    reply = parse_chat(dialect, speaker.chat(asked)).reply
    last = max(place for place, event in enumerate(events) if isinstance(event, ChoiceFinished))
    kept = events[: data.draw(st.integers(0, last))]
    # Native streams have no end mark: where every choice that began is whole, these may be all there are.
    finished = {event.index for event in kept if isinstance(event, ChoiceFinished)}
    begun = {event.index for event in kept if not isinstance(event, Started | Completed)}
    assume(dialect.name != "dashscope" or not finished or begun != finished)
    with pytest.raises(ApiError) as caught:
        speaker.listen([said(reply, kept)], asked.n, 1)
    assert ErrorKind.ENGINE_FAILED is caught.value.kind


@every_speaker
def test_listener_raises_when_the_stream_holds_an_error(dialect: Dialect) -> None:
    speaker = SPEAKERS[dialect.name]
    reply = parse_chat(dialect, SAMPLES[dialect.name].stream()).reply
    stream = said(reply, EVENTS[:2]) + reply.error(ApiError(ErrorKind.ENGINE_FAILED))
    with pytest.raises(ApiError) as caught:
        speaker.listen([stream], 1, 1)
    assert ErrorKind.ENGINE_FAILED is caught.value.kind
