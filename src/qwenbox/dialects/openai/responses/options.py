"""This is where what a Responses request says beside its input is read: tools, format, thinking, and what this box cannot do."""

import re
from collections.abc import Sequence

from qwenbox.dialects.openai import fields
from qwenbox.dialects.openai.parse import EFFORT_TOKENS
from qwenbox.dialects.openai.responses.schema import Body, WireTool
from qwenbox.dialects.openai.tools import MAX_TOOLS
from qwenbox.terms.caller import Compat
from qwenbox.terms.chat import (
    AnyText,
    JsonObject,
    JsonSchema,
    ResponseFormat,
    Thinking,
    ToolAuto,
    ToolChoice,
    ToolNamed,
    ToolNone,
    ToolRequired,
    ToolSpec,
)

MAX_METADATA = 16
MAX_METADATA_KEY, MAX_METADATA_VALUE = 64, 512

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def refuse_unsupported(body: Body) -> None:
    """What is known and cannot be honoured is never dropped in silence."""
    fields.refuse_logit_bias(body)
    if body.background:
        raise fields.invalid("background is not supported: responses are made while you wait.", "background")
    if bytes(body.conversation) not in (b"", b"null"):
        raise fields.invalid("conversation is not supported: use previous_response_id.", "conversation")
    if bytes(body.prompt) not in (b"", b"null"):
        raise fields.invalid("prompt templates are not supported: send instructions and input.", "prompt")
    if body.top_logprobs or "message.output_text.logprobs" in (body.include or ()):
        raise fields.invalid("Responses do not support logprobs; chat completions do.", "top_logprobs")
    if body.stop is not None:
        raise fields.invalid("Responses do not support stop; chat completions do.", "stop")
    if body.n not in (None, 1):
        raise fields.invalid("Range of n should be [1, 1]", "n")
    _check_metadata(body.metadata or {})


def is_truncated(body: Body) -> bool:
    if body.truncation not in (None, "auto", "disabled"):
        raise fields.invalid(f"'{fields.quoted(body.truncation)}' is not one of ['auto', 'disabled'] - 'truncation'", "truncation")
    return body.truncation == "auto"


def tools(body: Body, compat: Compat) -> tuple[ToolSpec, ...]:
    """Raises ApiError(INVALID_REQUEST) naming the tool and field at fault."""
    wire = body.tools or []
    if len(wire) > MAX_TOOLS:
        raise fields.invalid(f"Range of tools length should be [1, {MAX_TOOLS}]", "tools")
    specs = tuple([_tool(tool, f"tools[{index}]", compat) for index, tool in enumerate(wire)])
    if len({spec.name for spec in specs}) < len(specs):
        raise fields.invalid("Tool names must be unique.", "tools")
    return specs


def choice(body: Body, specs: Sequence[ToolSpec]) -> ToolChoice:
    wire = body.tool_choice
    if wire is None or wire == "auto":
        return ToolAuto()
    if wire == "none":
        return ToolNone()
    if wire == "required":
        if not specs:
            raise fields.invalid("tool_choice is 'required', but there are no tools.", "tool_choice")
        return ToolRequired()
    if isinstance(wire, str):
        raise fields.invalid(f"'{fields.quoted(wire)}' is not one of ['none', 'auto', 'required'] - 'tool_choice'", "tool_choice")
    if wire.type != "function":
        raise fields.invalid(f"'{fields.quoted(wire.type)}' is not one of ['function'] - 'tool_choice.type'", "tool_choice.type")
    if wire.name is None or all(spec.name != wire.name for spec in specs):
        raise fields.invalid(f"tool_choice names '{fields.quoted(wire.name or '')}', which is not in tools.", "tool_choice")
    return ToolNamed(wire.name)


def response_format(body: Body) -> ResponseFormat:
    wire = None if body.text is None else body.text.format
    if wire is None or wire.type == "text":
        return AnyText()
    if wire.type == "json_object":
        return JsonObject()
    if wire.type != "json_schema":
        known = ["text", "json_object", "json_schema"]
        raise fields.invalid(f"'{fields.quoted(wire.type)}' is not one of {known} - 'text.format.type'", "text.format.type")
    param = "text.format.schema"
    schema = bytes(wire.schema)
    if not schema:
        raise fields.invalid(f"Field required: {param}", param)
    fields.json_object(schema, param)
    return JsonSchema(name=wire.name or "", schema=schema)


def thinking(body: Body) -> Thinking:
    """An effort is a leave to think, which coding tools give every model; enable_thinking is a demand."""
    budget, effort = body.thinking_budget, None if body.reasoning is None else body.reasoning.effort
    if budget is not None and budget < 1:
        raise fields.invalid("The thinking_budget parameter must be a positive integer", "thinking_budget")
    if effort not in (None, "none", *EFFORT_TOKENS):
        known = ["none", *EFFORT_TOKENS]
        raise fields.invalid(f"'{fields.quoted(effort)}' is not one of {known} - 'reasoning.effort'", "reasoning.effort")
    if body.enable_thinking is not None:
        return Thinking(is_enabled=body.enable_thinking, budget_tokens=budget or EFFORT_TOKENS.get(effort or ""))
    if effort is None:
        return Thinking(budget_tokens=budget)
    if effort == "none":
        return Thinking(is_enabled=False)
    return Thinking(is_enabled=True, is_optional=True, budget_tokens=budget or EFFORT_TOKENS[effort])


def _tool(wire: WireTool, param: str, compat: Compat) -> ToolSpec:
    if wire.type != "function":
        text = f"'{fields.quoted(wire.type)}' is a tool this box does not have: only tools of type 'function' are supported"
        raise fields.invalid(f"{text} - '{param}.type'", f"{param}.type")
    if wire.name is None or not _NAME.fullmatch(wire.name):
        text = f"'{fields.quoted(wire.name or '')}' is not a tool name: 1 to 64 letters, digits, '_' and '-'"
        raise fields.invalid(f"{text} - '{param}.name'", f"{param}.name")
    if wire.name == "search" and compat is Compat.STRICT:
        raise fields.invalid("Tool names are not allowed to be [search]", f"{param}.name")
    raw = bytes(wire.parameters)
    if raw in (b"", b"null"):
        raw = b"{}"
    elif fields.json_object(raw, f"{param}.parameters").get("type", "object") != "object":
        raise fields.invalid(f"'{param}.parameters' must be a JSON Schema of type object", f"{param}.parameters")
    return ToolSpec(name=wire.name, description=wire.description or "", parameters=raw)


def _check_metadata(metadata: dict[str, str]) -> None:
    if len(metadata) > MAX_METADATA:
        raise fields.invalid(f"metadata may have {MAX_METADATA} pairs", "metadata")
    if any(len(key) > MAX_METADATA_KEY or len(value) > MAX_METADATA_VALUE for key, value in metadata.items()):
        raise fields.invalid(f"metadata keys may have {MAX_METADATA_KEY} characters, values {MAX_METADATA_VALUE}", "metadata")
