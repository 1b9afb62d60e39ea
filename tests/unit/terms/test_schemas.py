"""Callers' schemas are data: what is remote, huge, deep, circular or slow is refused, at once and by name."""

import json
import time
from typing import Any

import pytest

from qwenbox.terms.chat import ChatRequest, JsonSchema, ToolSpec
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.schemas import compile_schema, guard, parse_json


def nested(depth: int, leaf: Any) -> Any:
    for _ in range(depth):
        leaf = {"properties": {"a": leaf}}
    return leaf


def chain(length: int) -> dict[str, Any]:
    return {"$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(length)} | {f"d{length}": {}}, "$ref": "#/$defs/d0"}


def bomb(depth: int) -> dict[str, Any]:
    steps = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]} for n in range(depth)}
    return {"$defs": steps | {f"d{depth}": {"type": "null"}}, "$ref": "#/$defs/d0"}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (b"{", "not JSON"),
        (b"[]", "object"),
        (b'"x"', "object"),
        (b'{"type": NaN}', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        ({"description": "x" * 70_000}, "bytes long"),
        (nested(100, {}), "nests deeper"),
        ({"enum": list(range(8_000))}, "more than"),
        ({"type": "strnig"}, "strnig"),
        ({"$ref": "https://example.com/schema.json"}, "not local"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "not local"),
        ({"properties": {"a": {"$ref": "other.json#/a"}}}, "not local"),
        ({"properties": {"a": {"$ref": "#/$defs/none"}}}, ""),
        ({"$schema": "https://example.com/my-dialect"}, ""),
        ({"$ref": "#"}, "back to itself"),
        ({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"anyOf": [{"$ref": "#"}]}}}, "back to itself"),
        (chain(300), "follow each other"),
        (bomb(30), "multiply"),
        ({"pattern": "(?=a)b"}, "regex"),
        ({"pattern": "(a{900}){900}"}, ""),
        ({"$defs": {"a": {"$id": "x"}}}, "$id"),
        ({"$dynamicRef": "#a"}, "$dynamicRef"),
    ],
)
def test_schema_is_refused_when_it_is_hostile_or_wrong(schema: Any, words: str) -> None:
    data = schema if isinstance(schema, bytes) else json.dumps(schema).encode()
    started = time.monotonic()
    with pytest.raises(ApiError) as caught:
        compile_schema(data, "response_format")
    assert ErrorKind.INVALID_REQUEST == caught.value.kind
    assert "response_format" == caught.value.param
    assert words in caught.value.message
    assert time.monotonic() - started < 20


def test_validation_stays_quick_when_a_pattern_would_make_others_backtrack() -> None:
    document = compile_schema(b'{"pattern": "^(a+)+$"}', "tools")
    started = time.monotonic()
    assert document.fault("a" * 5_000 + "b") is not None
    assert time.monotonic() - started < 20


def test_fault_names_the_place_and_not_the_value_when_something_is_wrong() -> None:
    document = compile_schema(b'{"properties": {"a": {"items": {"type": "integer"}}}}', "tools")
    assert document.fault({"a": [1, 2]}) is None
    fault = document.fault({"a": [1, "secret"]})
    assert fault is not None
    assert "/a/1" in fault
    assert "secret" not in fault


def test_recursive_schema_is_accepted_when_it_goes_into_the_value() -> None:
    schema = b'{"$defs": {"n": {"properties": {"next": {"$ref": "#/$defs/n"}}, "required": ["v"]}}, "$ref": "#/$defs/n"}'
    document = compile_schema(schema, "tools")
    assert document.fault({"v": 1, "next": {"v": 2}}) is None
    assert document.fault({"v": 1, "next": {}}) is not None


def test_document_is_compiled_once_when_the_bytes_are_equal() -> None:
    assert compile_schema(b'{"type": "null"}', "tools") is compile_schema(b'{"type": "null"}', "response_format")


def test_part_is_asked_alone_when_it_refers_to_its_document() -> None:
    document = compile_schema(
        json.dumps({"$defs": {"数/~": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/数~1~0"}}}).encode(), "tools"
    )
    assert document.is_valid_at("/properties/a", 1)
    assert not document.is_valid_at("/properties/a", "1")


@pytest.mark.parametrize("text", ["", "{", "NaN", "[1,]", "1e999", "[" * 5_000, '{"a": 1} x', '"\\ud800"'])
def test_json_is_refused_when_it_is_not_strict(text: str) -> None:
    with pytest.raises(ValueError, match="not JSON"):
        parse_json(text)


def test_guard_checks_every_schema_when_a_request_has_several() -> None:
    good = JsonSchema(schema=b"{}")
    guard(ChatRequest(model="m", messages=(), response_format=good, tools=(ToolSpec(name="a"),)))
    with pytest.raises(ApiError) as caught:
        guard(ChatRequest(model="m", messages=(), response_format=good, tools=(ToolSpec(name="a", parameters=b'{"type": 5}'),)))
    assert "tools" == caught.value.param
