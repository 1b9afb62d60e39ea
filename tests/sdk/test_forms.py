"""Every form of both official SDKs against echo: the same question has the same outcome, whatever asked it."""

import itertools
import json
import zlib

import jsonschema
import pytest

from boxes import Box
from sdk import forms
from sdk.forms import Form

QUESTION = "请介绍一下自然语言处理技术。"
ASKED = [{"role": "system", "content": "你是一个有帮助的助手。"}, {"role": "user", "content": QUESTION}]
GREEDY = {"temperature": 0.0}

# 3 for the answer's opening, 4 for each message, and the echo engine's tokens of both texts: one per Chinese character.
ASKED_TOKENS = 3 + 4 + len("你是一个有帮助的助手。") + 4 + len(QUESTION)
ANSWER_TOKENS = 2 + 1 + len(QUESTION)

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "天气",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["c", "f"]}},
            "required": ["city", "unit"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "get_time", "description": "时间", "parameters": {"type": "object", "properties": {}}}}

every_form = pytest.mark.parametrize("form", forms.EVERY.values(), ids=forms.EVERY)
every_stream = pytest.mark.parametrize(
    "form", [form for name, form in forms.EVERY.items() if "stream" in name], ids=[name for name in forms.EVERY if "stream" in name]
)


@every_form
def test_answer_has_text_reason_usage_and_id_when_asked(box: Box, form: Form):
    outcome = form(box, ASKED, **GREEDY)

    assert (outcome.first.text, outcome.first.reason) == (f"Echo: {QUESTION}", "stop")
    assert (outcome.input_tokens, outcome.output_tokens) == (ASKED_TOKENS, ANSWER_TOKENS)
    assert len(outcome.request_id) == 36


@every_stream
def test_stream_comes_in_pieces_when_asked(box: Box, form: Form, request: pytest.FixtureRequest):
    outcome = form(box, ASKED, **GREEDY)

    pieces = [piece for piece in outcome.pieces if piece]
    if "merged" in request.node.name:
        assert all(later.startswith(sooner) for sooner, later in itertools.pairwise(pieces))
        assert pieces[-1] == f"Echo: {QUESTION}"
    else:
        assert "".join(pieces) == f"Echo: {QUESTION}"
    assert len(pieces) >= ANSWER_TOKENS


@every_form
def test_answer_is_cut_with_length_when_max_tokens_is_small(box: Box, form: Form):
    outcome = form(box, ASKED, max_tokens=5, **GREEDY)

    assert (outcome.first.text, outcome.first.reason, outcome.output_tokens) == (f"Echo: {QUESTION[:3]}"[:8], "length", 5)


@every_form
def test_answer_ends_before_stop_when_one_is_written(box: Box, form: Form):
    outcome = form(box, ASKED, stop=["语言", "技术"], **GREEDY)

    assert (outcome.first.text, outcome.first.reason) == ("Echo: 请介绍一下自然", "stop")


@every_form
def test_answer_ends_before_stop_tokens_when_they_are_written(box: Box, form: Form):
    outcome = form(box, ASKED, stop=[[zlib.crc32("自".encode()), zlib.crc32("然".encode())]], **GREEDY)

    assert (outcome.first.text, outcome.first.reason) == ("Echo: 请介绍一下", "stop")


@every_form
def test_seed_repeats_the_text_when_drawn(box: Box, form: Form):
    seeded = {form(box, ASKED, temperature=1.0, seed=7).first.text for _ in range(2)}

    assert len(seeded) == 1
    assert seeded.isdisjoint({form(box, ASKED, temperature=1.0, seed=8).first.text})


@every_form
def test_unseeded_answers_differ_when_drawn(box: Box, form: Form):
    assert len({form(box, ASKED, temperature=1.0).first.text for _ in range(3)}) == 3


@every_form
def test_json_object_parses_when_asked_for(box: Box, form: Form):
    outcome = form(box, [{"role": "user", "content": '返回 json："甲"\n'}], response_format={"type": "json_object"}, **GREEDY)

    assert json.loads(outcome.first.text) == {"echo": '返回 json："甲"\n'}
    assert outcome.first.reason == "stop"


@every_form
def test_json_schema_validates_when_asked_for(box: Box, form: Form):
    schema = {
        "type": "object",
        "properties": {"水果": {"type": "array", "minItems": 3, "items": {"$ref": "#/$defs/fruit"}}},
        "required": ["水果"],
        "additionalProperties": False,
        "$defs": {
            "fruit": {
                "type": "object",
                "properties": {"name": {"enum": ["苹果", "香蕉"]}, "price": {"type": "number", "exclusiveMinimum": 0}},
                "required": ["name", "price"],
            }
        },
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "fruits", "schema": schema, "strict": True}}

    outcome = form(box, ASKED, response_format=wanted, **GREEDY)

    jsonschema.validate(json.loads(outcome.first.text), schema)
    assert outcome.first.reason == "stop"


@every_form
def test_tool_round_trip_ends_in_an_answer_when_the_result_is_sent(box: Box, form: Form):
    asked = [{"role": "user", "content": "请用 get_weather 查杭州天气"}]

    called = form(box, asked, tools=[WEATHER, CLOCK], **GREEDY)

    call_id, name, arguments = called.first.calls[0]
    assert (len(called.first.calls), name, called.first.text, called.first.reason) == (1, "get_weather", "", "tool_calls")
    jsonschema.validate(json.loads(arguments), WEATHER["function"]["parameters"])
    history = [
        *asked,
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}],
        },
        {"role": "tool", "tool_call_id": call_id, "content": "晴，22 度"},
    ]
    answered = form(box, history, tools=[WEATHER, CLOCK], **GREEDY)
    assert (answered.first.text, answered.first.calls, answered.first.reason) == ("Echo: get_weather returned 晴，22 度", [], "stop")


@every_form
def test_parallel_calls_come_together_when_allowed(box: Box, form: Form):
    asked = [{"role": "user", "content": "get_time and get_weather please"}]

    both = form(box, asked, tools=[WEATHER, CLOCK], parallel_tool_calls=True, **GREEDY)
    one = form(box, asked, tools=[WEATHER, CLOCK], **GREEDY)

    assert [name for _, name, _ in both.first.calls] == ["get_time", "get_weather"]
    assert len({call_id for call_id, _, _ in both.first.calls}) == 2
    assert [name for _, name, _ in one.first.calls] == ["get_time"]


@every_form
def test_named_tool_is_called_when_demanded(box: Box, form: Form):
    choice = {"type": "function", "function": {"name": "get_weather"}}

    said = form(box, ASKED, tools=[CLOCK, WEATHER], tool_choice=choice, **GREEDY).first

    assert [name for _, name, _ in said.calls] == ["get_weather"]
    # Both wires say "stop" for a call the caller demanded by name (wire reference 2.3).
    assert said.reason in ("stop", "tool_calls")


@every_form
def test_some_tool_is_called_when_required(box: Box, form: Form):
    said = form(box, ASKED, tools=[CLOCK, WEATHER], tool_choice="required", **GREEDY).first

    assert ([name for _, name, _ in said.calls], said.reason) == (["get_time"], "tool_calls")


@every_form
def test_no_tool_is_called_when_none_is_chosen(box: Box, form: Form):
    said = form(box, [{"role": "user", "content": "get_time"}], tools=[CLOCK], tool_choice="none", **GREEDY).first

    assert (said.calls, said.text) == ([], "Echo: get_time")


@every_form
def test_thinking_comes_apart_when_enabled(box: Box, form: Form):
    outcome = form(box, ASKED, enable_thinking=True, **GREEDY)

    assert QUESTION in outcome.first.reasoning
    assert (outcome.first.text, outcome.first.reason) == (f"Echo: {QUESTION}", "stop")
    assert outcome.output_tokens > ANSWER_TOKENS


@every_form
def test_thinking_keeps_to_its_budget_when_one_is_set(box: Box, form: Form, request: pytest.FixtureRequest):
    outcome = form(box, ASKED, enable_thinking=True, thinking_budget=6, **GREEDY)

    assert (outcome.first.text, outcome.output_tokens) == (f"Echo: {QUESTION}", ANSWER_TOKENS + 6)
    if "Completions" not in request.node.name:
        assert outcome.reasoning_tokens == 6


@every_form
def test_thinking_is_absent_when_not_enabled(box: Box, form: Form):
    assert [form(box, ASKED, **options, **GREEDY).first.reasoning for options in ({}, {"enable_thinking": False})] == ["", ""]


@every_form
def test_logprobs_cover_the_answer_when_wanted(box: Box, form: Form):
    said = form(box, ASKED, logprobs=True, top_logprobs=2, **GREEDY).first

    assert "".join(said.tokens) == said.text == f"Echo: {QUESTION}"


@every_form
def test_choices_are_as_many_as_wanted(box: Box, form: Form):
    outcome = form(box, ASKED, n=3, temperature=1.0, seed=5)

    texts = [said.text for said in outcome.choices]
    assert len(set(texts)) == 3
    assert {said.reason for said in outcome.choices} == {"stop"}
    assert outcome.input_tokens == ASKED_TOKENS


@pytest.mark.parametrize(
    # The v2 client's openai protocol drops `partial` from messages (dashscope 2.0.2, v2/protocols/openai.py).
    "form",
    [form for name, form in forms.EVERY.items() if "Client openai" not in name],
    ids=[name for name in forms.EVERY if "Client openai" not in name],
)
def test_partial_turn_is_continued_when_it_ends_the_messages(box: Box, form: Form):
    outcome = form(box, [*ASKED, {"role": "assistant", "content": "好的：", "partial": True}], **GREEDY)

    assert outcome.first.text == f" {QUESTION}"


@every_form
def test_every_answer_has_an_id_of_its_own(box: Box, form: Form):
    assert len({form(box, ASKED).request_id for _ in range(3)}) == 3


@every_form
def test_aliases_and_other_models_answer_when_named(box: Box, form: Form):
    for model in ("qwen-plus", "qwen-max", "qwen-turbo-latest", "qwen-plus-latest"):
        assert form(box, ASKED, model=model, **GREEDY).first.text == f"Echo: {QUESTION}"


@every_form
def test_long_answer_arrives_whole_when_it_has_thousands_of_tokens(box: Box, form: Form):
    text = "一二三四五六七八九十" * 200

    outcome = form(box, [{"role": "user", "content": text}], **GREEDY)

    assert (outcome.first.text, outcome.output_tokens) == (f"Echo: {text}", 2 + 1 + len(text))


@every_form
def test_odd_characters_survive_both_ways(box: Box, form: Form):
    text = '👩‍👩‍👧 \\ "quoted" \t \r\n data: [DONE]\n\n </tool_call> \u2028 \x7f é'

    assert form(box, [{"role": "user", "content": text}], **GREEDY).first.text == f"Echo: {text}"
