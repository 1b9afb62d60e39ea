"""Every parameter: what is taken, both bounds, one step outside, wrong types; at both levels."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from contract import strategies
from qwenbox.dialects.base import Parsed, WireRequest
from qwenbox.dialects.openai import completions, parse
from qwenbox.terms.caller import Compat
from qwenbox.terms.chat import ChatRequest, JsonSchema, Thinking, ToolNamed, ToolNone, ToolRequired
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.errors import ApiError, ErrorKind

BOTH = (Compat.DOCUMENTED, Compat.STRICT)
DOCUMENTED, STRICT = ((level,) for level in BOTH)
MAX_SEED = 9223372036854775807
USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f"}}
FRAMES = "The video modality input does not meet the requirements because: the range of sequence images shoule be (4, 512)."
FPS = "Range of fps should be [0.1, 10.0]"
NO_FILMS = "A film is read as the list of its frames here: send a list of pictures as video, with fps."
STOP_TEXT = (
    'The "stop" parameter must be of type "str", "list[str]", "list[int]", or "list[list[int]]", '
    "and all elements within the list must be of the same type."
)


def wire(body: dict[str, Any] | bytes) -> WireRequest:
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return WireRequest(id="id", method="POST", path="/v1/chat/completions", received_at=0.0, body=data)


def chat(compat: Compat = Compat.DOCUMENTED, **fields: Any) -> ChatRequest:
    parsed: Parsed[ChatRequest] = parse.chat(wire({"model": "m", "messages": [USER], "stream": True, **fields}), compat)
    return parsed.request


def refusal(compat: Compat = Compat.DOCUMENTED, **fields: Any) -> str:
    with pytest.raises(ApiError) as caught:
        chat(compat, **fields)
    assert ErrorKind.INVALID_REQUEST is caught.value.kind
    assert caught.value.param
    return caught.value.message


def refusal_of(body: bytes) -> str:
    with pytest.raises(ApiError) as caught:
        parse.chat(wire(body), Compat.DOCUMENTED)
    assert ErrorKind.INVALID_REQUEST is caught.value.kind
    return caught.value.message


def complete(**fields: Any) -> CompletionRequest:
    return completions.parse(wire({"model": "m", "prompt": "x", **fields}), Compat.DOCUMENTED).request


SAMPLING = [
    (BOTH, "temperature", 0, 0.0),
    (BOTH, "temperature", 1.99, 1.99),
    (DOCUMENTED, "temperature", 2, 2.0),
    (BOTH, "top_p", 1, 1.0),
    (BOTH, "top_p", 0.01, 0.01),
    (DOCUMENTED, "top_p", 0, 0.0),
    (BOTH, "top_k", 0, 0),
    (BOTH, "top_k", 100, 100),
    (BOTH, "top_k", 101, 0),
    (BOTH, "top_k", None, 0),
    (BOTH, "presence_penalty", -2, -2.0),
    (BOTH, "presence_penalty", 2, 2.0),
    (BOTH, "frequency_penalty", -2, -2.0),
    (BOTH, "frequency_penalty", 2, 2.0),
    (BOTH, "repetition_penalty", 0.01, 0.01),
    (BOTH, "seed", 0, 0),
    (BOTH, "seed", MAX_SEED, MAX_SEED),
]
BROKEN = [
    (DOCUMENTED, "temperature", -0.01, "Temperature should be in [0.0, 2.0]"),
    (DOCUMENTED, "temperature", 2.01, "Temperature should be in [0.0, 2.0]"),
    (STRICT, "temperature", 2, "Temperature should be in [0.0, 2.0)"),
    (BOTH, "temperature", "1", "'temperature' must be Float"),
    (BOTH, "temperature", True, "'temperature' must be Float"),
    (DOCUMENTED, "top_p", 1.01, "Range of top_p should be [0.0, 1.0]"),
    (STRICT, "top_p", 0, "Range of top_p should be (0.0, 1.0]"),
    (BOTH, "top_p", [], "'top_p' must be Float"),
    (BOTH, "top_k", -1, "Parameter top_k be greater than or equal to 0"),
    (BOTH, "top_k", 1.5, "'top_k' must be Integer"),
    (BOTH, "presence_penalty", -2.01, "Presence_penalty should be in [-2.0, 2.0]"),
    (BOTH, "frequency_penalty", 2.01, "Frequency_penalty should be in [-2.0, 2.0]"),
    (BOTH, "repetition_penalty", 0, "Repetition_penalty should be greater than 0.0"),
    (BOTH, "seed", -1, f"Range of seed should be [0, {MAX_SEED}]"),
    (BOTH, "seed", MAX_SEED + 1, f"Range of seed should be [0, {MAX_SEED}]"),
    (BOTH, "seed", "1", "'seed' must be Integer"),
    (BOTH, "max_tokens", 0, "Range of max_tokens should be [1, the model's maximum]"),
    (BOTH, "max_tokens", "many", "'max_tokens' must be Integer"),
    (BOTH, "max_completion_tokens", 0, "Range of max_completion_tokens should be [1, the model's maximum]"),
    (BOTH, "n", 0, "Range of n should be [1, 4]"),
    (BOTH, "n", 5, "Range of n should be [1, 4]"),
    (BOTH, "stream", "yes", "'stream' must be Boolean"),
    (BOTH, "model", "", "you must provide a model parameter."),
    (BOTH, "model", None, "you must provide a model parameter."),
    (BOTH, "model", 7, "'model' must be String"),
    (BOTH, "messages", {}, "'messages' must be Array"),
    (BOTH, "messages", "hi", "'messages' must be Array"),
    (BOTH, "messages", [], "[] is too short - 'messages'"),
    (BOTH, "messages", [{}], "Field required: messages[0].role"),
    (BOTH, "messages", [USER, {"role": "user", "content": 5}], "'messages[1].content' must be String or Array"),
    (BOTH, "messages", [{"role": "user", "content": [{"type": "video"}]}], "Field required: messages[0].content[0].video"),
    (BOTH, "messages", [{"role": "user", "content": [{"type": "video", "video": ["a"] * 3}]}], FRAMES),
    (BOTH, "messages", [{"role": "user", "content": [{"type": "video", "video": "a.mp4"}]}], NO_FILMS),
    (BOTH, "messages", [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "a.mp4"}}]}], NO_FILMS),
    (
        BOTH,
        "messages",
        [{"role": "user", "content": [{"type": "video", "video": ["a"] * 4, "fps": 0}]}],
        "Range of fps should be [0.1, 10.0]",
    ),
    (BOTH, "messages", [{"role": "user", "content": [{"type": "input_audio"}]}], "This model does not support input_audio content."),
    (BOTH, "messages", [{"role": "user", "content": [{"type": "text"}]}], "Field required: messages[0].content[0].text"),
    (BOTH, "messages", [{"role": "user", "content": [{"type": "image_url"}]}], "Field required: messages[0].content[0].image_url.url"),
    (BOTH, "stop", {}, STOP_TEXT),
    (BOTH, "stop", [1.5], STOP_TEXT),
    (BOTH, "stop", [1, [2]], STOP_TEXT),
    (BOTH, "stop", [""], 'The "stop" parameter must not have empty elements.'),
    (BOTH, "stop", [[]], 'The "stop" parameter must not have empty elements.'),
    (BOTH, "stop", [-1], 'Token ids of the "stop" parameter should be in [0, 2147483647]'),
    (BOTH, "stop", ["x"] * 17, 'The "stop" parameter must not have more than 16 elements.'),
    (BOTH, "logprobs", 1, "'logprobs' must be Boolean"),
    (BOTH, "top_logprobs", 6, "Range of top_logprobs should be [0, 5]"),
    (BOTH, "top_logprobs", 1, "top_logprobs needs logprobs to be true"),
    (BOTH, "tools", [{"type": "web"}], "Field required: tools[0].function"),
    (BOTH, "tools", [{"type": "web", "function": {"name": "f"}}], "'web' is not one of ['function'] - 'tools[0].type'"),
    (BOTH, "tools", [TOOL, TOOL], "Tool names must be unique: 'f' is there twice."),
    (BOTH, "tools", [TOOL] * 129, "Range of tools length should be [1, 128]"),
    (STRICT, "tools", [], "[] is too short - 'tools'"),
    (BOTH, "tool_choice", "any", 'tool_choice is one of the strings that should be ["none", "auto", "required"]'),
    (BOTH, "tool_choice", "required", "tool_choice is 'required', but there are no tools."),
    (BOTH, "tool_choice", {"type": "function", "function": {"name": "g"}}, "tool_choice names 'g', which is not in tools."),
    (BOTH, "response_format", "json", "'response_format' must be Object"),
    (BOTH, "response_format", {"type": "json_schema"}, "Field required: response_format.json_schema"),
    (BOTH, "response_format", {"type": "json_schema", "json_schema": {}}, "Field required: response_format.json_schema.schema"),
    (
        BOTH,
        "response_format",
        {"type": "json_schema", "json_schema": {"schema": [1]}},
        "'response_format.json_schema.schema' must be Object",
    ),
    (BOTH, "enable_thinking", "yes", "'enable_thinking' must be Boolean"),
    (BOTH, "thinking_budget", 0, "The thinking_budget parameter must be a positive integer"),
    (BOTH, "enable_search", True, "This model does not support enable_search."),
    (BOTH, "enable_code_interpreter", True, "This model does not support enable_code_interpreter."),
    (BOTH, "logit_bias", {"1": 5}, "This model does not support logit_bias."),
    (BOTH, "modalities", ["text", "audio"], "This model answers in text only: modalities must be ['text']."),
    (BOTH, "functions", [{"name": "f"}], "functions is not supported: use tools."),
]


@pytest.mark.parametrize(("levels", "name", "value", "expected"), SAMPLING)
def test_sampling_takes_values_in_range(levels: tuple[Compat, ...], name: str, value: Any, expected: Any) -> None:
    assert [expected] * len(levels) == [getattr(chat(level, **{name: value}).sampling, name) for level in levels]


@pytest.mark.parametrize(("levels", "name", "value", "message"), BROKEN)
def test_chat_refuses_values_in_the_services_words(levels: tuple[Compat, ...], name: str, value: Any, message: str) -> None:
    assert [message] * len(levels) == [refusal(level, **{name: value}) for level in levels]


@pytest.mark.parametrize("compat", BOTH)
def test_chat_leaves_what_was_not_said_to_the_catalog(compat: Compat) -> None:
    assert ChatRequest(model="m", messages=chat().messages) == chat(compat)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"", "The JSON ends too early, or within an escaped character."),
        (b'{"model": "m"', "The JSON ends too early, or within an escaped character."),
        (b'{"temperature": NaN}', "The JSON is broken near byte 16."),
        (b'{"temperature": Infinity}', "The JSON is broken near byte 16."),
        (b"{}{}", "The JSON is broken near byte 3."),
        (b'{"model": "\xff"}', "It is not valid UTF-8."),
        (b"[]", "It must be a JSON object."),
        (b'"text"', "It must be a JSON object."),
        (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "It is nested too deeply."),
    ],
)
def test_chat_refuses_a_broken_body_and_says_where(body: bytes, where: str) -> None:
    assert f"Required body invalid, please check the request body format. {where}" == refusal_of(body)


def test_chat_refuses_numbers_beyond_all_bounds() -> None:
    assert "'temperature' is out of range" == refusal_of(b'{"temperature": 1e999}')
    assert "'seed' is out of range" == refusal_of(b'{"seed": ' + b"9" * 5000 + b"}")


def test_chat_refuses_half_a_surrogate_pair() -> None:
    assert refusal_of(b'{"model": "\\ud800"}').startswith("Required body invalid")


def test_tool_parameters_are_bounded_in_depth() -> None:
    deep: dict[str, Any] = {}
    for _ in range(64):
        deep = {"a": deep}
    fine = {"type": "function", "function": {"name": "f", "parameters": deep["a"]}}
    assert 1 == len(chat(tools=[fine]).tools)
    message = refusal(tools=[{"type": "function", "function": {"name": "f", "parameters": deep}}])
    assert "'tools[0].function.parameters' must not be nested deeper than 64 levels" == message


@pytest.mark.parametrize("parameters", [[], "x", 1, True, {"type": "array"}, {"type": ["object"]}])
def test_tool_parameters_are_an_object_schema(parameters: Any) -> None:
    assert refusal(tools=[{"type": "function", "function": {"name": "f", "parameters": parameters}}])


@pytest.mark.parametrize("name", ["", "has space", "ünicode", "x" * 65, "a.b", "a\n"])
def test_tool_names_are_letters_digits_and_dashes(name: str) -> None:
    assert refusal(tools=[{"type": "function", "function": {"name": name}}])


def test_tool_keeps_its_schema_as_written() -> None:
    schema = b'{ "type":"object","properties":{"b":{},"a":{}} }'
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"f","parameters":%s}}]}'
    assert schema == parse.chat(wire(body % schema), Compat.DOCUMENTED).request.tools[0].parameters


def test_tool_choice_is_read_in_all_forms() -> None:
    named = {"type": "function", "function": {"name": "f"}}
    assert [ToolNone(), ToolRequired(), ToolNamed("f")] == [
        chat(tools=[TOOL], tool_choice=c).tool_choice for c in ("none", "required", named)
    ]


def test_response_format_keeps_the_schema_as_written() -> None:
    wanted = {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}
    assert JsonSchema(schema=b'{"type":"object"}') == chat(response_format=wanted).response_format


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"enable_thinking": True, "thinking_budget": 5}, Thinking(is_enabled=True, budget_tokens=5)),
        ({"chat_template_kwargs": {"enable_thinking": False}}, Thinking(is_enabled=False)),
        ({"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": False}}, Thinking(is_enabled=True)),
        ({"reasoning_effort": "none"}, Thinking(is_enabled=False)),
        ({"reasoning_effort": "low"}, Thinking(budget_tokens=4096)),
        ({"reasoning_effort": "xhigh", "thinking_budget": 7}, Thinking(budget_tokens=7)),
    ],
)
def test_thinking_is_read_from_every_switch(fields: dict[str, Any], expected: Thinking) -> None:
    assert expected == chat(**fields).thinking


def test_stop_is_read_in_all_forms() -> None:
    forms = [chat(stop=stop) for stop in ("a", ["a", "b"], [1, 2], [[1, 2], [3]], [])]
    assert [("a",), ("a", "b"), (), (), ()] == [form.stop for form in forms]
    assert [(), (), ((1,), (2,)), ((1, 2), (3,)), ()] == [form.stop_tokens for form in forms]


def test_max_completion_tokens_wins_over_max_tokens() -> None:
    assert [5, 7, 7] == [
        chat(**f).max_output_tokens
        for f in ({"max_tokens": 5}, {"max_tokens": 5, "max_completion_tokens": 7}, {"max_completion_tokens": 7})
    ]


def test_partial_is_refused_when_it_is_not_the_last_assistant_turn() -> None:
    partial = {"role": "assistant", "content": "x", "partial": True}
    text = "'partial' is only allowed in the last message, which must have the role assistant"
    assert text == refusal(messages=[USER, partial, USER])
    assert text == refusal(messages=[{**USER, "partial": True}])


def test_tool_call_arguments_are_a_json_object() -> None:
    def history(arguments: str) -> list[dict[str, Any]]:
        return [USER, {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": arguments}}]}]

    assert "{}" == chat(messages=history("")).messages[1].tool_calls[0].arguments
    for broken in ("{", "[]", "x", "[" * 5000):
        assert 'The "function.arguments" parameter must be a JSON object in a string.' == refusal(messages=history(broken))


def test_legacy_function_messages_are_refused_with_the_way_out() -> None:
    assert "role 'tool'" in refusal(messages=[USER, {"role": "function", "name": "f", "content": "1"}])
    assert "tool_calls" in refusal(messages=[USER, {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": "{}"}}])


def test_long_values_are_not_said_back_whole() -> None:
    assert len(refusal(messages=[{"role": "r" * 10_000, "content": ""}])) < 300


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": None}, "Required parameter(prompt) missing or invalid, please check the request parameters."),
        ({"prompt": []}, "[] is too short - 'prompt'"),
        ({"prompt": ["a", "b"]}, "Send one prompt a call: 'prompt' must be a String or an Array of one String."),
        ({"prompt": [[1]]}, "Token ids are not supported as a prompt: send its text."),
        ({"prompt": 5}, "'prompt' must be String or Array"),
        ({"stop": [1]}, 'The "stop" parameter of a completion must be of type "str" or "list[str]".'),
        ({"logprobs": 6}, "Range of logprobs should be [0, 5]"),
        ({"logprobs": True}, "'logprobs' must be Integer"),
        ({"best_of": 2}, "This model does not support a best_of greater than n."),
        ({"model": None}, "you must provide a model parameter."),
        ({"temperature": 3}, "Temperature should be in [0.0, 2.0]"),
    ],
)
def test_completion_refuses_values_in_the_services_words(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ApiError) as caught:
        complete(**fields)
    assert message == caught.value.message


def test_completion_takes_an_empty_suffix_as_none() -> None:
    assert [None, "b"] == [complete(suffix=suffix).suffix for suffix in ("", "b")]


FULL_COMPLETION = msgspec.json.encode(
    {
        "model": "m",
        "prompt": ["x"],
        "suffix": "y",
        "max_tokens": 5,
        "stop": ["a"],
        "n": 1,
        "logprobs": 1,
        "seed": 1,
        "temperature": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
)


@settings(max_examples=300, deadline=None)
@given(body=strategies.mutations(FULL_COMPLETION))
def test_completion_raises_nothing_but_api_error_when_one_thing_is_wrong(body: bytes) -> None:
    try:
        asked = completions.parse(wire(body), Compat.DOCUMENTED).request
    except ApiError as error:
        assert ErrorKind.INVALID_REQUEST is error.kind
        assert not [leak for leak in ("msgspec", "Expected `", "$.", "codec") if leak in error.message]
    else:
        assert asked.model
