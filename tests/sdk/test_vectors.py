"""Vectors and orders through the official SDKs, on the echo engine: forms, limits, refusals, and what they cost."""

import asyncio
import base64
import math
import struct
from typing import Any

import dashscope
import openai
import pytest
from dashscope.api_entities.aio_session import close_shared_aio_session
from dashscope.rerank.text_rerank import AioTextReRank
from dashscope.v2.errors import DashScopeError

import wire
from boxes import Box
from sdk import forms

TEXTS = ["风急天高猿啸哀", "渚清沙白鸟飞回", "无边落木萧萧下"]
QUERY = "什么是文本排序模型"
DOCUMENTS = ["量子计算是计算科学的一个前沿领域", "文本排序模型广泛用于搜索引擎", "预训练语言模型的发展"]
NATIVE = "/api/v1/services/embeddings/text-embedding/text-embedding"
RERANK = "/api/v1/services/rerank/text-rerank/text-rerank"
COMPATIBLE = "/compatible-mode/v1/embeddings"


@pytest.fixture(autouse=True)
def pointed(box: Box) -> None:
    forms.point(box)


def client(box: Box) -> openai.OpenAI:
    return openai.OpenAI(api_key=box.key, base_url=box.compatible, max_retries=0)


def likeness(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / math.hypot(*one) / math.hypot(*other)


def test_one_text_and_a_list_are_embedded_by_dashscope(box: Box):
    one = dashscope.TextEmbedding.call(model="text-embedding-v4", input=TEXTS[0])
    three = dashscope.TextEmbedding.call(model="text-embedding-v4", input=TEXTS)

    assert (one.status_code, one.code) == (200, "")
    assert [1024, 1024, 1024] == [len(item["embedding"]) for item in three.output["embeddings"]]
    assert [0, 1, 2] == [item["text_index"] for item in three.output["embeddings"]]
    assert one.output["embeddings"][0] == three.output["embeddings"][0]
    assert {"total_tokens": 21, "input_tokens": 21} == dict(three.usage)


def test_a_file_of_lines_is_embedded_by_dashscope(box: Box, tmp_path: Any):
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(TEXTS), encoding="utf-8")
    with lines.open(encoding="utf-8") as opened:
        response = dashscope.TextEmbedding.call(model="text-embedding-v3", input=opened)

    assert 3 == len(response.output["embeddings"])


@pytest.mark.parametrize("dimension", [64, 768, 2048])
def test_dimension_is_what_was_asked_for(box: Box, dimension: int):
    response = dashscope.TextEmbedding.call(model="text-embedding-v4", input=TEXTS[0], dimension=dimension, text_type="query")

    assert dimension == len(response.output["embeddings"][0]["embedding"])


def test_dimension_that_the_model_has_not_is_refused(box: Box):
    response = dashscope.TextEmbedding.call(model="text-embedding-v3", input=TEXTS[0], dimension=2048)

    assert (400, "InvalidParameter") == (response.status_code, response.code)
    assert "2048" in response.message


def test_sparse_vectors_come_where_they_are_asked_for(box: Box):
    sparse = dashscope.TextEmbedding.call(model="text-embedding-v4", input="风急天高", output_type="sparse").output["embeddings"][0]
    both = dashscope.TextEmbedding.call(model="text-embedding-v4", input="风急天高", output_type="dense&sparse").output["embeddings"][0]

    assert {"风", "急", "天", "高"} == {word["token"] for word in sparse["sparse_embedding"]}
    assert "embedding" not in sparse
    assert sparse["sparse_embedding"] == both["sparse_embedding"]
    assert 1024 == len(both["embedding"])


def test_v2_client_embeds_and_ranks(box: Box):
    with forms.v2_client(box) as v2:
        vectors = v2.embeddings.create(model="text-embedding-v4", input=TEXTS)
        ranked = v2.rerank.create(model="gte-rerank-v2", query=QUERY, documents=DOCUMENTS, top_n=2, return_documents=True)

    assert [0, 1, 2] == [item.index for item in vectors.embeddings]
    assert [1, DOCUMENTS[1]] == [ranked.results[0].index, ranked.results[0].document.text]
    assert 2 == len(ranked.results)


def test_v2_async_client_embeds_and_ranks(box: Box):
    async def ask() -> tuple[Any, Any]:
        async with forms.v2_async_client(box) as v2:
            vectors = await v2.embeddings.create(model="text-embedding-v4", input=TEXTS[0])
            return vectors, await v2.rerank.create(model="qwen3-rerank", query=QUERY, documents=DOCUMENTS)

    vectors, ranked = asyncio.run(ask())
    assert 1024 == len(vectors.embeddings[0].embedding)
    assert 1 == ranked.results[0].index


def test_v2_client_raises_when_there_are_too_many_texts(box: Box):
    with forms.v2_client(box) as v2, pytest.raises(DashScopeError) as refused:
        v2.embeddings.create(model="text-embedding-v4", input=["甲"] * 11)
    assert "batch size is invalid, it should not be larger than 10.: input.contents" in str(refused.value)


def test_openai_embeds_as_base64_and_as_numbers(box: Box):
    with client(box) as sdk:
        told = sdk.embeddings.create(model="text-embedding-v4", input=TEXTS)
        numbers = sdk.embeddings.create(model="text-embedding-v4", input=TEXTS, encoding_format="float")

    assert [0, 1, 2] == [item.index for item in told.data]
    assert ("text-embedding-v4", 21, 21) == (told.model, told.usage.prompt_tokens, told.usage.total_tokens)
    for packed, plain in zip(told.data, numbers.data, strict=True):
        assert [struct.unpack("<f", struct.pack("<f", number))[0] for number in plain.embedding] == list(packed.embedding)


def test_openai_async_client_embeds(box: Box):
    async def ask() -> Any:
        async with openai.AsyncOpenAI(api_key=box.key, base_url=box.compatible, max_retries=0) as sdk:
            return await sdk.embeddings.create(model="text-embedding-v4", input="你好", dimensions=64)

    assert 64 == len(asyncio.run(ask()).data[0].embedding)


def test_base64_is_little_endian_floats_of_32_bits(box: Box):
    heard = wire.post(box, COMPATIBLE, {"model": "text-embedding-v4", "input": "甲", "encoding_format": "base64", "dimensions": 64})
    data = base64.b64decode(heard.json["data"][0]["embedding"])
    plain = wire.post(box, COMPATIBLE, {"model": "text-embedding-v4", "input": "甲", "dimensions": 64}).json["data"][0]["embedding"]

    assert struct.unpack("<64f", data) == pytest.approx(plain, abs=1e-7)


def test_texts_with_common_words_are_nearer(box: Box):
    with client(box) as sdk:
        asked, near, far = (
            item.embedding for item in sdk.embeddings.create(model="text-embedding-v4", input=[QUERY, *DOCUMENTS[1::-1]]).data
        )

    assert likeness(asked, near) > likeness(asked, far)


def test_documents_come_best_first(box: Box):
    response = dashscope.TextReRank.call(model="gte-rerank-v2", query=QUERY, documents=DOCUMENTS)

    scores = [result.relevance_score for result in response.output.results]
    assert sorted(scores, reverse=True) == scores
    assert {0, 1, 2} == {result.index for result in response.output.results}
    assert response.output.results[0]["document"] is None
    assert response.usage["total_tokens"] == response.usage["input_tokens"] > 0


def test_top_n_and_documents_are_given_as_asked(box: Box):
    response = dashscope.TextReRank.call(model="qwen3-rerank", query=QUERY, documents=DOCUMENTS, top_n=1, return_documents=True)

    assert [(1, {"text": DOCUMENTS[1]})] == [(each["index"], each["document"]) for each in response.output.results]


def test_aio_reranks(box: Box):
    async def ask() -> Any:
        try:
            return await AioTextReRank.call(model="gte-rerank-v2", query=QUERY, documents=DOCUMENTS)
        finally:
            await close_shared_aio_session()

    assert 1 == asyncio.run(ask()).output.results[0].index


@pytest.mark.parametrize("path", ["/compatible-api/v1/reranks", "/compatible-mode/v1/reranks", "/v1/rerank"])
def test_flat_form_ranks(box: Box, path: str):
    asked = {
        "model": "qwen3-rerank",
        "query": QUERY,
        "documents": [{"text": text} for text in DOCUMENTS],
        "top_n": 9,
        "return_documents": True,
    }
    heard = wire.post(box, path, asked)

    assert 200 == heard.status
    assert [1, {"text": DOCUMENTS[1]}] == [heard.json["results"][0]["index"], heard.json["results"][0]["document"]]
    assert 3 == len(heard.json["results"])


def test_limits_are_those_of_the_card(box: Box):
    too_many = dashscope.TextEmbedding.call(model="text-embedding-v2", input=["甲"] * 26)
    just_right = dashscope.TextEmbedding.call(model="text-embedding-v2", input=["甲"] * 25)
    too_long = dashscope.TextEmbedding.call(model="text-embedding-v2", input="字" * 2049)
    longest = dashscope.TextEmbedding.call(model="text-embedding-v2", input="字" * 2048)

    assert (400, "Value error, batch size is invalid, it should not be larger than 25.: input.contents") == (
        too_many.status_code,
        too_many.message,
    )
    assert (400, "Range of input length should be [1, 2048]") == (too_long.status_code, too_long.message)
    assert (200, 200) == (just_right.status_code, longest.status_code)
    assert 1536 == len(longest.output["embeddings"][0]["embedding"])


def test_too_many_documents_are_refused(box: Box):
    response = dashscope.TextReRank.call(model="gte-rerank-v2", query=QUERY, documents=["甲"] * 501)

    assert 400 == response.status_code
    assert "500" in response.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"input": {"texts": ["甲"]}}, 'Required parameter "model" missing from request.'),
        ({"model": "text-embedding-v4"}, "Required input parameter missing from request."),
        ({"model": "text-embedding-v4", "input": {}}, "Value error, contents is neither str nor list of str.: input.contents"),
        ({"model": "text-embedding-v4", "input": {"texts": []}}, "Value error, contents is neither str nor list of str.: input.contents"),
        ({"model": "text-embedding-v4", "input": {"texts": [1]}}, "Value error, contents is neither str nor list of str.: input.contents"),
        ({"model": "text-embedding-v4", "input": {"texts": [""]}}, "Range of input length should be [1, 8192]"),
        ({"model": "text-embedding-v4", "input": {"texts": ["甲"]}, "parameters": {"text_type": "both"}}, "text_type should be in"),
        ({"model": "qwen-turbo", "input": {"texts": ["甲"]}}, "url error, please check url"),
    ],
)
def test_wrong_embeddings_are_refused_in_the_services_words(box: Box, body: dict[str, Any], message: str):
    heard = wire.post(box, NATIVE, body)

    assert 400 == heard.status
    assert heard.json["message"].startswith(message)


def test_models_asked_at_the_wrong_endpoint_are_refused_in_each_dialects_words(box: Box):
    chat = dashscope.Generation.call(model="text-embedding-v4", prompt="甲")
    with client(box) as sdk:
        with pytest.raises(openai.NotFoundError) as embedding:
            sdk.embeddings.create(model="qwen-turbo", input="甲")
        with pytest.raises(openai.NotFoundError) as chatting:
            sdk.chat.completions.create(model="gte-rerank-v2", messages=[{"role": "user", "content": "甲"}])

    assert (400, "InvalidParameter") == (chat.status_code, chat.code)
    assert chat.message.startswith("url error, please check url")
    assert "Unsupported model qwen-turbo for OpenAI compatibility mode." == embedding.value.body["message"]
    assert "model_not_supported" == chatting.value.code


def test_asynchronous_embedding_is_refused_as_the_service_does(box: Box):
    heard = wire.call(
        box, "POST", NATIVE, {"model": "text-embedding-v4", "input": {"texts": ["甲"]}}, headers={"X-DashScope-Async": "enable"}
    )

    assert (403, "AccessDenied") == (heard.status, heard.json["code"])


def test_an_embedding_is_billed_by_its_input_and_has_a_receipt(box: Box):
    heard = wire.post(box, COMPATIBLE, {"model": "text-embedding-v4", "input": ["风急天高猿啸哀", "hello world"]})
    bill = wire.call(box, "GET", f"/qwenbox/v1/receipts/{heard.headers['x-request-id']}").json

    tokens = heard.json["usage"]["prompt_tokens"]
    assert 7 + 2 == tokens
    assert ("text-embedding-v4", tokens, 0, "completed") == tuple(
        bill["call"][name] for name in ("model", "input_tokens", "output_tokens", "outcome")
    )
    # 0.5 CNY per million tokens, rounded up to a millionth.
    assert math.ceil(tokens * 500_000 / 1_000_000) == bill["call"]["cost_micros"]


def test_a_rerank_is_billed_by_its_input(box: Box):
    heard = wire.post(box, RERANK, {"model": "gte-rerank-v2", "input": {"query": "甲", "documents": ["乙丙", "丁"]}})
    bill = wire.call(box, "GET", f"/qwenbox/v1/receipts/{heard.headers['x-request-id']}").json

    assert 4 == heard.json["usage"]["total_tokens"] == bill["call"]["input_tokens"]
    assert 4 * 800_000 // 1_000_000 + 1 == bill["call"]["cost_micros"]


def test_tokens_are_cut_by_every_sdk(box: Box):
    old = dashscope.Tokenization.call(model="qwen-turbo", prompt="代码改变世界")
    messages = dashscope.Tokenization.call(model="qwen-turbo", messages=[{"role": "user", "content": "代码改变世界"}])
    with forms.v2_client(box) as v2:
        new = v2.tokenization.count(model="qwen-turbo", prompt="代码改变世界")

    assert (200, {"input_tokens": 6}) == (old.status_code, old.usage)
    assert old.output == messages.output
    assert "代码改变世界" == "".join(old.output["tokens"])
    assert (6, old.output["token_ids"]) == (new.input_tokens, new.token_ids)


def test_tokens_of_nothing_are_refused(box: Box):
    heard = wire.post(box, "/api/v1/tokenizer", {"model": "qwen-turbo", "input": {"prompt": ""}})

    assert (400, "BadRequest.EmptyInput") == (heard.status, heard.json["code"])
