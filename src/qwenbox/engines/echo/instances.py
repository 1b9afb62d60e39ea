"""This is where a JSON Schema gets a small instance that validates against it, without any model."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor
from typing import TypeAlias
from urllib.parse import unquote

import jsonschema_rs
import msgspec

from qwenbox.engines.echo.patterns import Unmatchable, matching
from qwenbox.terms.errors import ApiError, ErrorKind

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Schema: TypeAlias = "dict[str, Json]"

_DEPTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
_VARIANTS = 8
_STEPS = 20_000
_MAX_LENGTH = 10_000
_FORMATS = {
    "date-time": "2024-01-01T00:00:00Z",
    "date": "2024-01-01",
    "time": "00:00:00Z",
    "duration": "P1D",
    "email": "echo@example.com",
    "idn-email": "echo@example.com",
    "hostname": "example.com",
    "idn-hostname": "example.com",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "uri": "https://example.com/echo",
    "uri-reference": "/echo",
    "uri-template": "/echo",
    "iri": "https://example.com/echo",
    "iri-reference": "/echo",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "json-pointer": "/echo",
    "relative-json-pointer": "0/echo",
    "regex": "echo",
}
_KEYWORDS_OF_TYPE = {
    "object": (
        "properties",
        "required",
        "additionalProperties",
        "minProperties",
        "maxProperties",
        "patternProperties",
        "dependentRequired",
    ),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}


class _Impossible(Exception):
    """This way leads to no instance; another branch may."""


class _Exhausted(Exception):
    """The work allowed for one schema is spent."""


@lru_cache(maxsize=256)
def instance_of(schema: bytes) -> str:
    """JSON text of a small instance of `schema` (JSON text): required properties only, as shallow as the schema allows.

    The instance is checked before it is handed out. References stay inside the schema.
    Raises ApiError(INVALID_REQUEST) when the text is no schema, or when no instance was found within a bounded search.
    """
    try:
        root = msgspec.json.decode(schema, type=dict[str, object] | bool)
        validator = jsonschema_rs.validator_for(root, retriever=_refuse)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ApiError(ErrorKind.INVALID_REQUEST, "The schema is not a valid JSON Schema, or refers outside itself.") from error
    budget = _Budget()
    try:
        for candidate in _candidates(msgspec.convert(root, type=object), budget):  # type: ignore[arg-type] # JSON in, JSON out
            if validator.is_valid(candidate):
                return msgspec.json.encode(candidate).decode()
    except (_Exhausted, RecursionError):
        pass
    raise ApiError(ErrorKind.INVALID_REQUEST, "No instance of the schema could be found; simplify it.")


def _refuse(uri: str) -> Json:
    raise ValueError(f"{uri[:80]} is outside the schema")


def _candidates(root: Json, budget: "_Budget") -> Iterator[Json]:
    """Instances to try, shallow ones first; each variant takes other branches and other values."""
    for depth in _DEPTHS:
        maker = _Maker(root, budget)
        for variant in range(_VARIANTS):
            try:
                yield maker.make(root, depth, variant)
            except (_Impossible, Unmatchable):
                continue


class _Budget:
    def __init__(self) -> None:
        self._left = _STEPS

    def spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise _Exhausted


class _Maker:
    """Builds one value after a schema; depth: nesting still allowed, variant: which of several possible values."""

    def __init__(self, root: Json, budget: _Budget) -> None:
        self._root = root
        self._budget = budget
        self._by_type: dict[str, Callable[[Schema, int, int], Json]] = {
            "object": self._object,
            "array": self._array,
            "string": _string,
            "number": _number,
            "integer": _number,
            "boolean": lambda _schema, _depth, variant: variant % 2 == 0,
            "null": lambda _schema, _depth, _variant: None,
        }

    def make(self, schema: Json, depth: int, variant: int) -> Json:
        self._budget.spend()
        if depth < 0:
            raise _Impossible
        flat = self._flat(schema, 0)
        if "const" in flat:
            return flat["const"]
        if (options := flat.get("enum")) and isinstance(options, list):
            return options[variant % len(options)]
        for key in ("anyOf", "oneOf"):
            branches = flat.get(key)
            if isinstance(branches, list) and branches:
                rest = {name: value for name, value in flat.items() if name != key}
                return self._first([_merged(rest, self._flat(branch, 0)) for branch in branches], depth, variant)
        if "if" in flat:
            return self._conditional(flat, depth, variant)
        return self._typed(flat, depth, variant)

    def _first(self, branches: list[Schema], depth: int, variant: int) -> Json:
        turned = branches[variant % len(branches) :] + branches[: variant % len(branches)]
        for branch in turned:
            try:
                return self.make(branch, depth, variant)
            except (_Impossible, Unmatchable):
                continue
        raise _Impossible

    def _conditional(self, flat: Schema, depth: int, variant: int) -> Json:
        rest = {name: value for name, value in flat.items() if name not in ("if", "then", "else")}
        met = _merged(_merged(rest, self._flat(flat["if"], 0)), self._flat(flat.get("then", True), 0))
        unmet = _merged(rest, self._flat(flat.get("else", True), 0))
        return self._first([met, unmet], depth, variant)

    def _typed(self, flat: Schema, depth: int, variant: int) -> Json:
        kinds = flat.get("type")
        if isinstance(kinds, str):
            kinds = [kinds]
        if not isinstance(kinds, list):
            kinds = [kind for kind, words in _KEYWORDS_OF_TYPE.items() if any(word in flat for word in words)] or ["string"]
        if not kinds:
            raise _Impossible
        kind = kinds[variant % len(kinds)]
        if not isinstance(kind, str) or kind not in self._by_type:
            raise _Impossible
        return self._by_type[kind]({**flat, "type": kind}, depth, variant)

    def _flat(self, schema: Json, hops: int) -> Schema:
        """The schema with its references followed and its allOf merged."""
        self._budget.spend()
        if schema is True:
            return {}
        if not isinstance(schema, dict) or hops > 50:
            raise _Impossible
        if "$ref" not in schema and "allOf" not in schema:
            return schema
        flat = {name: value for name, value in schema.items() if name not in ("$ref", "allOf")}
        if "$ref" in schema:
            flat = _merged(self._flat(self._resolved(schema["$ref"]), hops + 1), flat)
        parts = schema.get("allOf", [])
        for part in parts if isinstance(parts, list) else []:
            flat = _merged(flat, self._flat(part, hops + 1))
        return flat

    def _resolved(self, reference: Json) -> Json:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise _Impossible
        target: Json = self._root
        if reference.startswith("#/"):
            for step in unquote(reference[2:]).split("/"):
                step = step.replace("~1", "/").replace("~0", "~")
                if isinstance(target, dict) and step in target:
                    target = target[step]
                elif isinstance(target, list) and step.isdecimal() and int(step) < len(target):
                    target = target[int(step)]
                else:
                    raise _Impossible
        elif reference != "#":
            target = _anchored(self._root, reference[1:])
        return target

    def _object(self, schema: Schema, depth: int, variant: int) -> Json:
        properties = _dict(schema, "properties")
        others = schema.get("additionalProperties", True)
        names = [name for name in _list(schema, "required") if isinstance(name, str)]
        least = max(_whole(schema, "minProperties", 0), len(names))
        if least > _whole(schema, "maxProperties", _STEPS):
            raise _Impossible
        names += [name for name in properties if name not in names][: least - len(names)]
        for needed in names:
            names += [name for name in _list(_dict(schema, "dependentRequired"), needed) if isinstance(name, str) and name not in names]
        made = {name: self.make(properties.get(name, others), depth - 1, variant) for name in names}
        while len(made) < least:
            self._budget.spend()
            made[f"key{len(made)}"] = self.make(others, depth - 1, variant)
        return made

    def _array(self, schema: Schema, depth: int, variant: int) -> Json:
        first = _list(schema, "prefixItems")
        rest = schema.get("items", True)
        if isinstance(rest, list):
            first, rest = rest, schema.get("additionalItems", True)
        contained = schema.get("contains")
        most = _whole(schema, "maxItems", _STEPS)
        wanted = _whole(schema, "minContains", 1) if contained is not None else 0
        if max(wanted, _whole(schema, "minItems", 0)) > most:
            raise _Impossible
        is_unique = schema.get("uniqueItems") is True
        made: list[Json] = []
        while len(made) < max(wanted, _whole(schema, "minItems", 0)):
            item = first[len(made)] if len(made) < len(first) else rest
            if contained is not None and len(made) < wanted:
                item = _merged(self._flat(item, 0), self._flat(contained, 0))
            made.append(self.make(item, depth - 1, variant + (len(made) if is_unique else 0)))
        return made


def _string(schema: Schema, _depth: int, variant: int) -> Json:
    least, most = _whole(schema, "minLength", 0), _whole(schema, "maxLength", _MAX_LENGTH)
    if least > min(most, _MAX_LENGTH):
        raise _Impossible
    pattern, form = schema.get("pattern"), schema.get("format")
    if isinstance(pattern, str):
        return matching(pattern, min_length=least, max_length=most)
    if isinstance(form, str) and form in _FORMATS:
        return _FORMATS[form]
    number = str(variant) if variant else ""
    return ("echo".ljust(least - len(number), "o")[: max(most - len(number), 0)] + number)[:most]


def _number(schema: Schema, _depth: int, variant: int) -> Json:
    low, high = _bound(schema, "minimum"), _bound(schema, "maximum")
    above, below = _bound(schema, "exclusiveMinimum"), _bound(schema, "exclusiveMaximum")
    is_whole = schema["type"] == "integer"
    step = _bound(schema, "multipleOf") or (Fraction(1) if is_whole else None)
    if is_whole and step is not None and step.denominator != 1:
        step = Fraction(step.numerator)
    if step is None:
        step = _open_step(above if above is not None else low, below if below is not None else high)
    if step <= 0:
        raise _Impossible
    smallest = max((ceil(bound / step) for bound in (low,) if bound is not None), default=None)
    if above is not None:
        smallest = max(floor(above / step) + 1, smallest if smallest is not None else floor(above / step) + 1)
    largest = min((floor(bound / step) for bound in (high,) if bound is not None), default=None)
    if below is not None:
        largest = min(ceil(below / step) - 1, largest if largest is not None else ceil(below / step) - 1)
    if smallest is not None and largest is not None and smallest > largest:
        raise _Impossible
    count = max(1, smallest) if smallest is not None else 1
    count = min(count, largest) if largest is not None else count
    count = count - variant if largest is not None and count + variant > largest else count + variant
    if smallest is not None:
        count = max(count, smallest)
    value = count * step
    return int(value) if value.denominator == 1 else float(value)


def _open_step(low: Fraction | None, high: Fraction | None) -> Fraction:
    """A grid fine enough to have points between two bounds."""
    if low is None or high is None or high - low >= 2:
        return Fraction(1)
    return (high - low) / 16 if high > low else (abs(low) or Fraction(1))


def _bound(schema: Schema, name: str) -> Fraction | None:
    value = schema.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return Fraction(str(value))


def _whole(schema: Schema, name: str, default: int) -> int:
    value = _bound(schema, name)
    return default if value is None else max(0, int(value))


def _list(schema: Schema, name: str) -> list[Json]:
    value = schema.get(name)
    return list(value) if isinstance(value, list) else []


def _dict(schema: Schema, name: str) -> Schema:
    value = schema.get(name)
    return value if isinstance(value, dict) else {}


def _merged(one: Schema, two: Schema) -> Schema:
    """Both schemas as one: what has an intersection gets it, of the rest the second wins; the final check judges."""
    merged = {**one, **two}
    for name in one.keys() & two.keys():
        mine, other = one[name], two[name]
        if name == "required" and isinstance(mine, list) and isinstance(other, list):
            merged[name] = mine + [item for item in other if item not in mine]
        elif name == "properties" and isinstance(mine, dict) and isinstance(other, dict):
            both: Schema = {key: {"allOf": [mine[key], other[key]]} for key in mine.keys() & other.keys()}
            merged[name] = {**mine, **other, **both}
        elif name == "enum" and isinstance(mine, list) and isinstance(other, list):
            merged[name] = [item for item in mine if item in other]
        elif name in ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"):
            merged[name] = max(mine, other)  # type: ignore[type-var] # numbers in every valid schema
        elif name in ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"):
            merged[name] = min(mine, other)  # type: ignore[type-var] # numbers in every valid schema
    return merged


def _anchored(schema: Json, name: str) -> Json:
    """The subschema whose $anchor this is."""
    waiting: list[Json] = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if node.get("$anchor") == name:
                return node
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
    raise _Impossible
