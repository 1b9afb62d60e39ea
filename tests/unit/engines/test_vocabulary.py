"""Counting with whatever vocabulary lies on this machine."""

from pathlib import Path

import anyio
import pytest

from qwenbox.engines.tokenizer import Vocabularies
from qwenbox.engines.vocabulary import Vocabulary
from support.tiny_gguf import TINY, write_gguf

pytestmark = pytest.mark.anyio


async def test_count_texts_counts_each_by_itself(tmp_path: Path) -> None:
    tiny = Vocabulary(lambda: [write_gguf(tmp_path / "tiny.gguf", TINY)], Vocabularies())
    assert [2, 0, 4, 1] == await tiny.count_texts(["hello world", "", "你x", "<tool_call>"])


async def test_count_texts_takes_names_of_control_tokens_for_those_only_in_raw_prompts(tmp_path: Path) -> None:
    tiny = Vocabulary(lambda: [write_gguf(tmp_path / "tiny.gguf", TINY)], Vocabularies())
    assert [len("<|im_end|>")] == await tiny.count_texts(["<|im_end|>"])
    assert [1] == await tiny.count_texts(["<|im_end|>"], has_controls=True)


async def test_count_texts_is_the_same_in_a_thread_when_texts_are_long(tmp_path: Path) -> None:
    tiny = Vocabulary(lambda: [write_gguf(tmp_path / "tiny.gguf", TINY)], Vocabularies())
    assert [2] * 3_000 == await tiny.count_texts(["hello world"] * 3_000)


async def test_count_texts_skips_files_it_cannot_use(tmp_path: Path) -> None:
    (tmp_path / "none.gguf").write_bytes(b"no weights")
    write_gguf(tmp_path / "other.gguf", TINY | {"tokenizer.ggml.pre": "llama-bpe"})
    write_gguf(tmp_path / "short.gguf", TINY | {"tokenizer.ggml.tokens": ["a"]})
    write_gguf(tmp_path / "tiny.gguf", TINY)
    places = [tmp_path / name for name in ("none.gguf", "other.gguf", "short.gguf", "tiny.gguf")]
    assert [2] == await Vocabulary(lambda: places, Vocabularies()).count_texts(["hello world"])


async def test_count_texts_says_nothing_until_there_is_a_vocabulary(tmp_path: Path) -> None:
    places: list[Path] = []
    vocabulary = Vocabulary(lambda: places, Vocabularies())
    assert await vocabulary.count_texts(["hello"]) is None
    places.append(write_gguf(tmp_path / "tiny.gguf", TINY))
    assert [1] == await vocabulary.count_texts(["hello"])


async def test_vocabulary_is_read_once_when_many_ask_at_a_time(tmp_path: Path) -> None:
    path, asked = write_gguf(tmp_path / "tiny.gguf", TINY), list[int]()

    def places() -> list[Path]:
        asked.append(1)
        return [path]

    vocabulary = Vocabulary(places, Vocabularies())
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(vocabulary.count_texts, ["hello"])
    path.unlink()
    assert [1] == await vocabulary.count_texts(["hello"])
    assert [1] == asked
