"""This is where every text of a request is passed through one function; what held nothing stays the object it was."""

import re
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from qwenbox.terms.chat import ChatRequest, Message, Part, TextPart, ToolCall, ToolSpec
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.embedding import EmbeddingRequest
from qwenbox.terms.image import ImageRequest
from qwenbox.terms.rerank import RerankRequest

# (start, end, what stands there instead) of a text, by their places.
Change: TypeAlias = tuple[int, int, str]
Changes: TypeAlias = Callable[[str], list[Change]]

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+\-]*', re.DOTALL)


def rewritten_chat(request: ChatRequest, changes: Changes) -> ChatRequest:
    """Tools first: their names for things stay the same while the conversation grows.

    Not rewritten: pictures, names of tools, ids, the schema of response_format, extensions.
    """
    tools = tuple([_tool(tool, changes) for tool in request.tools])
    messages = tuple([_message(message, changes) for message in request.messages])
    stop = tuple([_text(text, changes) for text in request.stop])
    if tools == request.tools and messages == request.messages and stop == request.stop:
        return request
    return msgspec.structs.replace(request, tools=tools, messages=messages, stop=stop)


def rewritten_prompt(request: CompletionRequest, changes: Changes) -> CompletionRequest:
    prompt = _text(request.prompt, changes)
    suffix = None if request.suffix is None else _text(request.suffix, changes)
    stop = tuple([_text(text, changes) for text in request.stop])
    return msgspec.structs.replace(request, prompt=prompt, suffix=suffix, stop=stop)


def rewritten_embedding(request: EmbeddingRequest, changes: Changes) -> EmbeddingRequest:
    return msgspec.structs.replace(request, texts=tuple([_text(text, changes) for text in request.texts]))


def rewritten_rerank(request: RerankRequest, changes: Changes) -> RerankRequest:
    documents = tuple([_text(text, changes) for text in request.documents])
    return msgspec.structs.replace(request, query=_text(request.query, changes), documents=documents)


def rewritten_image(request: ImageRequest, changes: Changes) -> ImageRequest:
    """Not rewritten: pictures."""
    prompt, negative_prompt = _text(request.prompt, changes), _text(request.negative_prompt, changes)
    return msgspec.structs.replace(request, prompt=prompt, negative_prompt=negative_prompt)


def _text(text: str, changes: Changes) -> str:
    return _changed(text, changes(text)) if text else text


def _changed(text: str, found: list[Change]) -> str:
    if not found:
        return text
    pieces: list[str] = []
    place = 0
    for start, end, instead in found:
        pieces += (text[place:start], instead)
        place = end
    return "".join((*pieces, text[place:]))


def _message(message: Message, changes: Changes) -> Message:
    name = None if message.name is None else _text(message.name, changes)
    return msgspec.structs.replace(
        message,
        content=tuple([_part(part, changes) for part in message.content]),
        # Servers refuse brackets in a name.
        name=name if name == message.name or name is None else re.sub(r"[<>]", "", name),
        reasoning=None if message.reasoning is None else _text(message.reasoning, changes),
        tool_calls=tuple([_call(call, changes) for call in message.tool_calls]),
    )


def _part(part: Part, changes: Changes) -> Part:
    return TextPart(text=_text(part.text, changes)) if isinstance(part, TextPart) else part


def _call(call: ToolCall, changes: Changes) -> ToolCall:
    return msgspec.structs.replace(call, arguments=json_text(call.arguments, changes))


def _tool(tool: ToolSpec, changes: Changes) -> ToolSpec:
    parameters = json_text(tool.parameters.decode(), changes, has_numbers=False).encode()
    return msgspec.structs.replace(tool, description=_text(tool.description, changes), parameters=parameters)


def json_text(text: str, changes: Changes, *, has_numbers: bool = True) -> str:
    """JSON text with what its strings say changed, and nothing else: no space is moved.

    Read twice: as it stands, where a key says what its value is ({"passport": …}), then each string as it reads without escapes.
    has_numbers: a number that is to be changed becomes a string; False leaves numbers alone, as in a schema.
    Text that is no JSON is a text like any other.
    """
    if not _is_json(text):
        return _text(text, changes)
    found: list[Change] = []
    tokens = [token.span() for token in _TOKEN.finditer(text)]
    place = 0
    for start, end, instead in changes(text):
        while place < len(tokens) and tokens[place][1] < end:
            place += 1
        if place == len(tokens) or "\\" in text[start:end]:
            continue
        token_start, token_end = tokens[place]
        if text[token_start] == '"' and token_start < start and end < token_end:
            found.append((start, end, instead))
        elif has_numbers and (start, end) == (token_start, token_end):
            found.append((start, end, f'"{instead}"'))
    return _TOKEN.sub(lambda token: _string(token[0], changes), _changed(text, found))


def _string(token: str, changes: Changes) -> str:
    if token[0] != '"':
        return token
    said = msgspec.json.decode(token, type=str)
    changed = _text(said, changes)
    return token if changed == said else msgspec.json.encode(changed).decode()


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return False
    return True
