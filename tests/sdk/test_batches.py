"""Files and batches as the openai SDK drives them: uploads, lists, content, every state of a batch, every fault of an input file."""

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from boxes import Box
from sdk import forms

END_S = 30


@pytest.fixture
def client(box: Box):
    with forms.openai_client(box) as opened:
        yield opened


def line(number: int, **changed: Any) -> dict[str, Any]:
    body = {"model": "qwen-plus", "messages": [{"role": "user", "content": f"number {number}"}]}
    return {"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": body, **changed}


def jsonl(lines: list[Any]) -> bytes:
    return b"".join((item if isinstance(item, bytes) else json.dumps(item).encode()) + b"\n" for item in lines)


def upload(client: openai.OpenAI, lines: list[Any]) -> str:
    return client.files.create(file=("in.jsonl", jsonl(lines)), purpose="batch").id


def create(client: openai.OpenAI, lines: list[Any], endpoint: Any = "/v1/chat/completions", **more: Any) -> Any:
    return client.batches.create(input_file_id=upload(client, lines), endpoint=endpoint, completion_window="24h", **more)


def ended(client: openai.OpenAI, batch_id: str, has: Callable[[Any], bool] = lambda batch: batch.status in ENDS) -> Any:
    deadline = time.monotonic() + END_S
    while not has(batch := client.batches.retrieve(batch_id)):
        assert time.monotonic() < deadline, batch
        time.sleep(0.05)
    return batch


ENDS = ("completed", "failed", "expired", "cancelled")


def got(box: Box, path: str) -> Any:
    return httpx.get(f"{box.base_url}{path}", headers={"authorization": f"Bearer {box.key}"}, trust_env=False).json()


def content(client: openai.OpenAI, file_id: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in client.files.content(file_id).text.splitlines()]


def test_a_file_is_kept_listed_read_and_deleted(client: openai.OpenAI):
    data = "一行\n".encode() * 100_000
    made = client.files.create(file=("../../etc/名字.jsonl", data), purpose="batch")

    assert (made.object, made.bytes, made.filename, made.purpose, made.status) == ("file", len(data), "名字.jsonl", "batch", "processed")
    assert made.id.startswith("file-batch-") and len(made.id) == len("file-batch-") + 24
    assert client.files.retrieve(made.id) == made
    assert client.files.content(made.id).content == data
    assert made in client.files.list(limit=1).data
    assert client.files.delete(made.id).to_dict() == {"id": made.id, "object": "file", "deleted": True}
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        client.files.content(made.id)


def test_lists_of_files_are_paged_newest_first(client: openai.OpenAI):
    extract: Any = "file-extract"
    made = [client.files.create(file=(f"{number}.txt", b"x"), purpose=extract).id for number in range(5)]

    assert made[0].startswith("file-fe-")
    assert [row.id for row, _ in zip(client.files.list(limit=2, purpose="file-extract"), range(5), strict=False)] == made[::-1]


@pytest.mark.parametrize("purpose", ["assistants", "", "batch_output"])
def test_a_purpose_nobody_knows_is_refused(client: openai.OpenAI, purpose: Any):
    with pytest.raises(openai.BadRequestError) as caught:
        client.files.create(file=("a.txt", b"x"), purpose=purpose)
    assert caught.value.param == "purpose"


def test_a_batch_runs_to_its_end_with_results_in_order(client: openai.OpenAI):
    made = create(client, [line(number) for number in range(30)], metadata={"ds_name": "thirty"})

    assert (made.status, made.object, made.errors, made.expires_at) == ("validating", "batch", None, None)
    assert made.request_counts.to_dict() == {"total": 0, "completed": 0, "failed": 0}
    batch = ended(client, made.id)
    assert (batch.status, batch.error_file_id, batch.metadata) == ("completed", None, {"ds_name": "thirty"})
    assert batch.request_counts.to_dict() == {"total": 30, "completed": 30, "failed": 0}
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at < batch.expires_at
    results = content(client, batch.output_file_id)
    assert [result["custom_id"] for result in results] == [str(number) for number in range(30)]
    answers = [result["response"]["body"]["choices"][0]["message"]["content"] for result in results]
    assert all(answer.endswith(f": number {number}") for number, answer in enumerate(answers))
    assert {(result["response"]["status_code"], result["error"]) for result in results} == {(200, None)}
    used = sum(result["response"]["body"]["usage"]["total_tokens"] for result in results)
    assert batch.usage.total_tokens == used
    assert client.files.retrieve(batch.output_file_id).purpose == "batch_output"


def test_lines_of_embeddings_are_answered_and_cost_half(box: Box, client: openai.OpenAI):
    body = {"model": "text-embedding-v4", "input": ["你好 world"] * 10, "dimensions": 64}
    made = create(client, [line(number, url="/v1/embeddings", body=body) for number in range(3)], "/v1/embeddings")

    batch = ended(client, made.id)
    results = content(client, batch.output_file_id)
    assert [64] * 10 == [len(item["embedding"]) for item in results[2]["response"]["body"]["data"]]
    tokens = [result["response"]["body"]["usage"]["prompt_tokens"] for result in results]
    assert sum(tokens) == batch.usage.total_tokens > 0
    # 0.25 CNY per million tokens, each line rounded up to a millionth.
    receipts = [got(box, f"/qwenbox/v1/receipts/{result['response']['request_id']}")["call"] for result in results]
    assert [-(-each * 250_000 // 1_000_000) for each in tokens] == [receipt["cost_micros"] for receipt in receipts]


def test_receipts_of_lines_are_at_half_price_and_add_up(box: Box, client: openai.OpenAI):
    batch = ended(client, create(client, [line(number) for number in range(3)]).id)
    whole = client.chat.completions.with_raw_response.create(model="qwen-plus", messages=line(0)["body"]["messages"])

    costs: list[int] = []
    for result in content(client, batch.output_file_id):
        receipt = got(box, f"/qwenbox/v1/receipts/{result['response']['request_id']}")
        assert receipt["call"]["lane"] == "batch"
        costs.append(receipt["call"]["cost_micros"])
    full = got(box, f"/qwenbox/v1/receipts/{whole.request_id}")["call"]["cost_micros"]
    assert costs[0] == -(-full // 2)
    assert batch.qwenbox["cost_micros"] == sum(costs)


def test_lines_that_fail_go_to_the_error_file(client: openai.OpenAI):
    bad = line(1, body={"model": "qwen-plus", "messages": [], "temperature": 0})
    streams = line(2, body={"model": "qwen-plus", "messages": [{"role": "user", "content": "x"}], "stream": True})
    batch = ended(client, create(client, [line(0), bad, streams, line(3)]).id)

    assert batch.request_counts.to_dict() == {"total": 4, "completed": 2, "failed": 2}
    assert [result["custom_id"] for result in content(client, batch.output_file_id)] == ["0", "3"]
    errors = content(client, batch.error_file_id)
    assert [(error["custom_id"], error["response"]["status_code"]) for error in errors] == [("1", 400), ("2", 400)]
    assert all(error["error"]["code"] and error["error"]["message"] for error in errors)


FAULTS = {
    "url_not_found": ([line(0, url="/v1/chat/completion")], 1, "url"),
    "mismatched_url": ([line(0, url="/v1/completions")], 1, "url"),
    "mismatched_model": ([line(0), line(1, body={"model": "qwen-max", "messages": []})], 2, "model"),
    "duplicate_custom_id": ([line(0), line(1), line(0)], 3, "custom_id"),
    "invalid_json_line": ([line(0), b"{not json}"], 2, None),
    "invalid_request": ([{"custom_id": "1"}], 1, None),
    "method_not_supported": ([line(0, method="GET")], 1, "method"),
    "empty_file": ([b"", b"  "], None, None),
    "line_too_long": ([line(0), line(1, body={"model": "qwen-plus", "x": "y" * 6_400_000})], 2, None),
    "too_many_lines": ([line(number) for number in range(50_001)], 50_001, None),
}


@pytest.mark.parametrize("code", FAULTS)
def test_a_file_that_is_wrong_fails_the_batch_and_says_where(client: openai.OpenAI, code: str):
    lines, number, param = FAULTS[code]
    batch = ended(client, create(client, lines).id)

    assert (batch.status, batch.output_file_id) == ("failed", None)
    assert batch.errors.object == "list"
    fault = batch.errors.data[0]
    assert (fault.code, fault.line, fault.param) == (code, number, param)
    if code == "url_not_found":
        assert fault.message == "The provided url '/v1/chat/completion' is not supported by the Batch API."


def test_a_model_the_box_does_not_have_fails_the_batch(catalog_box: Box):
    with forms.openai_client(catalog_box) as client:
        lines = [line(0, body={"model": "no-such", "messages": []})]
        batch = ended(client, create(client, lines).id)
    assert (batch.errors.data[0].code, batch.errors.data[0].message) == (
        "model_not_found",
        "The provided model no-such is not supported by the Batch API.",
    )


def test_the_test_endpoint_answers_for_nothing(client: openai.OpenAI):
    lines = [line(number, url="/v1/chat/ds-test", body={"model": "batch-test-model", "messages": []}) for number in range(3)]
    batch = ended(client, create(client, lines, "/v1/chat/ds-test").id)

    assert batch.request_counts.completed == 3
    assert batch.qwenbox["cost_micros"] == 0


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"endpoint": "/v1/images/generations"}, "endpoint"),
        ({"completion_window": "23h"}, "completion_window"),
        ({"completion_window": "15d"}, "completion_window"),
        ({"metadata": {"ds_batch_finish_callback": "http://x"}}, "metadata"),
    ],
)
def test_a_batch_that_cannot_be_is_refused(client: openai.OpenAI, changed: Any, param: str):
    asked: Any = {"input_file_id": upload(client, [line(0)]), "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    with pytest.raises(openai.BadRequestError) as caught:
        client.batches.create(**{**asked, **changed})
    assert caught.value.param == param


def test_a_batch_of_no_file_is_not_found(client: openai.OpenAI):
    with pytest.raises(openai.NotFoundError):
        client.batches.create(input_file_id="file-batch-0", endpoint="/v1/chat/completions", completion_window="24h")
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_nothing")


def test_lists_of_batches_are_paged_and_filtered(box: Box, client: openai.OpenAI):
    made = [create(client, [line(0)], metadata={"ds_name": f"pages {number}"}).id for number in range(3)]
    for batch_id in made:
        ended(client, batch_id)

    listed = client.batches.list(limit=2, extra_query={"ds_name": "pages", "status": "completed"})
    assert [batch.id for batch in listed] == made[::-1]
    none = got(box, "/compatible-mode/v1/batches?ds_name=nobody")
    assert none == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


def test_a_batch_is_cancelled_and_its_rest_is_in_the_error_file(serve: Any):
    box = serve(toml='[engine.echo]\nkind = "echo"\ndelay_s = 0.05\n[batch]\nconcurrency = 2\npoll_s = 0.1\n')
    with forms.openai_client(box) as client:
        made = create(client, [line(number) for number in range(200)])
        ended(client, made.id, lambda batch: batch.request_counts.completed > 3)
        with pytest.raises(openai.ConflictError):
            client.files.delete(made.input_file_id)
        cancelling = client.batches.cancel(made.id)
        assert (cancelling.status, cancelling.cancelling_at is None) == ("cancelling", False)
        batch = ended(client, made.id)
        assert (batch.status, batch.cancelled_at is None) == ("cancelled", False)
        counts = batch.request_counts
        assert (counts.total, counts.completed + counts.failed) == (200, 200)
        done, rest = content(client, batch.output_file_id), content(client, batch.error_file_id)
        assert (len(done), len(rest)) == (counts.completed, counts.failed)
        assert sorted(int(row["custom_id"]) for row in done + rest) == list(range(200))
        assert {(row["response"], row["error"]["code"]) for row in rest} == {(None, "batch_cancelled")}
        with pytest.raises(openai.ConflictError):
            client.batches.cancel(made.id)
        client.files.delete(made.input_file_id)
