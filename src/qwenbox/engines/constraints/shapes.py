"""This is where a JSON Schema is taken apart: places in it that hold at once → the shapes a value there may have.

A `Place` is a set of JSON pointers whose schemas all apply to one value ("" is the whole schema, no pointer at all is
"anything"). References, allOf, anyOf and oneOf dissolve here; what is left is a list of shapes, any of which will do.
A shape may allow less than the schema (objects hold only the properties that are named), never more. What cannot be
said as a shape raises ApiError(INVALID_REQUEST) with the keyword.
"""

import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import product

import jsonschema_rs
import msgspec

from qwenbox.engines.constraints.formats import FORMATS
from qwenbox.engines.constraints.kinds import ANYTHING, Array, Literals, Number, Object, Place, Property, Shape, Text, refuse
from qwenbox.engines.constraints.numbers import Range
from qwenbox.terms.schemas import Document, Json, escape, referred

MAX_ALTERNATIVES = 64
MAX_EXPANSIONS = 20_000
OVERLAP = "two of its alternatives may hold at once, which cannot be ruled out while generating; use anyOf"
NOTES = frozenset({"$ref", "title", "description", "default", "examples", "$comment", "deprecated"})
KINDS = ("object", "array", "string", "number", "integer", "boolean", "null")
WORDS: dict[str, frozenset[str]] = {
    "object": frozenset(
        {
            "properties",
            "required",
            "additionalProperties",
            "patternProperties",
            "propertyNames",
            "minProperties",
            "maxProperties",
            "dependentRequired",
            "dependencies",
            "unevaluatedProperties",
        }
    ),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems", "uniqueItems", "additionalItems"}),
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
}


class Shapes:
    """All shapes of all places of one document. is_closed: objects that name no property hold none."""

    def __init__(self, document: Document, param: str, *, is_closed: bool = False) -> None:
        self._document = document
        self._param = param
        self._is_closed = is_closed
        self._known: dict[Place, tuple[Shape, ...]] = {}
        self._expansions = 0

    def of(self, place: Place) -> tuple[Shape, ...]:
        """The shapes of a value for which every schema of the place holds; () when there is no such value."""
        known = self._known.get(place)
        if known is None:
            flat = list(self._alternatives(place))
            known = tuple(dict.fromkeys(shape for alternative in flat for shape in self._shapes(alternative, is_guessing=True)))
            self._known[place] = known
        return known

    def resolved(self, place: Place) -> Place:
        """The same place by the names of what its plain references lead to, so that all who refer to one thing share it."""
        return tuple(sorted({self._target(pointer) for pointer in place}))

    def _target(self, pointer: str) -> str:
        node = self._node(pointer)
        while isinstance(reference := node.get("$ref"), str) and not (node.keys() - NOTES):
            pointer = referred(reference, self._param)
            node = self._node(pointer)
        return pointer

    def _node(self, pointer: str) -> dict[str, Json]:
        node = self._document.at(pointer)
        return node if isinstance(node, dict) else {}

    def _alternatives(self, place: Place) -> Iterator[Place]:
        for found, alternative in enumerate(self._expand(frozenset(), list(place))):
            if found == MAX_ALTERNATIVES:
                raise refuse(self._param, "anyOf", f"more than {MAX_ALTERNATIVES} combinations for one value")
            yield alternative

    def _expand(self, flat: frozenset[str], queue: list[str]) -> Iterator[Place]:
        queue = list(queue)
        while queue:
            pointer = queue.pop(0)
            if pointer in flat:
                continue
            self._expansions += 1
            if self._expansions > MAX_EXPANSIONS:
                raise refuse(self._param, "$ref", "the schema unfolds to too many parts")
            schema = self._document.at(pointer)
            if schema is False:
                return
            flat |= {pointer}
            node = self._node(pointer)
            reference = node.get("$ref")
            if isinstance(reference, str):
                queue.append(referred(reference, self._param))
            queue.extend(_parts(node, pointer, "allOf"))
            branches = [parts for word in ("anyOf", "oneOf") if (parts := _parts(node, pointer, word))]
            self._check_one(_parts(node, pointer, "oneOf"))
            if branches:
                for chosen in product(*branches):
                    yield from self._expand(flat, [*queue, *chosen])
                return
        yield tuple(sorted(flat))

    def _check_one(self, branches: list[str]) -> None:
        for position, left in enumerate(branches):
            for right in branches[position + 1 :]:
                if not self._is_empty((left, right), 3):
                    raise refuse(self._param, "oneOf", OVERLAP)

    def _is_empty(self, place: Place, depth: int) -> bool:
        """Whether surely no value satisfies every schema of the place."""
        for flat in self._alternatives(place):
            for shape in self._shapes(flat, is_guessing=False):
                if not (isinstance(shape, Object) and depth and self._has_empty_property(shape, depth)):
                    return False
        return True

    def _has_empty_property(self, shape: Object, depth: int) -> bool:
        return any(named.is_required and self._is_empty(named.place, depth - 1) for named in shape.properties)

    def _shapes(self, flat: Place, *, is_guessing: bool) -> list[Shape]:
        """is_guessing: a schema without a type means the type its words speak of."""
        literals = self._literals(flat)
        if literals is not None:
            return [Literals(literals)] if literals else []
        if is_guessing:
            self._check_words(flat)
        shapes: list[Shape] = []
        for kind in self._kinds(flat, is_guessing=is_guessing):
            if kind == "object":
                shapes += self._object(flat)
            elif kind == "array":
                shapes += self._array(flat)
            elif kind == "string":
                shapes += self._text(flat)
            elif kind in ("number", "integer"):
                shapes += self._number(flat, is_integer=kind == "integer")
            else:
                shapes.append(Literals(("true", "false") if kind == "boolean" else ("null",)))
        return shapes

    def _literals(self, flat: Place) -> tuple[str, ...] | None:
        """The values an enum or const leaves, or None where there is none. Every other keyword is asked, too."""
        for pointer in flat:
            node = self._node(pointer)
            values = [node["const"]] if "const" in node else node.get("enum")
            if isinstance(values, list):
                kept = [value for value in values if all(self._document.is_valid_at(other, value) for other in flat)]
                return tuple({_identity(value): json.dumps(value, ensure_ascii=False) for value in kept}.values())
        return None

    def _check_words(self, flat: Place) -> None:
        for pointer in flat:
            node = self._node(pointer)
            for word in ("not", "contains", "unevaluatedItems"):
                if node.get(word, True) not in (True, {}) or (word == "not" and word in node):
                    raise refuse(self._param, word, "it cannot be kept while generating")
            if "if" in node and ("then" in node or "else" in node):
                raise refuse(self._param, "if", "it cannot be kept while generating")
            if node.get("dependentSchemas"):
                raise refuse(self._param, "dependentSchemas", "it cannot be kept while generating")

    def _kinds(self, flat: Place, *, is_guessing: bool) -> list[str]:
        kinds = set(KINDS)
        is_typed = False
        for pointer in flat:
            given = self._node(pointer).get("type")
            if given is not None:
                is_typed = True
                named = {given} if isinstance(given, str) else set(_texts(given))
                kinds &= named | ({"integer"} if "number" in named else set[str]())
        if is_guessing and not is_typed:
            words = {word for pointer in flat for word in self._node(pointer)}
            kinds = {kind for kind in kinds if words & WORDS.get(kind, frozenset())} or kinds
        if "number" in kinds:
            kinds.discard("integer")
        return [kind for kind in KINDS if kind in kinds]

    def _counts(self, flat: Place, least_word: str, most_word: str) -> tuple[int, int | None]:
        least, most = 0, None
        for pointer in flat:
            node = self._node(pointer)
            low, high = node.get(least_word), node.get(most_word)
            least = max(least, int(low)) if isinstance(low, int | float) else least
            if isinstance(high, int | float):
                most = int(high) if most is None else min(most, int(high))
        return least, most

    def _text(self, flat: Place) -> list[Shape]:
        least, most = self._counts(flat, "minLength", "maxLength")
        patterns: list[str] = []
        for pointer in flat:
            node = self._node(pointer)
            pattern, named = node.get("pattern"), node.get("format")
            patterns += [pattern] if isinstance(pattern, str) else []
            patterns += [FORMATS[named]] if isinstance(named, str) and named in FORMATS else []
        return [] if most is not None and least > most else [Text(least, most, tuple(dict.fromkeys(patterns)))]

    def _number(self, flat: Place, *, is_integer: bool) -> list[Shape]:
        bounds = Range()
        factors: list[Decimal] = []
        for pointer in flat:
            node = self._node(pointer)
            bounds = _narrowed(bounds, node)
            factors += [_decimal(node["multipleOf"])] if "multipleOf" in node else []
        if len(set(factors)) > 1:
            raise refuse(self._param, "multipleOf", "more than one for the same number")
        return [] if bounds.is_empty else [Number(is_integer, bounds, factors[0] if factors else None)]

    def _array(self, flat: Place) -> list[Shape]:
        least, most = self._counts(flat, "minItems", "maxItems")
        listed = [_items(self._node(pointer), pointer) for pointer in flat]
        length = max((len(prefix) for prefix, _ in listed), default=0)
        prefix = [_joined(rows[position] if position < len(rows) else rest for rows, rest in listed) for position in range(length)]
        rest = _joined(rest for _, rest in listed)
        is_unique = any(self._node(pointer).get("uniqueItems") is True for pointer in flat)
        return [] if most is not None and least > most else [Array(tuple(prefix), rest, least, most, is_unique)]

    def _object(self, flat: Place) -> list[Shape]:
        least, most = self._counts(flat, "minProperties", "maxProperties")
        names = self._names(flat)
        required = {name for pointer in flat for name in _texts(self._node(pointer).get("required"))}
        banned = self._depending(flat, names, required)
        properties: list[Property] = []
        for name in [*names, *sorted(required - set(names))]:
            place = None if name in banned else self._property(flat, name)
            if place is None and name in required:
                return []
            if place is not None:
                properties.append(Property(name, place, name in required))
        if properties or names:
            return [Object(tuple(properties), None, ANYTHING, None, least, most)]
        return [self._map(flat, least, most)]

    def _names(self, flat: Place) -> list[str]:
        names: dict[str, None] = {}
        for pointer in flat:
            declared = self._node(pointer).get("properties")
            names.update(dict.fromkeys(declared if isinstance(declared, dict) else ()))
        return list(names)

    def _depending(self, flat: Place, names: list[str], required: set[str]) -> set[str]:
        """Names that may not appear, because what they demand is not there. Grows `required` by what is demanded."""
        banned: set[str] = set()
        demands: dict[str, list[str]] = {}
        for pointer in flat:
            node = self._node(pointer)
            for word in ("dependentRequired", "dependencies"):
                table = node.get(word)
                for name, wanted in table.items() if isinstance(table, dict) else ():
                    if not isinstance(wanted, list):
                        raise refuse(self._param, word, "a schema there cannot be kept while generating")
                    demands.setdefault(name, []).extend(_texts(wanted))
        for _ in demands:
            for name, wanted in demands.items():
                if name in required or (name in names and set(wanted) <= set(names)):
                    required |= set(wanted)
                elif name in names:
                    banned.add(name)
        return banned

    def _property(self, flat: Place, name: str) -> Place | None:
        """What holds for a property; None when it may not be there."""
        pointers: list[str] = []
        for pointer in flat:
            node = self._node(pointer)
            found = self._declared(node, pointer, name)
            if not found and "additionalProperties" in node:
                found = [f"{pointer}/additionalProperties"]
            if not found and node.get("unevaluatedProperties", True) is not True and not self._is_evaluated(flat, pointer, name):
                return None
            if "propertyNames" in node and not self._document.is_valid_at(f"{pointer}/propertyNames", name):
                return None
            pointers += found
        if any(self._document.at(pointer) is False for pointer in pointers):
            return None
        return tuple(sorted(set(pointers)))

    def _declared(self, node: dict[str, Json], pointer: str, name: str) -> list[str]:
        declared, patterns = node.get("properties"), node.get("patternProperties")
        found = [f"{pointer}/properties/{escape(name)}"] if isinstance(declared, dict) and name in declared else []
        matching = [pattern for pattern in (patterns if isinstance(patterns, dict) else ()) if _is_found(pattern, name)]
        return found + [f"{pointer}/patternProperties/{escape(pattern)}" for pattern in matching]

    def _is_evaluated(self, flat: Place, pointer: str, name: str) -> bool:
        """Whether a schema that holds at the same place through `pointer` knows the property."""
        rows, seen = [pointer], {pointer}
        while rows:
            here = rows.pop()
            node = self._node(here)
            if self._declared(node, here, name):
                return True
            reference = node.get("$ref")
            below = [referred(reference, self._param)] if isinstance(reference, str) else []
            below += [part for word in ("allOf", "anyOf", "oneOf") for part in _parts(node, here, word)]
            rows += [part for part in below if part in flat and part not in seen]
            seen |= set(below)
        return False

    def _map(self, flat: Place, least: int, most: int | None) -> Object:
        values: list[str] = []
        keys: list[str] = []
        pattern: str | None = None
        is_open = not self._is_closed
        for pointer in flat:
            node = self._node(pointer)
            patterns = node.get("patternProperties")
            if "propertyNames" in node:
                keys.append(f"{pointer}/propertyNames")
            if isinstance(patterns, dict) and patterns:
                if len(patterns) > 1 or pattern not in (None, *patterns):
                    raise refuse(self._param, "patternProperties", "more than one pattern for the same object")
                pattern = next(iter(patterns))
                values.append(f"{pointer}/patternProperties/{escape(pattern)}")
                is_open = True
            elif "additionalProperties" in node:
                values.append(f"{pointer}/additionalProperties")
                is_open = True
            elif node.get("unevaluatedProperties", True) is not True:
                values.append(f"{pointer}/unevaluatedProperties")
        is_shut = not is_open or any(self._document.at(pointer) is False for pointer in values)
        extra = None if is_shut else tuple(sorted(set(values)))
        return Object((), extra, tuple(keys), pattern, least, most)


def _parts(node: dict[str, Json], pointer: str, word: str) -> list[str]:
    parts = node.get(word)
    return [f"{pointer}/{word}/{position}" for position in range(len(parts))] if isinstance(parts, list) else []


def _items(node: dict[str, Json], pointer: str) -> tuple[list[Place], Place]:
    """The schemas of an array's first items, and of the others. The older drafts called the first ones `items`."""
    items = node.get("items")
    word, rest = ("prefixItems", "items") if not isinstance(items, list) else ("items", "additionalItems")
    prefix: list[Place] = [(part,) for part in _parts(node, pointer, word)]
    return prefix, (f"{pointer}/{rest}",) if rest in node else ANYTHING


def _joined(places: Iterable[Place]) -> Place:
    return tuple(sorted({pointer for place in places for pointer in place}))


def _narrowed(bounds: Range, node: dict[str, Json]) -> Range:
    low, high = node.get("minimum"), node.get("maximum")
    open_low, open_high = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
    lows = [(_decimal(low), open_low is True)] if low is not None else []
    lows += [(_decimal(open_low), True)] if open_low is not None and not isinstance(open_low, bool) else []
    highs = [(_decimal(high), open_high is True)] if high is not None else []
    highs += [(_decimal(open_high), True)] if open_high is not None and not isinstance(open_high, bool) else []
    lows += [(bounds.lo, bounds.is_lo_open)] if bounds.lo is not None else []
    highs += [(bounds.hi, bounds.is_hi_open)] if bounds.hi is not None else []
    lo, is_lo_open = max(lows, default=(None, False))
    hi, is_closed = min(((value, not is_open) for value, is_open in highs), default=(None, True))
    return Range(lo=lo, hi=hi, is_lo_open=is_lo_open, is_hi_open=not is_closed)


def _decimal(value: Json) -> Decimal:
    return Decimal(repr(value)) if isinstance(value, int | float) else Decimal(0)


def _texts(value: Json) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _is_found(pattern: str, name: str) -> bool:
    validator = jsonschema_rs.validator_for({"pattern": pattern}, pattern_options=jsonschema_rs.RegexOptions(), offline=True)
    return validator.is_valid(name)


def _identity(value: Json) -> bytes:
    """Equal for equal JSON values: 1 and 1.0 are one, true and 1 are two."""
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    return msgspec.json.encode(whole, order="deterministic")
