"""This is where bytes become the wire's structs, and what is wrong with them becomes the service's own texts (wire reference 5.3).

No word of a decoder reaches a caller: its reasons are read here and said again in ours.
"""

import re
from typing import NoReturn, TypeVar

import msgspec

from qwenbox.dialects.dashscope import errors
from qwenbox.dialects.dashscope.schema import Body
from qwenbox.terms.errors import ApiError, ErrorKind

WRONG_STOP = (
    'The "stop" parameter must be of type "str", "list[str]", "list[int]", or "list[list[int]]", '
    "and all elements within the list must be of the same type."
)
WRONG_CHOICE = 'tool_choice is one of the strings that should be ["none", "auto"]'
WRONG_FORMAT = (
    "Unknown format of response_format, response_format should be a dict, includes 'type' and an optional key 'json_schema'. "
    "The response_format type from user is {}."
)
WRONG_MESSAGE = "Input should be a valid dictionary or instance of GPT3Message"
WRONG_CONTENT = "input content must be a string."
WRONG_ITEM = "The item of content should be a message of a certain modal."
INVALID = "Required parameter({}) missing or invalid, please check the request parameters."

B = TypeVar("B")

_TYPES = {"float": "Float", "int": "Integer", "bool": "Boolean", "str": "String", "array": "Array", "object": "Object"}
_REASON = re.compile(r"Expected `(?P<expected>[^`]*)`, got `(?P<got>[^`]*)`")
_MISSING = re.compile(r"missing required field `(?P<field>[^`]*)`")
_PATH = re.compile(r"at `\$\.?(?P<path>[^`]*)`$")
_BYTE = re.compile(r"\(byte (?P<byte>\d+)\)$")
# Places whose wrong type the service words in its own way, most specific first.
_TEXTS_BY_PLACE = (
    (re.compile(r"input$"), errors.ILLEGAL_INPUT),
    (re.compile(r"input\.messages\[\d+\]$"), WRONG_MESSAGE),
    (re.compile(r"input\.messages\[\d+\]\.content$"), WRONG_CONTENT),
    (re.compile(r"input\.messages\[\d+\]\.content\[\d+\]"), WRONG_ITEM),
    (re.compile(r"parameters\.stop"), WRONG_STOP),
    (re.compile(r"parameters\.tool_choice"), WRONG_CHOICE),
)
_decoder = msgspec.json.Decoder(Body)
_any_decoder = msgspec.json.Decoder()


def decode(raw: bytes) -> Body:
    """The body as structs.

    Raises ApiError(INVALID_REQUEST) for all that is not the JSON this wire knows, naming the place: bytes that are no UTF-8 (also inside
    keys we skip), NaN and Infinity, lone surrogates, nesting past the decoder's depth, numbers past a double, wrong types.
    """
    return decode_as(_decoder, raw)


def decode_as(decoder: msgspec.json.Decoder[B], raw: bytes) -> B:
    """As `decode`, for a body of another shape."""
    try:
        if not raw.isascii():
            raw.decode()
        return decoder.decode(raw)
    except msgspec.ValidationError as wrong:
        _refuse(str(wrong), wrong)
    except UnicodeDecodeError as wrong:
        raise _bad_body(f"It is not UTF-8 at byte {wrong.start}.") from wrong
    except msgspec.DecodeError as wrong:
        byte = _BYTE.search(str(wrong))
        raise _bad_body(f"It is not JSON at byte {byte['byte']}." if byte else "Its JSON ends or breaks off too early.") from wrong
    except RecursionError as wrong:
        raise _bad_body("It is nested too deeply.") from wrong


def is_json_object(raw: msgspec.Raw | bytes) -> bool:
    """Whether this piece of a decoded body is an object whose every number and text can be held."""
    try:
        return isinstance(_any_decoder.decode(raw), dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _refuse(reason: str, cause: Exception) -> NoReturn:
    place = _PATH.search(reason)
    if place is None:
        raise _bad_body("It must be a JSON object.") from cause
    path = place["path"]
    raise ApiError(ErrorKind.INVALID_REQUEST, _text(path, reason), param=path) from cause


def _text(path: str, reason: str) -> str:
    missing = _MISSING.search(reason)
    if missing:
        return f"Field required: {path}.{missing['field']}"
    found = _REASON.search(reason)
    if path == "parameters.response_format" and found:
        return WRONG_FORMAT.format(found["got"])
    for pattern, text in _TEXTS_BY_PLACE:
        if pattern.match(path):
            return text
    name = path.removeprefix("parameters.")
    if found:
        wanted = [_TYPES[word] for word in found["expected"].split(" | ") if word in _TYPES]
        if wanted:
            return f"'{name}' must be {' or '.join(wanted)}"
    return INVALID.format(name)


def _bad_body(where: str) -> ApiError:
    return ApiError(ErrorKind.INVALID_REQUEST, f"{errors.BAD_BODY} {where}")
