"""This is where tokens are estimated for engines that cannot count: an upper bound of a prompt, and a fair count of a text."""

import math

from qwenbox.terms.chat import ChatRequest, Message, TextPart
from qwenbox.terms.completion import CompletionRequest

# Role names and turn marks around a message, and what a template says about tools.
_MESSAGE_TOKENS = 16
_TOOLS_TOKENS = 256
# <|im_start|>, role, line end, <|im_end|>, line end.
_TURN_TOKENS = 5

# Of texts in Latin letters; measured on the Qwen vocabulary it is 3.5 to 4.5, and a bill may be a little high but not low.
_ASCII_PER_TOKEN = 3


def most_tokens(request: ChatRequest | CompletionRequest) -> int:
    """No prompt of this request can have more tokens: a byte-level vocabulary makes at least a byte of every token."""
    if isinstance(request, CompletionRequest):
        return _bytes(request.prompt) + (0 if request.suffix is None else _bytes(request.suffix)) + _MESSAGE_TOKENS
    tools = sum(_MESSAGE_TOKENS + _bytes(tool.name) + _bytes(tool.description) + len(tool.parameters) for tool in request.tools)
    messages = sum(_MESSAGE_TOKENS + _message_bytes(message) for message in request.messages)
    return messages + tools + (_TOOLS_TOKENS if request.tools else 0)


def prompt_tokens(request: ChatRequest | CompletionRequest) -> int:
    """About as many tokens as the prompt has, for a bill when nobody has counted them."""
    if isinstance(request, CompletionRequest):
        return text_tokens(request.prompt) + text_tokens(request.suffix or "")
    tools = sum(text_tokens(tool.name + tool.description) + text_tokens(tool.parameters.decode()) for tool in request.tools)
    calls = sum(text_tokens(call.name + call.arguments) for message in request.messages for call in message.tool_calls)
    return tools + calls + sum(_TURN_TOKENS + text_tokens(message.text) for message in request.messages)


def text_tokens(text: str) -> int:
    """About as many tokens as the text has: a third of its ASCII characters, and every other character."""
    if text.isascii():
        return math.ceil(len(text) / _ASCII_PER_TOKEN)
    ascii_count = len(text.encode("ascii", "ignore"))
    return math.ceil(ascii_count / _ASCII_PER_TOKEN) + len(text) - ascii_count


def _message_bytes(message: Message) -> int:
    parts = sum(_bytes(part.text) for part in message.content if isinstance(part, TextPart))
    calls = sum(_MESSAGE_TOKENS + _bytes(call.name) + _bytes(call.arguments) for call in message.tool_calls)
    return parts + calls


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
