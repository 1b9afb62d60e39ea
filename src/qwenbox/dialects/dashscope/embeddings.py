"""This is where texts to be embedded are read on the native wire and their vectors written; and the client's half (wire reference 7.1)."""

from functools import partial

import msgspec
from msgspec import UNSET, Raw, UnsetType

from qwenbox.dialects import whole
from qwenbox.dialects.base import Parsed, WireRequest
from qwenbox.dialects.dashscope import body, errors
from qwenbox.dialects.dashscope.heard import HeardInput
from qwenbox.dialects.dashscope.usage import InputUsage, render_input
from qwenbox.dialects.whole import WholeReply
from qwenbox.terms.caller import Compat
from qwenbox.terms.embedding import EmbeddingRequest, OutputType, TextType
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Embedded, SparseWeight
from qwenbox.terms.usage import Usage

NO_TEXTS = "Value error, contents is neither str nor list of str.: input.contents"
NO_TASKS = "Current user api does not support asynchronous calls."
WRONG_TEXT_TYPE = "text_type should be in ['query', 'document']"
WRONG_OUTPUT_TYPE = "output_type should be in ['dense', 'sparse', 'dense&sparse']"
WRONG_DIMENSION = "Range of dimension should be [1, {}]"
MOST_DIMENSION = 2**16
# The largest that 32 bits hold: what is more can be told to nobody who asks for base64.
MOST_NUMBER = 3.4e38

_NOTHING = Raw(b"")


class _Input(msgspec.Struct, frozen=True, kw_only=True):
    texts: Raw = _NOTHING


class _Parameters(msgspec.Struct, frozen=True, kw_only=True):
    text_type: str | None = None
    dimension: int | None = None
    output_type: str | None = None
    instruct: str | None = None


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    model: str | None = None
    input: _Input | None = None
    parameters: _Parameters | None = None


class _Sparse(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    value: float
    token: str = ""


class _Vector(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    embedding: tuple[float, ...] | UnsetType = UNSET
    sparse_embedding: list[_Sparse] | UnsetType = UNSET
    text_index: int


class _Output(msgspec.Struct, frozen=True, kw_only=True):
    embeddings: list[_Vector]


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    output: _Output
    usage: InputUsage
    request_id: str


_decoder = msgspec.json.Decoder(_Asked)
_texts_decoder = msgspec.json.Decoder(str | list[str])
_encoder = msgspec.json.Encoder()


def parse(request: WireRequest, compat: Compat) -> Parsed[EmbeddingRequest]:
    """What to embed, and how to answer. Raises ApiError(INVALID_REQUEST) in the service's words, FORBIDDEN for an asynchronous call."""
    if request.headers.get("x-dashscope-async", "").lower() == "enable":
        raise ApiError(ErrorKind.FORBIDDEN, NO_TASKS, param="X-DashScope-Async")
    given = body.decode_as(_decoder, request.body)
    if not given.model:
        raise ApiError(ErrorKind.INVALID_REQUEST, errors.EMPTY_MODEL, param="model")
    if given.input is None:
        raise ApiError(ErrorKind.INVALID_REQUEST, errors.EMPTY_INPUT, param="input")
    said = given.parameters or _Parameters()
    if said.dimension is not None and not 1 <= said.dimension <= MOST_DIMENSION:
        raise ApiError(ErrorKind.INVALID_REQUEST, WRONG_DIMENSION.format(MOST_DIMENSION), param="dimension")
    asked = EmbeddingRequest(
        model=given.model,
        texts=_texts(given.input),
        dimensions=said.dimension,
        text_type=_text_type(said.text_type),
        output_type=_output_type(said.output_type),
        instruct=said.instruct or None,
    )
    reply = WholeReply(_vector, partial(_answer, request.id), partial(errors.body, request_id=request.id))
    return Parsed(request=asked, reply=reply)


def _answer(request_id: str, vectors: list[_Vector], usage: Usage) -> _Answer:
    return _Answer(output=_Output(embeddings=vectors), usage=render_input(usage), request_id=request_id)


def _vector(event: ChatEvent) -> _Vector | None:
    if not isinstance(event, Embedded):
        return None
    sparse = UNSET
    if event.sparse is not None:
        sparse = [_Sparse(index=word.index, value=word.value, token=word.token) for word in event.sparse]
    return _Vector(embedding=event.vector or UNSET, sparse_embedding=sparse, text_index=event.index)


def _texts(given: _Input) -> tuple[str, ...]:
    try:
        texts = _texts_decoder.decode(given.texts)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(ErrorKind.INVALID_REQUEST, NO_TEXTS, param="input.texts") from error
    found = (texts,) if isinstance(texts, str) else tuple(texts)
    if not found:
        raise ApiError(ErrorKind.INVALID_REQUEST, NO_TEXTS, param="input.texts")
    return found


def _text_type(word: str | None) -> TextType:
    try:
        return TextType(word) if word is not None else TextType.DOCUMENT
    except ValueError:
        raise ApiError(ErrorKind.INVALID_REQUEST, WRONG_TEXT_TYPE, param="text_type") from None


def _output_type(word: str | None) -> OutputType:
    try:
        return OutputType(word) if word is not None else OutputType.DENSE
    except ValueError:
        raise ApiError(ErrorKind.INVALID_REQUEST, WRONG_OUTPUT_TYPE, param="output_type") from None


class _HeardVector(msgspec.Struct, frozen=True, kw_only=True):
    """index: some of the service's endpoints call it so."""

    embedding: tuple[float, ...] = ()
    sparse_embedding: list[_Sparse] | None = None
    text_index: int | None = None
    index: int | None = None

    @property
    def place(self) -> int:
        return self.text_index if self.text_index is not None else self.index or 0


class _HeardOutput(msgspec.Struct, frozen=True, kw_only=True):
    embeddings: list[_HeardVector]


class _Heard(msgspec.Struct, frozen=True, kw_only=True):
    output: _HeardOutput
    usage: HeardInput = HeardInput()


_heard_decoder = msgspec.json.Decoder(_Heard)


def speak(request: EmbeddingRequest, model: str) -> bytes:
    """The request as the service is asked; what the caller left unsaid stays unsaid."""
    parameters: dict[str, object] = {"text_type": request.text_type.value}
    if request.output_type is not OutputType.DENSE:
        parameters["output_type"] = request.output_type.value
    if request.dimensions_said is not None:
        parameters["dimension"] = request.dimensions_said
    if request.instruct is not None:
        parameters["instruct"] = request.instruct
    return _encoder.encode({"model": model, "input": {"texts": request.texts}, "parameters": parameters})


def hear(data: bytes, request: EmbeddingRequest) -> list[ChatEvent]:
    """The events of the service's answer. Raises ApiError(ENGINE_FAILED) for one that is not what was asked for."""
    try:
        heard = _heard_decoder.decode(data)
    except (ValueError, RecursionError) as error:
        raise ApiError(ErrorKind.ENGINE_FAILED, "The model's service sent an answer that cannot be read.") from error
    vectors = sorted(heard.output.embeddings, key=lambda vector: vector.place)
    is_sane = all(abs(number) <= MOST_NUMBER for vector in vectors for number in vector.embedding)
    if not is_sane or [vector.place for vector in vectors] != list(range(len(request.texts))):
        raise ApiError(ErrorKind.ENGINE_FAILED, "The model's service did not send one vector for each text.")
    return whole.heard(map(_embedded, vectors), heard.usage.tokens)


def _embedded(vector: _HeardVector) -> Embedded:
    sparse = None
    if vector.sparse_embedding is not None:
        sparse = tuple(SparseWeight(index=word.index, value=word.value, token=word.token) for word in vector.sparse_embedding)
    return Embedded(index=vector.place, vector=vector.embedding, sparse=sparse)
