"""This is where native tools and the choice among them become terms (wire reference 2.2)."""

import re

from qwenbox.dialects.dashscope.body import INVALID, WRONG_CHOICE, is_json_object
from qwenbox.dialects.dashscope.parameters import wrong
from qwenbox.dialects.dashscope.schema import NOTHING, Parameters, Tool
from qwenbox.terms.caller import Compat
from qwenbox.terms.chat import ToolAuto, ToolChoice, ToolNamed, ToolNone, ToolRequired, ToolSpec

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_FORBIDDEN_AT_STRICT = "search"


def specs(given: Parameters, compat: Compat) -> tuple[ToolSpec, ...]:
    """The functions on offer, names unique. Raises ApiError(INVALID_REQUEST)."""
    if not given.tools:
        return ()
    found = tuple(_spec(tool, f"tools[{at}]", compat) for at, tool in enumerate(given.tools))
    if len({spec.name for spec in found}) != len(found):
        raise wrong("Tool names must be unique.", "tools")
    if given.n is not None and given.n != 1:
        raise wrong("The n parameter must be 1 when tools are used", "n")
    return found


def choice(given: Parameters, tools: tuple[ToolSpec, ...], compat: Compat) -> ToolChoice:
    """auto, none, a function, and at level `documented` also `required`. Raises ApiError(INVALID_REQUEST)."""
    asked = given.tool_choice
    if asked is None or asked == "auto":
        return _AUTO
    if asked == "none":
        return ToolNone()
    if isinstance(asked, str):
        if asked != "required" or compat is Compat.STRICT:
            raise wrong(WRONG_CHOICE, "tool_choice")
        if not tools:
            raise wrong('tool_choice "required" needs tools.', "tool_choice")
        return ToolRequired()
    if asked.type != "function" or (compat is Compat.STRICT and given.enable_thinking):
        raise wrong(WRONG_CHOICE, "tool_choice")
    if not any(tool.name == asked.function.name for tool in tools):
        raise wrong("tool_choice names a function that is not among the tools.", "tool_choice.function.name")
    return ToolNamed(name=asked.function.name)


def _spec(tool: Tool, place: str, compat: Compat) -> ToolSpec:
    function = tool.function
    if tool.type != "function" or function is None:
        raise wrong('A tool must have the type "function" and a function.', place)
    if not _NAME.fullmatch(function.name):
        raise wrong("Tool names must be 1 to 64 letters, digits, underscores or hyphens.", f"{place}.function.name")
    if compat is Compat.STRICT and function.name == _FORBIDDEN_AT_STRICT:
        raise wrong("Tool names are not allowed to be [search]", f"{place}.function.name")
    raw = bytes(function.parameters)
    if raw in (bytes(NOTHING), b"null"):
        raw = b"{}"
    elif not is_json_object(function.parameters):
        raise wrong(INVALID.format(f"{place}.function.parameters"), f"{place}.function.parameters")
    return ToolSpec(name=function.name, description=function.description or "", parameters=raw)


_AUTO = ToolAuto()
