"""This is where messages become the one text a model reads, by the chat template that came with its weights."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NoReturn, TypeAlias, assert_never

import jinja2
import jinja2.ext
import msgspec
from jinja2.sandbox import ImmutableSandboxedEnvironment

from qwenbox.engines.tokenizer import Tokenizer
from qwenbox.terms.chat import ChatRequest, ImagePart, Message, Role, TextPart, ToolCall, ToolNone, ToolSpec, VideoPart
from qwenbox.terms.errors import ApiError, ErrorKind

# What a template is given: the message format of transformers' `apply_chat_template`.
Json: TypeAlias = str | int | float | bool | Sequence["Json"] | Mapping[str, "Json"] | None

# What Qwen-VL's templates write for a picture; the engine puts the picture itself in its place.
PICTURE: Final = "<|vision_start|><|image_pad|><|vision_end|>"

# The first of these that occurs in nothing the caller sent marks where a control token's name is only text.
_MARKS: Final = tuple(chr(0x10FF00 + place) for place in range(0xFE))


class PromptTemplate:
    """A chat template, compiled once. It comes with weights its owner chose, yet it runs sandboxed: it is data from elsewhere."""

    def __init__(self, source: str, *, bos: str = "", eos: str = "") -> None:
        """Raises ApiError(ENGINE_FAILED) when `source` is no template."""
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
        environment.filters["tojson"] = _tojson
        helpers = {"raise_exception": _refuse, "strftime_now": _strftime_now, "bos_token": bos, "eos_token": eos}
        try:
            self._template = environment.from_string(source, globals=helpers)
        except jinja2.TemplateError as error:
            raise ApiError(ErrorKind.ENGINE_FAILED, "The chat template of these weights cannot be read.") from error
        self.supports_thinking = "enable_thinking" in source or "<think>" in source
        self.supports_pictures = PICTURE in source

    def render(self, request: ChatRequest, guard: Callable[[str], str] = str) -> str:
        """The prompt of `request`, up to where the model goes on.

        guard: applied to every text the caller sent. A last assistant message with `is_partial` is continued, not closed.
        Raises ApiError(INVALID_REQUEST) when the template refuses these messages.
        """
        if not self.supports_pictures and request.has_pictures:
            raise ApiError(ErrorKind.INVALID_REQUEST, "This model reads text only; the message holds an image.", param="messages")
        messages, beginning = _split_partial(request.messages)
        thinking = False if beginning is not None else request.thinking.is_enabled
        names: dict[str, Json] = {"messages": [_message(message, guard) for message in messages], "add_generation_prompt": True}
        # A small model that is shown tools it may not call writes calls as text; so it is not shown them.
        if request.tools and not isinstance(request.tool_choice, ToolNone):
            names["tools"] = [_tool(tool, guard) for tool in request.tools]
        if thinking is not None:
            names["enable_thinking"] = thinking
        try:
            prompt = self._template.render(names)
        except _Refusal as error:
            raise ApiError(ErrorKind.INVALID_REQUEST, f"The chat template refuses these messages: {error}", param="messages") from error
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
            raise ApiError(ErrorKind.INVALID_REQUEST, "The model's chat template cannot show these messages.", param="messages") from error
        return prompt + (guard(beginning.text) if beginning is not None else "")


def render_ids(template: PromptTemplate, tokenizer: Tokenizer, request: ChatRequest) -> list[int]:
    """Token ids of the prompt of `request`; names of control tokens in the caller's text stay text."""
    mark = _unused_mark(request)
    return tokenizer.encode_guarded(template.render(request, lambda text: tokenizer.guard(text, mark)), mark)


class _Refusal(Exception):
    """A template called raise_exception."""


def _refuse(message: str) -> NoReturn:
    raise _Refusal(message)


def _strftime_now(form: str) -> str:
    return datetime.now(UTC).astimezone().strftime(form)


def _tojson(value: Json, indent: int | None = None) -> str:
    """As transformers: no HTML escapes, ", " and ": " between, other scripts as they are."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _split_partial(messages: Sequence[Message]) -> tuple[Sequence[Message], Message | None]:
    if any(message.is_partial for message in messages[:-1]):
        raise ApiError(ErrorKind.INVALID_REQUEST, "Only the last message can be partial.", param="messages")
    if messages and messages[-1].is_partial:
        if any(True for _ in messages[-1].pictures):
            raise ApiError(ErrorKind.INVALID_REQUEST, "A partial message cannot hold an image.", param="messages")
        return messages[:-1], messages[-1]
    return messages, None


def _message(message: Message, guard: Callable[[str], str]) -> Json:
    value: dict[str, Json] = {"role": message.role.value, "content": _content(message, guard)}
    if message.name is not None:
        value["name"] = guard(message.name)
    if message.role is Role.ASSISTANT and message.reasoning is not None:
        value["reasoning_content"] = guard(message.reasoning)
    if message.tool_calls:
        value["tool_calls"] = [_call(call, guard) for call in message.tool_calls]
    if message.tool_call_id is not None:
        value["tool_call_id"] = message.tool_call_id
    return value


def _content(message: Message, guard: Callable[[str], str]) -> Json:
    """One text where there are no pictures: older templates take nothing else. A film is shown as its frames."""
    if not any(True for _ in message.pictures):
        return guard(message.text)
    items: list[Json] = []
    for part in message.content:
        match part:
            case TextPart():
                items.append({"type": "text", "text": guard(part.text)})
            case ImagePart():
                items.append({"type": "image"})
            case VideoPart():
                items.extend({"type": "image"} for _ in part.frames)
            case _:
                assert_never(part)
    return items


def _call(call: ToolCall, guard: Callable[[str], str]) -> Json:
    return {"id": call.id, "type": "function", "function": {"name": guard(call.name), "arguments": _json(call.arguments, guard)}}


def _tool(tool: ToolSpec, guard: Callable[[str], str]) -> Json:
    parameters = _json(tool.parameters.decode("utf-8", "replace"), guard)
    return {"type": "function", "function": {"name": guard(tool.name), "description": guard(tool.description), "parameters": parameters}}


def _json(text: str, guard: Callable[[str], str]) -> Json:
    """JSON text as a value, so that templates can print it; what is no JSON stays text.

    Guarded after decoding: an escape like \\u003c would hide a control token's name from the guard.
    """
    try:
        return _guarded(msgspec.json.decode(text or "{}"), guard)
    except msgspec.DecodeError:
        return guard(text)


def _guarded(value: Json, guard: Callable[[str], str]) -> Json:
    match value:
        case str():
            return guard(value)
        case Mapping():
            return {guard(key): _guarded(entry, guard) for key, entry in value.items()}
        case Sequence():
            return [_guarded(entry, guard) for entry in value]
        case _:
            return value


def _unused_mark(request: ChatRequest) -> str:
    """Were every mark taken, the first would be lost from the caller's text; a control token could still not be forged."""
    text = msgspec.json.encode(_without_pictures(request)).decode() + "".join(
        tool.parameters.decode("utf-8", "replace") for tool in request.tools
    )
    return next((mark for mark in _MARKS if mark not in text), _MARKS[0])


def _without_pictures(request: ChatRequest) -> ChatRequest:
    """Megabytes of a picture hold no text that a template would show."""
    if not request.has_pictures:
        return request
    texts = [msgspec.structs.replace(message, content=(TextPart(text=message.text),)) for message in request.messages]
    return msgspec.structs.replace(request, messages=tuple(texts))
