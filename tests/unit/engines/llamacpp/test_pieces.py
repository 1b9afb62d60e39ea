from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from qwenbox.engines import gguf
from qwenbox.engines.llamacpp.job import Weights
from qwenbox.engines.llamacpp.pieces import PieceReader
from qwenbox.engines.llamacpp.wire import Chunk, Probability, Progress
from qwenbox.engines.prompt import PromptTemplate
from qwenbox.engines.tokenizer import Tokenizer
from qwenbox.terms.events import FinishReason
from support.tiny_gguf import TEMPLATE, TINY, write_gguf


@pytest.fixture(name="weights")
def _weights(tmp_path: Path) -> Weights:
    tiny = gguf.read(write_gguf(tmp_path / "tiny.gguf", TINY))
    return Weights(tiny, Tokenizer(tiny), PromptTemplate(TEMPLATE))


def _hear(reader: PieceReader, chunks: Sequence[Chunk]) -> tuple[str, int, FinishReason | None]:
    """All text, all tokens of pieces, and how it ended."""
    text, tokens, finish = "", 0, None
    for chunk in chunks:
        heard = reader.hear(chunk)
        text += "".join(piece.text for piece in heard.pieces)
        tokens += sum(piece.tokens for piece in heard.pieces)
        finish = finish or heard.finish
    return text, tokens, finish


def _said(tokenizer: Tokenizer, *texts: str) -> list[Chunk]:
    """Chunks of one token each, as the server sends them."""
    ids = [tokenizer.encode(text) for text in texts]
    assert all(len(number) == 1 for number in ids)
    return [
        Chunk(content=text, tokens=tuple(number), tokens_predicted=place)
        for place, (text, number) in enumerate(zip(texts, ids, strict=True), 1)
    ]


def test_reader_counts_the_end_token_when_the_answer_ends_by_itself(weights: Weights) -> None:
    end = Chunk(tokens=(weights.tokenizer.control["<|im_end|>"],), tokens_predicted=3)
    chunks = [*_said(weights.tokenizer, "hello", " world"), end, Chunk(stop=True, stop_type="eos", tokens_predicted=3)]

    assert ("hello world", 3, FinishReason.STOP) == _hear(PieceReader(weights.tokenizer), chunks)


def test_reader_gives_back_what_looked_like_a_stop_text_when_the_limit_came_first(weights: Weights) -> None:
    """The server holds " world" back (a stop text might begin there) and forgets it at its limit."""
    hello, world = _said(weights.tokenizer, "hello", " world")
    chunks = [hello, msgspec.structs.replace(world, content=""), Chunk(stop=True, stop_type="limit", tokens_predicted=2)]

    assert ("hello world", 2, FinishReason.LENGTH) == _hear(PieceReader(weights.tokenizer), chunks)


def test_reader_leaves_the_stop_text_out_when_the_server_found_it(weights: Weights) -> None:
    hello, world = _said(weights.tokenizer, "hello", " world")
    chunks = [hello, msgspec.structs.replace(world, content=""), Chunk(stop=True, stop_type="word", tokens_predicted=2)]

    assert ("hello", 2, FinishReason.STOP) == _hear(PieceReader(weights.tokenizer), chunks)


def test_reader_leaves_half_a_character_out_when_the_limit_cuts_it(weights: Weights) -> None:
    parrot = weights.tokenizer.encode("🦜")
    chunks = [Chunk(tokens_predicted=1, tokens=(parrot[0],)), Chunk(stop=True, stop_type="limit", tokens_predicted=3)]

    assert ("", 3, FinishReason.LENGTH) == _hear(PieceReader(weights.tokenizer), chunks)


def test_reader_counts_all_tokens_of_a_character_when_only_the_last_is_named(weights: Weights) -> None:
    parrot = weights.tokenizer.encode("🦜")
    chunks = [Chunk(content="🦜", tokens=(parrot[-1],), tokens_predicted=4), Chunk(stop=True, stop_type="eos", tokens_predicted=4)]

    assert ("🦜", 4, FinishReason.STOP) == _hear(PieceReader(weights.tokenizer), chunks)


@pytest.mark.parametrize(
    ("texts", "stop", "shown", "finish"),
    [
        (("hello", " world", "user"), (" world",), "hello", FinishReason.STOP),
        (("hello", " world", "user", "hello"), (" world", "user"), "hello", FinishReason.STOP),
        (("hello", " world", "hello"), (" world", "user"), "hello worldhello", FinishReason.LENGTH),
        ((" world", " world", "user"), (" world", "user"), " world", FinishReason.STOP),
        (("hello", " world"), (" world", "user"), "hello world", FinishReason.LENGTH),
        (("hello",), ("hello",), "", FinishReason.STOP),
    ],
    ids=["one token", "sequence", "false alarm", "repeated beginning", "limit inside", "first token"],
)
def test_reader_ends_before_a_stop_sequence_of_ids(
    weights: Weights, texts: tuple[str, ...], stop: tuple[str, ...], shown: str, finish: FinishReason
) -> None:
    sequence = tuple(weights.tokenizer.encode(text)[0] for text in stop)
    chunks = [*_said(weights.tokenizer, *texts), Chunk(stop=True, stop_type="limit", tokens_predicted=len(texts))]

    text, _, how = _hear(PieceReader(weights.tokenizer, [sequence]), chunks)

    assert (shown, finish) == (text, how)


def test_reader_holds_text_back_only_while_it_may_begin_a_stop_sequence(weights: Weights) -> None:
    sequence = tuple(weights.tokenizer.encode(text)[0] for text in (" world", "user"))
    reader = PieceReader(weights.tokenizer, [sequence])

    shown = ["".join(piece.text for piece in reader.hear(chunk).pieces) for chunk in _said(weights.tokenizer, "hello", " world", "hello")]

    assert ["hello", "", " worldhello"] == shown


def test_reader_finds_a_stop_sequence_inside_a_character_of_several_tokens(weights: Weights) -> None:
    parrot = tuple(weights.tokenizer.encode("🦜"))
    hello = _said(weights.tokenizer, "hello")[0]
    chunks = [hello, Chunk(content="🦜", tokens=(parrot[-1],), tokens_predicted=5)]

    assert ("hello", 5, FinishReason.STOP) == _hear(PieceReader(weights.tokenizer, [parrot]), chunks)


def test_reader_reports_logprobs_with_the_bytes_of_each_token(weights: Weights) -> None:
    number = weights.tokenizer.encode("hello")[0]
    rival = weights.tokenizer.encode("user")[0]
    entry = Probability(id=number, logprob=-0.5, top_logprobs=(Probability(id=number, logprob=-0.5), Probability(id=rival, logprob=-2.0)))
    chunk = Chunk(content="hello", tokens=(number,), tokens_predicted=1, completion_probabilities=(entry,))

    with_rivals = PieceReader(weights.tokenizer, top_logprobs=2).hear(chunk).pieces[0].logprobs[0]
    without = PieceReader(weights.tokenizer, top_logprobs=0).hear(chunk).pieces[0].logprobs[0]

    assert (b"hello", -0.5, ["hello", "user"]) == (with_rivals.raw, with_rivals.logprob, [one.text for one in with_rivals.rivals])
    assert () == without.rivals
    assert () == PieceReader(weights.tokenizer).hear(chunk).pieces[0].logprobs


def test_reader_passes_over_progress(weights: Weights) -> None:
    chunk = Chunk(tokens=(0,), prompt_progress=Progress(total=5, cache=0, processed=5))

    assert ("", 0, None) == _hear(PieceReader(weights.tokenizer), [chunk])
