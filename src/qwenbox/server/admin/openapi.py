"""This is where the admin API describes itself as an OpenAPI 3.1 document, made from the operations' own types."""

import re
from typing import TypeAlias

import msgspec

from qwenbox import __version__
from qwenbox.client.shapes import Refusal
from qwenbox.server.admin.operation import Operation

# JSON, as OpenAPI has it.
Json: TypeAlias = dict[str, object]

PREFIX = "/admin/v1"

_REFERENCE = "#/components/schemas/{name}"
_ID: Json = {"type": "string", "minLength": 1, "maxLength": 128}
_ABOUT = (
    "Accounts, keys, money and usage of one qwenbox. Money is integer millionths of the currency, times are seconds since the epoch. "
    "Lists come in pages: `next_cursor` is handed back as `cursor`."
)


def document(operations: tuple[Operation, ...]) -> Json:
    """The whole document."""
    bodies = [one.body for one in operations if one.body.__struct_fields__]
    answers = [one.answer for one in operations if one.media_type == "application/json" and one.answer is not type(None)]
    wanted = [*bodies, *answers, Refusal]
    references, schemas = msgspec.json.schema_components(wanted, schema_hook=_anything, ref_template=_REFERENCE)
    known = {repr(kind): reference for kind, reference in zip(wanted, references, strict=True)}
    paths: dict[str, Json] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, known)
    return {
        "openapi": "3.1.0",
        "info": {"title": "qwenbox admin API", "version": __version__, "description": _ABOUT},
        "servers": [{"url": PREFIX}],
        "security": [{"key": []}, {"password": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "The admin key; API keys are not accepted."},
                "password": {"type": "http", "scheme": "basic", "description": "Name and password of an account with the role admin."},
            },
        },
    }


def _operation(one: Operation, known: dict[str, Json]) -> Json:
    summary, _, more = one.summary.partition("\n")
    described: Json = {
        "operationId": one.name,
        "tags": [one.name.partition("_")[0]],
        "summary": summary.rstrip("."),
        "parameters": [*_path_parameters(one.path), *_query_parameters(one.query)],
        "responses": {
            str(one.status): {"description": "Done.", **_content(one, known)},
            "4XX": {"description": "Refused; the body says why.", "content": {"application/json": {"schema": known[repr(Refusal)]}}},
            "5XX": {"description": "Failed.", "content": {"application/json": {"schema": known[repr(Refusal)]}}},
        },
    }
    if more.strip():
        described["description"] = more.strip()
    if one.body.__struct_fields__:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": known[repr(one.body)]}}}
    return described


def _content(one: Operation, known: dict[str, Json]) -> Json:
    if one.answer is type(None):
        return {}
    schema: Json = known[repr(one.answer)] if one.media_type == "application/json" else {"type": "string"}
    return {"content": {one.media_type: {"schema": schema}}}


def _path_parameters(path: str) -> list[Json]:
    return [{"name": name, "in": "path", "required": True, "schema": _ID} for name in re.findall(r"{(\w+)}", path)]


def _query_parameters(query: type[msgspec.Struct]) -> list[Json]:
    schema = msgspec.json.schema_components([query], ref_template=_REFERENCE)[1][query.__name__]
    properties = msgspec.convert(schema.get("properties", {}), dict[str, Json])
    return [{"name": name, "in": "query", "required": False, "schema": shape} for name, shape in properties.items()]


def _anything(kind: type) -> Json:
    """For `object`, which msgspec leaves to us; an empty schema would say the same, but counts as none there."""
    if kind is object:
        return {"description": "Any JSON."}
    raise NotImplementedError(kind)  # msgspec's own protocol
