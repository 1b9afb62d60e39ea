"""What becomes of result lines: rows of JSONL or of a table that say the same, whatever an answer holds."""

import csv
import io
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from qwenbox.cli.batch import writing
from qwenbox.client import batch_results
from qwenbox.client.batch_input import CHAT, Asked
from qwenbox.terms.usage import Usage

TEXT = some.text(some.characters(exclude_categories=("Cs",)), max_size=40)
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, "prompt_tokens_details": {"cached_tokens": 2}}


def asked(*cells: str, line: int = 4) -> Asked:
    return Asked(line, "id-4", CHAT, "m", msgspec.Raw(b"{}"), cells)


def result(body: Any, status: int = 200, error: Any = None) -> bytes:
    return json.dumps(
        {"id": "r", "custom_id": "id-4", "response": {"status_code": status, "request_id": "q", "body": body}, "error": error}
    ).encode()


def answer(content: str | None, **more: Any) -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content, **more}}
    return result({"choices": [choice], "usage": USAGE})


def row(data: bytes) -> dict[str, Any]:
    return json.loads(msgspec.json.encode(batch_results.row(4, "id-4", data)))


@given(TEXT)
def test_an_answer_is_what_was_said(text: str) -> None:
    expected = {"line": 4, "custom_id": "id-4", "answer": text, "finish_reason": "stop", "usage": USAGE, "request_id": "q", "error": None}
    assert expected == row(answer(text))


@given(some.lists(some.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=5), some.sampled_from([",", "\t"]))
def test_a_table_is_read_back_as_it_was(cells: list[tuple[str, str, str]], delimiter: str) -> None:
    target = io.BytesIO()
    write = writing.table_to(target, ("name", "answer"), delimiter)
    for name, other, said in cells:
        data = answer(said)
        write(asked(name, other), msgspec.structs.replace(batch_results.row(4, "id-4", data), cost_micros=12, currency="CNY"), data)
    found = list(csv.reader(io.StringIO(target.getvalue().decode(), newline=""), delimiter=delimiter))
    assert ["name", "answer", "answer_", "finish_reason", "input_tokens", "output_tokens", "cost", "error"] == found[0]
    assert [[*row, "stop", "7", "3", "0.000012", ""] for row in cells] == found[1:]


def test_thoughts_tools_choices_and_vectors_are_kept() -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    found = row(answer(None, reasoning_content="hm", tool_calls=calls))
    assert (None, "hm", calls) == (found["answer"], found["reasoning"], found["tool_calls"])
    second, first = ({"index": index, "text": str(index), "finish_reason": "stop"} for index in (1, 0))
    found = row(result({"choices": [second, first]}))
    assert ("0", ["0", "1"], None) == (found["answer"], found["answers"], found["usage"])
    assert [0.5] == row(result({"data": [{"index": 0, "embedding": [0.5]}], "usage": USAGE}))["embedding"]


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (result({"error": {"code": "Arrearage", "message": "no money"}}, 400), "Arrearage", "no money"),
        (result({"error": {"code": "a", "message": "b"}}, 400, {"code": "c", "message": "d"}), "c", "d"),
        (result("what?", 502), "502", ""),
        (b'{"custom_id":"id-4","response":null,"error":{"code":"batch_expired","message":"late"}}', "batch_expired", "late"),
        (b'{"custom_id":"id-4","response":null,"error":null}', "failed", ""),
        (result({"choices": []}), "unreadable_result", "The result has no answer."),
        (result({"choices": 7}), "unreadable_result", "The result is not in a form that is known"),
        (b"", "unreadable_result", "The result is not in a form that is known"),
    ],
)
def test_a_line_without_an_answer_has_an_error(data: bytes, code: str, message: str) -> None:
    found = row(data)
    assert (None, code) == (found["answer"], found["error"]["code"])
    assert found["error"]["message"].startswith(message)


@given(some.binary(max_size=60))
def test_any_result_is_a_row(data: bytes) -> None:
    assert batch_results.row(4, "id-4", data).error is not None


def test_tokens_are_read_where_they_are_told() -> None:
    assert Usage(input_tokens=7, output_tokens=3, cached_tokens=2) == batch_results.usage(batch_results.row(4, "id-4", answer("x")))
    assert batch_results.usage(batch_results.row(4, "id-4", b"")) is None


def test_rows_and_raw_lines_end_with_a_line_feed() -> None:
    for to in (writing.rows_to, writing.results_to):
        target = io.BytesIO()
        to(target)(asked(), batch_results.row(4, "id-4", answer("a\nb")), answer("a\nb"))
        assert 1 == target.getvalue().count(b"\n") and target.getvalue().endswith(b"}\n")
