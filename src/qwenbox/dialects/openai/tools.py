"""This is where tools, the choice among them and the answer's format are read from the OpenAI-compatible wire."""

import re
from collections.abc import Sequence

from qwenbox.dialects.openai import fields
from qwenbox.dialects.openai.schema import ChatBody, WireFormat, WireFunction, WireTool
from qwenbox.terms.caller import Compat
from qwenbox.terms.chat import (
    AnyText,
    JsonObject,
    JsonSchema,
    ResponseFormat,
    ToolAuto,
    ToolChoice,
    ToolNamed,
    ToolNone,
    ToolRequired,
    ToolSpec,
)

MAX_TOOLS = 128

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_AUTO = ToolAuto()
_ANY_TEXT = AnyText()


def tools(wire: Sequence[WireTool] | None, compat: Compat) -> tuple[ToolSpec, ...]:
    """Raises ApiError(INVALID_REQUEST) naming the tool and field at fault."""
    if wire is None:
        return ()
    if not wire and compat is Compat.STRICT:
        raise fields.invalid("[] is too short - 'tools'", "tools")
    if len(wire) > MAX_TOOLS:
        raise fields.invalid(f"Range of tools length should be [1, {MAX_TOOLS}]", "tools")
    specs = tuple([_tool(tool, f"tools[{index}]", compat) for index, tool in enumerate(wire)])
    names: set[str] = set()
    for index, spec in enumerate(specs):
        if spec.name in names:
            raise fields.invalid(f"Tool names must be unique: '{spec.name}' is there twice.", f"tools[{index}].function.name")
        names.add(spec.name)
    return specs


def choice(body: ChatBody, specs: Sequence[ToolSpec]) -> ToolChoice:
    wire = body.tool_choice
    if wire is None or wire == "auto":
        return _AUTO
    if wire == "none":
        return ToolNone()
    if not isinstance(wire, str):
        if wire.type != "function":
            raise fields.invalid(f"'{fields.quoted(wire.type)}' is not one of ['function'] - 'tool_choice.type'", "tool_choice.type")
        if all(spec.name != wire.function.name for spec in specs):
            raise fields.invalid(f"tool_choice names '{fields.quoted(wire.function.name)}', which is not in tools.", "tool_choice")
        return ToolNamed(wire.function.name)
    if wire != "required":
        raise fields.invalid('tool_choice is one of the strings that should be ["none", "auto", "required"]', "tool_choice")
    if not specs:
        raise fields.invalid("tool_choice is 'required', but there are no tools.", "tool_choice")
    return ToolRequired()


def response_format(wire: WireFormat | None) -> ResponseFormat:
    if wire is None or wire.type == "text":
        return _ANY_TEXT
    if wire.type == "json_object":
        return JsonObject()
    if wire.type != "json_schema":
        raise fields.invalid(
            "Unknown format of response_format, response_format should be a dict, includes 'type' and an optional key "
            f"'json_schema'. The response_format type from user is {fields.quoted(wire.type)}.",
            "response_format",
        )
    if wire.json_schema is None:
        raise fields.invalid("Field required: response_format.json_schema", "response_format.json_schema")
    param = "response_format.json_schema.schema"
    schema = bytes(wire.json_schema.schema)
    if not schema:
        raise fields.invalid(f"Field required: {param}", param)
    fields.json_object(schema, param)
    return JsonSchema(name=wire.json_schema.name or "", schema=schema)


def _tool(wire: WireTool, param: str, compat: Compat) -> ToolSpec:
    if wire.type != "function":
        raise fields.invalid(f"'{fields.quoted(wire.type)}' is not one of ['function'] - '{param}.type'", f"{param}.type")
    name = wire.function.name
    if not _NAME.fullmatch(name):
        raise fields.invalid(
            f"'{fields.quoted(name)}' is not a tool name: 1 to 64 letters, digits, '_' and '-' - '{param}.function.name'",
            f"{param}.function.name",
        )
    if name == "search" and compat is Compat.STRICT:
        raise fields.invalid("Tool names are not allowed to be [search]", f"{param}.function.name")
    return ToolSpec(name=name, description=wire.function.description or "", parameters=_parameters(wire.function, param))


def _parameters(function: WireFunction, param: str) -> bytes:
    raw = bytes(function.parameters)
    if raw in (b"", b"null"):
        return b"{}"
    where = f"{param}.function.parameters"
    kind = fields.json_object(raw, where).get("type", "object")
    if kind != "object":
        raise fields.invalid(f"'{where}' must be a JSON Schema of type object", where)
    return raw
