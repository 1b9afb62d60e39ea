"""This is where a request's promise about its answer's form becomes the grammar its engine must keep (LLGuidance's Lark)."""

import re
from typing import assert_never

from qwenbox.engines.constraints.grammar import Grammar, Values, literal
from qwenbox.engines.constraints.kinds import Object
from qwenbox.terms.chat import AnyText, ChatRequest, JsonObject, JsonSchema, ToolAuto, ToolNamed, ToolNone, ToolRequired, ToolSpec
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.schemas import compile_schema

ANY_OBJECT = b'{"type":"object"}'
NO_ARGUMENTS = b'{"type":"object","additionalProperties":false}'
SHARE = 0.85  # of max_output_tokens goes to values; the rest is for what the budget guessed too low
MOST_TOKENS = 6_000
PARALLEL_CALLS = 8
CALL_TOKENS = 16

# Where a call may begin, and what may stand around it: the start of a line, then a Hermes tag or a fence or nothing.
# `tool_calls.Hearing` recognises the same forms.
_GAP = r"[ \t\r\n]*"
_NAME = rf"\{{{_GAP}\x22name\x22{_GAP}:{_GAP}\x22"
_FENCE = rf"(```[a-z]{{0,8}}{_GAP})?"
CALL_HEAD = rf"/((?s:.*)<tool_call>{_GAP}|((?s:.*)\n)?[ \t]*{_FENCE}){_NAME}/"
NEXT_HEAD = rf"/{_GAP}(<tool_call>{_GAP}|{_FENCE}){_NAME}/"
CALL_MIDDLE = r"/\x22[ \t\r\n]*,[ \t\r\n]*\x22(arguments|parameters)\x22[ \t\r\n]*:/"
CALL_END = r"/[ \t\r\n]{0,8}\}/"
CALL_CLOSING = r"/[ \t\r\n]{0,8}(```|<\/tool_call>)/"
THOUGHT = r"thought[lazy]: /(?s:.*)<\/think>/"


def constraint(request: ChatRequest, *, is_thinking: bool = False) -> str | None:
    """The grammar of the whole answer, None when nothing was promised and nothing need be kept.

    is_thinking: the answer begins with thinking, closed by `</think>` (its opening tag may be part of the prompt).
    Raises ApiError(INVALID_REQUEST) naming the schema's keyword that cannot be kept exactly.
    """
    grammar = Grammar()
    tokens = _room_tokens(request, is_thinking=is_thinking) * SHARE
    match request.tool_choice:
        case ToolRequired() if request.tools:
            body = _demanded(request, request.tools, grammar, tokens)
        case ToolNamed(name):
            body = _demanded(request, _named(request, name), grammar, tokens)
        case ToolAuto() if request.tools and isinstance(request.response_format, AnyText):
            return _offered(request, grammar, tokens, is_thinking=is_thinking)
        case ToolAuto() if request.tools:
            body = f"{_formatted(request, grammar, tokens)} | {_demanded(request, request.tools, grammar, tokens)}"
        case ToolAuto() | ToolNone() | ToolRequired():
            body = _formatted(request, grammar, tokens)
        case _ as never:
            assert_never(never)
    if body is None:
        return None
    return _after_thought(grammar.text(body), is_thinking=is_thinking)


def _room_tokens(request: ChatRequest, *, is_thinking: bool) -> int:
    """Output tokens there are for the answer itself: thoughts take theirs first."""
    tokens = request.max_output_tokens or MOST_TOKENS
    if is_thinking:
        tokens = max(tokens - (request.thinking.budget_tokens or tokens // 2), tokens // 4)
    return min(tokens, MOST_TOKENS)


def _after_thought(text: str, *, is_thinking: bool) -> str:
    if not is_thinking:
        return text
    return text.replace("start: ", 'start: thought "\\n"? "\\n"? answer\nanswer: ', 1) + THOUGHT + "\n"


def _formatted(request: ChatRequest, grammar: Grammar, tokens: float) -> str | None:
    if request.messages and request.messages[-1].is_partial and not isinstance(request.response_format, AnyText):
        reason = (
            "A partial answer cannot be continued as JSON: the answer holds only the continuation. Leave out response_format or partial."
        )
        raise ApiError(ErrorKind.INVALID_REQUEST, reason, param="messages")
    match request.response_format:
        case AnyText():
            return None
        case JsonObject():
            document = compile_schema(ANY_OBJECT, "response_format")
            return Values(grammar, document, "response_format").root(tokens, Object)
        case JsonSchema(schema=schema):
            document = compile_schema(schema, "response_format")
            return Values(grammar, document, "response_format").root(tokens)
        case _ as never:
            assert_never(never)


def _named(request: ChatRequest, name: str) -> tuple[ToolSpec, ...]:
    tools = tuple(tool for tool in request.tools if tool.name == name)
    if not tools:
        raise ApiError(ErrorKind.INVALID_REQUEST, f'tool_choice names "{name[:64]}", which is not among the tools.', param="tool_choice")
    return tools


def _demanded(request: ChatRequest, tools: tuple[ToolSpec, ...], grammar: Grammar, tokens: float) -> str:
    """One call in Hermes form, or several where they are allowed."""
    share = tokens / 2 if request.is_parallel_tool_calls else tokens
    calls: list[str] = []
    for tool in tools:
        head = literal(f'<tool_call>\n{{"name": "{tool.name}", "arguments": ')
        calls.append(f"{head} {_arguments(tool, grammar, share - CALL_TOKENS)} {literal('}')}")
    call = grammar.add(" | ".join(calls))
    end = literal("\n</tool_call>")
    if not request.is_parallel_tool_calls:
        return f"{call} {end}"
    return f"{call} {end} ({literal(chr(10))} {call} {end}){{0,{PARALLEL_CALLS - 1}}}"


def _offered(request: ChatRequest, grammar: Grammar, tokens: float, *, is_thinking: bool) -> str:
    """Any text; from the moment a known tool is called in it, that call's arguments are kept to the tool's schema."""
    share = max(tokens / 2, 64.0)
    lines: list[str] = []
    numbers = range(len(request.tools))
    for number, tool in enumerate(request.tools):
        name = re.sub(r"[^A-Za-z0-9]", lambda found: f"\\x{{{ord(found[0]):x}}}", tool.name)
        value = _arguments(tool, grammar, share)
        lines += [f"head{number}[lazy]: HEAD /{name}/ MIDDLE", f"first{number}: head{number} SPACE? {value} END CLOSING?"]
        if request.is_parallel_tool_calls:
            lines += [f"next{number}[lazy]: NEXT /{name}/ MIDDLE", f"later{number}: next{number} SPACE? {value} END CLOSING?"]
    lines += [f"first: {' | '.join(f'first{number}' for number in numbers)}", "rest: TEXT", "TEXT: /(?s:.*)/"]
    lines += [
        f"HEAD: {CALL_HEAD}",
        f"NEXT: {NEXT_HEAD}",
        f"MIDDLE: {CALL_MIDDLE}",
        f"END: {CALL_END}",
        f"CLOSING: {CALL_CLOSING}",
        r"SPACE: /[ \t\r\n]{1,8}/",
    ]
    if not request.is_parallel_tool_calls:
        text = grammar.text("rest | first SPACE?")
    else:
        lines.append(f"later: {' | '.join(f'later{number}' for number in numbers)}")
        text = grammar.text(f"rest | first later{{0,{PARALLEL_CALLS - 1}}} SPACE?")
    return _after_thought(text + "\n".join(lines) + "\n", is_thinking=is_thinking)


def _arguments(tool: ToolSpec, grammar: Grammar, tokens: float) -> str:
    schema = NO_ARGUMENTS if tool.parameters in (b"", b"{}", b"null") else tool.parameters
    document = compile_schema(schema, "tools")
    return Values(grammar, document, "tools", is_closed=True).root(tokens, Object)
