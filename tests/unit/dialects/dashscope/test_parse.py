import msgspec
import pytest

from qwenbox.dialects.base import Parsed, WireRequest
from qwenbox.dialects.dashscope import parse
from qwenbox.dialects.dashscope.render import StreamReply, WholeReply
from qwenbox.terms.caller import Compat
from qwenbox.terms.chat import ChatRequest, Role, TextPart, Thinking, ToolAuto, ToolNone
from qwenbox.terms.errors import ApiError, ErrorKind

TEXT_PATH = "/api/v1/services/aigc/text-generation/generation"
MULTIMODAL_PATH = "/api/v1/services/aigc/multimodal-generation/generation"
USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "index": 0, "function": {"name": "now", "arguments": "{}"}}
BOTH = [Compat.DOCUMENTED, Compat.STRICT]
NO_JSON_NUMBERS = [b"NaN", b"Infinity", b"-Infinity", b"01", b"+1", b"0x10"]
BAD_BODY = "Required body invalid, please check the request body format."


def parsed(body: object, compat: Compat = Compat.DOCUMENTED, *, path: str = TEXT_PATH, **headers: str) -> Parsed[ChatRequest]:
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return parse.chat(WireRequest(id="id", method="POST", path=path, received_at=0.0, headers=named, body=data), compat)


def asked(compat: Compat = Compat.DOCUMENTED, *, path: str = TEXT_PATH, messages: object = None, **parameters: object) -> ChatRequest:
    """The terms of a call in message format with these parameters."""
    body = {"model": "m", "input": {"messages": messages or [USER]}, "parameters": {"result_format": "message", **parameters}}
    return parsed(body, compat, path=path).request


def refused(body: object, compat: Compat = Compat.DOCUMENTED, **more: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parsed(body, compat, **more)
    return caught.value


def refusal(compat: Compat = Compat.DOCUMENTED, **parameters: object) -> str:
    """The text for these parameters."""
    return refused({"model": "m", "input": {"messages": [USER]}, "parameters": {"result_format": "message", **parameters}}, compat).message


@pytest.mark.parametrize("compat", BOTH)
@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("temperature", -0.1, None),
        ("temperature", 2.1, None),
        ("top_p", 1.01, None),
        ("top_p", -0.01, None),
        ("top_k", -1, "Parameter top_k be greater than or equal to 0"),
        ("repetition_penalty", 0, "Repetition_penalty should be greater than 0.0"),
        ("presence_penalty", 2.1, "Presence_penalty should be in [-2.0, 2.0]"),
        ("frequency_penalty", -2.1, "Frequency_penalty should be in [-2.0, 2.0]"),
        ("n", 0, "Range of n should be [1, 4]"),
        ("n", 5, "Range of n should be [1, 4]"),
        ("seed", -1, "Range of seed should be [0, 9223372036854775807]"),
        ("seed", 2**63, "Range of seed should be [0, 9223372036854775807]"),
        ("seed", 10**100, "Range of seed should be [0, 9223372036854775807]"),
        ("top_logprobs", 6, "Range of top_logprobs should be [0, 5]"),
        ("thinking_budget", 0, "The thinking_budget parameter must be a positive integer and not greater than 2147483647"),
        ("enable_search", True, "This model does not support enable_search."),
        ("enable_code_interpreter", True, "This model does not support enable_code_interpreter."),
        ("logit_bias", {"5": 1}, "This model does not support logit_bias."),
        ("result_format", "xml", 'The result_format parameter must be "text" or "message"'),
        ("tool_choice", "any", 'tool_choice is one of the strings that should be ["none", "auto"]'),
        ("tool_choice", 5, 'tool_choice is one of the strings that should be ["none", "auto"]'),
        ("temperature", "1", "'temperature' must be Float"),
        ("temperature", True, "'temperature' must be Float"),
        ("top_p", [], "'top_p' must be Float"),
        ("seed", 1.5, "'seed' must be Integer"),
        ("seed", True, "'seed' must be Integer"),
        ("max_tokens", "5", "'max_tokens' must be Integer"),
        ("enable_thinking", 1, "'enable_thinking' must be Boolean"),
        ("incremental_output", "true", "'incremental_output' must be Boolean"),
        ("tools", {}, "'tools' must be Array"),
        ("result_format", 5, "'result_format' must be String"),
        ("stop", "", 'The "stop" parameter must not contain an empty string.'),
    ],
)
def test_parameter_is_refused_in_the_services_words(compat: Compat, name: str, value: object, text: str | None) -> None:
    ranges = {
        ("temperature", Compat.DOCUMENTED): "Temperature should be in [0.0, 2.0]",
        ("temperature", Compat.STRICT): "Temperature should be in [0.0, 2.0)",
        ("top_p", Compat.DOCUMENTED): "Range of top_p should be [0.0, 1.0]",
        ("top_p", Compat.STRICT): "Range of top_p should be (0.0, 1.0]",
    }
    assert (text or ranges[name, compat]) == refusal(compat, **{name: value})


@pytest.mark.parametrize("name", ["temperature", "top_p", "presence_penalty", "frequency_penalty"])
def test_closed_range_holds_both_bounds_at_level_documented(name: str) -> None:
    low, high = {"temperature": (0, 2), "top_p": (0, 1)}.get(name, (-2, 2))
    assert [low, high] == [getattr(asked(**{name: value}).sampling, name) for value in (low, high)]


@pytest.mark.parametrize(("name", "value"), [("temperature", 2), ("top_p", 0)])
def test_half_open_range_leaves_its_bound_out_at_level_strict(name: str, value: int) -> None:
    assert refusal(Compat.STRICT, **{name: value})
    other = {"temperature": 0, "top_p": 1}[name]
    assert other == getattr(asked(Compat.STRICT, **{name: other}).sampling, name)


@pytest.mark.parametrize("compat", BOTH)
@pytest.mark.parametrize("value", [["a", 1], [1, [2]], [["a"]], 5, [-1], [2**31], [[]], [None], [True], {"a": 1}])
def test_stop_of_another_type_is_refused(compat: Compat, value: object) -> None:
    assert refusal(compat, stop=value).startswith('The "stop" parameter must be of type "str", "list[str]", "list[int]"')


@pytest.mark.parametrize(
    ("value", "texts", "tokens"),
    [
        ("a", ("a",), ()),
        (["a", "b"], ("a", "b"), ()),
        ([1, 2], (), ((1,), (2,))),
        ([[1, 2], [3]], (), ((1, 2), (3,))),
        ([], (), ()),
        (None, (), ()),
    ],
)
def test_stop_is_read_in_every_form(value: object, texts: object, tokens: object) -> None:
    request = asked(stop=value)
    assert (texts, tokens) == (request.stop, request.stop_tokens)


@pytest.mark.parametrize(
    ("said", "meant"), [({}, None), ({"top_k": None}, 0), ({"top_k": 101}, 0), ({"top_k": 100}, 100), ({"top_k": 0}, 0)]
)
def test_top_k_tells_absent_from_null(said: dict, meant: int | None) -> None:
    assert meant == asked(**said).sampling.top_k


def test_both_output_limits_mean_the_lower_one() -> None:
    assert 7 == asked(max_tokens=7, max_completion_tokens=9).max_output_tokens
    assert 9 == asked(max_completion_tokens=9).max_output_tokens
    assert None is asked().max_output_tokens


def test_seed_stays_unsaid() -> None:
    assert None is asked().sampling.seed
    assert 2**63 - 1 == asked(seed=2**63 - 1).sampling.seed


def test_logprobs_count_alternatives_only_when_wanted() -> None:
    assert [None, 0, 5] == [
        asked(**said).top_logprobs for said in ({"top_logprobs": 3}, {"logprobs": True}, {"logprobs": True, "top_logprobs": 5})
    ]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({}, Thinking()),
        ({"enable_thinking": False}, Thinking(is_enabled=False)),
        ({"thinking_budget": 9}, Thinking(budget_tokens=9)),
        ({"reasoning_effort": "none"}, Thinking(is_enabled=False)),
        ({"reasoning_effort": "low", "enable_thinking": True}, Thinking(is_enabled=True, budget_tokens=4096)),
        ({"reasoning_effort": "max"}, Thinking()),
    ],
)
def test_thinking_is_read_from_switch_budget_and_effort(said: dict, meant: Thinking) -> None:
    assert meant == asked(**said).thinking


def test_effort_and_budget_exclude_each_other() -> None:
    assert "reasoning_effort and thinking_budget must not be set together." == refusal(reasoning_effort="low", thinking_budget=5)
    assert refusal(reasoning_effort="very").startswith("reasoning_effort is one of the strings that should be")


@pytest.mark.parametrize(
    ("tool", "text"),
    [
        ({"type": "web_search"}, 'A tool must have the type "function" and a function.'),
        ({"function": {"name": "a b"}}, "Tool names must be 1 to 64 letters, digits, underscores or hyphens."),
        ({"function": {"name": "a\n"}}, "Tool names must be 1 to 64 letters, digits, underscores or hyphens."),
        ({"function": {"name": "x" * 65}}, "Tool names must be 1 to 64 letters, digits, underscores or hyphens."),
        ({"function": {}}, "Field required: parameters.tools[0].function.name"),
        (
            {"function": {"name": "a", "parameters": []}},
            "Required parameter(tools[0].function.parameters) missing or invalid, please check the request parameters.",
        ),
    ],
)
def test_tool_is_refused_when_it_is_none(tool: dict, text: str) -> None:
    assert text == refusal(tools=[tool])


def test_tools_keep_the_callers_schema_bytes() -> None:
    spec = asked(tools=[TOOL, {"type": "function", "function": {"name": "later", "description": "d"}}]).tools
    assert [("now", "", b'{"type":"object"}'), ("later", "d", b"{}")] == [(tool.name, tool.description, tool.parameters) for tool in spec]


def test_search_is_no_tool_name_at_level_strict() -> None:
    tool = {"type": "function", "function": {"name": "search"}}
    assert "Tool names are not allowed to be [search]" == refusal(Compat.STRICT, tools=[tool])
    assert "search" == asked(tools=[tool]).tools[0].name


def test_tools_allow_one_choice_and_one_of_each_name() -> None:
    assert "The n parameter must be 1 when tools are used" == refusal(tools=[TOOL], n=2)
    assert "Tool names must be unique." == refusal(tools=[TOOL, TOOL])


def test_tool_choice_needs_the_tool_it_names() -> None:
    named = {"type": "function", "function": {"name": "later"}}
    assert "tool_choice names a function that is not among the tools." == refusal(tools=[TOOL], tool_choice=named)
    assert 'tool_choice "required" needs tools.' == refusal(tool_choice="required")
    assert [ToolAuto(), ToolNone()] == [asked(tools=[TOOL], tool_choice=word).tool_choice for word in ("auto", "none")]


def test_parallel_calls_are_off_unless_asked_for() -> None:
    assert [False, True] == [asked(**said).is_parallel_tool_calls for said in ({}, {"parallel_tool_calls": True})]


@pytest.mark.parametrize(
    ("form", "kind"), [({"type": "xml"}, "xml"), ({}, "None"), ("json", "str"), ([], "array"), ({"type": "x" * 500}, "x" * 128)]
)
def test_unknown_response_format_is_named(form: object, kind: str) -> None:
    assert refusal(response_format=form).endswith(f"The response_format type from user is {kind}.")


def test_schema_is_demanded_of_json_schema() -> None:
    for form in ({"type": "json_schema"}, {"type": "json_schema", "json_schema": {"schema": []}}):
        assert refusal(response_format=form).startswith("Required parameter(response_format.json_schema.schema) missing or invalid")


@pytest.mark.parametrize("compat", BOTH)
@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([{"role": "user"}], "The content field is a required field."),
        ([{"role": "user", "content": None}], "The content field is a required field."),
        ([{"role": "user", "content": 5}], "input content must be a string."),
        (["hi"], "Input should be a valid dictionary or instance of GPT3Message"),
        ([{"content": "hi"}], "Field required: input.messages[0].role"),
        ([{"role": "plugin", "content": "x"}], 'Role "plugin" is not supported. Roles are system, user, assistant and tool.'),
        ([{"role": "wizard", "content": "x"}], "Role must be system, user, assistant or tool."),
        ([{"role": "system", "content": "x"}], "The input messages do not contain elements with the role of user."),
        (
            [USER, {"role": "tool", "content": "x", "tool_call_id": "c1"}],
            'messages with role "tool" must be a response to a preceeding message with "tool_calls"',
        ),
        (
            [USER, {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "x", "tool_call_id": "c2"}],
            'messages with role "tool" must be a response to a preceeding message with "tool_calls"',
        ),
        (
            [USER, {"role": "assistant", "content": "", "tool_calls": [{**CALL, "function": {"name": "now", "arguments": "{"}}]}],
            'The "function.arguments" parameter of the code model must be in JSON format.',
        ),
        (
            [{"role": "assistant", "content": "a", "partial": True}, USER],
            "partial is only allowed on the last message, whose role must be assistant.",
        ),
        ([{**USER, "tool_calls": [CALL]}], "tool_calls are only allowed in a message whose role is assistant."),
    ],
)
def test_message_is_refused_in_the_services_words(compat: Compat, messages: list, text: str) -> None:
    assert text == refused({"model": "m", "input": {"messages": messages}}, compat).message


@pytest.mark.parametrize("item", [{}, {"text": "a", "image": "b"}, {"type": "text"}, 5, "a", {"text": 5}, {"image": ""}])
def test_content_item_must_be_of_one_modal(item: object) -> None:
    body = {"model": "m", "input": {"messages": [{"role": "user", "content": [item]}]}}
    assert "The item of content should be a message of a certain modal." == refused(body, path=MULTIMODAL_PATH).message


URLS = [f"https://example.com/{number}.jpg" for number in range(513)]
FRAMES = "The video modality input does not meet the requirements because: the range of sequence images shoule be (4, 512)."
NO_FILMS = "A film is read as the list of its frames here: send a list of pictures as video, with fps."
MODAL = "The item of content should be a message of a certain modal."


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"video": URLS[:3]}, FRAMES),
        ({"video": URLS}, FRAMES),
        (
            {"video": "https://example.com/film.mp4"},
            "A film is read as the list of its frames here: send a list of pictures as video, with fps.",
        ),
        ({"video": URLS[:4], "fps": 11}, "Range of fps should be [0.1, 10.0]"),
        ({"video": URLS[:4], "total_pixels": 0}, "The total_pixels parameter must be a positive integer"),
        ({"image": URLS[0], "min_pixels": -1}, "The min_pixels parameter must be a positive integer"),
        ({"image": URLS[0], "min_pixels": 2, "max_pixels": 1}, "min_pixels must not be greater than max_pixels"),
        ({"image": URLS[0], "video": URLS[:4]}, MODAL),
        ({"image": URLS[0], "text": "hi"}, MODAL),
        ({"image": [URLS[0]]}, MODAL),
        ({"image": ""}, MODAL),
        ({"video": 1}, MODAL),
        ({}, MODAL),
        ({"audio": URLS[0]}, "Content of the modal audio is not supported. Contents are text, image and video."),
        ({"file": URLS[0]}, "Content of the modal file is not supported. Contents are text, image and video."),
    ],
)
def test_picture_or_film_out_of_range_is_refused_in_the_services_words(item: dict, message: str) -> None:
    body = {"model": "m", "input": {"messages": [{"role": "user", "content": [item]}]}}
    for compat in Compat:
        assert message == refused(body, compat, path=MULTIMODAL_PATH).message


def test_pictures_do_not_pass_as_a_marked_prefix_at_level_strict() -> None:
    content = [{"image": "https://example.com/1.jpg", "cache_control": {"type": "ephemeral"}}]
    body = {"model": "m", "input": {"messages": [{"role": "user", "content": content}]}}
    assert "input content must be a string." == refused(body, Compat.STRICT).message


def test_empty_user_turn_is_refused_only_at_level_strict() -> None:
    body = {"model": "m", "input": {"messages": [{"role": "user", "content": ""}]}}
    assert () == parsed(body).request.messages[0].content
    assert refused(body, Compat.STRICT).message.startswith("Role must be user or assistant")


def test_call_arguments_are_text_of_an_object_however_written() -> None:
    written = ['{"a": 1}', {"a": 1}, "", None]
    calls = [{**CALL, "id": f"c{at}", "function": {"name": "now", "arguments": value}} for at, value in enumerate(written)]
    turn = asked(messages=[USER, {"role": "assistant", "content": None, "tool_calls": calls}]).messages[1]
    assert ['{"a": 1}', '{"a":1}', "{}", "{}"] == [call.arguments for call in turn.tool_calls]


def test_tool_result_without_an_id_is_taken() -> None:
    result = {"role": "tool", "name": "now", "content": "noon"}
    turns = asked(messages=[USER, {"role": "assistant", "content": "", "tool_calls": [CALL]}, result]).messages
    assert (Role.TOOL, "now", None) == (turns[2].role, turns[2].name, turns[2].tool_call_id)


def test_prompt_of_lines_is_one_text() -> None:
    body = {"model": "m", "input": {"prompt": ["a\n", "b"]}}
    assert (TextPart(text="a\nb"),) == parsed(body).request.messages[0].content


def test_history_turn_needs_both_sides() -> None:
    body = {"model": "m", "input": {"prompt": "x", "history": [{"user": "a"}]}}
    assert "Field required: input.history[0].bot" == refused(body).message


@pytest.mark.parametrize(
    "headers", [{"accept": "text/event-stream"}, {"x_dashscope_sse": "enable"}, {"accept": "*/*", "x_dashscope_sse": "Enable"}]
)
def test_either_header_asks_for_a_stream(headers: dict[str, str]) -> None:
    assert isinstance(parsed({"model": "m", "input": {"prompt": "x"}}, **headers).reply, StreamReply)


def test_no_header_asks_for_one_object() -> None:
    body = {"model": "m", "input": {"prompt": "x"}, "parameters": {"stream": True}}
    assert isinstance(parsed(body, accept="application/json").reply, WholeReply)


@pytest.mark.parametrize(
    ("compat", "parameters", "default"),
    [
        (Compat.DOCUMENTED, {}, "incremental"),
        (Compat.DOCUMENTED, {"tools": [TOOL]}, "cumulative"),
        (Compat.DOCUMENTED, {"incremental_output": False}, None),
        (Compat.STRICT, {"result_format": "message"}, "cumulative"),
        (Compat.STRICT, {"incremental_output": True}, None),
    ],
)
def test_stream_says_which_default_it_was_served_on(compat: Compat, parameters: dict, default: str | None) -> None:
    body = {"model": "m", "input": {"messages": [USER]}, "parameters": parameters}
    head = parsed(body, compat, accept="text/event-stream").reply.head
    assert default == head.headers.get("x-qwenbox-stream-default")
    assert (200, "text/event-stream;charset=UTF-8") == (head.status, head.media_type)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"n": 2}, "n is greater than 1"),
        ({"logprobs": True}, "logprobs is true"),
        ({"enable_thinking": True}, "enable_thinking is true"),
    ],
)
def test_text_format_is_refused_for_what_it_cannot_hold(parameters: dict, reason: str) -> None:
    body = {"model": "m", "input": {"prompt": "x"}, "parameters": {**parameters, "result_format": "text"}}
    assert f'The result_format parameter must be "message" when {reason}' == refused(body).message
    assert parsed({**body, "parameters": parameters}).request.messages


def test_json_while_thinking_is_refused_only_at_level_strict() -> None:
    form = {"response_format": {"type": "json_object"}, "enable_thinking": True}
    assert "Json mode response is not supported when enable_thinking is true" == refusal(Compat.STRICT, **form)
    assert asked(**form).thinking.is_enabled


def test_asynchronous_call_is_forbidden() -> None:
    error = refused({"model": "m", "input": {"prompt": "x"}}, x_dashscope_async="enable")
    assert (ErrorKind.FORBIDDEN, "Current user api does not support asynchronous calls.") == (error.kind, error.message)


def test_plugins_are_refused() -> None:
    assert "Plugins are not supported." == refused({"model": "m", "input": {"prompt": "x"}}, x_dashscope_plugin="{}").message


@pytest.mark.parametrize("value", NO_JSON_NUMBERS)
def test_number_that_json_lacks_is_a_bad_body(value: bytes) -> None:
    error = refused(b'{"model":"m","input":{"prompt":"x"},"parameters":{"temperature":%b}}' % value)
    assert error.message.startswith(BAD_BODY)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"", "Its JSON ends or breaks off too early."),
        (b'{"model":', "Its JSON ends or breaks off too early."),
        (b"{,}", "It is not JSON at byte 1."),
        (b"[]", "It must be a JSON object."),
        (b"null", "It must be a JSON object."),
        (b'"x"', "It must be a JSON object."),
        (b'{"model":"m","other":"\xff"}', "It is not UTF-8 at byte 22."),
        (b'{"model":"\xed\xa0\x80"}', "It is not UTF-8 at byte 10."),
        (b'{"model":"m","other":' + b"[" * 5000, "It is nested too deeply."),
        (b'{"other":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, "It is nested too deeply."),
        (b'{"model":"\\ud800 and more text"}', "It is not JSON at byte 16."),
    ],
)
def test_bad_body_says_where(body: bytes, where: str) -> None:
    assert f"{BAD_BODY} {where}" == refused(body).message


@pytest.mark.parametrize("value", ["1e999", "1" + "0" * 400, "-1e999"])
def test_number_past_a_double_is_refused(value: str) -> None:
    error = refused(b'{"model":"m","input":{"prompt":"x"},"parameters":{"temperature":%b}}' % value.encode())
    assert "temperature" in error.message


def test_huge_number_inside_a_schema_is_refused() -> None:
    tool = b'{"type":"function","function":{"name":"a","parameters":{"maximum":1e999}}}'
    error = refused(b'{"model":"m","input":{"messages":[{"role":"user","content":"x"}]},"parameters":{"tools":[%b]}}' % tool)
    assert error.message.startswith("Required parameter(tools[0].function.parameters) missing or invalid")
