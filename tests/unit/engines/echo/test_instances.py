"""Instances are checked by a validator the product does not use."""

import json

import jsonschema
import pytest

from qwenbox.engines.echo.instances import instance_of
from qwenbox.terms.errors import ApiError, ErrorKind

SATISFIABLE = [
    {},
    {"type": "object"},
    {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city", "days"]},
    {"type": "object", "properties": {"unit": {"enum": ["c", "f"]}}, "required": ["unit"], "additionalProperties": False},
    {"$defs": {"p": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}}, "$ref": "#/$defs/p"},
    {"$defs": {"a/b~c": {"const": 7}}, "properties": {"v": {"$ref": "#/$defs/a~1b~0c"}}, "required": ["v"], "type": "object"},
    {"$defs": {"named": {"$anchor": "here", "const": "x"}}, "$ref": "#here"},
    {"type": "array", "items": {"type": "integer", "minimum": 3}, "minItems": 4, "uniqueItems": True},
    {"type": "array", "items": {"enum": ["a", "b", "c"]}, "minItems": 3, "uniqueItems": True},
    {"type": "array", "prefixItems": [{"const": 1}, {"type": "string"}], "items": False, "minItems": 2},
    {"type": "array", "contains": {"const": "needle"}, "minContains": 2},
    {"type": "string", "minLength": 9, "maxLength": 9},
    {"type": "string", "maxLength": 0},
    {"type": "string", "pattern": r"^[A-Z]{3}-\d{4}(?:x|y)?$"},
    {"type": "string", "pattern": r"^[a-z]+$", "minLength": 12, "maxLength": 40},
    {"type": "string", "pattern": r"^\+?[^\s@]+@[^\s@]+\.[a-z]{2,}$"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "uuid"},
    {"type": "integer", "minimum": -5, "maximum": -2},
    {"type": "integer", "exclusiveMinimum": 10, "multipleOf": 7},
    {"type": "number", "exclusiveMinimum": 0.25, "exclusiveMaximum": 0.5},
    {"type": "number", "multipleOf": 0.5, "minimum": 1.2},
    {"type": "integer", "multipleOf": 1.5},
    {"type": ["null", "string"]},
    {"anyOf": [{"type": "string", "minLength": 5, "maxLength": 2}, {"type": "boolean"}]},
    {"oneOf": [{"type": "integer"}, {"type": "integer", "minimum": 5}]},
    {"type": "integer", "not": {"const": 1}},
    {"allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"properties": {"a": {"minimum": 9}}, "required": ["b"]}]},
    {"type": "object", "minProperties": 3, "additionalProperties": {"type": "boolean"}},
    {"type": "object", "properties": {"a": True, "b": {"type": "null"}}, "required": ["a"], "dependentRequired": {"a": ["b"]}},
    {
        "type": "object",
        "properties": {"kind": {"enum": ["circle", "square"]}, "radius": {"type": "number"}},
        "required": ["kind"],
        "if": {"properties": {"kind": {"const": "circle"}}},
        "then": {"required": ["radius"]},
    },
    {
        "$defs": {
            "tree": {
                "type": "object",
                "properties": {"left": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]}},
                "required": ["left"],
            }
        },
        "$ref": "#/$defs/tree",
    },
]

UNSATISFIABLE = [
    False,
    {"type": "string", "minLength": 3, "maxLength": 2},
    {"type": "integer", "minimum": 3, "maximum": 2},
    {"enum": []},
    {"const": 1, "type": "string"},
    {"$ref": "#/$defs/missing"},
    {"$ref": "https://example.com/schema.json"},
    {"$ref": "#"},
    {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]},
    {"type": "string", "pattern": "(?=x)y"},
    {"type": "array", "minItems": 1_000_000},
    {"type": "string", "minLength": 1_000_000_000},
]


@pytest.mark.parametrize("schema", SATISFIABLE, ids=lambda schema: json.dumps(schema)[:60])
def test_instance_of_validates_when_schema_can_be_satisfied(schema):
    instance = json.loads(instance_of(json.dumps(schema).encode()))

    checker = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    assert [error.message for error in checker.iter_errors(instance)] == []


@pytest.mark.parametrize("schema", UNSATISFIABLE, ids=lambda schema: json.dumps(schema)[:60])
def test_instance_of_refuses_when_schema_cannot_be_satisfied(schema):
    with pytest.raises(ApiError) as caught:
        instance_of(json.dumps(schema).encode())

    assert caught.value.kind == ErrorKind.INVALID_REQUEST


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"3", b'{"type": 12}', b'{"pattern": "["}'])
def test_instance_of_refuses_when_text_is_no_schema(text):
    with pytest.raises(ApiError) as caught:
        instance_of(text)

    assert caught.value.kind == ErrorKind.INVALID_REQUEST


def test_instance_of_stays_shallow_when_schema_recurses():
    assert instance_of(json.dumps(SATISFIABLE[-1]).encode()) == '{"left":null}'
