"""This is where a body becomes a struct and the numbers in it are held against their ranges, in the service's own words.

Texts: Model Studio, "Error messages" (2025-12-26).
"""

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec
from msgspec import UNSET

from qwenbox.dialects.openai.schema import SamplingBody, WireStop
from qwenbox.terms.caller import Compat
from qwenbox.terms.chat import Sampling
from qwenbox.terms.errors import ApiError, ErrorKind

MAX_STOPS = 16
MAX_CHOICES = 4
MAX_SEED = 2**63 - 1
MAX_TOKEN_ID = 2**31 - 1
MAX_DEPTH = 64
TOP_K_OFF_ABOVE = 100

_BODY_INVALID = "Required body invalid, please check the request body format."
_STOP_INVALID = (
    'The "stop" parameter must be of type "str", "list[str]", "list[int]", or "list[list[int]]", '
    "and all elements within the list must be of the same type."
)
_TYPE_WORDS = {"float": "Float", "int": "Integer", "bool": "Boolean", "str": "String", "array": "Array", "object": "Object"}
_AT = re.compile(r" - at `\$\.?(.*)`$")
_EXPECTED = re.compile(r"Expected `([^`]+)`")
_MISSING = re.compile(r"Object missing required field `([^`]+)`")
_BYTE = re.compile(r"\(byte (\d+)\)")
_NO_SAMPLING = Sampling()

B = TypeVar("B")


class _Range(msgspec.Struct, frozen=True, kw_only=True):
    text: str
    low: float
    high: float = float("inf")
    is_low_open: bool = False
    is_high_open: bool = False

    def holds(self, value: float) -> bool:
        above = value > self.low if self.is_low_open else value >= self.low
        return above and (value < self.high if self.is_high_open else value <= self.high)


_COMMON_RANGES = {
    "presence_penalty": _Range(low=-2.0, high=2.0, text="Presence_penalty should be in [-2.0, 2.0]"),
    "frequency_penalty": _Range(low=-2.0, high=2.0, text="Frequency_penalty should be in [-2.0, 2.0]"),
    "repetition_penalty": _Range(low=0.0, is_low_open=True, text="Repetition_penalty should be greater than 0.0"),
}
_RANGES: Mapping[Compat, Mapping[str, _Range]] = {
    Compat.DOCUMENTED: {
        "temperature": _Range(low=0.0, high=2.0, text="Temperature should be in [0.0, 2.0]"),
        "top_p": _Range(low=0.0, high=1.0, text="Range of top_p should be [0.0, 1.0]"),
        **_COMMON_RANGES,
    },
    Compat.STRICT: {
        "temperature": _Range(low=0.0, high=2.0, is_high_open=True, text="Temperature should be in [0.0, 2.0)"),
        "top_p": _Range(low=0.0, high=1.0, is_low_open=True, text="Range of top_p should be (0.0, 1.0]"),
        **_COMMON_RANGES,
    },
}


def invalid(message: str, param: str | None = None) -> ApiError:
    """A 400 that names its field."""
    return ApiError(ErrorKind.INVALID_REQUEST, message, param=param)


def quoted(value: str) -> str:
    """What the caller wrote, short enough to be said back."""
    return value if len(value) <= 64 else value[:64] + "…"


def decode(decoder: msgspec.json.Decoder[B], body: bytes) -> B:
    """The body as a struct. Raises ApiError(INVALID_REQUEST) naming the field of a wrong type, or the byte where JSON ends."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _wrong_type(str(error)) from error
    except UnicodeDecodeError as error:
        raise invalid(f"{_BODY_INVALID} It is not valid UTF-8.") from error
    except RecursionError as error:
        raise invalid(f"{_BODY_INVALID} It is nested too deeply.") from error
    except msgspec.DecodeError as error:
        byte = _BYTE.search(str(error))
        where = f"The JSON is broken near byte {byte[1]}." if byte else "The JSON ends too early, or within an escaped character."
        raise invalid(f"{_BODY_INVALID} {where}") from error


def json_object(raw: bytes, param: str) -> Mapping[str, object]:
    """A JSON object inside a request, such as a schema. Raises ApiError when it is anything else or deeper than MAX_DEPTH."""
    try:
        value: object = msgspec.json.decode(raw)
    except (ValueError, RecursionError) as error:
        raise invalid(f"'{param}' must be Object", param) from error
    if not isinstance(value, dict):
        raise invalid(f"'{param}' must be Object", param)
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and _is_too_deep(value):  # pyright: ignore[reportUnknownArgumentType]
        raise invalid(f"'{param}' must not be nested deeper than {MAX_DEPTH} levels", param)
    return value  # pyright: ignore[reportUnknownVariableType]


def model(body: SamplingBody) -> str:
    if not body.model:
        raise invalid("you must provide a model parameter.", "model")
    return body.model


def sampling(body: SamplingBody, compat: Compat) -> Sampling:
    """How tokens are drawn, every number in its range of this level. Raises ApiError(INVALID_REQUEST)."""
    ranges = _RANGES[compat]
    for name, value in (
        ("temperature", body.temperature),
        ("top_p", body.top_p),
        ("presence_penalty", body.presence_penalty),
        ("frequency_penalty", body.frequency_penalty),
        ("repetition_penalty", body.repetition_penalty),
    ):
        if value is not None and not ranges[name].holds(value):
            raise invalid(ranges[name].text, name)
    if body.seed is not None and not 0 <= body.seed <= MAX_SEED:
        raise invalid(f"Range of seed should be [0, {MAX_SEED}]", "seed")
    return Sampling(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=_top_k(body),
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        repetition_penalty=body.repetition_penalty,
        seed=body.seed,
    )


def choices(body: SamplingBody) -> int:
    if body.n is None:
        return 1
    if not 1 <= body.n <= MAX_CHOICES:
        raise invalid(f"Range of n should be [1, {MAX_CHOICES}]", "n")
    return body.n


def max_tokens(value: int | None, name: str) -> int | None:
    """At least 1; the upper bound is the model's, which the catalog knows."""
    if value is not None and value < 1:
        raise invalid(f"Range of {name} should be [1, the model's maximum]", name)
    return value


def stop(value: WireStop | None) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """(texts, token-id sequences), at most one of them non-empty. A bare token id is a sequence of one."""
    if value is None:
        return (), ()
    items: Sequence[str | int | list[int]] = [value] if isinstance(value, str) else value
    if len(items) > MAX_STOPS:
        raise invalid(f'The "stop" parameter must not have more than {MAX_STOPS} elements.', "stop")
    texts = tuple(item for item in items if isinstance(item, str))
    ids = tuple((item,) for item in items if isinstance(item, int))
    sequences = tuple(tuple(item) for item in items if isinstance(item, list))
    if len(items) not in (len(texts), len(ids), len(sequences)):
        raise invalid(_STOP_INVALID, "stop")
    if "" in texts or () in sequences:
        raise invalid('The "stop" parameter must not have empty elements.', "stop")
    tokens = ids or sequences
    if any(not 0 <= token <= MAX_TOKEN_ID for sequence in tokens for token in sequence):
        raise invalid(f'Token ids of the "stop" parameter should be in [0, {MAX_TOKEN_ID}]', "stop")
    return texts, tokens


def refuse_logit_bias(body: SamplingBody) -> None:
    if body.logit_bias:
        raise invalid("This model does not support logit_bias.", "logit_bias")


def _top_k(body: SamplingBody) -> int | None:
    if body.top_k is UNSET:
        return None
    if body.top_k is None or body.top_k > TOP_K_OFF_ABOVE:
        return 0
    if body.top_k < 0:
        raise invalid("Parameter top_k be greater than or equal to 0", "top_k")
    return body.top_k


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


def _wrong_type(reason: str) -> ApiError:
    """msgspec's reason in the service's words; nothing of msgspec's own text is passed on."""
    at = _AT.search(reason)
    missing = _MISSING.match(reason)
    path = at[1] if at else ""
    if missing:
        param = f"{path}.{missing[1]}" if path else missing[1]
        return invalid(f"Field required: {param}", param)
    if not path:
        return invalid(f"{_BODY_INVALID} It must be a JSON object.")
    if path == "stop" or path.startswith("stop["):
        return invalid(_STOP_INVALID, "stop")
    expected = _EXPECTED.match(reason)
    if not expected:
        return invalid(f"'{path}' is out of range", path)
    words = [_TYPE_WORDS[word] for word in expected[1].split(" | ") if word in _TYPE_WORDS]
    return invalid(f"'{path}' must be {' or '.join(words)}", path)
