"""Vectors and orders of somebody else's server: a second box behind the first, in both of its dialects."""

from collections.abc import Iterator
from typing import Any

import pytest

import boxes
import wire
from boxes import Box

NATIVE = "/api/v1/services/embeddings/text-embedding/text-embedding"
RERANK = "/api/v1/services/rerank/text-rerank/text-rerank"
TEXTS = ["风急天高猿啸哀", "hello world", "x"]
CARD = '{ context_tokens = 8192, capabilities = ["embedding"], vectors = { most_texts = 10, dimensions = [1024, 64] } }'
RANKS = '{ context_tokens = 8192, capabilities = ["rerank"], vectors = { most_texts = 10 } }'
MODEL = """
[[model]]
name = "text-embedding-v4"
deployments = ["up"]
card = {}
[[model]]
name = "gte-rerank-v2"
deployments = ["up"]
card = {}
"""


@pytest.fixture(scope="module", params=["cloud", "openai_server"])
def through(request: pytest.FixtureRequest, box: Box, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    address = box.base_url if request.param == "cloud" else box.compatible
    toml = f'[engine.up]\nkind = "{request.param}"\naddress = "{address}"\nkey_env = "UP_KEY"\n' + MODEL.format(CARD, RANKS)
    toml += "[redaction.up]\n"
    with boxes.serve(tmp_path_factory.mktemp(request.param), toml=toml, environment={"UP_KEY": boxes.KEY}) as running:
        yield running


def asked(texts: list[str], **parameters: Any) -> dict[str, Any]:
    return {"model": "text-embedding-v4", "input": {"texts": texts}, "parameters": parameters}


def bare(heard: wire.Heard) -> dict[str, Any]:
    return {name: value for name, value in heard.json.items() if name != "request_id"}


@pytest.mark.parametrize("parameters", [{}, {"dimension": 64}, {"text_type": "query"}])
def test_vectors_come_through_number_by_number(box: Box, through: Box, parameters: dict[str, Any]):
    direct, far = (wire.post(each, NATIVE, asked(TEXTS, **parameters)) for each in (box, through))

    assert 200 == far.status, far.body
    assert bare(direct) == bare(far)


def test_orders_come_through(box: Box, through: Box):
    body = {
        "model": "gte-rerank-v2",
        "input": {"query": "hello 世界", "documents": ["hello", "你好 世界", "x"]},
        "parameters": {"top_n": 2, "return_documents": True},
    }
    direct, far = (wire.post(each, RERANK, body) for each in (box, through))

    assert 200 == far.status, far.body
    assert bare(direct) == bare(far)


def test_sparse_vectors_come_through_where_the_wire_has_them(box: Box, through: Box):
    direct, far = (wire.post(each, NATIVE, asked(TEXTS, output_type="dense&sparse")) for each in (box, through))

    if "cloud" in str(through.home):
        assert bare(direct) == bare(far)
    else:
        assert (400, "InvalidParameter") == (far.status, far.json["code"])


def test_what_is_personal_does_not_leave(box: Box, through: Box):
    secret, plain = (wire.post(box, NATIVE, asked([text])).json for text in ("call 13812345678 now", "call <PHONE_1> now"))
    far = wire.post(through, NATIVE, asked(["call 13812345678 now"])).json

    assert secret["output"] != far["output"]
    assert plain["output"] == far["output"]


def test_the_upstreams_refusal_is_the_callers(through: Box):
    """The second box has a limit that the first one's card does not know."""
    heard = wire.post(through, NATIVE, asked(["字" * 9_000]))

    assert 400 == heard.status
    assert "input" in heard.json["message"]
