"""This is where a native `input` becomes messages: messages, prompt and history (wire reference 2.1, 3.1)."""

import msgspec

from qwenbox.dialects import pictures
from qwenbox.dialects.dashscope.body import WRONG_CONTENT, WRONG_ITEM, is_json_object
from qwenbox.dialects.dashscope.schema import Call, Content, Input, Item, WireMessage
from qwenbox.terms.caller import Compat
from qwenbox.terms.chat import ImagePart, Message, Part, Role, TextPart, ToolCall, VideoPart
from qwenbox.terms.errors import ApiError, ErrorKind

NO_INPUT = 'Either "prompt" or "messages" must exist and cannot both be none'
NO_MESSAGES = "Role must be user or assistant and Content length must be greater than 0"
NO_USER = "The input messages do not contain elements with the role of user."
NO_CONTENT = "The content field is a required field."
STRAY_TOOL = 'messages with role "tool" must be a response to a preceeding message with "tool_calls"'
WRONG_ARGUMENTS = 'The "function.arguments" parameter of the code model must be in JSON format.'

_ROLES = {role.value: role for role in Role}
_LEGACY_ROLES = frozenset({"plugin", "attachment"})
_OTHER_MODALITIES = ("audio", "file")
_PICTURES = (ImagePart, VideoPart)
_text_decoder = msgspec.json.Decoder(str)


def read(given: Input, *, is_multimodal: bool, compat: Compat) -> tuple[Message, ...]:
    """All turns in order: history, messages, prompt.

    is_multimodal: came on the path whose contents are lists.
    Raises ApiError(INVALID_REQUEST) in the service's words.
    """
    if not given.prompt and given.messages is None:
        raise _wrong(NO_INPUT, "input")
    if given.messages == [] and not given.prompt:
        raise _wrong(NO_MESSAGES, "input.messages")
    takes_lists = is_multimodal or compat is Compat.DOCUMENTED
    turns: list[Message] = []
    for turn in given.history or ():
        turns.append(Message(role=Role.USER, content=_text_content(turn.user)))
        turns.append(Message(role=Role.ASSISTANT, content=_text_content(turn.bot)))
    if given.messages:
        turns.extend(_message(message, f"input.messages[{at}]", takes_lists) for at, message in enumerate(given.messages))
    if given.prompt:
        prompt = given.prompt if isinstance(given.prompt, str) else "".join(given.prompt)
        turns.append(Message(role=Role.USER, content=_text_content(prompt)))
    _check_order(turns, compat)
    return tuple(turns)


def _message(given: WireMessage, place: str, takes_lists: bool) -> Message:
    role = _ROLES.get(given.role)
    if role is None:
        raise _wrong(_role_text(given.role), f"{place}.role")
    if given.content is None:
        if not given.tool_calls:
            raise _wrong(NO_CONTENT, f"{place}.content")
        content: tuple[Part, ...] = ()
    else:
        content = _content(given.content, f"{place}.content", takes_lists)
    if given.tool_calls is None and role is Role.USER and given.name is None and given.partial is None:
        return Message(role=role, content=content)
    if given.tool_calls and role is not Role.ASSISTANT:
        raise _wrong("tool_calls are only allowed in a message whose role is assistant.", f"{place}.tool_calls")
    calls = tuple(_call(call, f"{place}.tool_calls[{at}]") for at, call in enumerate(given.tool_calls or ()))
    return Message(
        role=role,
        content=content,
        name=given.name,
        tool_calls=calls,
        tool_call_id=given.tool_call_id,
        reasoning=given.reasoning_content or None,
        is_partial=bool(given.partial),
    )


def _role_text(role: str) -> str:
    if role in _LEGACY_ROLES:
        return f'Role "{role}" is not supported. Roles are system, user, assistant and tool.'
    return "Role must be system, user, assistant or tool."


def _text_content(text: str) -> tuple[Part, ...]:
    return (TextPart(text=text),) if text else ()


def _content(content: Content, place: str, takes_lists: bool) -> tuple[Part, ...]:
    if isinstance(content, str):
        return _text_content(content)
    if not takes_lists and not any(bytes(item.cache_control) for item in content):
        raise _wrong(WRONG_CONTENT, place)
    parts = [_part(item, f"{place}[{at}]") for at, item in enumerate(content)]
    if not takes_lists and any(isinstance(part, _PICTURES) for part in parts):
        raise _wrong(WRONG_CONTENT, place)
    return tuple(part for part in parts if part != TextPart(text=""))


def _part(item: Item, place: str) -> Part:
    for modality in _OTHER_MODALITIES:
        if bytes(getattr(item, modality)):
            raise _wrong(f"Content of the modal {modality} is not supported. Contents are text, image and video.", place)
    if [item.text, item.image, item.video].count(None) != 2:
        raise _wrong(WRONG_ITEM, place)
    if item.text is not None:
        return TextPart(text=item.text)
    wishes = pictures.Wishes(min_pixels=item.min_pixels, max_pixels=item.max_pixels, total_pixels=item.total_pixels, fps=item.fps)
    if item.image:
        return pictures.image(item.image, wishes, place)
    if isinstance(item.video, list):
        return pictures.film(item.video, wishes, place)
    raise _wrong(pictures.NO_FILMS if item.video else WRONG_ITEM, place)


def _call(call: Call, place: str) -> ToolCall:
    return ToolCall(id=call.id or "", name=call.function.name, arguments=_arguments(call.function.arguments, place))


def _arguments(raw: msgspec.Raw, place: str) -> str:
    """JSON text of an object; "" and nothing at all mean one without members, as models write it for tools that take none."""
    written = bytes(raw)
    if written in (b"", b"null", b'""'):
        return "{}"
    text = _text_decoder.decode(written) if written.startswith(b'"') else written.decode()
    if not is_json_object(text.encode()):
        raise _wrong(WRONG_ARGUMENTS, f"{place}.function.arguments")
    return text


def _check_order(turns: list[Message], compat: Compat) -> None:
    """What no single message shows: someone must ask, results answer calls, only the last turn is a beginning."""
    if not any(turn.role is Role.USER for turn in turns):
        raise _wrong(NO_USER, "input.messages")
    pending: set[str] | None = None
    for at, turn in enumerate(turns):
        if turn.role is Role.TOOL:
            if pending is None or (turn.tool_call_id and turn.tool_call_id not in pending):
                raise _wrong(STRAY_TOOL, f"input.messages[{at}]")
        else:
            pending = {call.id for call in turn.tool_calls} if turn.tool_calls else None
        if turn.is_partial and (turn.role is not Role.ASSISTANT or at != len(turns) - 1):
            raise _wrong("partial is only allowed on the last message, whose role must be assistant.", f"input.messages[{at}].partial")
        if compat is Compat.STRICT and turn.role is Role.USER and not turn.content:
            raise _wrong(NO_MESSAGES, f"input.messages[{at}].content")


def _wrong(text: str, place: str) -> ApiError:
    return ApiError(ErrorKind.INVALID_REQUEST, text, param=place)
