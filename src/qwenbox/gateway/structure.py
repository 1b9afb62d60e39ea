"""This is where promises about JSON and tools are checked before a stop is passed on."""

from collections.abc import AsyncIterator, Callable

import msgspec

from qwenbox.terms.chat import AnyText, ChatRequest, JsonSchema, ToolNamed, ToolNone, ToolRequired
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, ChoiceFinished, FinishReason, TextDelta, ToolCallDelta
from qwenbox.terms.schemas import Document, compile_schema, parse_json

ANY_OBJECT = b'{"type":"object"}'


def kept(request: ChatRequest) -> Callable[[AsyncIterator[ChatEvent]], AsyncIterator[ChatEvent]] | None:
    """A filter that lets a broken promise end as ENGINE_FAILED; None when nothing was promised, so that nothing is paid.

    Raises ApiError(INVALID_REQUEST) for a schema that cannot be used: call it before the engine is asked.
    """
    has_tools = bool(request.tools) and not isinstance(request.tool_choice, ToolNone)
    if isinstance(request.response_format, AnyText) and not has_tools:
        return None
    promise = Promise(request, has_tools=has_tools)
    return lambda events: _Kept(events, promise)


class Promise:
    """What one request was promised, and what its choices have said so far."""

    def __init__(self, request: ChatRequest, *, has_tools: bool) -> None:
        self._answer = _answer_schema(request)
        self._tools = {tool.name: _tool_schema(tool.parameters) for tool in request.tools} if has_tools else {}
        self._named = request.tool_choice.name if isinstance(request.tool_choice, ToolNamed) else None
        self._is_call_demanded = isinstance(request.tool_choice, ToolNamed | ToolRequired)
        self._has_stops = bool(request.stop or request.stop_tokens)
        self._texts: dict[int, list[str]] = {}
        self._calls: dict[int, dict[int, list[str]]] = {}

    def check(self, event: ChatEvent) -> ChatEvent:
        """The event, to be passed on. Raises ApiError(ENGINE_FAILED) instead of a finish that does not hold."""
        match event:
            case TextDelta():
                if self._answer is not None:
                    self._texts.setdefault(event.index, []).append(event.text)
            case ToolCallDelta():
                call = self._calls.setdefault(event.index, {}).setdefault(event.call, [""])
                call[0] = call[0] or event.name
                call.append(event.arguments)
            case ChoiceFinished(reason=FinishReason.STOP | FinishReason.TOOL_CALLS):
                return self._finish(event)
            case _:
                pass
        return event

    def _finish(self, event: ChoiceFinished) -> ChatEvent:
        fault = self._fault(event.index)
        if fault is None:
            return event
        if self._has_stops and event.reason is FinishReason.STOP:
            # The caller's own stop text cut it: an answer that was cut short, not one that ended.
            return msgspec.structs.replace(event, reason=FinishReason.LENGTH)
        raise ApiError(ErrorKind.ENGINE_FAILED, f"The model's answer does not keep what was asked for: {fault}.")

    def _fault(self, index: int) -> str | None:
        calls = self._calls.get(index, {})
        for _, (name, *pieces) in sorted(calls.items()):
            fault = self._call_fault(name, "".join(pieces))
            if fault is not None:
                return fault
        if calls:
            return None
        if self._is_call_demanded and self._tools:
            return "no tool was called"
        return None if self._answer is None else _fault("".join(self._texts.get(index, ())), self._answer, "the text")

    def _call_fault(self, name: str, arguments: str) -> str | None:
        schema = self._tools.get(name)
        if schema is None or (self._named is not None and name != self._named):
            return "a tool was called that was not asked for"
        return _fault(arguments, schema, "the arguments of a tool call")


class _Kept(AsyncIterator[ChatEvent]):
    """Not a generator: whoever opened the events closes them, and nothing here needs closing."""

    def __init__(self, events: AsyncIterator[ChatEvent], promise: Promise) -> None:
        self._events = events
        self._promise = promise

    async def __anext__(self) -> ChatEvent:
        return self._promise.check(await anext(self._events))


def _answer_schema(request: ChatRequest) -> Document | None:
    if isinstance(request.response_format, AnyText):
        return None
    schema = request.response_format.schema if isinstance(request.response_format, JsonSchema) else ANY_OBJECT
    return compile_schema(schema, "response_format")


def _tool_schema(parameters: bytes) -> Document:
    return compile_schema(parameters if parameters not in (b"", b"null") else b"{}", "tools")


def _fault(text: str, schema: Document, where: str) -> str | None:
    try:
        value = parse_json(text)
    except ValueError:
        return f"{where} is not JSON"
    fault = schema.fault(value)
    return None if fault is None else f"{where} breaks {fault}"
