"""This is where a conversation of content blocks becomes messages.

A turn of ours holds less than one of theirs: a user's turn of tool results and text becomes one message per result and one for the rest.
"""

from collections.abc import Sequence
from typing import NoReturn

from qwenbox.dialects.anthropic import fields
from qwenbox.dialects.anthropic.schema import Block, Content, Source, WireMessage
from qwenbox.terms.chat import ImagePart, Message, Part, Role, TextPart, ToolCall

MAX_MESSAGES = 100_000

_PICTURES = ("image/jpeg", "image/png", "image/gif", "image/webp")
# Claude Code says here which build of it asks; it differs from call to call and would keep every prompt out of every cache.
_BILLING = "x-anthropic-billing-header:"


def read(wire: Sequence[WireMessage] | None, system: Content | None) -> tuple[Message, ...]:
    """The conversation in order, the system prompt first. Raises ApiError(INVALID_REQUEST) naming the message and block at fault."""
    if wire is None:
        raise fields.invalid("messages", "Field required")
    if not wire:
        raise fields.invalid("messages", "at least one message is required")
    if len(wire) > MAX_MESSAGES:
        raise fields.invalid("messages", f"List should have at most {MAX_MESSAGES} items")
    found = _system(system, "system")
    called: set[str] = set()
    for index, message in enumerate(wire):
        where = f"messages.{index}"
        match message.role:
            case "user":
                found += _user(message.content, where, called)
            case "assistant":
                found.append(_assistant(message.content, where, called, is_last=index == len(wire) - 1))
            case "system":
                found += _system(message.content, f"{where}.content")
            case role:
                raise fields.invalid(f"{where}.role", f"'{fields.quoted(role)}' is not one of 'user', 'assistant', 'system'")
    return tuple(found)


def _blocks(content: Content) -> list[Block]:
    return [Block(type="text", text=content)] if isinstance(content, str) else content


def _system(content: Content | None, where: str) -> list[Message]:
    """The blocks as paragraphs of one message; none where nothing is said."""
    texts: list[str] = []
    for place, block in enumerate(_blocks(content or [])):
        if block.type != "text":
            raise fields.invalid(f"{where}.{place}.type", "a system prompt holds text blocks only")
        text = _text(block.text, f"{where}.{place}.text")
        if text and not text.startswith(_BILLING):
            texts.append(text)
    return [Message(role=Role.SYSTEM, content=(TextPart(text="\n\n".join(texts)),))] if texts else []


def _user(content: Content, where: str, called: set[str]) -> list[Message]:
    """called: ids of the tool uses before this message."""
    found: list[Message] = []
    parts: list[Part] = []

    def speak() -> None:
        if parts:
            found.append(Message(role=Role.USER, content=tuple(parts)))
            parts.clear()

    blocks = _blocks(content)
    for place, block in enumerate(blocks):
        at = f"{where}.content.{place}"
        if block.type == "tool_result":
            speak()
            found.append(_result(block, at, called))
        else:
            parts += _parts(block, at)
    speak()
    if not found:
        if not blocks:
            raise fields.invalid(f"{where}.content", "user messages must have non-empty content")
        found.append(Message(role=Role.USER))
    return found


def _result(block: Block, at: str, called: set[str]) -> Message:
    if not block.tool_use_id:
        raise fields.invalid(f"{at}.tool_use_id", "Field required")
    if block.tool_use_id not in called:
        told = fields.quoted(block.tool_use_id)
        raise fields.invalid(
            f"{at}.tool_use_id",
            f"unexpected `tool_use_id` in a `tool_result` block: {told}. Each `tool_result` must answer a `tool_use` block before it.",
        )
    parts = [part for place, inner in enumerate(_blocks(block.content or [])) for part in _parts(inner, f"{at}.content.{place}")]
    said = "".join(part.text for part in parts if isinstance(part, TextPart))
    if block.is_error and "error" not in said.lower():
        # The model has no other way to learn it.
        parts.insert(0, TextPart(text="Error: "))
    return Message(role=Role.TOOL, content=tuple(parts), tool_call_id=block.tool_use_id)


def _assistant(content: Content, where: str, called: set[str], *, is_last: bool) -> Message:
    """One turn; the last of all is a beginning to be continued. called: its tool uses are added."""
    parts: list[Part] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    for place, block in enumerate(_blocks(content)):
        at = f"{where}.content.{place}"
        match block.type:
            case "text":
                text = _text(block.text, f"{at}.text")
                parts += [TextPart(text=text)] if text else []
            case "tool_use":
                calls.append(_call(block, at))
            case "thinking":
                thoughts.append(_text(block.thinking, f"{at}.thinking"))
            case "redacted_thinking":
                pass  # for Anthropic's own eyes
            case _:
                _refuse(block.type, at)
    if is_last and calls:
        raise fields.invalid(
            where, f"`tool_use` ids were found without `tool_result` blocks immediately after: {fields.quoted(calls[0].id)}."
        )
    called.update(call.id for call in calls)
    return Message(
        role=Role.ASSISTANT,
        content=tuple(parts),
        tool_calls=tuple(calls),
        reasoning="\n".join(filter(None, thoughts)) or None,
        is_partial=is_last,
    )


def _call(block: Block, at: str) -> ToolCall:
    if not block.id:
        raise fields.invalid(f"{at}.id", "Field required")
    if not block.name:
        raise fields.invalid(f"{at}.name", "Field required")
    raw = bytes(block.input) or b"{}"
    if not fields.is_object(raw):
        raise fields.invalid(f"{at}.input", "Input should be an object")
    return ToolCall(id=block.id, name=block.name, arguments=raw.decode())


def _parts(block: Block, at: str) -> list[Part]:
    """What a model reads of a block a user or a tool may send."""
    match block.type:
        case "text":
            text = _text(block.text, f"{at}.text")
            return [TextPart(text=text)] if text else []
        case "image":
            return [_image(block.source, f"{at}.source")]
        case "document":
            return _document(block, at)
        case "search_result":
            inner = block.content
            if not isinstance(inner, list):
                raise fields.invalid(f"{at}.content", "Input should be a list")
            origin = f"{block.title or ''} ({block.source})" if isinstance(block.source, str) else block.title or ""
            parts = [part for place, one in enumerate(inner) for part in _parts(one, f"{at}.content.{place}")]
            return [TextPart(text=f"{origin}\n"), *parts] if origin else parts
        case _:
            _refuse(block.type, at)


def _image(source: Source | str | None, at: str) -> ImagePart:
    if not isinstance(source, Source):
        raise fields.invalid(at, "Field required")
    if source.type == "url":
        if not source.url:
            raise fields.invalid(f"{at}.url", "Field required")
        return ImagePart(url=source.url)
    if source.type != "base64":
        raise fields.invalid(f"{at}.type", f"'{fields.quoted(source.type)}' is not one of 'base64', 'url'")
    if source.media_type not in _PICTURES:
        raise fields.invalid(f"{at}.media_type", f"Input should be {' or '.join(_PICTURES)}")
    if not source.data:
        raise fields.invalid(f"{at}.data", "Field required")
    return ImagePart(url=f"data:{source.media_type};base64,{source.data}")


def _document(block: Block, at: str) -> list[Part]:
    """A document that is text is read; what would have to be opened first is refused."""
    source = block.source
    if not isinstance(source, Source):
        raise fields.invalid(f"{at}.source", "Field required")
    said = "\n".join(filter(None, (block.title, block.context)))
    head: list[Part] = [TextPart(text=f"{said}\n")] if said else []
    if source.type == "text":
        return [*head, TextPart(text=_text(source.data, f"{at}.source.data"))]
    if source.type == "content" and source.content is not None:
        inner = _blocks(source.content)
        return head + [part for place, one in enumerate(inner) for part in _parts(one, f"{at}.source.content.{place}")]
    raise fields.invalid(f"{at}.source.type", "documents are read as text only: send PDF pages as text or as pictures")


def _text(value: str | None, at: str) -> str:
    if value is None:
        raise fields.invalid(at, "Field required")
    return value


def _refuse(kind: str, at: str) -> NoReturn:
    raise fields.invalid(f"{at}.type", f"blocks of type '{fields.quoted(kind)}' are not supported here")
