"""This is where a body becomes a struct and the numbers in it are held against their ranges, in words that name the field."""

import re
from collections.abc import Mapping
from typing import NoReturn

import msgspec

from qwenbox.dialects.anthropic.schema import Body
from qwenbox.terms.caller import Compat
from qwenbox.terms.chat import Sampling
from qwenbox.terms.errors import ApiError, ErrorKind

MAX_STOPS = 16
MAX_SEED = 2**63 - 1
MAX_DEPTH = 64
TOP_K_OFF_ABOVE = 100

_TYPE_WORDS = {"float": "a number", "int": "an integer", "bool": "a boolean", "str": "a string", "array": "a list", "object": "an object"}
_AT = re.compile(r" - at `\$\.?(.*)`$")
_EXPECTED = re.compile(r"Expected `([^`]+)`")
_MISSING = re.compile(r"Object missing required field `([^`]+)`")
_BYTE = re.compile(r"\(byte (\d+)\)")
_INDEX = re.compile(r"\[(\d+|\.\.\.)\]")

_BODY = msgspec.json.Decoder(Body)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def invalid(param: str, reason: str) -> ApiError:
    """A 400 that names its field as Anthropic's does: "messages.0.role: Field required"."""
    return ApiError(ErrorKind.INVALID_REQUEST, f"{param}: {reason}", param=param)


def quoted(value: str) -> str:
    """What the caller wrote, short enough to be said back."""
    return value if len(value) <= 64 else value[:64] + "…"


def decode(body: bytes) -> Body:
    """The body as a struct. Raises ApiError(INVALID_REQUEST) naming the field of a wrong type, or the byte where JSON ends."""
    try:
        if not body.isascii():
            body.decode()  # also what the decoder passes over, such as a tool's input
        return _BODY.decode(body)
    except msgspec.ValidationError as error:
        _refuse_type(str(error), error)
    except UnicodeDecodeError as error:
        raise _broken("It is not valid UTF-8.") from error
    except RecursionError as error:
        raise _broken("It is nested too deeply.") from error
    except msgspec.DecodeError as error:
        byte = _BYTE.search(str(error))
        raise _broken(f"It is broken near byte {byte[1]}." if byte else "It ends too early, or within an escaped character.") from error


def json_object(raw: bytes, param: str) -> Mapping[str, object]:
    """A JSON object inside a request, such as a schema. Raises ApiError when it is anything else or deeper than MAX_DEPTH."""
    try:
        value: object = msgspec.json.decode(raw)
    except (ValueError, RecursionError) as error:
        raise invalid(param, "Input should be an object") from error
    if not isinstance(value, dict):
        raise invalid(param, "Input should be an object")
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and _is_too_deep(value):  # pyright: ignore[reportUnknownArgumentType]
        raise invalid(param, f"Input should not be nested deeper than {MAX_DEPTH} levels")
    return value  # pyright: ignore[reportUnknownVariableType]


def is_object(raw: bytes) -> bool:
    """Whether it is the JSON text of an object."""
    try:
        _OBJECT.decode(raw)
    except (ValueError, RecursionError):
        return False
    return True


def model(body: Body) -> str:
    if not body.model:
        raise invalid("model", "Field required")
    return body.model


def max_tokens(body: Body) -> int:
    """At least 1; the upper bound is the model's, which the catalog knows."""
    if body.max_tokens is None:
        raise invalid("max_tokens", "Field required")
    if body.max_tokens < 1:
        raise invalid("max_tokens", "Input should be greater than or equal to 1")
    return body.max_tokens


def sampling(body: Body, compat: Compat) -> Sampling:
    """How tokens are drawn, every number in its range of this level. Raises ApiError(INVALID_REQUEST).

    Temperature reaches 2, as on the other wires: Anthropic's own range ends at 1.
    """
    is_strict = compat is Compat.STRICT
    temperature, top_p, seed = body.temperature, body.top_p, body.seed
    if temperature is not None and not (0 <= temperature < 2 or (temperature == 2 and not is_strict)):
        raise invalid("temperature", f"range: 0..2{', 2 not included' if is_strict else ''}")
    if top_p is not None and not (0 < top_p <= 1 or (top_p == 0 and not is_strict)):
        raise invalid("top_p", f"range: 0..1{', 0 not included' if is_strict else ''}")
    if seed is not None and not 0 <= seed <= MAX_SEED:
        raise invalid("seed", f"range: 0..{MAX_SEED}")
    return Sampling(temperature=temperature, top_p=top_p, top_k=_top_k(body.top_k), seed=seed)


def stop(body: Body) -> tuple[str, ...]:
    texts = tuple(body.stop_sequences or ())
    if len(texts) > MAX_STOPS:
        raise invalid("stop_sequences", f"List should have at most {MAX_STOPS} items")
    if "" in texts:
        raise invalid("stop_sequences", "each stop sequence must not be empty")
    return texts


def _top_k(value: int | None) -> int | None:
    if value is None:
        return None
    if value < 0:
        raise invalid("top_k", "Input should be greater than or equal to 0")
    return 0 if value > TOP_K_OFF_ABOVE else value


def _is_too_deep(value: object) -> bool:
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())  # pyright: ignore[reportUnknownArgumentType]
            elif isinstance(item, list):
                below.extend(item)  # pyright: ignore[reportUnknownArgumentType]
        if not below:
            return False
        level = below
    return any(isinstance(item, dict | list) for item in level)


def _broken(where: str) -> ApiError:
    return ApiError(ErrorKind.INVALID_REQUEST, f"The request body is not valid JSON. {where}")


def _refuse_type(reason: str, error: Exception) -> NoReturn:
    """msgspec's reason in our words; nothing of msgspec's own text is passed on."""
    at = _AT.search(reason)
    missing = _MISSING.match(reason)
    path = _INDEX.sub(lambda found: f".{found[1]}", at[1]).lstrip(".") if at else ""
    if missing:
        raise invalid(f"{path}.{missing[1]}" if path else missing[1], "Field required") from error
    if not path:
        raise ApiError(ErrorKind.INVALID_REQUEST, "The request body must be a JSON object.") from error
    expected = _EXPECTED.match(reason)
    words = [_TYPE_WORDS[word] for word in expected[1].split(" | ") if word in _TYPE_WORDS] if expected else []
    raise invalid(path, f"Input should be {' or '.join(words)}" if words else "Input is out of range") from error
