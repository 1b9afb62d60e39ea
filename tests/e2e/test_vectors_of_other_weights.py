"""Weights of the user's own, of the service's family: vectors by the last token, and weights made to order documents (tiny, random)."""

import math
from collections.abc import Iterator

import pytest

import boxes
import wire
from boxes import Box
from support import tiny_judge

EMBED = "/compatible-mode/v1/embeddings"
RERANK = "/v1/rerank"
TOML = """
[weights."vectors"]
title = "Tiny vectors"
path = "{vectors}"
[weights."judge"]
title = "Tiny judge"
path = "{judge}"
[engine.vectors]
kind = "llamacpp"
weights = "vectors"
serves = "embeddings"
slots = 2
kv_tokens = 2048
context_tokens = 512
query_form = "{{instruct}}: {{text}}"
[engine.judge]
kind = "llamacpp"
weights = "judge"
serves = "rerank"
slots = 2
kv_tokens = 2048
context_tokens = 512
[[model]]
name = "own-vectors"
deployments = ["vectors"]
card = {{ context_tokens = 2048, capabilities = ["embedding"], vectors = {{ most_texts = 10 }} }}
[[model]]
name = "own-judge"
deployments = ["judge"]
card = {{ context_tokens = 2048, capabilities = ["rerank"], vectors = {{ most_texts = 40 }} }}
"""


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def own_box(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp("tiny")
    vectors = tiny_judge.write(folder / "vectors.gguf", tiny_judge.LAST)
    judge = tiny_judge.write(folder / "judge.gguf", tiny_judge.RANK)
    toml = TOML.format(vectors=vectors, judge=judge) + f"[server]\nworkers = {request.param}\n[limits]\napproximate = true\n"
    with boxes.serve(tmp_path_factory.mktemp("own"), toml=toml) as running:
        yield running


def embedded(box: Box, texts: list[str]) -> wire.Heard:
    return wire.post(box, EMBED, {"model": "own-vectors", "input": texts}, timeout_s=120.0)


def test_vectors_have_the_weights_dimensions_and_follow_their_texts(own_box: Box):
    heard = embedded(own_box, ["hello world", "user", "hello world"])

    assert 200 == heard.status, heard.body
    one, other, same = (item["embedding"] for item in heard.json["data"])
    assert tiny_judge.WIDTH == len(one)
    assert 1.0 == pytest.approx(math.hypot(*one), abs=1e-4)
    assert one == pytest.approx(same, abs=1e-4)
    assert one != pytest.approx(other, abs=1e-2)
    # hello, world; us, e, r; hello, world
    assert 2 + 3 + 2 == heard.json["usage"]["prompt_tokens"]


def test_a_text_they_cannot_read_at_once_is_refused(own_box: Box):
    fine, long = (embedded(own_box, ["hello" * count]) for count in (500, 600))

    assert (200, 400) == (fine.status, long.status), fine.body
    assert "Range of input length should be [1, 511]" == long.json["error"]["message"]


def test_an_instruct_changes_the_vector_of_a_query(own_box: Box):
    path = "/api/v1/services/embeddings/text-embedding/text-embedding"
    body = {"model": "own-vectors", "input": {"texts": ["user"]}}
    bare, asked, told = (
        wire.post(own_box, path, {**body, "parameters": parameters}).json["output"]["embeddings"][0]["embedding"]
        for parameters in ({}, {"text_type": "query"}, {"text_type": "query", "instruct": "hello world"})
    )

    assert bare != pytest.approx(asked, abs=1e-3)
    assert asked != pytest.approx(told, abs=1e-3)


def test_weights_made_for_it_order_documents(own_box: Box):
    documents = ["hello", "user user", "world", "hello world"]
    heard = wire.post(own_box, RERANK, {"model": "own-judge", "query": "hello", "documents": documents, "top_n": 3}, timeout_s=120.0)

    assert 200 == heard.status, heard.body
    scores = [row["relevance_score"] for row in heard.json["results"]]
    assert 3 == len(scores) == len(set(scores))
    assert sorted(scores, reverse=True) == scores
    assert all(0 <= score <= 1 for score in scores)
    # The question once, then each document: hello; us, e, r, space, us, e, r; w, or, ld; hello, world.
    assert 1 + 1 + 7 + 3 + 2 == heard.json["usage"]["total_tokens"]


def test_weights_made_to_order_make_no_vectors(own_box: Box):
    heard = wire.post(own_box, EMBED, {"model": "own-judge", "input": "hello"})

    assert (404, "model_not_supported") == (heard.status, heard.json["error"]["code"])
