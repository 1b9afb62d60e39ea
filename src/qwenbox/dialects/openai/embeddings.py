"""This is where texts to be embedded are read on the OpenAI-compatible wire and their vectors written, as numbers or base64; and the
client's half of the same.

Source: wire reference 4.5; OpenAI API reference, "Create embeddings" (2026-08): without encoding_format the answer holds numbers; the SDK
asks for base64 by itself.
"""

import base64
import struct
from functools import partial

import msgspec

from qwenbox.dialects import whole
from qwenbox.dialects.base import Parsed, WireRequest
from qwenbox.dialects.openai import errors, fields
from qwenbox.dialects.openai.usage import HeardInput, InputUsage, input_usage
from qwenbox.dialects.whole import WholeReply
from qwenbox.terms.caller import Compat
from qwenbox.terms.embedding import EmbeddingRequest, OutputType
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Embedded
from qwenbox.terms.usage import Usage

NO_TEXTS = "Value error, contents is neither str nor list of str.: input.contents"
NO_IDS = f"{NO_TEXTS} (token ids are not understood here: send the texts)"
WRONG_ENCODING = "'encoding_format' must be one of 'float', 'base64'"
MOST_DIMENSIONS = 2**16
# The largest that 32 bits hold: what is more can be told to nobody who asks for base64.
MOST_NUMBER = 3.4e38


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    model: str | None = None
    input: str | list[str | int | list[int]] | None = None
    dimensions: int | None = None
    encoding_format: str | None = None


class _Vector(msgspec.Struct, frozen=True, kw_only=True):
    object: str = "embedding"
    index: int
    embedding: tuple[float, ...] | str


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    object: str = "list"
    data: list[_Vector]
    model: str
    usage: InputUsage
    id: str


_BODY = msgspec.json.Decoder(_Body)
_ENCODER = msgspec.json.Encoder()


def parse(request: WireRequest, compat: Compat) -> Parsed[EmbeddingRequest]:
    """What to embed, and how to answer. Raises ApiError(INVALID_REQUEST) naming the field at fault."""
    body = fields.decode(_BODY, request.body)
    if not body.model:
        raise fields.invalid("you must provide a model parameter.", "model")
    if body.dimensions is not None and not 1 <= body.dimensions <= MOST_DIMENSIONS:
        raise fields.invalid(f"Range of dimensions should be [1, {MOST_DIMENSIONS}]", "dimensions")
    if body.encoding_format not in (None, "float", "base64"):
        raise fields.invalid(WRONG_ENCODING, "encoding_format")
    asked = EmbeddingRequest(model=body.model, texts=_texts(body), dimensions=body.dimensions)
    is_base64 = body.encoding_format == "base64"
    reply = WholeReply(
        partial(_vector, is_base64=is_base64), partial(_answer, request.id, body.model), partial(errors.body, request_id=request.id)
    )
    return Parsed(request=asked, reply=reply)


def _answer(request_id: str, model: str, vectors: list[_Vector], usage: Usage) -> _Answer:
    return _Answer(data=vectors, model=model, usage=input_usage(usage), id=request_id)


def _vector(event: ChatEvent, *, is_base64: bool) -> _Vector | None:
    if not isinstance(event, Embedded):
        return None
    return _Vector(index=event.index, embedding=packed(event.vector) if is_base64 else event.vector)


def packed(vector: tuple[float, ...]) -> str:
    """base64 of little-endian floats of 32 bits."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _texts(body: _Body) -> tuple[str, ...]:
    if isinstance(body.input, str):
        return (body.input,)
    texts = tuple(text for text in body.input or () if isinstance(text, str))
    if len(texts) != len(body.input or ()):
        raise fields.invalid(NO_IDS, "input")
    if not texts:
        raise fields.invalid(NO_TEXTS, "input")
    return texts


class _HeardVector(msgspec.Struct, frozen=True, kw_only=True):
    index: int = 0
    embedding: list[float] | str = []


class _Heard(msgspec.Struct, frozen=True, kw_only=True):
    data: list[_HeardVector] = []
    usage: HeardInput | None = None


_HEARD = msgspec.json.Decoder(_Heard)


def speak(request: EmbeddingRequest, model: str) -> bytes:
    """The request as a server is asked. Raises ApiError(INVALID_REQUEST) for what this wire cannot say."""
    if request.output_type is not OutputType.DENSE:
        raise fields.invalid(f"The model {request.model} makes no sparse vectors.", "output_type")
    if request.instruct is not None:
        raise fields.invalid(f"The model {request.model} takes no instruct.", "instruct")
    asked: dict[str, object] = {"model": model, "input": request.texts, "encoding_format": "float"}
    if request.dimensions_said is not None:
        asked["dimensions"] = request.dimensions_said
    return _ENCODER.encode(asked)


def hear(body: bytes, request: EmbeddingRequest) -> list[ChatEvent]:
    """The events of a server's answer. Raises ApiError(ENGINE_FAILED) for one that is not what was asked for."""
    try:
        heard = _HEARD.decode(body)
        vectors = sorted(heard.data, key=lambda vector: vector.index)
        told: list[ChatEvent] = [Embedded(index=each.index, vector=_unpacked(each.embedding)) for each in vectors]
    except (ValueError, RecursionError, struct.error) as error:
        raise ApiError(ErrorKind.ENGINE_FAILED, "The model's server sent an answer that cannot be read.") from error
    is_sane = all(abs(number) <= MOST_NUMBER for event in told if isinstance(event, Embedded) for number in event.vector)
    if not is_sane or [vector.index for vector in vectors] != list(range(len(request.texts))):
        raise ApiError(ErrorKind.ENGINE_FAILED, "The model's server did not send one vector for each text.")
    tokens = heard.usage.prompt_tokens if heard.usage else None
    return whole.heard(told, tokens)


def _unpacked(vector: list[float] | str) -> tuple[float, ...]:
    if isinstance(vector, str):
        data = base64.b64decode(vector, validate=True)
        return struct.unpack(f"<{len(data) // 4}f", data)
    return tuple(vector)
