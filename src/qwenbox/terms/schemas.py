"""This is where a caller's JSON Schema becomes something we can trust: bounded, local, compiled once.

A schema is data from outside. What is remote, huge, deep, circular or slow to check is an INVALID_REQUEST, never a wait.
Validation runs in time linear in the text for patterns (no backtracking engine) and fetches nothing.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import TypeAlias
from urllib.parse import quote, unquote

import jsonschema_rs
import msgspec

from qwenbox.terms.chat import ChatRequest, JsonSchema
from qwenbox.terms.errors import ApiError, ErrorKind

MAX_SCHEMA_BYTES = 64 * 1024
MAX_DEPTH = 48
MAX_NODES = 6_000
MAX_BRANCHES = 2_000
MAX_CHAIN = 100
PATTERN_BYTES = 1_000_000
CACHED_DOCUMENTS = 128

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

ONE_SCHEMA = frozenset(
    {
        "additionalItems",
        "additionalProperties",
        "contains",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
MANY_SCHEMAS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems", "items"})
NAMED_SCHEMAS = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions", "dependencies"})
VERBATIM = frozenset({"const", "enum", "default", "examples"})
IN_PLACE = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies"})


class Document:
    """A schema that passed the guard. Its parts are named by JSON pointers ("" is the whole).

    Source of the limits: measured on this box's child and validator; docs/engines.md, "Structured output".
    """

    def __init__(self, root: dict[str, Json] | bool, validator: jsonschema_rs.Validator) -> None:
        self.root = root
        self._validator = validator
        self._parts: dict[str, jsonschema_rs.Validator] = {}

    def fault(self, value: Json) -> str | None:
        """What is wrong with the value, None when it validates. Quotes neither the value nor the schema."""
        for error in self._validator.iter_errors(value):
            return f"{error.kind.name} at /{'/'.join(str(step) for step in error.instance_path)}"
        return None

    def at(self, pointer: str) -> Json:
        """The part a pointer names. Raises KeyError when there is none."""
        return _at(self.root, pointer)

    def is_valid_at(self, pointer: str, value: Json) -> bool:
        """Whether the value validates against one part of the schema."""
        part = self._parts.get(pointer)
        if part is None:
            base = "qwenbox:document"
            registry = jsonschema_rs.Registry([(base, _quoted_schema(_without_address(self.root)))])
            part = jsonschema_rs.validator_for(
                {"$ref": f"{base}#{quote(pointer)}"}, registry=registry, offline=True, pattern_options=_linear(), validate_formats=False
            )
            self._parts[pointer] = part
        return part.is_valid(value)


def escape(step: str) -> str:
    """A key as a step of a JSON pointer."""
    return step.replace("~", "~0").replace("/", "~1")


def unescape(step: str) -> str:
    return step.replace("~1", "/").replace("~0", "~")


def subschemas(pointer: str, node: Json) -> Iterator[tuple[str, str, Json]]:
    """The schemas directly inside a schema: (keyword, pointer, schema)."""
    if not isinstance(node, dict):
        return
    for keyword, value in node.items():
        here = f"{pointer}/{escape(keyword)}"
        if keyword in MANY_SCHEMAS and isinstance(value, list):
            for position, part in enumerate(value):
                yield keyword, f"{here}/{position}", part
        elif keyword in ONE_SCHEMA:
            yield keyword, here, value
        elif keyword in NAMED_SCHEMAS and isinstance(value, dict):
            for name, part in value.items():
                if isinstance(part, dict | bool):
                    yield keyword, f"{here}/{escape(name)}", part


def _at(root: Json, pointer: str) -> Json:
    node = root
    for step in pointer.split("/")[1:]:
        key = unescape(step)
        if isinstance(node, dict):
            node = node[key]
        elif isinstance(node, list) and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        else:
            raise KeyError(pointer)
    return node


def referred(reference: str, param: str) -> str:
    """The pointer a `$ref` names. Raises ApiError for what is not a place in the same document."""
    if reference != "#" and not reference.startswith("#/"):
        raise _refuse(f'the reference "{reference[:80]}" is not local; only "#" and "#/…" are followed', param)
    return unquote(reference[1:])


_documents: "OrderedDict[bytes, Document]" = OrderedDict()


def compile_schema(schema: bytes, param: str) -> Document:
    """The schema, checked and compiled; equal bytes are compiled once.

    Raises ApiError(INVALID_REQUEST) that says what is wrong; `param` is the field of the request it came in.
    """
    found = _documents.get(schema)
    if found is not None:
        _documents.move_to_end(schema)
        return found
    document = _compiled(schema, param)
    _documents[schema] = document
    if len(_documents) > CACHED_DOCUMENTS:
        _documents.popitem(last=False)
    return document


def guard(request: ChatRequest) -> None:
    """Check every schema of a request before anyone works with it. Raises ApiError(INVALID_REQUEST)."""
    if isinstance(request.response_format, JsonSchema):
        compile_schema(request.response_format.schema, "response_format")
    for tool in request.tools:
        compile_schema(tool.parameters, "tools")


def parse_json(text: str | bytes) -> Json:
    """Strict JSON: no NaN, no duplicates resolved silently beyond what every parser does, bounded depth.

    Raises ValueError.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError("not JSON") from error


def _compiled(schema: bytes, param: str) -> Document:
    if len(schema) > MAX_SCHEMA_BYTES:
        raise _refuse(f"it is {len(schema)} bytes long; at most {MAX_SCHEMA_BYTES} are allowed", param)
    try:
        root = parse_json(schema)
    except ValueError as error:
        raise _refuse("it is not JSON", param) from error
    if not isinstance(root, dict | bool):
        raise _refuse("it must be an object, true or false", param)
    _measure(root, param)
    _Walk(root, param).check()
    try:
        validator = jsonschema_rs.validator_for(_quoted_schema(root), offline=True, pattern_options=_linear(), validate_formats=False)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise _refuse(str(error).split("\n", 1)[0][:200], param) from error
    return Document(root, validator)


def _measure(root: Json, param: str) -> None:
    nodes = 0
    rows: list[Json] = [root]
    for depth in range(MAX_DEPTH + 1):
        below: list[Json] = []
        for node in rows:
            nodes += 1
            below.extend(node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
        if nodes > MAX_NODES:
            raise _refuse(f"it has more than {MAX_NODES} values", param)
        if not below:
            return
        if depth == MAX_DEPTH:
            raise _refuse(f"it nests deeper than {MAX_DEPTH} levels", param)
        rows = below


class _Walk:
    """References stay inside, and following them without going into a value ends soon."""

    def __init__(self, root: Json, param: str) -> None:
        self._root = root
        self._param = param
        self._costs: dict[str, int] = {}
        self._open: set[str] = set()

    def check(self) -> None:
        rows = [("", self._root)]
        while rows:
            pointer, node = rows.pop()
            if isinstance(node, dict):
                self._check_words(pointer, node)
            rows.extend((inner, part) for _, inner, part in subschemas(pointer, node))
            if self._cost(pointer) > MAX_BRANCHES:
                raise _refuse(f"its alternatives multiply to more than {MAX_BRANCHES}", self._param)

    def _check_words(self, pointer: str, node: dict[str, Json]) -> None:
        for word in ("$dynamicRef", "$recursiveRef", "$anchor", "$dynamicAnchor", "$recursiveAnchor"):
            if word in node:
                raise _refuse(f'"{word}" is not supported', self._param)
        if pointer and isinstance(node.get("$id", node.get("id")), str) and "$ref" not in node:
            raise _refuse('"$id" inside a schema is not supported', self._param)

    def _cost(self, pointer: str) -> int:
        """How many subschemas may be tried on one and the same value."""
        known = self._costs.get(pointer)
        if known is not None:
            return known
        if pointer in self._open:
            raise _refuse("a reference leads back to itself without going into the value", self._param)
        if len(self._open) > MAX_CHAIN:
            raise _refuse(f"references follow each other more than {MAX_CHAIN} times", self._param)
        self._open.add(pointer)
        total = 1
        node = self._node(pointer)
        if isinstance(node, dict):
            reference = node.get("$ref")
            if isinstance(reference, str):
                total += self._cost(referred(reference, self._param))
            for keyword, inner, _ in subschemas(pointer, node):
                if keyword in IN_PLACE:
                    total += self._cost(inner)
        self._open.discard(pointer)
        self._costs[pointer] = min(total, MAX_BRANCHES + 1)
        return self._costs[pointer]

    def _node(self, pointer: str) -> Json:
        try:
            node = _at(self._root, pointer)
        except KeyError as error:
            raise _refuse(f'the reference "#{pointer[:80]}" names nothing', self._param) from error
        if not isinstance(node, dict | bool):
            raise _refuse(f'the reference "#{pointer[:80]}" names no schema', self._param)
        return node


def _quoted(node: Json) -> Json:
    """References as URIs: Pydantic writes names of classes into them as they are, in any script."""
    if isinstance(node, list):
        return [_quoted(part) for part in node]
    if not isinstance(node, dict):
        return node
    copy = {key: part if key in VERBATIM else _quoted(part) for key, part in node.items()}
    reference = copy.get("$ref")
    if isinstance(reference, str):
        copy["$ref"] = quote(unquote(reference), safe="#/~!$&'()*+,;=:@?")
    return copy


def _quoted_schema(root: dict[str, Json] | bool) -> dict[str, Json] | bool:
    quoted = _quoted(root)
    return quoted if isinstance(quoted, dict) else bool(quoted)


def _without_address(root: dict[str, Json] | bool) -> dict[str, Json] | bool:
    return {key: value for key, value in root.items() if key not in ("$id", "id")} if isinstance(root, dict) else root


def _linear() -> jsonschema_rs.RegexOptions:
    return jsonschema_rs.RegexOptions(size_limit=PATTERN_BYTES)


def _refuse(reason: str, param: str) -> ApiError:
    return ApiError(ErrorKind.INVALID_REQUEST, f"The JSON schema in {param} cannot be used: {reason}.", param=param)
