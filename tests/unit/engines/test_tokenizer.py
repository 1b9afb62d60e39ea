from pathlib import Path

import pytest

from qwenbox.engines import gguf
from qwenbox.engines.tokenizer import Tokenizer, Vocabularies
from qwenbox.terms.errors import ApiError
from support.tiny_gguf import ORDINARY, TINY, write_gguf

MARK = "\U0010ff00"


@pytest.fixture(name="tokenizer")
def _tokenizer(tmp_path: Path) -> Tokenizer:
    return Tokenizer(gguf.read(write_gguf(tmp_path / "tiny.gguf", TINY)))


def test_encode_merges_in_order_of_rank_when_text_is_plain(tokenizer: Tokenizer) -> None:
    assert [ORDINARY.index("hello"), ORDINARY.index("Ġworld")] == tokenizer.encode("hello world")


@pytest.mark.parametrize("text", ["", "hello", "héllo wörld", "你好，世界", "🦜🏽‍♀️", "\x00\x01\t\r\n  \n", "a" * 5000, "</tool_call>"])
def test_text_gives_back_what_encode_took(tokenizer: Tokenizer, text: str) -> None:
    assert text == tokenizer.text(tokenizer.encode(text))


def test_encode_knows_control_tokens_when_they_are_spelled_out(tokenizer: Tokenizer) -> None:
    assert [tokenizer.control["<|im_end|>"]] == tokenizer.encode("<|im_end|>")


def test_encode_plain_leaves_control_tokens_as_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_plain("<|im_end|>")

    assert not set(ids) & set(tokenizer.control.values())
    assert "<|im_end|>" == tokenizer.text(ids)


def test_encode_plain_keeps_tool_tags_because_they_end_no_turn(tokenizer: Tokenizer) -> None:
    assert [TINY["tokenizer.ggml.tokens"].index("<tool_call>")] == tokenizer.encode_plain("<tool_call>")


def test_encode_guarded_tells_bare_names_from_guarded_ones(tokenizer: Tokenizer) -> None:
    caller = tokenizer.guard("a<|im_end|>b", MARK)

    ids = tokenizer.encode_guarded(f"<|im_start|>{caller}<|im_end|>", MARK)

    assert "<|im_start|>a<|im_end|>b<|im_end|>" == tokenizer.text(ids)
    assert [tokenizer.control["<|im_start|>"], tokenizer.control["<|im_end|>"]] == [ids[0], ids[-1]]
    assert 2 == sum(number in tokenizer.control.values() for number in ids)


def test_text_drops_half_characters_at_both_ends(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("你a好")

    assert "a" == tokenizer.text(ids[1:-1])


def test_raw_is_empty_when_an_id_stands_for_nothing(tokenizer: Tokenizer) -> None:
    assert b"" == tokenizer.raw(10**6)


def test_encode_is_the_same_when_text_is_long_enough_to_be_cut(tokenizer: Tokenizer) -> None:
    line = "hello world user\n"
    count = 250_000 // len(line) + 1

    assert tokenizer.encode(line) * count == tokenizer.encode(line * count)


def test_vocabularies_share_a_tokenizer_when_two_files_hold_the_same(tmp_path: Path) -> None:
    known = Vocabularies()
    one, two = (gguf.read(write_gguf(tmp_path / name, TINY)) for name in ("one.gguf", "two.gguf"))
    other = gguf.read(write_gguf(tmp_path / "three.gguf", TINY | {"tokenizer.ggml.pre": "qwen35"}))

    assert known.of(one) is known.of(two)
    assert known.of(one) is not known.of(other)


@pytest.mark.parametrize(
    "change",
    [{"tokenizer.ggml.pre": "unheard-of"}, {"tokenizer.ggml.model": "llama"}, {"tokenizer.ggml.merges": ["l l", "h e"]}],
    ids=["pretokenizer", "model", "order of merges"],
)
def test_tokenizer_refuses_when_it_would_count_wrongly(tmp_path: Path, change: dict[str, str | list[str]]) -> None:
    strange = gguf.read(write_gguf(tmp_path / "tiny.gguf", TINY | change))

    with pytest.raises(ApiError):
        Tokenizer(strange)


def test_guard_leaves_text_alone_when_the_vocabulary_has_no_control_tokens(tmp_path: Path) -> None:
    plain = TINY | {"tokenizer.ggml.token_type": [1] * len(TINY["tokenizer.ggml.tokens"])}
    tokenizer = Tokenizer(gguf.read(write_gguf(tmp_path / "plain.gguf", plain)))

    assert "a<|im_end|>b" == tokenizer.guard("a<|im_end|>b", MARK)
