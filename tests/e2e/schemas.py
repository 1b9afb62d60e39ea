"""Schemas for the structured-output tests: everyday ones, and a generator of random ones. Nothing here is tuned to an engine."""

import json
import random
from typing import Any

WORDS = [
    "name",
    "title",
    "city",
    "price",
    "count",
    "tags",
    "owner",
    "address",
    "status",
    "score",
    "items",
    "notes",
    "color",
    "weight",
    "date",
    "level",
    "language",
    "author",
    "rating",
    "active",
    "名称",
    "价格",
    "größe",
    "país",
    "order-id",
    "unit price",
    'quo"ted',
]
TOPICS = [
    "a bookshop",
    "a train journey",
    "a mountain hut",
    "a pull request",
    "a recipe for noodles",
    "a football match",
    "a weather station",
    "a hospital visit",
    "一家咖啡店",
    "ein Fahrrad",
]

_PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "email": {"type": "string", "format": "email"},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}

# (what is asked, schema); None asks for json_object.
EVERYDAY: list[tuple[str, dict[str, Any] | None]] = [
    ("Give me facts about France as JSON: capital, population and three large cities.", None),
    ("Write a short product description of a red bicycle as JSON.", None),
    ("List the planets with their number of moons, as JSON.", None),
    ("用 JSON 格式介绍一下杭州，包括名称、人口和景点。", None),
    ("Turn this into JSON: Anna is 31, lives in Oslo and likes chess and skiing.", None),
    ("Translate 'good morning' into five languages; answer in JSON.", None),
    ("Extract the person: Anna Berg, 31, anna@example.com.", _PERSON),
    (
        "Extract every person: Tom (40) works with Li Wei (29) and Sara (35).",
        {"type": "object", "properties": {"people": {"type": "array", "items": _PERSON}}, "required": ["people"]},
    ),
    (
        "Is this review good or bad? 'The soup was cold and the waiter rude.'",
        {
            "type": "object",
            "properties": {
                "sentiment": {"enum": ["positive", "negative", "mixed"]},
                "confidence": {"type": "number", "minimum": 0, "maximum": 1},
                "reason": {"type": "string"},
            },
            "required": ["sentiment", "confidence", "reason"],
        },
    ),
    (
        "Plan a two-day trip to Rome.",
        {
            "$defs": {
                "stop": {
                    "type": "object",
                    "properties": {
                        "time": {"type": "string", "pattern": "^\\d{2}:\\d{2}$"},
                        "place": {"type": "string", "minLength": 1},
                        "cost": {"type": "number", "minimum": 0},
                    },
                    "required": ["time", "place"],
                },
                "day": {
                    "type": "object",
                    "properties": {
                        "date": {"type": "string", "format": "date"},
                        "stops": {"type": "array", "items": {"$ref": "#/$defs/stop"}, "minItems": 1, "maxItems": 4},
                    },
                    "required": ["date", "stops"],
                },
            },
            "type": "object",
            "properties": {"days": {"type": "array", "items": {"$ref": "#/$defs/day"}, "minItems": 2, "maxItems": 2}},
            "required": ["days"],
        },
    ),
    (
        "Describe a folder tree of a small Python project.",
        {
            "$defs": {
                "node": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string"},
                        "kind": {"enum": ["file", "folder"]},
                        "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                    },
                    "required": ["name", "kind"],
                }
            },
            "$ref": "#/$defs/node",
        },
    ),
    (
        "请给出一份菜单，包含菜名、价格和辣度。",
        {
            "type": "object",
            "properties": {
                "菜单": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "properties": {
                            "菜名": {"type": "string"},
                            "价格": {"type": "number", "exclusiveMinimum": 0},
                            "辣度": {"enum": ["不辣", "微辣", "特辣"]},
                        },
                        "required": ["菜名", "价格", "辣度"],
                    },
                }
            },
            "required": ["菜单"],
        },
    ),
    (
        "How much is 12 apples at 0.40 euros, and 3 melons at 2.5?",
        {
            "type": "object",
            "properties": {
                "lines": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "item": {"type": "string"},
                            "quantity": {"type": "integer", "exclusiveMinimum": 0},
                            "unit_price": {"type": "number"},
                        },
                        "required": ["item", "quantity", "unit_price"],
                    },
                },
                "total": {"type": "number"},
                "currency": {"const": "EUR"},
            },
            "required": ["lines", "total", "currency"],
            "additionalProperties": False,
        },
    ),
    (
        "Which shape has four equal sides? Describe it.",
        {
            "anyOf": [
                {
                    "type": "object",
                    "properties": {"kind": {"const": "circle"}, "radius": {"type": "number"}},
                    "required": ["kind", "radius"],
                },
                {"type": "object", "properties": {"kind": {"const": "square"}, "side": {"type": "number"}}, "required": ["kind", "side"]},
            ]
        },
    ),
    (
        "A cat or a dog: choose one and describe it.",
        {
            "oneOf": [{"$ref": "#/definitions/cat"}, {"$ref": "#/definitions/dog"}],
            "definitions": {
                "cat": {
                    "type": "object",
                    "properties": {"type": {"const": "cat"}, "lives": {"type": "integer"}},
                    "required": ["type", "lives"],
                },
                "dog": {
                    "type": "object",
                    "properties": {"type": {"const": "dog"}, "barks": {"type": "boolean"}},
                    "required": ["type", "barks"],
                },
            },
        },
    ),
    ("Count the letters of the word banana.", {"type": "object", "additionalProperties": {"type": "integer"}}),
    ("Name three colours.", {"type": "array", "items": {"type": "string"}, "minItems": 3, "maxItems": 3}),
    (
        "Which days is the shop open? It is closed on weekends.",
        {
            "type": "object",
            "properties": {
                "open": {"type": "array", "items": {"enum": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]}, "uniqueItems": True}
            },
            "required": ["open"],
        },
    ),
    (
        "Write a tweet about spring with hashtags.",
        {
            "type": "object",
            "properties": {
                "text": {"type": "string", "maxLength": 140},
                "hashtags": {"type": "array", "items": {"type": "string", "pattern": "^#[a-zA-Z0-9_]+$"}, "maxItems": 5},
            },
            "required": ["text", "hashtags"],
        },
    ),
    (
        "Who wrote Hamlet, and when? Leave out what you do not know.",
        {
            "type": "object",
            "properties": {
                "author": {"type": ["string", "null"]},
                "year": {"anyOf": [{"type": "integer", "minimum": 1500, "maximum": 1700}, {"type": "null"}]},
            },
            "required": ["author", "year"],
        },
    ),
]


def generated(seed: int) -> tuple[str, dict[str, Any]]:
    """A prompt and a random schema of an object; the same ones for the same seed."""
    rng = random.Random(seed)
    maker = _Maker(rng)
    schema = maker.object(3)
    if maker.definitions:
        schema["$defs"] = maker.definitions
    topic = rng.choice(TOPICS)
    text = json.dumps(schema, ensure_ascii=False)
    ask = rng.choice(
        [
            f"Make up data about {topic} for this JSON schema: {text}",
            f"Tell me about {topic}. Answer in JSON.",
            f"Fill this in for {topic}:\n{text}",
        ]
    )
    return ask, schema


class _Maker:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.definitions: dict[str, Any] = {}

    def schema(self, depth: int) -> dict[str, Any]:
        simple = [self.string, self.integer, self.number, self.boolean, self.enum, self.const]
        nested = [self.object, self.array, self.map, self.any_of, self.all_of, self.reference, self.tuple, self.tree]
        if depth <= 0 or self._rng.random() < 0.55:
            return self._rng.choice(simple)()
        return self._rng.choice(nested)(depth - 1)

    def object(self, depth: int) -> dict[str, Any]:
        names = self._rng.sample(WORDS, self._rng.randint(1, 5))
        schema: dict[str, Any] = {"type": "object", "properties": {name: self.schema(depth - 1) for name in names}}
        schema["required"] = [name for name in names if self._rng.random() < 0.7]
        if self._rng.random() < 0.4:
            schema["additionalProperties"] = False
        if self._rng.random() < 0.2:
            schema["minProperties"] = 1
        return schema

    def array(self, depth: int) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "array", "items": self.schema(depth)}
        if self._rng.random() < 0.5:
            schema["minItems"] = self._rng.randint(0, 3)
        if self._rng.random() < 0.5:
            schema["maxItems"] = schema.get("minItems", 0) + self._rng.randint(1, 4)
        return schema

    def tuple(self, depth: int) -> dict[str, Any]:
        parts = [self.schema(depth) for _ in range(self._rng.randint(1, 3))]
        return {"type": "array", "prefixItems": parts, "items": False, "minItems": len(parts)}

    def map(self, depth: int) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": self.schema(depth)}

    def any_of(self, depth: int) -> dict[str, Any]:
        return {"anyOf": [self.schema(depth) for _ in range(self._rng.randint(2, 3))]}

    def all_of(self, depth: int) -> dict[str, Any]:
        name = self._rng.choice(WORDS)
        return {"allOf": [{"type": "object", "properties": {name: self.schema(depth)}}, {"required": [name]}]}

    def reference(self, depth: int) -> dict[str, Any]:
        name = f"def{len(self.definitions)}"
        self.definitions[name] = {}
        self.definitions[name] = self.schema(depth)
        return {"$ref": f"#/$defs/{name}"}

    def tree(self, depth: int) -> dict[str, Any]:
        name = f"tree{len(self.definitions)}"
        self.definitions[name] = {
            "type": "object",
            "properties": {"value": self.schema(0), "children": {"type": "array", "items": {"$ref": f"#/$defs/{name}"}}},
            "required": ["value", "children"],
        }
        return {"$ref": f"#/$defs/{name}"}

    def string(self) -> dict[str, Any]:
        kind = self._rng.randrange(6)
        if kind == 0:
            least = self._rng.randint(0, 5)
            return {"type": "string", "minLength": least, "maxLength": least + self._rng.randint(0, 40)}
        if kind == 1:
            return {
                "type": "string",
                "pattern": self._rng.choice(["^[A-Z]{2}-\\d{4}$", "^[a-z]+(_[a-z]+)*$", "\\d", "^\\+?[0-9 ]{6,14}$", "^(yes|no|maybe)$"]),
            }
        if kind == 2:
            return {"type": "string", "format": self._rng.choice(["date", "date-time", "email", "uuid", "ipv4", "uri", "time", "hostname"])}
        return {"type": "string"}

    def integer(self) -> dict[str, Any]:
        low = self._rng.randint(-50, 50)
        extra: list[dict[str, Any]] = [
            {},
            {"minimum": low, "maximum": low + self._rng.randint(0, 900)},
            {"minimum": low},
            {"multipleOf": self._rng.choice([2, 5, 7, 10])},
        ]
        return {"type": "integer"} | self._rng.choice(extra)

    def number(self) -> dict[str, Any]:
        low = round(self._rng.uniform(-10, 10), 1)
        extra: list[dict[str, Any]] = [{}, {"minimum": low, "maximum": low + 12.5}, {"exclusiveMinimum": 0}, {"exclusiveMaximum": low}]
        return {"type": "number"} | self._rng.choice(extra)

    def boolean(self) -> dict[str, Any]:
        return {"type": self._rng.choice(["boolean", ["boolean", "null"]])}

    def enum(self) -> dict[str, Any]:
        return {
            "enum": self._rng.sample(
                ["red", "green", "蓝", 'a "b"', 1, 2.5, None, True, "line\nbreak", [1, 2], {"k": "v"}], self._rng.randint(1, 4)
            )
        }

    def const(self) -> dict[str, Any]:
        return {"const": self._rng.choice(["fixed", 7, False, "ü"])}


def _wide(count: int, *, is_required: bool = True) -> dict[str, Any]:
    names = [f"p{number}" for number in range(count)]
    return {"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": names if is_required else []}


def _deep(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def _knot(count: int) -> dict[str, Any]:
    def node() -> dict[str, Any]:
        return {"type": "object", "properties": {f"c{number}": {"$ref": f"#/$defs/n{number}"} for number in range(count)}}

    return {"$defs": {f"n{number}": node() for number in range(count)}, "$ref": "#/$defs/n0"}


# Schemas that are allowed, but meant to hang or flood whoever compiles them.
HEAVY: dict[str, dict[str, Any]] = {
    "long enum": {"enum": [f"value number {number}" for number in range(1_500)]},
    "400 required properties": _wide(400),
    "400 optional properties": _wide(400, is_required=False),
    "20 levels": _deep(20),
    "long pattern": {"type": "string", "pattern": "^[a-z]{2000}$"},
    "pattern of 1500 words": {"type": "string", "pattern": f"^({'|'.join(f'word{number}' for number in range(1_500))})$"},
    "ambiguous pattern": {"type": "string", "pattern": "^((a|b|ab)*c){1,200}$"},
    "ambiguous pattern and lengths": {"type": "string", "pattern": "(a|aa|aaa)+b", "minLength": 30, "maxLength": 40},
    "900 items": {"type": "array", "items": {"type": "integer"}, "minItems": 900},
    "7000 characters": {"type": "string", "minLength": 7_000},
    "60 alternatives": {"anyOf": [_wide(number % 7 + 1) for number in range(60)]},
    "64 combinations": {
        "type": "object",
        "allOf": [{"anyOf": [{"required": [f"a{number}"]}, {"required": [f"b{number}"]}]} for number in range(6)],
    },
    "knot of 20 types": _knot(20),
    "anything": {},
    "huge bounds": {"type": "number", "minimum": -1e300, "maximum": 1e300},
    "huge integers": {"type": "integer", "minimum": 10**25},
    "multiples of a prime": {"type": "integer", "multipleOf": 999_999_937},
    "24 distinct items": {"type": "array", "items": {"enum": list(range(24))}, "uniqueItems": True, "minItems": 10, "maxItems": 20},
    "60 exclusive alternatives": {
        "oneOf": [{"type": "object", "properties": {"k": {"const": number}}, "required": ["k"]} for number in range(60)]
    },
}
