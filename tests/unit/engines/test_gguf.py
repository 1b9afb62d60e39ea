import struct
from pathlib import Path

import pytest

from qwenbox.engines import gguf
from qwenbox.terms.errors import ApiError, ErrorKind
from support.tiny_gguf import TINY, write_gguf


def test_read_tells_sizes_and_vocabulary_when_the_file_is_whole(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", TINY)

    tiny = gguf.read(path)

    assert ("qwen2", "Tiny", 4096, "qwen2") == (tiny.architecture, tiny.name, tiny.context_tokens, tiny.pretokenizer)
    assert path.stat().st_size == tiny.size_bytes
    assert len(TINY["tokenizer.ggml.tokens"]) == len(tiny.tokens)
    assert TINY["tokenizer.chat_template"] == tiny.chat_template
    assert not tiny.is_bos_added


def test_read_counts_kv_bytes_when_heads_are_grouped(tmp_path: Path) -> None:
    """2 layers x 2 KV heads x (8 + 8) values x 2 bytes."""
    assert 128 == gguf.read(write_gguf(tmp_path / "tiny.gguf", TINY)).kv_bytes_per_token


def test_read_counts_kv_bytes_when_heads_differ_by_layer(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", TINY | {"qwen2.attention.head_count_kv": [2, 1]})

    assert 96 == gguf.read(path).kv_bytes_per_token


@pytest.mark.parametrize(
    "data",
    [b"", b"GGUF", b"PK\x03\x04" + bytes(100), b"GGUF" + struct.pack("<IQQ", 9, 0, 0), b"GGUF" + struct.pack("<IQQ", 3, 0, 10**9)],
    ids=["empty", "magic only", "another format", "version of the future", "endless keys"],
)
def test_read_refuses_when_the_file_is_no_gguf(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(data)

    with pytest.raises(ApiError) as raised:
        gguf.read(path)

    assert ErrorKind.ENGINE_FAILED is raised.value.kind
    assert "broken.gguf" in raised.value.message


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_read_refuses_when_the_file_is_cut_off(tmp_path: Path, share: float) -> None:
    whole = write_gguf(tmp_path / "tiny.gguf", TINY).read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[: int(len(whole) * share)])

    with pytest.raises(ApiError):
        gguf.read(path)


def test_read_refuses_when_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ApiError) as raised:
        gguf.read(tmp_path / "absent.gguf")

    assert "cannot be opened" in raised.value.message
