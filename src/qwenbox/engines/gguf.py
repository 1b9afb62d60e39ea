"""This is where a GGUF file says what it holds: its metadata, read without loading any weights.

Format: ggml's docs/gguf.md, versions 2 and 3, little endian.
"""

import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

import msgspec

from qwenbox.terms.errors import ApiError, ErrorKind

Scalar: TypeAlias = int | float | bool | str
Value: TypeAlias = Scalar | list[Scalar]

_MAGIC: Final = b"GGUF"
_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final[dict[int, struct.Struct]] = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_U32: Final = _SCALARS[4]
_U64: Final = _SCALARS[10]
# A header says how many entries follow; a damaged one must not make us walk the whole file.
_MAX_KEYS: Final = 4096
_KV_BYTES_PER_VALUE: Final = 2  # f16, the cache type the child uses
_SIDE_MERGED: Final = 2  # Qwen-VL joins 2 by 2 patches to one token; files that say nothing do too

T = TypeVar("T")


class Gguf(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine needs to know of a model file.

    context_tokens: the length it was trained for. kv_bytes_per_token: of the f16 KV cache, keys and values over all layers.
    tokens: by id, spelled in GPT-2's byte alphabet. token_types: ggml's llama_token_type by id (3 control, 4 user-defined).
    merges: "left right" in order of rank. chat_template: Jinja source, "" when the file has none.
    """

    path: Path
    size_bytes: int
    architecture: str
    name: str
    context_tokens: int
    kv_bytes_per_token: int
    tokenizer: str
    pretokenizer: str
    tokens: list[str]
    token_types: list[int]
    merges: list[str]
    eos_id: int | None
    bos_id: int | None
    is_bos_added: bool
    chat_template: str


class Projector(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine needs to know of the file that makes a text model see. unit: side in pixels of what one token stands for."""

    path: Path
    size_bytes: int
    kind: str
    unit: int


def read(path: Path) -> Gguf:
    """Read the metadata of the GGUF file at `path`; takes about half a second for a vocabulary of 150,000.

    Raises ApiError(ENGINE_FAILED) when the file cannot be read or is no GGUF file.
    """
    return _read(path, _gguf)


def read_projector(path: Path) -> Projector:
    """Read the metadata of a projector (an `mmproj` file). Raises ApiError(ENGINE_FAILED) like `read`, and for one that sees nothing."""
    return _read(path, _projector)


def _read(path: Path, make: Callable[[Path, int, dict[str, Value]], T]) -> T:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return make(path, len(data), _metadata(data))
    except OSError as error:
        raise _unreadable(path, "it cannot be opened") from error
    except (struct.error, ValueError, KeyError, TypeError, IndexError) as error:
        raise _unreadable(path, "it is no whole GGUF file") from error


def _unreadable(path: Path, why: str) -> ApiError:
    return ApiError(ErrorKind.ENGINE_FAILED, f"The weights file {path.name} cannot be used: {why}. Fetch it again.")


def _metadata(data: mmap.mmap) -> dict[str, Value]:
    if data[:4] != _MAGIC:
        raise ValueError("no GGUF magic")
    if _U32.unpack_from(data, 4)[0] not in (2, 3):
        raise ValueError("unknown GGUF version")
    count = _U64.unpack_from(data, 16)[0]
    if count > _MAX_KEYS:
        raise ValueError("too many keys")
    cursor = _Cursor(data, 24)
    values: dict[str, Value] = {}
    for _ in range(count):
        key = cursor.string()
        values[key] = cursor.value(cursor.u32())
    return values


class _Cursor:
    """Walks the file's bytes; every read moves on."""

    def __init__(self, data: mmap.mmap, at: int) -> None:
        self._data = data
        self._at = at

    def u32(self) -> int:
        (value,) = _U32.unpack_from(self._data, self._at)
        self._at += 4
        return value

    def string(self) -> str:
        (size,) = _U64.unpack_from(self._data, self._at)
        start = self._at + 8
        if start + size > len(self._data):
            raise ValueError("a string runs past the end")
        self._at = start + size
        return self._data[start : self._at].decode("utf-8", "replace")

    def value(self, kind: int) -> Value:
        return self._array() if kind == _ARRAY else self._scalar(kind)

    def _scalar(self, kind: int) -> Scalar:
        if kind == _STRING:
            return self.string()
        form = _SCALARS[kind]
        (value,) = form.unpack_from(self._data, self._at)
        self._at += form.size
        return value

    def _array(self) -> list[Scalar]:
        kind = self.u32()
        (count,) = _U64.unpack_from(self._data, self._at)
        self._at += 8
        if count > len(self._data):
            raise ValueError("an array runs past the end")
        if kind == _STRING:
            return [self.string() for _ in range(count)]
        form = _SCALARS[kind]
        values = struct.unpack_from(f"<{count}{form.format[1:]}", self._data, self._at)
        self._at += form.size * count
        return list(values)


def _gguf(path: Path, size_bytes: int, values: dict[str, Value]) -> Gguf:
    architecture = _text(values, "general.architecture")
    return Gguf(
        path=path,
        size_bytes=size_bytes,
        architecture=architecture,
        name=_text(values, "general.name"),
        context_tokens=_number(values, f"{architecture}.context_length"),
        kv_bytes_per_token=_kv_bytes(values, architecture),
        tokenizer=_text(values, "tokenizer.ggml.model"),
        pretokenizer=_text(values, "tokenizer.ggml.pre"),
        tokens=_texts(values, "tokenizer.ggml.tokens"),
        token_types=_numbers(values, "tokenizer.ggml.token_type"),
        merges=_texts(values, "tokenizer.ggml.merges"),
        eos_id=_optional(values, "tokenizer.ggml.eos_token_id"),
        bos_id=_optional(values, "tokenizer.ggml.bos_token_id"),
        is_bos_added=values.get("tokenizer.ggml.add_bos_token") is True,
        chat_template=_text(values, "tokenizer.chat_template"),
    )


def _projector(path: Path, size_bytes: int, values: dict[str, Value]) -> Projector:
    if values.get("clip.has_vision_encoder") is not True:
        raise _unreadable(path, "it is no projector for pictures")
    merged = _optional(values, "clip.vision.spatial_merge_size") or _SIDE_MERGED
    return Projector(
        path=path,
        size_bytes=size_bytes,
        kind=_text(values, "clip.projector_type") or _text(values, "clip.vision.projector_type"),
        unit=_number(values, "clip.vision.patch_size") * merged,
    )


def _kv_bytes(values: dict[str, Value], architecture: str) -> int:
    layers = _number(values, f"{architecture}.block_count")
    heads = _number(values, f"{architecture}.attention.head_count")
    width = _number(values, f"{architecture}.embedding_length") // max(heads, 1)
    kv_heads = values.get(f"{architecture}.attention.head_count_kv", heads)
    total_heads = sum(int(n) for n in kv_heads) if isinstance(kv_heads, list) else int(kv_heads) * layers
    keys = _optional(values, f"{architecture}.attention.key_length") or width
    entries = _optional(values, f"{architecture}.attention.value_length") or width
    return total_heads * (keys + entries) * _KV_BYTES_PER_VALUE


def _text(values: dict[str, Value], key: str) -> str:
    value = values.get(key, "")
    return value if isinstance(value, str) else ""


def _number(values: dict[str, Value], key: str) -> int:
    value = values[key]
    if isinstance(value, list):  # some architectures give a figure per layer: the largest one bounds memory
        return max(int(entry) for entry in value)
    return int(value)


def _optional(values: dict[str, Value], key: str) -> int | None:
    value = values.get(key)
    return value if isinstance(value, int) else None


def _texts(values: dict[str, Value], key: str) -> list[str]:
    value = values.get(key, [])
    return [entry for entry in value if isinstance(entry, str)] if isinstance(value, list) else []


def _numbers(values: dict[str, Value], key: str) -> list[int]:
    value = values.get(key, [])
    return [entry for entry in value if isinstance(entry, int)] if isinstance(value, list) else []
