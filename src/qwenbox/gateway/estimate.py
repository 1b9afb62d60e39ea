"""This is where a request is taken apart for counting: its texts, what a template puts around them; and texts are estimated."""

import json
import math

from qwenbox.terms import pixels
from qwenbox.terms.chat import ChatRequest, Message, Role, ToolCall, ToolSpec
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.embedding import EmbeddingRequest
from qwenbox.terms.image import ImageRequest
from qwenbox.terms.rerank import RerankRequest

# At most: role names and turn marks around a message; what is around a call or a tool; what a template says about tools, and of its
# own accord: a system prompt where there is none, the beginning of the answer, closed thoughts.
_MESSAGE_TOKENS = 16
_FORM_TOKENS = 32
_TOOLS_TOKENS = 256
_TEMPLATE_TOKENS = 64

# As Qwen's own templates have it. A turn: <|im_start|>, role, line end, <|im_end|>, line end; the answer's: the first three of them.
_TURN_TOKENS = 5
_OPENING_TOKENS = 3
# The three marks of a raw prompt with a hole.
_HOLE_TOKENS = 3
# The paragraphs around the list of tools, measured on the vocabulary of Qwen2.5.
_TOOLS_PREAMBLE_TOKENS = 77

# Of texts in Latin letters; measured on the Qwen vocabulary it is 3.5 to 4.5, and a bill may be a little high but not low.
_ASCII_PER_TOKEN = 3


def most_tokens(request: ChatRequest | CompletionRequest) -> int:
    """No prompt of this request can have more tokens: a byte-level vocabulary makes at least a byte of every token."""
    return most_around(request) + _bytes("".join(turns(request)))


def turns(request: ChatRequest | CompletionRequest) -> list[str]:
    """The texts of all turns, or of a raw prompt."""
    if isinstance(request, CompletionRequest):
        return [request.prompt, request.suffix or ""]
    texts = [message.text for message in request.messages]
    return texts + [message.reasoning for message in request.messages if message.reasoning]


def most_around(request: ChatRequest | CompletionRequest) -> int:
    """No template adds more tokens to `turns`; tools and calls are counted by their bytes, since templates write them in their own ways."""
    if isinstance(request, CompletionRequest):
        return _MESSAGE_TOKENS
    around = _TEMPLATE_TOKENS + _MESSAGE_TOKENS * len(request.messages) + (_TOOLS_TOKENS if request.tools else 0) + _pictures(request)
    for message in request.messages:
        if message.name:
            around += _bytes(message.name)
        for call in message.tool_calls:
            around += _FORM_TOKENS + _bytes(call.name) + _printed_bytes(call.arguments.encode("utf-8", "replace"))
    for tool in request.tools:
        around += _FORM_TOKENS + _bytes(tool.name) + _bytes(tool.description) + _printed_bytes(tool.parameters)
    return around


def prompt_texts(request: ChatRequest | CompletionRequest) -> list[str]:
    """What a bill counts of a prompt, with tools and calls as Qwen's templates write them."""
    if isinstance(request, CompletionRequest):
        return [request.prompt, request.suffix or ""]
    return [*map(_tool_text, request.tools), *(text for message in request.messages for text in _message_texts(message))]


def prompt_marks(request: ChatRequest | CompletionRequest) -> int:
    """Tokens around `prompt_texts`, where a template adds nothing of its own accord."""
    if isinstance(request, CompletionRequest):
        return 0 if request.suffix is None else _HOLE_TOKENS
    is_continued = bool(request.messages) and request.messages[-1].is_partial
    ends = _OPENING_TOKENS - _TURN_TOKENS if is_continued else _OPENING_TOKENS
    return _TURN_TOKENS * len(request.messages) + ends + (_TOOLS_PREAMBLE_TOKENS if request.tools else 0) + _pictures(request)


def _pictures(request: ChatRequest) -> int:
    """At most: which family an upstream's model is of, nobody here knows."""
    if not request.has_pictures:
        return 0
    return sum(pixels.most_tokens(picture, is_high_resolution=request.is_high_resolution) for picture in request.pictures)


def texts_of(request: EmbeddingRequest | RerankRequest | ImageRequest) -> list[str]:
    """What is read of a request that no template stands around. A question is read once with each of its documents, and counted once."""
    match request:
        case EmbeddingRequest():
            return list(request.texts)
        case RerankRequest():
            return [request.query, *request.documents]
        case ImageRequest():
            return [request.prompt, request.negative_prompt]


def text_tokens(text: str) -> int:
    """About as many tokens as the text has: a third of its ASCII characters, and every other character."""
    if text.isascii():
        return math.ceil(len(text) / _ASCII_PER_TOKEN)
    ascii_count = len(text.encode("ascii", "ignore"))
    return math.ceil(ascii_count / _ASCII_PER_TOKEN) + len(text) - ascii_count


def _printed_bytes(data: bytes) -> int:
    """Of JSON, with the spaces that templates put after commas and colons."""
    return len(data) + data.count(b",") + data.count(b":")


def _message_texts(message: Message) -> list[str]:
    text = f"<tool_response>\n{message.text}\n</tool_response>" if message.role is Role.TOOL else message.text
    return [text, *map(_call_text, message.tool_calls)]


def _call_text(call: ToolCall) -> str:
    return f'\n<tool_call>\n{{"name": "{call.name}", "arguments": {_printed(call.arguments)}}}\n</tool_call>'


def _tool_text(tool: ToolSpec) -> str:
    name, description = (json.dumps(text, ensure_ascii=False) for text in (tool.name, tool.description))
    parameters = _printed(tool.parameters.decode("utf-8", "replace"))
    return f'\n{{"type": "function", "function": {{"name": {name}, "description": {description}, "parameters": {parameters}}}}}'


def _printed(text: str) -> str:
    """JSON as templates print it; what is no JSON stays as it is."""
    try:
        return json.dumps(json.loads(text), ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
