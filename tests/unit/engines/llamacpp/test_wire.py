from collections.abc import AsyncIterator

import msgspec
import pytest

from qwenbox.engines.llamacpp import wire
from qwenbox.engines.llamacpp.wire import Chunk
from qwenbox.terms.chat import Sampling
from qwenbox.terms.errors import ApiError, ErrorKind


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
