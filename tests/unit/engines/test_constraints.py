"""Whatever a grammar of ours allows validates, by a validator the product does not use; what it cannot keep is refused."""

import json
import random
import re
import time
from decimal import Decimal
from typing import Any

import jsonschema
import pytest

from e2e.schemas import EVERYDAY, HEAVY, generated
from qwenbox.engines.constraints.answer import constraint
from qwenbox.engines.constraints.matching import is_possible
from qwenbox.engines.constraints.numbers import Range, multiples, number
from qwenbox.engines.constraints.patterns import Unsupported, bounded, parse
from qwenbox.terms.chat import (
    ChatRequest,
    JsonObject,
    JsonSchema,
    Message,
    ResponseFormat,
    Role,
    TextPart,
    ToolNamed,
    ToolNone,
    ToolRequired,
    ToolSpec,
)
from qwenbox.terms.errors import ApiError, ErrorKind
from support.lark import Grammar

CHECKER = jsonschema.Draft202012Validator.FORMAT_CHECKER
WEATHER = ToolSpec(
    name="get_weather",
    parameters=b'{"type":"object","properties":{"city":{"type":"string"},"unit":{"enum":["c","f"]}},"required":["city"]}',
)
NOW = ToolSpec(name="now")


def request(schema: Any, max_output_tokens: int = 512) -> ChatRequest:
    form: ResponseFormat = JsonSchema(schema=json.dumps(schema).encode())
    return ChatRequest(model="m", messages=(), max_output_tokens=max_output_tokens, response_format=form)


def texts(schema: Any, count: int = 30, max_output_tokens: int = 512) -> list[str]:
    grammar = Grammar(constraint(request(schema, max_output_tokens)) or "")
    rng = random.Random(5)
    return [grammar.sample(rng) for _ in range(count)]


def values(schema: Any, count: int = 30) -> list[Any]:
    """Random values of the schema's grammar; each one was validated."""
    found = [json.loads(text) for text in texts(schema, count)]
    for value in found:
        jsonschema.validate(value, schema, format_checker=CHECKER)
    return found


def refusal(schema: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        constraint(request(schema))
    assert ErrorKind.INVALID_REQUEST == caught.value.kind
    assert "response_format" == caught.value.param
    return caught.value


@pytest.mark.parametrize("seed", range(60))
def test_constraint_allows_only_valid_json_when_the_schema_is_random(seed: int) -> None:
    _, schema = generated(seed)
    assert 6 == len(values(schema, 6))


@pytest.mark.parametrize("number", range(len(EVERYDAY)))
def test_constraint_allows_only_valid_json_when_the_schema_is_an_everyday_one(number: int) -> None:
    assert 20 == len(values(EVERYDAY[number][1] or {"type": "object"}, 20))


@pytest.mark.parametrize("name", HEAVY)
def test_grammar_stays_small_and_quick_to_make_when_the_schema_is_heavy(name: str) -> None:
    started = time.monotonic()
    text = constraint(request(HEAVY[name], 32_768)) or ""
    assert time.monotonic() - started < 20
    assert 0 < len(text) < 200_000
    assert 2 == len(values(HEAVY[name], 2))


def test_constraint_is_none_when_nothing_was_promised() -> None:
    assert constraint(ChatRequest(model="m", messages=())) is None
    assert constraint(ChatRequest(model="m", messages=(), tools=(NOW,), tool_choice=ToolNone())) is None


def test_json_object_is_an_object_when_any_json_may_come() -> None:
    grammar = Grammar(constraint(ChatRequest(model="m", messages=(), max_output_tokens=512, response_format=JsonObject())) or "")
    rng = random.Random(1)
    found = [json.loads(grammar.sample(rng)) for _ in range(200)]
    assert {dict} == {type(value) for value in found}
    assert {"str", "int", "float", "bool", "NoneType", "list", "dict"} <= {
        type(inner).__name__ for value in found for inner in value.values()
    }


def test_separators_are_fixed_when_values_are_nested() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"const": 1}, "minItems": 2, "maxItems": 2}, "b": {"const": {"x": 1}}},
    }
    schema["required"] = ["a", "b"]
    assert {'{"a": [1, 1], "b": {"x": 1}}'} == set(texts(schema))


def test_text_is_bounded_by_the_tokens_there_are_when_the_schema_does_not() -> None:
    def longest(tokens: int) -> int:
        return max(int(count) for count in re.findall(r"\{0,(\d+)\}", constraint(request({"type": "string"}, tokens)) or ""))

    assert 120 < longest(64) < longest(512) < longest(4_096) <= 8_000


def test_recursion_ends_when_a_schema_holds_itself() -> None:
    schema = {
        "$defs": {"n": {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}, "v": {"type": "integer"}}, "required": ["v"]}},
        "$ref": "#/$defs/n",
    }
    assert any("next" in value for value in values(schema))


def test_optional_properties_come_and_go_when_none_is_required() -> None:
    found = values({"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}}}, 60)
    assert {"{}", '{"a": 1}', '{"b": 2}', '{"a": 1, "b": 2}'} == {json.dumps(value) for value in found}


def test_all_of_holds_at_once_when_parts_close_and_open_an_object() -> None:
    schema = {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}}, "required": ["a"], "additionalProperties": False},
            {"properties": {"a": {"maximum": 5}, "b": {"type": "string"}}},
        ]
    }
    assert {3, 4, 5} == {value["a"] for value in values(schema, 60)}
    assert {("a",)} == {tuple(value) for value in values(schema)}


def test_enum_keeps_only_values_its_neighbours_allow_when_there_are_some() -> None:
    assert {2, 4} == set(values({"enum": [1, 2, 3, 4, "x"], "type": "integer", "not": {"enum": [1, 3]}}))


def test_unique_items_are_distinct_when_they_are_literal() -> None:
    schema = {"type": "array", "items": {"enum": ["a", "b", "c", 1]}, "uniqueItems": True, "minItems": 2, "maxItems": 3}
    assert {2, 3} == {len(value) for value in values(schema, 80)}


def test_map_keeps_to_the_names_when_a_pattern_limits_them() -> None:
    schema = {
        "type": "object",
        "patternProperties": {"^x-[a-z]{1,3}$": {"type": "boolean"}},
        "additionalProperties": False,
        "minProperties": 1,
    }
    assert all(name.startswith("x-") for value in values(schema) for name in value)


def test_dependent_properties_come_together_when_one_demands_the_other() -> None:
    schema = {"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}}, "dependentRequired": {"a": ["b"]}}
    assert all("b" in value for value in values(schema) if "a" in value)


def test_one_of_is_kept_when_a_property_tells_its_branches_apart() -> None:
    schema = {
        "oneOf": [
            {"type": "object", "properties": {"kind": {"const": kind}, "size": {"type": "integer"}}, "required": ["kind", "size"]}
            for kind in ("cat", "dog")
        ]
    }
    assert {"cat", "dog"} == {value["kind"] for value in values(schema)}


def test_pattern_and_length_hold_at_once_when_both_are_given() -> None:
    assert {5, 6} == {len(value) for value in values({"type": "string", "pattern": "^[a-z]+$", "minLength": 5, "maxLength": 6}, 60)}


@pytest.mark.parametrize(
    ("keyword", "schema"),
    [
        ("not", {"type": "string", "not": {"const": "x"}}),
        ("if", {"type": "object", "if": {"required": ["a"]}, "then": {"required": ["b"]}}),
        ("contains", {"type": "array", "contains": {"type": "integer"}}),
        ("oneOf", {"oneOf": [{"type": "integer"}, {"type": "number"}]}),
        ("uniqueItems", {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
        ("dependentSchemas", {"type": "object", "dependentSchemas": {"a": {"required": ["b"]}}}),
        ("minProperties", {"type": "object", "minProperties": 2}),
        ("patternProperties", {"type": "object", "patternProperties": {"^a": {}, "^b": {}}}),
        ("pattern", {"type": "string", "pattern": "\\bword\\b"}),
        ("minItems", {"type": "array", "minItems": 100_000}),
        ("minLength", {"type": "string", "minLength": 1_000_000}),
    ],
)
def test_keyword_is_refused_by_name_when_it_cannot_be_kept_exactly(keyword: str, schema: Any) -> None:
    assert f'"{keyword}"' in refusal(schema).message


@pytest.mark.parametrize(
    "schema",
    [
        False,
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"type": "object", "properties": {"a": False}, "required": ["a"]},
        {"type": "string", "pattern": "^a+$", "allOf": [{"pattern": "^b+$"}]},
        {"type": "string", "pattern": "^[a-z]{3}$", "minLength": 5},
        {"$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}, "required": ["n"]}}, "$ref": "#/$defs/n"},
        {"enum": [1, 2], "type": "string"},
    ],
)
def test_schema_is_refused_when_no_json_satisfies_it(schema: Any) -> None:
    assert "satisfies" in refusal(schema).message


def test_json_is_refused_when_the_answer_continues_a_partial_one() -> None:
    begun = Message(role=Role.ASSISTANT, content=(TextPart(text='{"a":'),), is_partial=True)
    with pytest.raises(ApiError) as caught:
        constraint(ChatRequest(model="m", messages=(begun,), response_format=JsonObject()))
    assert "messages" == caught.value.param


def test_demanded_call_is_one_call_when_calls_may_not_be_parallel() -> None:
    grammar = Grammar(constraint(ChatRequest(model="m", messages=(), tools=(WEATHER, NOW), tool_choice=ToolRequired())) or "")
    rng = random.Random(2)
    found = [re.fullmatch(r'<tool_call>\n(\{"name": "\w+", "arguments": .*\})\n</tool_call>', grammar.sample(rng)) for _ in range(40)]
    calls = [json.loads(one[1]) for one in found if one]
    assert 40 == len(calls)
    assert {"get_weather", "now"} == {call["name"] for call in calls}
    assert all(call["arguments"] == {} for call in calls if call["name"] == "now")


def test_demanded_calls_are_several_when_they_may_be_parallel() -> None:
    wish = ChatRequest(model="m", messages=(), tools=(WEATHER, NOW), tool_choice=ToolNamed(name="now"), is_parallel_tool_calls=True)
    grammar = Grammar(constraint(wish) or "")
    rng = random.Random(2)
    counts = {grammar.sample(rng).count('<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>') for _ in range(60)}
    assert {1, 2, 3} <= counts


def test_tool_choice_is_refused_when_it_names_no_tool() -> None:
    with pytest.raises(ApiError) as caught:
        constraint(ChatRequest(model="m", messages=(), tools=(NOW,), tool_choice=ToolNamed(name="other")))
    assert "tool_choice" == caught.value.param


def test_thought_comes_first_when_the_model_thinks() -> None:
    text = constraint(ChatRequest(model="m", messages=(), response_format=JsonObject()), is_thinking=True) or ""
    assert 'start: thought "\\n"? "\\n"? answer' in text
    assert r"thought[lazy]: /(?s:.*)<\/think>/" in text


def test_number_matches_exactly_the_range_when_bounds_are_random() -> None:
    rng = random.Random(3)
    for _ in range(600):
        scale = 10 ** rng.randint(0, 2)
        low, high = (rng.choice([None, Decimal(rng.randint(-300, 300)) / scale]) for _ in range(2))
        bounds = Range(lo=low, hi=high, is_lo_open=rng.random() < 0.5, is_hi_open=rng.random() < 0.5)
        places = rng.randint(0, 2)
        body = number(bounds, 3, places)
        for _ in range(20):
            point = rng.randint(0, places)
            text = f"{Decimal(rng.randint(-500, 500)) / 10**point:.{point}f}"
            if not re.fullmatch(r"-0(\.0+)?", text):
                assert bounds.allows(Decimal(text)) == bool(body and re.fullmatch(body, text)), (bounds, text)


@pytest.mark.parametrize(
    ("factor", "bounds"), [("5", Range()), ("25", Range()), ("7", Range()), ("0.25", Range(lo=Decimal(0))), ("0.01", Range())]
)
def test_multiples_are_multiples_when_drawn_from_their_expression(factor: str, bounds: Range) -> None:
    grammar = Grammar(f"start: T\nT: /{multiples(bounds, Decimal(factor), 6)}/")
    rng = random.Random(1)
    assert {Decimal(0)} == {Decimal(grammar.sample(rng)) % Decimal(factor) for _ in range(100)}


@pytest.mark.parametrize("pattern", ["(?=a)b", "(a)\\1", "\\bx", "a(^b)", "(?i)a", "[[:alpha:]]", "x{2", "\\p{Greek}", "(a"])
def test_pattern_is_unsupported_when_engines_would_read_it_differently(pattern: str) -> None:
    with pytest.raises(Unsupported):
        parse(pattern)


@pytest.mark.parametrize(
    ("patterns", "least", "most", "expected"),
    [
        (("^a*$",), 3, 9, True),
        (("^(ab)*$",), 3, 3, False),
        (("^(ab)*$", "^.{4}$"), 0, 9, True),
        (("^a*$", "^b*$"), 1, 9, False),
        (("x", "y"), 2, 2, True),
        (("x", "y"), 1, 1, False),
    ],
)
def test_is_possible_knows_whether_a_text_exists_when_limits_meet(patterns: tuple[str, ...], least: int, most: int, expected: bool) -> None:
    assert expected == is_possible(tuple(bounded(parse(pattern), 12) for pattern in patterns), least, most)
