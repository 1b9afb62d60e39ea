"""Every row of the document's table "基本参数": default, both bounds, one step outside, wrong type; both dialects, both levels."""

from typing import Any

import pytest

import wire
from boxes import Box
from sdk import forms
from sdk.forms import Form, Refused

ASKED = [{"role": "user", "content": "你好"}]
TURBO_MOST_TOKENS = 16_384
MOST_SEED = 2**63 - 1

BOTH = {"native": forms.generation, "compatible": forms.openai_whole}
both_dialects = pytest.mark.parametrize("form", BOTH.values(), ids=BOTH)

# (parameter, value): taken at both levels.
TAKEN = [
    ("temperature", 0),
    ("temperature", 0.0),
    ("temperature", 1.0),
    ("temperature", 1.999),
    ("top_p", 0.001),
    ("top_p", 0.5),
    ("top_p", 1),
    ("top_p", 1.0),
    ("max_tokens", 1),
    ("max_tokens", TURBO_MOST_TOKENS),
    ("seed", 0),
    ("seed", 1234),
    ("seed", 2**31 - 1),
    ("seed", MOST_SEED),
]

# (parameter, value, the text's beginning): refused at both levels.
REFUSED = [
    ("temperature", -0.001, "Temperature should be in [0.0, 2.0"),
    ("temperature", 2.001, "Temperature should be in [0.0, 2.0"),
    ("temperature", "warm", "'temperature' must be Float"),
    ("temperature", True, "'temperature' must be Float"),
    ("temperature", [1.0], "'temperature' must be Float"),
    ("top_p", -0.001, "Range of top_p should be "),
    ("top_p", 1.001, "Range of top_p should be "),
    ("top_p", "all", "'top_p' must be Float"),
    ("top_p", {}, "'top_p' must be Float"),
    ("max_tokens", 0, "Range of max_tokens should be [1, "),
    ("max_tokens", -1, "Range of max_tokens should be [1, "),
    ("max_tokens", TURBO_MOST_TOKENS + 1, f"Range of max_tokens should be [1, {TURBO_MOST_TOKENS}]"),
    ("max_tokens", 1.5, "'max_tokens' must be Integer"),
    ("max_tokens", "10", "'max_tokens' must be Integer"),
    ("seed", -1, f"Range of seed should be [0, {MOST_SEED}]"),
    ("seed", MOST_SEED + 1, "seed"),
    ("seed", 1.5, "'seed' must be Integer"),
    ("seed", "lucky", "'seed' must be Integer"),
]

# (parameter, value, the text at level strict): bounds the document includes and the live service does not.
DOCUMENTED_ONLY = [
    ("temperature", 2, "Temperature should be in [0.0, 2.0)"),
    ("temperature", 2.0, "Temperature should be in [0.0, 2.0)"),
    ("top_p", 0, "Range of top_p should be (0.0, 1.0]"),
    ("top_p", 0.0, "Range of top_p should be (0.0, 1.0]"),
]


@pytest.fixture(params=["documented", "strict"])
def leveled_box(request: pytest.FixtureRequest) -> Box:
    return request.getfixturevalue("box" if request.param == "documented" else "strict_box")


def refusal(form: Form, box: Box, **options: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        form(box, ASKED, **options)
    return caught.value


@both_dialects
@pytest.mark.parametrize(("name", "value"), TAKEN)
def test_parameter_is_taken_when_within_its_range(leveled_box: Box, form: Form, name: str, value: Any):
    said = form(leveled_box, ASKED, **{name: value}).first

    assert said.text.startswith("Echo")
    assert said.reason == ("length" if (name, value) == ("max_tokens", 1) else "stop")


@both_dialects
@pytest.mark.parametrize(("name", "value", "text"), REFUSED)
def test_parameter_is_refused_when_outside_or_of_another_type(leveled_box: Box, form: Form, name: str, value: Any, text: str):
    refused = refusal(form, leveled_box, **{name: value})

    assert (refused.status, refused.code) == (400, "InvalidParameter" if form is forms.generation else "invalid_parameter_error")
    assert text in refused.message


@both_dialects
@pytest.mark.parametrize(("name", "value", "text"), DOCUMENTED_ONLY)
def test_parameter_at_the_documents_bound_is_taken_at_its_level_only(
    box: Box, strict_box: Box, form: Form, name: str, value: Any, text: str
):
    assert form(box, ASKED, **{name: value}).first.reason == "stop"
    refused = refusal(form, strict_box, **{name: value})
    assert (refused.status, refused.message) == (400, text)


@both_dialects
def test_temperature_and_seed_default_to_drawing_at_random(leveled_box: Box, form: Form):
    assert len({form(leveled_box, ASKED).first.text for _ in range(5)}) == 5


@both_dialects
@pytest.mark.parametrize(("model", "most"), [("qwen-turbo", TURBO_MOST_TOKENS), ("qwen-plus", 32_768), ("qwen-max", 32_768)])
def test_max_tokens_defaults_to_the_models_maximum(box: Box, form: Form, model: str, most: int):
    outcome = form(box, [{"role": "user", "content": "长" * 40_000}], model=model)

    assert (outcome.first.reason, outcome.output_tokens) == ("length", most)


def test_stream_defaults_to_a_whole_answer(leveled_box: Box):
    for path, body in ((wire.NATIVE_CHAT, wire.native()), (wire.COMPATIBLE_CHAT, wire.compatible())):
        heard = wire.post(leveled_box, path, body)
        assert (heard.status, heard.headers["content-type"].partition(";")[0]) == (200, "application/json")


@pytest.mark.parametrize(
    ("headers", "is_stream"),
    [
        ({"accept": "text/event-stream"}, True),
        ({"x-dashscope-sse": "enable"}, True),
        ({"x-dashscope-sse": "disable"}, False),
        ({"accept": "application/json"}, False),
    ],
)
def test_native_stream_is_asked_for_by_header(leveled_box: Box, headers: dict[str, str], is_stream: bool):
    heard = wire.post(leveled_box, wire.NATIVE_CHAT, wire.native(), headers=headers)

    assert heard.headers["content-type"].startswith("text/event-stream") is is_stream
    assert heard.body.startswith(b"id:1\nevent:result\n:HTTP_STATUS/200\ndata:{") is is_stream


@pytest.mark.parametrize(("value", "kind"), [(True, "text/event-stream"), (False, "application/json"), (None, "application/json")])
def test_compatible_stream_is_asked_for_in_the_body(leveled_box: Box, value: bool | None, kind: str):
    heard = wire.post(leveled_box, wire.COMPATIBLE_CHAT, {**wire.compatible(), "stream": value})

    assert (heard.status, heard.headers["content-type"].partition(";")[0]) == (200, kind)


@pytest.mark.parametrize("value", ["yes", 1, [True], {}])
def test_compatible_stream_is_refused_when_it_is_no_boolean(leveled_box: Box, value: Any):
    heard = wire.post(leveled_box, wire.COMPATIBLE_CHAT, wire.compatible(stream=value))

    assert (heard.status, heard.error["message"], heard.error["param"]) == (400, "'stream' must be Boolean", "stream")


@pytest.mark.parametrize("value", [5, ["qwen-turbo"], {"name": "qwen-turbo"}, True, ""])
def test_model_is_refused_when_it_is_no_name(leveled_box: Box, value: Any):
    for path, body in ((wire.NATIVE_CHAT, wire.native(model=value)), (wire.COMPATIBLE_CHAT, wire.compatible(model=value))):
        heard = wire.post(leveled_box, path, body)
        assert heard.status == 400
        assert "model" in heard.error["message"]


def test_model_is_refused_when_it_is_missing(leveled_box: Box):
    native = wire.post(leveled_box, wire.NATIVE_CHAT, {"input": wire.native()["input"]})
    compatible = wire.post(leveled_box, wire.COMPATIBLE_CHAT, {"messages": ASKED})

    assert (native.status, native.error["code"]) == (400, "BadRequest.EmptyModel")
    assert (native.error["message"], compatible.error["message"]) == (
        'Required parameter "model" missing from request.',
        "you must provide a model parameter.",
    )
    assert compatible.status == 400


@both_dialects
def test_model_is_not_found_when_unknown(catalog_box: Box, form: Form):
    refused = refusal(form, catalog_box, model="qwen-imaginary")

    assert (refused.status, refused.code) == (404, "ModelNotFound" if form is forms.generation else "model_not_found")
    assert "qwen-imaginary" in refused.message


@both_dialects
@pytest.mark.parametrize("model", ["qwen-turbo", "qwen-plus", "qwen-max"])
def test_model_answers_when_the_document_names_it(catalog_box: Box, form: Form, model: str):
    assert form(catalog_box, ASKED, model=model).first.reason == "stop"


@both_dialects
def test_messages_are_taken_in_every_documented_role(leveled_box: Box, form: Form):
    messages = [
        {"role": "system", "content": "你是一个有帮助的助手。"},
        {"role": "user", "content": "甲"},
        {"role": "assistant", "content": "乙"},
        {"role": "user", "content": "丙"},
    ]

    assert form(leveled_box, messages, temperature=0).first.text == "Echo: 丙"


BAD_MESSAGES = [
    "你好",
    5,
    {},
    {"role": "user", "content": "你好"},
    [],
    [5],
    ["你好"],
    [{}],
    [{"role": "user"}],
    [{"content": "你好"}],
    [{"role": "user", "content": 5}],
    [{"role": "user", "content": {}}],
    [{"role": 5, "content": "你好"}],
    [{"role": "人", "content": "你好"}],
    [{"role": "user", "content": [{"type": "sound"}]}],
    [{"role": "tool", "content": "结果", "tool_call_id": "x"}],
]


@pytest.mark.parametrize("messages", BAD_MESSAGES, ids=repr)
def test_messages_are_refused_when_they_are_no_conversation(leveled_box: Box, messages: Any):
    native = wire.post(leveled_box, wire.NATIVE_CHAT, wire.native(input={"messages": messages}))
    compatible = wire.post(leveled_box, wire.COMPATIBLE_CHAT, wire.compatible(messages=messages))

    assert (native.status, native.error["code"]) == (400, "InvalidParameter")
    assert compatible.status == 400
    assert compatible.error["type"] == "invalid_request_error"


def test_messages_are_refused_when_they_are_missing(leveled_box: Box):
    native = wire.post(leveled_box, wire.NATIVE_CHAT, wire.native(input={}))
    compatible = wire.post(leveled_box, wire.COMPATIBLE_CHAT, {"model": "qwen-turbo"})

    assert (native.status, native.error["message"]) == (400, 'Either "prompt" or "messages" must exist and cannot both be none')
    assert (compatible.status, compatible.error["type"]) == (400, "invalid_request_error")


def test_messages_are_refused_when_nobody_asks(strict_box: Box):
    nobody = [{"role": "system", "content": "只有系统"}]

    for path, body in (
        (wire.NATIVE_CHAT, wire.native(input={"messages": nobody})),
        (wire.COMPATIBLE_CHAT, wire.compatible(messages=nobody)),
    ):
        heard = wire.post(strict_box, path, body)
        assert (heard.status, heard.error["message"]) == (400, "The input messages do not contain elements with the role of user.")
