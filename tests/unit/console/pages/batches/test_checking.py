"""A visitor's file before it is sent: the batches it makes, its size and price, what is wrong with it."""

import io
import json
from typing import Any

import pytest

from qwenbox.client.batch_input import Recipe, Shape
from qwenbox.client.catalog import Model
from qwenbox.client.shapes import PriceRow, PriceTier
from qwenbox.console.pages.batches import checking
from qwenbox.console.pages.batches.checking import Checked, check


def line(number: int, model: str, text: str = "hi", **body: Any) -> str:
    request = {"model": model, "messages": [{"role": "user", "content": text}], **body}
    return json.dumps({"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": request})


def checked(text: str, shape: Shape = Shape.JSONL, **recipe: Any) -> Checked:
    return check(io.BytesIO(text.encode()), shape, "utf-8", Recipe(**recipe))


def model(name: str, input_micros: int | None) -> Model:
    tier = PriceTier(
        up_to_tokens=None,
        input_micros=input_micros or 0,
        output_micros=2_000_000,
        cached_micros=None,
        image_micros=None,
        reasoning_micros=None,
    )
    price = PriceRow(
        model=name,
        since="2024-01-01",
        currency="CNY",
        version="1",
        is_active=True,
        cached_permille=200,
        batch_permille=500,
        tiers=(tier,),
    )
    return Model(
        name=name,
        aliases=(),
        description="",
        capabilities=("chat",),
        context_tokens=8_192,
        max_input_tokens=None,
        max_output_tokens=None,
        price=None if input_micros is None else price,
        deployments=(),
        speed=None,
        pull="none",
    )


def test_file_becomes_a_batch_for_each_model_in_its_order():
    found = checked("\n".join(line(number, ("a", "b")[number % 2]) for number in range(5)))
    assert [("a", 3), ("b", 2)] == [(part.model, part.lines) for part in found.parts]
    assert (5, ["a", "b"], []) == (found.total, found.models, found.faults)
    for part, ids in zip(found.parts, (["0", "2", "4"], ["1", "3"]), strict=True):
        part.handle.seek(0)
        data = part.handle.read()
        assert (part.size_bytes, ids) == (len(data), [json.loads(text)["custom_id"] for text in data.splitlines()])
    found.close()


def test_batch_is_full_at_its_limits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checking, "MOST_LINES", 2)
    found = checked("a\nb\nc\nd\ne", Shape.TEXT, model="m")
    assert [2, 2, 1] == [part.lines for part in found.parts]
    found.was_sent(found.parts[0])
    assert (3, 1, 2) == (found.count, found.sent, len(found.parts))
    found.close()
    monkeypatch.setattr(checking, "MOST_PARTS", 2)
    found = checked("a\nb\nc\nd\ne", Shape.TEXT, model="m")
    assert ([], "line 5: the file would become more than 2 batches: one for each model and 2 requests") == (
        found.parts,
        str(found.faults[0]),
    )


def test_nothing_is_left_to_send_when_a_line_is_wrong():
    found = checked(f'{line(1, "a")}\n{{broken\n{{"id": 7}}')
    assert ([], [2, 3]) == (found.parts, [fault.line for fault in found.faults])


def test_tokens_are_estimated_by_their_script():
    found = checked("\n".join((line(1, "a", "word " * 80), line(2, "a", "汉" * 100), line(3, "a", "x", max_tokens=7))))
    assert 100 + 65 <= found.input_tokens["a"] <= 100 + 65 + 3 * 8 + 1
    assert found.answer_tokens["a"] is None
    bounded = checked("one\ntwo", Shape.TEXT, model="a", max_tokens=10)
    assert 20 == bounded.answer_tokens["a"]
    for each in (found, bounded):
        each.close()


def test_request_that_no_box_would_take_costs_nothing_here():
    found = checked('{"custom_id": "1", "model": "a", "messages": 7}')
    assert (1, []) == (found.total, found.faults)
    found.close()


def test_cost_is_at_the_price_of_batches():
    found = checked("\n".join(line(number, "a", "x" * 3_968, max_tokens=100) for number in range(10)))
    priced, unpriced = {"a": model("a", 1_000_000)}, {"a": model("a", None)}
    # 10 × (992 + 8) tokens at half of ¥1 a million; 10 × 100 at half of ¥2.
    cost = checking.cost(found, priced)
    assert cost is not None and (5_000, 6_000, "CNY") == (cost.input, cost.most, cost.currency)
    assert checking.cost(found, unpriced) is None and checking.cost(found, {}) is None
    assert checking.cost(found, {"*": model("*", 1_000_000)}) == cost
    found.close()


def test_columns_are_read_from_the_first_bytes():
    assert ["id", "text"] == checking.columns("\ufeffid, text\n1,2".encode(), Shape.CSV, "utf-8")
    assert ["文本", "b,c"] == checking.columns("文本\tb,c\n".encode("gb18030"), Shape.TSV, "gb18030")
    assert [] == checking.columns(b"", Shape.CSV, "utf-8")
