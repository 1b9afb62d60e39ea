"""What leaves for the browser: whole lines of pieces, tables that no spreadsheet runs, names that no system misunderstands."""

from collections.abc import AsyncIterator
from urllib.parse import unquote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from qwenbox.client.jobs import BatchJob
from qwenbox.console.pages.batches import files

pytestmark = pytest.mark.anyio


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.mark.parametrize("size", [1, 3, 7, 1_000])
async def test_lines_are_whole_however_a_file_comes(size: int):
    data = '{"a": "汉字"}\n\n{"b": 2}\r\n{"c": 3}'.encode()
    assert ['{"a": "汉字"}', '{"b": 2}\r', '{"c": 3}'] == [line.decode() async for line in files.lines(pieces(data, size))]


@pytest.mark.parametrize("sign", ["=", "  =", "＝", "＠", "+", "-", "\t"])
async def test_table_runs_nothing_in_a_spreadsheet(sign: str):
    said = f'{sign}cmd|"x"'
    body = {"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": said}}], "usage": {"prompt_tokens": 3}}
    result = {"custom_id": "@1", "response": {"status_code": 200, "request_id": "r", "body": body}}
    written = b"".join([piece async for piece in files.table(pieces(msgspec.json.encode(result), 10))])
    header, row = written.decode("utf-8-sig").splitlines()
    assert "custom_id,answer,finish_reason,input_tokens,output_tokens" == header
    assert f"""'@1,"'{sign}cmd|""x""\",stop,3,0""" == row


def named(name: str) -> BatchJob:
    return BatchJob(
        id="batch_1",
        account_id="a",
        key_id="k",
        name=name,
        description="",
        endpoint="/v1/chat/completions",
        model="m",
        status="completed",
        created_at=0.0,
        input_file_id="f",
    )


@pytest.mark.parametrize(
    ("name", "plain", "true"),
    [
        ("reviews.csv", "reviews-answers.csv", "reviews-answers.csv"),
        ("", "batch_1-answers.csv", "batch_1-answers.csv"),
        ("评论.txt", "_-answers.csv", "评论-answers.csv"),
        ('a"; x=../../b\r\nset-cookie: c', "a_x_.._.._b_set-cookie_c-answers.csv", 'a"; x=.._.._b__set-cookie: c-answers.csv'),
        ("...hidden", "hidden-answers.csv", "hidden-answers.csv"),
    ],
)
def test_download_has_a_name_that_is_safe_everywhere(name: str, plain: str, true: str):
    header = files.attachment(named(name), "answers.csv")
    assert f'attachment; filename="{plain}"; ' in header
    assert true == unquote(header.partition("''")[2])


@given(some.text(max_size=200))
def test_download_name_is_one_plain_header_whatever_a_batch_is_called(name: str):
    header = files.attachment(named(name), "results.jsonl")
    assert header.isascii() and header.isprintable()
    assert 2 == header.count('"') and "/" not in header.partition("''")[2]
