"""Vectors of real weights (multilingual-e5-small): whether they find what answers a question, and what their limits are."""

import math
import random
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import dashscope
import openai
import pytest
from dashscope import get_tokenizer

import boxes
import wire
from boxes import Box
from support.question_pairs import PAIRS

NATIVE = "/api/v1/services/embeddings/text-embedding/text-embedding"
RERANK = "/api/v1/services/rerank/text-rerank/text-rerank"


@pytest.fixture(scope="module")
def vectors_box(tmp_path_factory: pytest.TempPathFactory, users_weights: Path) -> Iterator[Box]:
    """The laptop profile with the weights of its vectors, fetched once into the user's own folder."""
    home = tmp_path_factory.mktemp("vectors")
    (home / "weights").symlink_to(users_weights)
    toml = '[engine.small]\nkind = "echo"\n[engine.large]\nkind = "echo"\n'
    with boxes.serve(home, profile="laptop", toml=toml) as running:
        boxes.pull(running, "text-embedding-v4")
        yield running


def embedded(box: Box, texts: list[str], text_type: str) -> list[list[float]]:
    found: list[list[float]] = []
    for start in range(0, len(texts), 10):
        body = {"model": "text-embedding-v4", "input": {"texts": texts[start : start + 10]}, "parameters": {"text_type": text_type}}
        heard = wire.post(box, NATIVE, body, timeout_s=120.0)
        assert 200 == heard.status, heard.body
        found += [item["embedding"] for item in heard.json["output"]["embeddings"]]
    return found


def words(text: str) -> Counter[str]:
    """Words of Latin letters, single Chinese characters and pairs of them: what a search without a model goes by."""
    chinese = re.findall(r"[\u4e00-\u9fff]", text)
    return Counter(re.findall(r"[a-z]+", text.lower()) + chinese + ["".join(pair) for pair in pairwise(chinese)])


def overlap(question: str, passage: str, frequency: Counter[str]) -> float:
    """BM25's idea in its simplest form: each shared word counts by its rarity, a long passage less."""
    asked, found = words(question), words(passage)
    shared = sum(math.log(len(PAIRS) / frequency[word]) for word in asked.keys() & found.keys())
    return shared / math.sqrt(found.total())


def first(scores: list[float]) -> int:
    return max(range(len(scores)), key=scores.__getitem__)


def test_right_passages_are_found_more_often_than_by_word_overlap(vectors_box: Box):
    questions, passages = [question for question, _ in PAIRS], [passage for _, passage in PAIRS]
    asked, found = embedded(vectors_box, questions, "query"), embedded(vectors_box, passages, "document")
    by_vectors = [first([sum(a * b for a, b in zip(one, other, strict=True)) for other in found]) for one in asked]
    frequency = Counter(word for passage in passages for word in words(passage))
    by_words = [first([overlap(question, passage, frequency) for passage in passages]) for question in questions]

    right = [sum(place == number for number, place in enumerate(places)) for places in (by_vectors, by_words)]
    print(f"\nof {len(PAIRS)} questions, the right passage of {len(PAIRS)} came first: by vectors {right[0]}, by word overlap {right[1]}")
    assert right[0] > right[1]


def test_reranking_puts_the_right_passage_first_more_often_than_word_overlap(vectors_box: Box):
    passages = [passage for _, passage in PAIRS]
    frequency = Counter(word for passage in passages for word in words(passage))
    right = Counter[str]()
    for number, (question, _) in enumerate(PAIRS[::5]):
        body = {"model": "gte-rerank-v2", "input": {"query": question, "documents": passages}, "parameters": {"top_n": 1}}
        heard = wire.post(vectors_box, RERANK, body, timeout_s=120.0).json
        right["rerank"] += heard["output"]["results"][0]["index"] == number * 5
        right["words"] += first([overlap(question, passage, frequency) for passage in passages]) == number * 5
    print(f"\nof {len(PAIRS[::5])}: reranked {right['rerank']}, by word overlap {right['words']}")
    assert right["rerank"] > right["words"]


def test_vectors_have_length_one_and_the_weights_own_dimensions(vectors_box: Box):
    (vector,) = embedded(vectors_box, ["你好"], "document")

    assert 384 == len(vector)
    assert 1.0 == pytest.approx(math.hypot(*vector), abs=1e-4)


def test_a_dimension_that_the_weights_have_not_is_refused(vectors_box: Box):
    with openai.OpenAI(api_key=vectors_box.key, base_url=vectors_box.compatible, max_retries=0) as sdk:
        assert 384 == len(sdk.embeddings.create(model="text-embedding-v4", input="甲", dimensions=384).data[0].embedding)
        with pytest.raises(openai.BadRequestError, match="384"):
            sdk.embeddings.create(model="text-embedding-v4", input="甲", dimensions=1024)


def test_a_text_longer_than_a_window_is_read_to_its_end(vectors_box: Box):
    filler = "这是一段没有什么内容的文字，用来占据篇幅。" * 60
    plain, ended = embedded(vectors_box, [filler, filler + "量子计算机使用叠加态的比特，可以加速因数分解。" * 12], "document")
    (asked,) = embedded(vectors_box, ["量子计算"], "query")

    likeness = [sum(a * b for a, b in zip(asked, vector, strict=True)) for vector in (plain, ended)]
    assert 1.0 == pytest.approx(math.hypot(*ended), abs=1e-4)
    assert likeness[1] > likeness[0]


def test_a_text_past_the_cards_limit_is_refused_and_one_at_it_is_billed_whole(vectors_box: Box):
    long = wire.post(vectors_box, NATIVE, {"model": "text-embedding-v2", "input": {"texts": ["word " * 2_100]}}, timeout_s=120.0)
    fine = wire.post(vectors_box, NATIVE, {"model": "text-embedding-v2", "input": {"texts": ["word " * 1_900]}}, timeout_s=120.0)

    assert (400, "Range of input length should be [1, 2048]") == (long.status, long.json["message"])
    assert (200, 1_900) == (fine.status, fine.json["usage"]["total_tokens"])


def test_usage_counts_the_texts_alone(vectors_box: Box):
    dashscope.base_http_api_url, dashscope.api_key = vectors_box.native, vectors_box.key
    one = dashscope.TextEmbedding.call(model="text-embedding-v4", input="hello world")
    two = dashscope.TextEmbedding.call(model="text-embedding-v4", input=["hello world", "hello world"], text_type="query")

    # hell, o and world: neither what the weights read around a text, nor the marks of its ends.
    assert (3, 6) == (one.usage["total_tokens"], two.usage["total_tokens"])


def test_models_list_says_what_answers(vectors_box: Box):
    rows = {row["id"]: row for row in wire.call(vectors_box, "GET", "/v1/models").json["data"]}

    assert ["embedding"] == rows["text-embedding-v4"]["capabilities"]
    assert "multilingual-e5-small Q4_0" == rows["text-embedding-v4"]["deployments"][0]["weights"]
    assert "likeness" in rows["gte-rerank-v2"]["description"]


def test_tokens_equal_the_sdks_own_on_a_thousand_strings(weights_box: Box):
    own = get_tokenizer("qwen-turbo")
    strings = hard_strings(1_000)
    assert 1_000 == len(set(strings))
    for text in strings:
        heard = wire.post(weights_box, "/api/v1/tokenizer", {"model": "qwen-turbo", "input": {"prompt": text}})
        assert 200 == heard.status, (text, heard.body)
        assert own.encode(text) == heard.json["output"]["token_ids"], text
        assert heard.json["usage"]["input_tokens"] == len(heard.json["output"]["tokens"]) == len(heard.json["output"]["token_ids"])


def hard_strings(count: int) -> list[str]:
    """Emoji with their joiners, rare scripts, combining marks, digits, spaces, names of special tokens; the same ones every time."""
    draw = random.Random(7)
    pieces = [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|extra_7|>",
        "<|extra_204|>",
        "<|im_start|",
        "<|object_ref_start|>",
        "<think>",
    ]
    pieces += ["👨‍👩‍👧‍👦", "🏳️‍🌈", "🇨🇳", "😀", "1️⃣", "é", "e\u0301", "ﬀ", "Å", "각", "\u1100\u1161", "ｗｉｄｅ", "①", "½", "\u200b", "\u00a0"]
    pieces += [
        "12345",
        "3.14159",
        "零一二",
        "\n\n",
        "\r\n",
        "\t",
        "   ",
        "don't",
        "I'LL",
        "def f(x):",
        "=>",
        "…",
        "——",
        "「」",
        "ſ",
        "ß",
        "İ",
    ]
    scripts = [
        (0x4E00, 0x9FFF),
        (0x3400, 0x4DBF),
        (0x20000, 0x2A6DF),
        (0x0E00, 0x0E7F),
        (0x10A0, 0x10FF),
        (0x13A0, 0x13FF),
        (0x1400, 0x167F),
    ]
    scripts += [
        (0x0600, 0x06FF),
        (0x0900, 0x097F),
        (0x10330, 0x1034A),
        (0x12000, 0x12399),
        (0x1F300, 0x1FAFF),
        (0x20, 0x7E),
        (0x0400, 0x04FF),
    ]
    made: dict[str, None] = {}
    while len(made) < count:
        parts: list[str] = []
        for _ in range(draw.randrange(1, 12)):
            if draw.random() < 0.5:
                parts.append(draw.choice(pieces))
            else:
                low, high = draw.choice(scripts)
                parts.append("".join(chr(draw.randrange(low, high + 1)) for _ in range(draw.randrange(1, 8))))
        made["".join(parts)] = None
    return list(made)
