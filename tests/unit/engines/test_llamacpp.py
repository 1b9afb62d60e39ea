from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest

from qwenbox.engines import gguf
from qwenbox.engines.llamacpp import wire
from qwenbox.engines.llamacpp.config import LlamaCppConfig
from qwenbox.engines.llamacpp.job import Weights, job, prompt_ids
from qwenbox.engines.llamacpp.pieces import PieceReader
from qwenbox.engines.llamacpp.wire import Chunk, Probability, Progress
from qwenbox.engines.prompt import PromptTemplate
from qwenbox.engines.tokenizer import Tokenizer
from qwenbox.terms.caller import SeedPolicy
from qwenbox.terms.chat import ChatRequest, Message, Role, Sampling, TextPart
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import FinishReason
from support.tiny_gguf import TEMPLATE, TINY, write_gguf

CONFIG = LlamaCppConfig(weights="tiny", kv_tokens=4096, context_tokens=64)


@pytest.fixture(name="weights")
def _weights(tmp_path: Path) -> Weights:
    tiny = gguf.read(write_gguf(tmp_path / "tiny.gguf", TINY))
    return Weights(tiny, Tokenizer(tiny), PromptTemplate(TEMPLATE))


def _chat(sampling: Sampling | None = None, **extensions: bytes) -> ChatRequest:
    message = Message(role=Role.USER, content=(TextPart(text="hello"),))
    return ChatRequest(model="m", messages=(message,), sampling=sampling or Sampling(), extensions=extensions)


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


def test_sampling_names_every_sampler_so_that_no_default_of_the_server_counts() -> None:
    body = msgspec.json.decode(wire.encode(wire.sampling(Sampling(temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.1), 256)))

    assert {
        "temperature": 0.7,
        "top_p": 0.8,
        "top_k": 20,
        "repeat_penalty": 1.1,
        "repeat_last_n": 256,
        "min_p": 0.0,
        "typical_p": 1.0,
    }.items() <= body.items()
    assert ["penalties", "temperature", "top_k", "top_p"] == body["samplers"]
    assert {
        "mirostat": 0,
        "dry_multiplier": 0.0,
        "xtc_probability": 0.0,
        "dynatemp_range": 0.0,
        "return_progress": True,
    }.items() <= body.items()


def test_sampling_is_greedy_when_the_temperature_is_zero() -> None:
    completion = wire.sampling(Sampling(temperature=0.0, top_k=50), 256)

    assert (1, ("penalties", "top_k")) == (completion.top_k, completion.samplers)


@pytest.mark.parametrize(
    ("wish", "index", "sent"), [(None, 3, 0xFFFFFFFF), (0, 0, 0), (7, 2, 9), (0xFFFFFFFF, 0, 0), (2**63 - 1, 0, (2**63 - 1) % 0xFFFFFFFF)]
)
def test_seed_fits_the_server_and_never_means_random_unless_asked(wish: int | None, index: int, sent: int) -> None:
    assert sent == wire.seed(wish, index)


@pytest.mark.anyio
@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_chunks_are_the_same_however_the_bytes_are_cut(size: int) -> None:
    stream = 'data: {"content":"你","tokens":[1]}\n\ndata: {"content":"","stop":true,"stop_type":"eos"}\n\n'.encode()

    async def body() -> AsyncIterator[bytes]:
        for start in range(0, len(stream), size):
            yield stream[start : start + size]

    assert [Chunk(content="你", tokens=(1,)), Chunk(stop=True, stop_type="eos")] == [chunk async for chunk in wire.chunks(body())]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "line", [b'data: {"error":{"message":"boom at /src/x.cpp:1","code":500}}\n', b'error: {"error":{"message":"x"}}\n', b"data: {broken\n"]
)
async def test_chunks_raise_without_the_servers_words_when_the_stream_holds_an_error(line: bytes) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield line

    with pytest.raises(ApiError) as raised:
        [chunk async for chunk in wire.chunks(body())]

    assert ErrorKind.ENGINE_FAILED is raised.value.kind
    assert "cpp" not in raised.value.message


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (
            b'{"error":{"type":"exceed_context_size_error","message":"request (9000 tokens) exceeds","code":400}}',
            ErrorKind.CONTEXT_TOO_LONG,
        ),
        (
            b'{"error":{"type":"invalid_request_error","message":"Failed to initialize samplers: failed to parse grammar"}}',
            ErrorKind.INVALID_REQUEST,
        ),
        (b'{"error":{"type":"unavailable_error","message":"Loading model"}}', ErrorKind.OVERLOADED),
        (b'{"error":{"type":"invalid_request_error","message":"[json.exception.type_error.302]"}}', ErrorKind.ENGINE_FAILED),
        (b"<html>", ErrorKind.ENGINE_FAILED),
    ],
)
def test_refusal_is_told_in_our_own_words(body: bytes, kind: ErrorKind) -> None:
    told = wire.refusal(400, body)

    assert kind is told.kind
    assert "json.exception" not in told.message


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


@pytest.mark.parametrize(
    ("seed", "extensions", "policy", "is_exact"),
    [
        (None, {}, SeedPolicy.EXACT, False),
        (7, {}, SeedPolicy.EXACT, True),
        (0, {}, SeedPolicy.EXACT, True),
        (7, {"qwenbox.seeds": b"pass"}, SeedPolicy.EXACT, False),
        (7, {}, SeedPolicy.PASS, False),
    ],
)
def test_job_keeps_a_seed_exactly_only_where_it_was_promised(
    weights: Weights, seed: int | None, extensions: dict[str, bytes], policy: SeedPolicy, is_exact: bool
) -> None:
    config = msgspec.structs.replace(CONFIG, seeds=policy)

    made = job(weights, [1, 2], _chat(Sampling(seed=seed), **extensions), config)

    assert (is_exact, not is_exact) == (made.is_exact, made.completion.cache_prompt)


@pytest.mark.parametrize("length", [0, 64, 65, 1000])
def test_job_names_the_range_when_the_prompt_leaves_no_room(weights: Weights, length: int) -> None:
    with pytest.raises(ApiError) as raised:
        job(weights, [1] * length, _chat(), CONFIG)

    assert (ErrorKind.CONTEXT_TOO_LONG, "Range of input length should be [1, 63]") == (raised.value.kind, raised.value.message)


@pytest.mark.parametrize(("length", "wish", "sent"), [(63, 50, 1), (10, 50, 50), (10, 60, 54), (10, None, 54)])
def test_job_asks_for_no_more_tokens_than_the_context_holds(weights: Weights, length: int, wish: int | None, sent: int) -> None:
    request = msgspec.structs.replace(_chat(), max_output_tokens=wish)

    assert sent == job(weights, [1] * length, request, CONFIG).completion.n_predict


@pytest.mark.anyio
async def test_raw_prompt_means_its_control_tokens(weights: Weights) -> None:
    ids = await prompt_ids(weights, CompletionRequest(model="m", prompt="<|fim_prefix|>hello"))

    assert weights.tokenizer.control["<|fim_prefix|>"] == ids[0]


@pytest.mark.anyio
async def test_suffix_is_put_around_the_hole_as_the_weights_learned_it(weights: Weights) -> None:
    ids = await prompt_ids(weights, CompletionRequest(model="m", prompt="hello<|im_end|>", suffix=" world"))

    control = weights.tokenizer.control
    assert "<|fim_prefix|>hello<|im_end|><|fim_suffix|> world<|fim_middle|>" == weights.tokenizer.text(ids)
    assert control["<|im_end|>"] not in ids


@pytest.mark.anyio
async def test_suffix_is_refused_when_the_weights_have_no_tokens_for_it(tmp_path: Path) -> None:
    plain = TINY | {"tokenizer.ggml.token_type": [1] * len(TINY["tokenizer.ggml.tokens"])}
    tiny = gguf.read(write_gguf(tmp_path / "plain.gguf", plain))
    weights = Weights(tiny, Tokenizer(tiny), PromptTemplate(TEMPLATE))

    with pytest.raises(ApiError) as raised:
        await prompt_ids(weights, CompletionRequest(model="m", prompt="a", suffix="b"))

    assert ("suffix", ErrorKind.INVALID_REQUEST) == (raised.value.param, raised.value.kind)


@pytest.mark.parametrize("change", [{"slots": 0}, {"context_tokens": 8192}, {"context_tokens": 0}, {"batch_tokens": 0}, {"unheard_of": 1}])
def test_config_refuses_what_cannot_work(change: dict[str, int]) -> None:
    table = {"kind": "llamacpp", "weights": "tiny", "kv_tokens": 4096, "context_tokens": 64} | change

    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(table, LlamaCppConfig)
