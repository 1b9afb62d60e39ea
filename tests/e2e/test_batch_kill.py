"""A batch whose box is killed again and again: every line has one result, in order, and is billed once, at half price."""

import json
import random
import time
from pathlib import Path
from typing import Any

import httpx
import openai

import boxes
from boxes import Box
from e2e.test_budget import box_at
from sdk import forms
from support.books import Books

KILLS = 5
END_S = 240

# Slow enough that lines are open at any moment. A dead box's lines come back soon.
SLOW = '[engine.echo]\nkind = "echo"\ndelay_s = 0.01\n[batch]\nconcurrency = 8\npoll_s = 0.1\nlease_s = 1.0\n[cache]\nenabled = false\n'


def submit(client: openai.OpenAI, count: int) -> str:
    lines = [
        {
            "custom_id": f"line-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "qwen-plus", "messages": [{"role": "user", "content": f"number {number}"}]},
        }
        for number in range(count)
    ]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    stored = client.files.create(file=("in.jsonl", data), purpose="batch")
    return client.batches.create(input_file_id=stored.id, endpoint="/v1/chat/completions", completion_window="24h").id


def wait(client: openai.OpenAI, batch_id: str, done: int | None = None) -> Any:
    """Until so many lines have their result, or all is over."""
    deadline = time.monotonic() + END_S
    while True:
        batch = client.batches.retrieve(batch_id)
        counts = batch.request_counts
        assert counts is not None
        if batch.status == "completed" or (done is not None and counts.completed >= done):
            return batch
        assert batch.status not in ("failed", "expired") and time.monotonic() < deadline, batch
        time.sleep(0.02)


def check(box: Box, books: Books, client: openai.OpenAI, batch: Any) -> None:
    count = batch.request_counts.total
    assert (batch.request_counts.completed, batch.error_file_id) == (count, None)
    results = [json.loads(text) for text in client.files.content(batch.output_file_id).text.splitlines()]
    assert [f"line-{number}" for number in range(count)] == [result["custom_id"] for result in results]
    answers = [result["response"]["body"]["choices"][0]["message"]["content"] for result in results]
    assert [] == [answer for number, answer in enumerate(answers) if not answer.endswith(f": number {number}")]
    assert [] == books.faults()
    billed = {row["id"]: row for row in books.rows() if row["cost_micros"]}
    ids = [result["response"]["request_id"] for result in results]
    assert sorted(ids) == sorted(billed)
    assert batch.qwenbox["cost_micros"] == sum(row["cost_micros"] for row in billed.values())
    with httpx.Client(base_url=box.base_url, headers={"authorization": f"Bearer {box.key}"}, trust_env=False) as asking:
        for id in ids if count <= 300 else random.sample(ids, 300):
            receipt = asking.get(f"/qwenbox/v1/receipts/{id}").json()
            assert (receipt["call"]["lane"], receipt["call"]["outcome"]) == ("batch", "completed")
    # Half of what the same tokens cost a person, to the rounding of one millionth.
    with_price = [row for row in billed.values() if row["output_tokens"]]
    full = client.chat.completions.with_raw_response.create(model="qwen-plus", messages=[{"role": "user", "content": "number 1"}])
    person = next(row for row in books.rows() if row["id"] == full.request_id)
    same = [row for row in with_price if (row["input_tokens"], row["output_tokens"]) == (person["input_tokens"], person["output_tokens"])]
    assert same and {-(-person["cost_micros"] // 2)} == {row["cost_micros"] for row in same}


def test_a_batch_loses_and_doubles_nothing_when_its_box_is_killed(tmp_path: Path, is_full: bool) -> None:
    count = 2_000 if is_full else 300
    batch_id = ""
    for kill in range(KILLS):
        with boxes.serve(tmp_path / "box", toml=SLOW) as box, forms.openai_client(box) as client:
            batch_id = batch_id or submit(client, count)
            wait(client, batch_id, done=(kill + 1) * count // (KILLS + 2))
            box.process.kill()
    with boxes.serve(tmp_path / "box", toml=SLOW) as box, forms.openai_client(box) as client:
        batch = wait(client, batch_id)
        print(f"\n{KILLS} times kill -9: {count} lines, {batch.request_counts.completed} results")
        assert count == batch.request_counts.total
        check(box, Books(box), client, batch)


def test_a_batch_goes_on_when_its_box_is_stopped_in_order(tmp_path: Path) -> None:
    # Long leases: a box that ends in order leaves none behind. What its running lines had made by then is paid by nobody.
    toml, batch_id = SLOW.replace("lease_s = 1.0", "lease_s = 300"), ""
    for stop in range(2):
        with boxes.serve(tmp_path / "box", toml=toml) as box, forms.openai_client(box) as client:
            batch_id = batch_id or submit(client, 150)
            wait(client, batch_id, done=(stop + 1) * 40)
        assert 0 == box.process.returncode
    with boxes.serve(tmp_path / "box", toml=toml) as box, forms.openai_client(box) as client:
        batch = wait(client, batch_id)
        assert 150 == batch.request_counts.total
        check(box, Books(box), client, batch)


def test_two_workers_share_a_batch_on_postgres(serve: Any, stores: Any, is_full: bool) -> None:
    count = 2_000 if is_full else 200
    box, books = box_at("2 workers, PostgreSQL and Valkey", serve, stores, SLOW)
    with forms.openai_client(box) as client:
        batch = wait(client, submit(client, count))
        assert count == batch.request_counts.total
        check(box, books, client, batch)
