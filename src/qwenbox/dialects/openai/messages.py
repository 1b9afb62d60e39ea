"""This is where a conversation on the OpenAI-compatible wire becomes messages, and its rules are held.

Texts: Model Studio, "Error messages" (2025-12-26).
"""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Raw

from qwenbox.dialects import pictures
from qwenbox.dialects.openai import fields
from qwenbox.dialects.openai.schema import WireCall, WireMessage, WirePart
from qwenbox.terms.chat import Message, Part, Role, TextPart, ToolCall

_ROLES = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.TOOL,
}
_NOT_SEEN = frozenset({"input_audio", "audio", "file"})
_ARGUMENTS: msgspec.json.Decoder[Mapping[str, Raw]] = msgspec.json.Decoder(dict[str, Raw])


def read(wire: Sequence[WireMessage] | None) -> tuple[Message, ...]:
    """The conversation in order. Raises ApiError(INVALID_REQUEST) naming the message and field at fault."""
    if wire is None:
        raise fields.invalid("Required parameter(messages) missing or invalid, please check the request parameters.", "messages")
    if not wire:
        raise fields.invalid("[] is too short - 'messages'", "messages")
    called: set[str] = set()
    last = len(wire) - 1
    return tuple([_message(message, index, index == last, called) for index, message in enumerate(wire)])


def _message(wire: WireMessage, index: int, is_last: bool, called: set[str]) -> Message:
    """called: ids of the tool calls before this message; an assistant's calls are added."""
    role = _ROLES.get(wire.role)
    if role is None:
        raise _wrong_role(wire.role, index)
    calls: tuple[ToolCall, ...] = ()
    if role is Role.ASSISTANT:
        calls = _calls(wire, index)
        called.update(call.id for call in calls)
    elif role is Role.TOOL and (wire.tool_call_id is None or wire.tool_call_id not in called):
        raise fields.invalid(
            'messages with role "tool" must be a response to a preceeding message with "tool_calls"', f"messages[{index}].tool_call_id"
        )
    if wire.partial and not (is_last and role is Role.ASSISTANT):
        raise fields.invalid(
            "'partial' is only allowed in the last message, which must have the role assistant", f"messages[{index}].partial"
        )
    return Message(
        role=role,
        content=_content(wire.content, index, is_required=not calls),
        name=wire.name,
        tool_calls=calls,
        tool_call_id=wire.tool_call_id if role is Role.TOOL else None,
        reasoning=(wire.reasoning_content or None) if role is Role.ASSISTANT else None,
        is_partial=bool(wire.partial),
    )


def _wrong_role(role: str, index: int) -> Exception:
    param = f"messages[{index}].role"
    if role == "function":
        return fields.invalid("Messages with role 'function' are not supported: use the role 'tool' with a tool_call_id.", param)
    return fields.invalid(f"'{fields.quoted(role)}' is not one of {list(_ROLES)} - '{param}'", param)


def _content(content: str | list[WirePart] | None, index: int, *, is_required: bool) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (TextPart(text=content),) if content else ()
    if not content:
        if is_required:
            raise fields.invalid("The content field is a required field.", f"messages[{index}].content")
        return ()
    parts = [_part(part, f"messages[{index}].content[{place}]") for place, part in enumerate(content)]
    # An empty text says nothing; without it "" and [{"type": "text", "text": ""}] are one.
    return tuple([part for part in parts if not isinstance(part, TextPart) or part.text])


def _part(part: WirePart, param: str) -> Part:
    if part.type == "text":
        if part.text is None:
            raise fields.invalid(f"Field required: {param}.text", f"{param}.text")
        return TextPart(text=part.text)
    if part.type == "image_url":
        url = part.image_url if isinstance(part.image_url, str) or part.image_url is None else part.image_url.url
        if not url:
            raise fields.invalid(f"Field required: {param}.image_url.url", f"{param}.image_url")
        return pictures.image(url, _wishes(part), param)
    if part.type == "video":
        return _film(part, param)
    if part.type == "video_url":
        raise fields.invalid(pictures.NO_FILMS, f"{param}.type")
    if part.type in _NOT_SEEN:
        raise fields.invalid(f"This model does not support {part.type} content.", f"{param}.type")
    raise fields.invalid(f"'{fields.quoted(part.type)}' is not one of ['text', 'image_url', 'video'] - '{param}.type'", f"{param}.type")


def _film(part: WirePart, param: str) -> Part:
    if not part.video:
        raise fields.invalid(f"Field required: {param}.video", f"{param}.video")
    if isinstance(part.video, str):
        raise fields.invalid(pictures.NO_FILMS, f"{param}.video")
    return pictures.film(part.video, _wishes(part), param)


def _wishes(part: WirePart) -> pictures.Wishes:
    return pictures.Wishes(min_pixels=part.min_pixels, max_pixels=part.max_pixels, total_pixels=part.total_pixels, fps=part.fps)


def _calls(wire: WireMessage, index: int) -> tuple[ToolCall, ...]:
    if wire.function_call is not None:
        raise fields.invalid("function_call is not supported: use tool_calls.", f"messages[{index}].function_call")
    if not wire.tool_calls:
        return ()
    return tuple([_call(call, f"messages[{index}].tool_calls[{place}]") for place, call in enumerate(wire.tool_calls)])


def _call(call: WireCall, param: str) -> ToolCall:
    if call.type != "function":
        raise fields.invalid(f"'{fields.quoted(call.type)}' is not one of ['function'] - '{param}.type'", f"{param}.type")
    if not call.function.name:
        raise fields.invalid(f"Field required: {param}.function.name", f"{param}.function.name")
    arguments = call.function.arguments or "{}"
    try:
        _ARGUMENTS.decode(arguments)
    except (ValueError, RecursionError) as error:
        raise fields.invalid(
            'The "function.arguments" parameter must be a JSON object in a string.', f"{param}.function.arguments"
        ) from error
    return ToolCall(id=call.id, name=call.function.name, arguments=arguments)
