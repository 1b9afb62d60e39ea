"""This is where tools, the choice among them and the answer's format are read from Anthropic's wire."""

import re
from collections.abc import Sequence

from qwenbox.dialects.anthropic import fields
from qwenbox.dialects.anthropic.schema import Body, WireTool
from qwenbox.terms.chat import (
    AnyText,
    JsonSchema,
    ResponseFormat,
    ToolAuto,
    ToolChoice,
    ToolNamed,
    ToolNone,
    ToolRequired,
    ToolSpec,
)

# More than any tool box with MCP servers has been seen to send.
MAX_TOOLS = 1_024

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")


def tools(wire: Sequence[WireTool] | None) -> tuple[ToolSpec, ...]:
    """Raises ApiError(INVALID_REQUEST) naming the tool and field at fault."""
    if wire is None:
        return ()
    if len(wire) > MAX_TOOLS:
        raise fields.invalid("tools", f"List should have at most {MAX_TOOLS} items")
    specs = tuple([_tool(tool, f"tools.{index}") for index, tool in enumerate(wire)])
    names: set[str] = set()
    for spec in specs:
        if spec.name in names:
            raise fields.invalid("tools", f"Tool names must be unique: '{spec.name}' is there twice.")
        names.add(spec.name)
    return specs


def choice(body: Body, specs: Sequence[ToolSpec]) -> ToolChoice:
    wire = body.tool_choice
    if wire is None:
        return ToolAuto()
    match wire.type:
        case "auto":
            return ToolAuto()
        case "none":
            return ToolNone()
        case "any":
            if not specs:
                raise fields.invalid("tool_choice", "tool_choice is 'any', but there are no tools")
            return ToolRequired()
        case "tool":
            if not wire.name:
                raise fields.invalid("tool_choice.name", "Field required")
            if all(spec.name != wire.name for spec in specs):
                raise fields.invalid("tool_choice.name", f"Tool '{fields.quoted(wire.name)}' not found in provided tools")
            return ToolNamed(wire.name)
        case kind:
            raise fields.invalid("tool_choice.type", f"'{fields.quoted(kind)}' is not one of 'auto', 'any', 'tool', 'none'")


def is_parallel(body: Body) -> bool:
    """Several calls in one answer, unless the caller says otherwise."""
    return body.tool_choice is None or not body.tool_choice.disable_parallel_tool_use


def response_format(body: Body) -> ResponseFormat:
    param, wire = "output_format", body.output_format
    if body.output_config is not None and body.output_config.format is not None:
        param, wire = "output_config.format", body.output_config.format
    if wire is None:
        return AnyText()
    if wire.type != "json_schema":
        raise fields.invalid(f"{param}.type", "Input should be 'json_schema'")
    schema = bytes(wire.schema)
    if not schema:
        raise fields.invalid(f"{param}.schema", "Field required")
    fields.json_object(schema, f"{param}.schema")
    return JsonSchema(schema=schema)


def _tool(wire: WireTool, param: str) -> ToolSpec:
    if wire.type not in (None, "custom"):
        text = f"'{fields.quoted(wire.type)}' is a tool of Anthropic's own, which this box does not have; only tools with an input_schema"
        raise fields.invalid(f"{param}.type", text)
    if not wire.name or not _NAME.fullmatch(wire.name):
        raise fields.invalid(f"{param}.name", "String should match pattern '^[a-zA-Z0-9_-]{1,128}$'")
    raw = bytes(wire.input_schema)
    if not raw:
        raise fields.invalid(f"{param}.input_schema", "Field required")
    if fields.json_object(raw, f"{param}.input_schema").get("type", "object") != "object":
        raise fields.invalid(f"{param}.input_schema.type", "Input should be 'object'")
    return ToolSpec(name=wire.name, description=wire.description or "", parameters=raw)
