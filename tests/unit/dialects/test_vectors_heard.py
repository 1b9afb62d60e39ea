"""What other servers answer when they are asked for vectors and orders: heard as it is meant, or refused, and nothing else."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from qwenbox.dialects.dashscope import embeddings as native_vectors
from qwenbox.dialects.dashscope import rerank as native_orders
from qwenbox.dialects.openai import embeddings, rerank
from qwenbox.terms.embedding import EmbeddingRequest, OutputType, TextType
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Completed, Embedded, Ranked, SparseWeight, Started
from qwenbox.terms.rerank import RerankRequest
from qwenbox.terms.usage import Usage

TWO = EmbeddingRequest(model="m", texts=("a", "b"))
THREE = RerankRequest(model="m", query="q", documents=("a", "b", "c"), top_n=2)
Hear = Callable[[bytes], list[ChatEvent]]
HEARS: dict[str, Hear] = {
    "compatible vectors": lambda body: embeddings.hear(body, TWO),
    "native vectors": lambda body: native_vectors.hear(body, TWO),
    "compatible orders": lambda body: rerank.hear(body, THREE),
    "native orders": lambda body: native_orders.hear(body, THREE),
}
WORDS = ["data", "index", "embedding", "usage", "prompt_tokens", "output", "embeddings", "text_index", "results", "relevance_score", "x"]
JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=8),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.sampled_from(WORDS), inner, max_size=5),
    max_leaves=24,
)
COUNTED = Usage(input_tokens=0, output_tokens=0, is_counted=True)


def usage(tokens: int) -> Completed:
    return Completed(usage=Usage(input_tokens=tokens, output_tokens=0))


def test_vectors_are_heard_in_order_as_numbers_and_as_base64() -> None:
    body = {"data": [{"index": 1, "embedding": "AACAPwAAAMA="}, {"index": 0, "embedding": [0.5, 1]}], "usage": {"prompt_tokens": 7}}

    heard = embeddings.hear(json.dumps(body).encode(), TWO)
    assert [Started(input_tokens=7), Embedded(index=0, vector=(0.5, 1.0)), Embedded(index=1, vector=(1.0, -2.0)), usage(7)] == heard


def test_native_vectors_are_heard_with_their_sparse_ones() -> None:
    words = [{"index": 7149, "value": 0.829, "token": "风"}]
    body = {
        "output": {"embeddings": [{"text_index": 1, "sparse_embedding": words}, {"index": 0, "embedding": [1]}]},
        "usage": {"input_tokens": 3},
    }

    heard = native_vectors.hear(json.dumps(body).encode(), TWO)
    sparse = Embedded(index=1, sparse=(SparseWeight(index=7149, value=0.829, token="风"),))
    assert [Started(input_tokens=3), Embedded(index=0, vector=(1.0,)), sparse, usage(3)] == heard


def test_usage_that_is_not_told_is_to_be_counted() -> None:
    body = {"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [2]}]}

    assert Completed(usage=COUNTED) == embeddings.hear(json.dumps(body).encode(), TWO)[-1]


@pytest.mark.parametrize(("scores", "best"), [([0.1, 0.9, 0.5], [(1, 0.9), (2, 0.5)]), ([-5.0, 5.0, 0.0], [(1, 0.9933), (2, 0.5)])])
def test_orders_are_heard_best_first_and_as_probabilities(scores: list[float], best: list[tuple[int, float]]) -> None:
    """llama.cpp tells what the weights say before it is made a probability."""
    results = [{"index": index, "relevance_score": score} for index, score in enumerate(scores)]
    heard = rerank.hear(json.dumps({"results": results, "usage": {"total_tokens": 4}}).encode(), THREE)

    told = [(event.index, event.score) for event in heard if isinstance(event, Ranked)]
    assert [index for index, _ in best] == [index for index, _ in told]
    assert [score for _, score in best] == pytest.approx([score for _, score in told], abs=1e-3)


@pytest.mark.parametrize(
    "body",
    [
        {"data": [{"index": 0, "embedding": [1]}]},
        {"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]},
        {"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": "AAA"}]},
        {"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": "AAAA"}]},
        {"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1e300]}]},
        {"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": "AACAfw=="}]},
    ],
)
def test_what_is_no_vector_for_each_text_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as refused:
        embeddings.hear(json.dumps(body).encode(), TWO)
    assert ErrorKind.ENGINE_FAILED is refused.value.kind


@pytest.mark.parametrize("hear", HEARS.values(), ids=HEARS)
@given(body=JSON | some.binary(max_size=40))
def test_answers_that_make_no_sense_raise_nothing_but_api_error(hear: Hear, body: Any) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        events = hear(data)
    except ApiError as error:
        assert ErrorKind.ENGINE_FAILED is error.kind
    else:
        assert isinstance(events[0], Started)
        assert isinstance(events[-1], Completed)


def test_requests_say_only_what_their_caller_said() -> None:
    filled = EmbeddingRequest(model="m", texts=("a",), dimensions=1024, defaults={"dimensions": 1024})
    asked = EmbeddingRequest(model="m", texts=("a",), dimensions=64, text_type=TextType.QUERY, output_type=OutputType.BOTH, instruct="i")

    assert {"model": "up", "input": ["a"], "encoding_format": "float"} == msgspec.json.decode(embeddings.speak(filled, "up"))
    assert {"text_type": "document"} == msgspec.json.decode(native_vectors.speak(filled, "up"))["parameters"]
    said = {"text_type": "query", "output_type": "dense&sparse", "dimension": 64, "instruct": "i"}
    assert said == msgspec.json.decode(native_vectors.speak(asked, "up"))["parameters"]
    for refused in (msgspec.structs.replace(asked, instruct=None), msgspec.structs.replace(asked, output_type=OutputType.DENSE)):
        with pytest.raises(ApiError):
            embeddings.speak(refused, "up")
