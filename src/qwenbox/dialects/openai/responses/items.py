"""This is where a conversation of items becomes messages: what an assistant thought, said and called in one go is one turn."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

import msgspec
from msgspec import Raw

from qwenbox.dialects.openai import fields
from qwenbox.dialects.openai.responses.schema import Content, Item, Part
from qwenbox.terms.chat import ImagePart, Message, Role, TextPart, ToolCall
from qwenbox.terms.chat import Part as TermPart

_ROLES = {"user": Role.USER, "system": Role.SYSTEM, "developer": Role.SYSTEM, "assistant": Role.ASSISTANT}
_ARGUMENTS: msgspec.json.Decoder[Mapping[str, Raw]] = msgspec.json.Decoder(dict[str, Raw])


def named(items: str | Sequence[Item], request_id: str) -> list[Item]:
    """The items of one turn as they are stored: texts as parts, each with a type and an id."""
    if isinstance(items, str):
        items = [Item(role="user", content=items)]
    return [_named(item, f"{request_id}_i{place}") for place, item in enumerate(items)]


def _named(item: Item, own_id: str) -> Item:
    kind = item.type or "message"
    prefix = {"function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}.get(kind, "msg")
    content = item.content
    if kind == "message" and isinstance(content, str):
        content = [Part(type="output_text" if item.role == "assistant" else "input_text", text=content)]
    return msgspec.structs.replace(item, type=kind, id=item.id or f"{prefix}_{own_id}", status=item.status or "completed", content=content)


class Reader:
    """Reads items in order, those of earlier turns first."""

    def __init__(self, instructions: str | None) -> None:
        self._messages: list[Message] = []
        if instructions:
            self._messages.append(Message(role=Role.SYSTEM, content=(TextPart(text=instructions),)))
        self._called: set[str] = set()
        self._thoughts: list[str] = []
        self._said: tuple[TermPart, ...] = ()
        self._calls: list[ToolCall] = []

    def read(self, items: Iterable[Item]) -> None:
        """Raises ApiError(INVALID_REQUEST) naming the item and field at fault."""
        for place, item in enumerate(items):
            self._read(item, f"input[{place}]")

    def messages(self) -> tuple[Message, ...]:
        self._end_turn()
        return tuple(self._messages)

    def _read(self, item: Item, at: str) -> None:
        match item.type:
            case None | "message":
                self._message(item, at)
            case "function_call":
                self._call(item, at)
            case "function_call_output":
                self._output(item, at)
            case "reasoning":
                if self._said or self._calls:
                    self._end_turn()
                self._thoughts += [part.text for part in _texts(item) if part.text]
            case kind:
                _refuse(f"{at}.type", f"items of type '{fields.quoted(kind)}' are not supported")

    def _message(self, item: Item, at: str) -> None:
        if item.role is None:
            raise fields.invalid(f"Field required: {at}.role", f"{at}.role")
        role = _ROLES.get(item.role)
        if role is None:
            raise fields.invalid(f"'{fields.quoted(item.role)}' is not one of {list(_ROLES)} - '{at}.role'", f"{at}.role")
        if item.content is None:
            raise fields.invalid(f"Field required: {at}.content", f"{at}.content")
        parts = _parts(item.content, f"{at}.content")
        if role is not Role.ASSISTANT:
            self._end_turn()
            self._messages.append(Message(role=role, content=parts))
            return
        if self._said or self._calls:
            self._end_turn()
        self._said = parts
        if not parts:
            # A turn in which nothing was said is one all the same.
            self._end_turn(is_empty=True)

    def _call(self, item: Item, at: str) -> None:
        for name, value in (("call_id", item.call_id), ("name", item.name)):
            if not value:
                raise fields.invalid(f"Field required: {at}.{name}", f"{at}.{name}")
        arguments = item.arguments or "{}"
        try:
            _ARGUMENTS.decode(arguments)
        except (ValueError, RecursionError) as error:
            if item.status != "incomplete":
                raise fields.invalid(f"'{at}.arguments' must be a JSON object in a string.", f"{at}.arguments") from error
            arguments = "{}"
        self._called.add(item.call_id or "")
        self._calls.append(ToolCall(id=item.call_id or "", name=item.name or "", arguments=arguments))

    def _output(self, item: Item, at: str) -> None:
        if not item.call_id:
            raise fields.invalid(f"Field required: {at}.call_id", f"{at}.call_id")
        if item.call_id not in self._called:
            raise fields.invalid(
                f"No tool call found for function call output with call_id {fields.quoted(item.call_id)}.", f"{at}.call_id"
            )
        if item.output is None:
            raise fields.invalid(f"Field required: {at}.output", f"{at}.output")
        self._end_turn()
        self._messages.append(Message(role=Role.TOOL, content=_parts(item.output, f"{at}.output"), tool_call_id=item.call_id))

    def _end_turn(self, *, is_empty: bool = False) -> None:
        if not (self._said or self._calls or self._thoughts or is_empty):
            return
        reasoning = "\n".join(self._thoughts) or None
        self._messages.append(Message(role=Role.ASSISTANT, content=self._said, tool_calls=tuple(self._calls), reasoning=reasoning))
        self._thoughts, self._said, self._calls = [], (), []


def _texts(item: Item) -> list[Part]:
    """Of a reasoning item: its content where there is any, else the summary."""
    return item.content if isinstance(item.content, list) and item.content else item.summary or []


def _parts(content: Content, at: str) -> tuple[TermPart, ...]:
    if isinstance(content, str):
        return (TextPart(text=content),) if content else ()
    parts = [_part(part, f"{at}[{place}]") for place, part in enumerate(content)]
    return tuple([part for part in parts if not isinstance(part, TextPart) or part.text])


def _part(part: Part, at: str) -> TermPart:
    match part.type:
        case "input_text" | "output_text" | "text" | "summary_text":
            if part.text is None:
                raise fields.invalid(f"Field required: {at}.text", f"{at}.text")
            return TextPart(text=part.text)
        case "refusal":
            return TextPart(text=part.refusal or "")
        case "input_image":
            if not part.image_url:
                raise fields.invalid(f"Field required: {at}.image_url (pictures by file_id are not supported)", f"{at}.image_url")
            return ImagePart(url=part.image_url)
        case kind:
            _refuse(f"{at}.type", f"content of type '{fields.quoted(kind)}' is not supported")


def _refuse(param: str, reason: str) -> NoReturn:
    raise fields.invalid(f"{reason} - '{param}'", param)
