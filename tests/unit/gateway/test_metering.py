"""What is billed when the model's server tells no usage: the count of a vocabulary, else an estimate, and never more than was reserved."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from sqlalchemy import select

from peers import END, HEAD, Peer, Script, frame, peer
from qwenbox.engines import gguf
from qwenbox.engines.openai_server import OpenAiServer, OpenAiServerConfig
from qwenbox.engines.tokenizer import Tokenizer, Vocabularies
from qwenbox.engines.vocabulary import Vocabulary
from qwenbox.gateway.journal.tables import USAGE
from qwenbox.gateway.limits import Tier
from qwenbox.gateway.router import Answer
from qwenbox.remote import Remote
from qwenbox.terms.call import Call
from qwenbox.terms.caller import Caller
from qwenbox.terms.chat import ChatRequest, Message, Role, TextPart
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Completed, TextDelta
from support.gateways import Office, open_gateway
from support.tiny_gguf import TINY, write_gguf

pytestmark = pytest.mark.anyio

Choice: TypeAlias = dict[str, Any]

SAID = "hello world"
QUESTION = "hello world user <|im_end|>"
USAGE_TOLD = {"prompt_tokens": 9, "completion_tokens": 2}


def piece(at: int = 0, **delta: object) -> Choice:
    return {"index": at, "delta": delta}


# Cut where no token ends: deltas, words and characters all say something else than the vocabulary.
PIECES = (piece(content="hel"), piece(content="lo wor"), piece(content="ld"))


def upstream(*pieces: Choice, reason: str = "stop", usage: dict[str, int] | None = None) -> Script:
    """A model's server that says these, and no usage unless told."""
    ends: list[Choice] = [{"index": at, "delta": {}, "finish_reason": reason} for at in sorted({piece["index"] for piece in pieces})]
    chunks: list[dict[str, object]] = [{"choices": [choice]} for choice in (*pieces, *ends)]
    if usage is not None:
        chunks.append({"choices": [], "usage": usage})

    async def play(_: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for chunk in chunks:
            writer.write(frame(b"data: " + json.dumps(chunk).encode() + b"\n\n"))
        writer.write(frame(b"data: [DONE]\n\n") + END)

    return play


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf", TINY)


@pytest.fixture(name="tokens")
def _tokens(file: Path) -> Callable[[str], int]:
    tokenizer = Tokenizer(gguf.read(file))
    return lambda text: len(tokenizer.encode_plain(text))


@asynccontextmanager
async def opened(
    folder: Path, script: Script, vocabulary: Vocabulary | None, *, own: str = "", tpm: int | None = None
) -> AsyncGenerator[Office]:
    async with peer(script) as it, Remote() as remote:
        engine = OpenAiServer(OpenAiServerConfig(address=f"{it.url}/v1", tokenizer=own), remote, vocabulary=vocabulary)
        async with open_gateway(folder, engine, tier=Tier(tpm=tpm)) as office:
            yield office


def vocabulary_of(*files: Path) -> Vocabulary:
    return Vocabulary(lambda: files, Vocabularies())


def call(text: str = QUESTION, **options: Any) -> Call[ChatRequest]:
    request = ChatRequest(model="m", messages=(Message(role=Role.USER, content=(TextPart(text=text),)),), **options)
    return Call(
        id="call-1", caller=Caller(account_id="acc", key_id="key"), request=request, dialect="openai", arrived_at=0.0, is_incremental=True
    )


async def answer(opening: AbstractAsyncContextManager[Answer], deltas: int | None = None) -> list[ChatEvent]:
    """All events, or up to so many deltas, after which the client leaves."""
    heard: list[ChatEvent] = []
    async with opening as answering:
        async for event in answering.events:
            heard.append(event)
            if deltas is not None and sum(isinstance(one, TextDelta) for one in heard) == deltas:
                break
    return heard


async def row_of(office: Office, asked: Call[ChatRequest], deltas: int | None = None) -> dict[str, Any]:
    """What is written of the call."""
    await answer(office.gateway.chat(asked), deltas)
    (row,) = await office.database.read(select(USAGE))
    return row


async def test_an_answer_without_usage_is_counted_by_the_vocabulary(tmp_path: Path, file: Path, tokens: Callable[[str], int]) -> None:
    async with opened(tmp_path, upstream(*PIECES), vocabulary_of(file)) as office:
        events = await answer(office.gateway.chat(call()))
        (row,) = await office.database.read(select(USAGE))
    assert (tokens(QUESTION) + 8, tokens(SAID)) == (row["input_tokens"], row["output_tokens"])
    assert (True, {"counted_by": "vocabulary"}) == (bool(row["is_counted"]), json.loads(str(row["notes"])))
    assert isinstance(events[-1], Completed)
    assert (row["input_tokens"], row["output_tokens"]) == (events[-1].usage.input_tokens, events[-1].usage.output_tokens)


async def test_an_answer_without_usage_is_estimated_when_there_is_no_vocabulary(tmp_path: Path) -> None:
    async with opened(tmp_path, upstream(*PIECES), vocabulary_of()) as office:
        row = await row_of(office, call())
    assert (9 + 8, 4) == (row["input_tokens"], row["output_tokens"])
    assert (True, {"counted_by": "estimate"}) == (bool(row["is_counted"]), json.loads(str(row["notes"])))


async def test_nothing_is_counted_when_usage_is_told_and_nobody_limits_the_call(tmp_path: Path) -> None:
    def nowhere() -> tuple[Path, ...]:
        raise AssertionError("a vocabulary was looked for")

    async with opened(tmp_path, upstream(*PIECES, usage=USAGE_TOLD), Vocabulary(nowhere, Vocabularies()), own="tiny") as office:
        row = await row_of(office, call())
    assert (9, 2, False, "{}") == (row["input_tokens"], row["output_tokens"], bool(row["is_counted"]), row["notes"])


async def test_a_client_that_leaves_pays_the_tokens_it_has_received(tmp_path: Path, file: Path, tokens: Callable[[str], int]) -> None:
    async with opened(tmp_path, upstream(*PIECES), vocabulary_of(file)) as office:
        row = await row_of(office, call(), deltas=2)
    assert ("hung_up", tokens("hello wor")) == (row["outcome"], row["output_tokens"])
    assert row["cost_micros"] > 0


async def test_choices_thoughts_and_calls_are_counted_apart(tmp_path: Path, file: Path, tokens: Callable[[str], int]) -> None:
    function = {"index": 0, "id": "1", "function": {"name": "user", "arguments": "{}"}}
    cut = [piece(at, **{kind: half}) for half in ("hel", "lo") for kind in ("reasoning_content", "content") for at in (0, 1)]
    pieces = (*cut, piece(tool_calls=[function]))
    async with opened(tmp_path, upstream(*pieces), vocabulary_of(file)) as office:
        row = await row_of(office, call(n=2))
    assert 2 * tokens("hello") == row["reasoning_tokens"]
    assert 4 * tokens("hello") + tokens("user{}") == row["output_tokens"]


async def test_marks_in_a_raw_prompt_are_tokens(tmp_path: Path, file: Path) -> None:
    request = CompletionRequest(model="m", prompt="<|fim_prefix|>hello<|fim_suffix|>")
    asked = Call(id="call-1", caller=call().caller, request=request, dialect="openai", arrived_at=0.0)
    async with opened(tmp_path, upstream({"index": 0, "text": "hello"}), vocabulary_of(file)) as office:
        await answer(office.gateway.complete(asked))
        (row,) = await office.database.read(select(USAGE))
    assert (3, 1) == (row["input_tokens"], row["output_tokens"])


async def test_a_count_is_never_above_what_was_reserved(tmp_path: Path, file: Path) -> None:
    """The server's own tokens may be longer than ours: it was told to stop after two of its own."""
    async with opened(tmp_path, upstream(piece(content="hello world hello world"), reason="length"), vocabulary_of(file)) as office:
        row = await row_of(office, call(max_output_tokens=2))
    assert 2 == row["output_tokens"]


@pytest.mark.parametrize("own", ["tiny", ""])
async def test_a_long_prompt_fits_the_window_by_its_tokens_when_the_vocabulary_is_the_servers_own(
    tmp_path: Path, file: Path, own: str
) -> None:
    """By its bytes it is 12,000 tokens. Another model's vocabulary is no bound."""
    async with opened(tmp_path, upstream(*PIECES, usage=USAGE_TOLD), vocabulary_of(file), own=own, tpm=5_000) as office:
        asked = call("hello world " * 1_000, max_output_tokens=100)
        if not own:
            with pytest.raises(ApiError) as refused:
                await row_of(office, asked)
            assert ErrorKind.INVALID_REQUEST is refused.value.kind
            return
        row = await row_of(office, asked)
        assert (9, "{}") == (row["input_tokens"], row["notes"])


async def test_bytes_are_reserved_when_the_own_vocabulary_is_not_here(tmp_path: Path) -> None:
    async with opened(tmp_path, upstream(*PIECES), vocabulary_of(), own="tiny", tpm=5_000) as office:
        with pytest.raises(ApiError) as refused:
            await row_of(office, call("hello world " * 1_000, max_output_tokens=100))
    assert ErrorKind.INVALID_REQUEST is refused.value.kind


async def test_a_delta_is_a_token_at_least_when_it_is_estimated(tmp_path: Path) -> None:
    async with opened(tmp_path, upstream(*[piece(content="h")] * 6), None) as office:
        row = await row_of(office, call())
    assert 6 == row["output_tokens"]
