"""Stored files through the official SDKs: the native forms of 1.x and v2, the openai client, and that they speak of the same files."""

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dashscope
import openai
import pytest
from dashscope.v2.errors import BadRequestError, NotFoundError, RateLimitError

import boxes
import wire
from boxes import Box
from sdk import forms

LINES = b'{"messages": [{"role": "user", "content": "hi"}]}\n'
BOUNDARY = "cut-here"
HEADERS = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
NATIVE = "/api/v1/files"


@pytest.fixture(scope="module")
def small_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """An account may keep four files, and few bytes."""
    with boxes.serve(tmp_path_factory.mktemp("files"), toml="[files]\naccount_files = 4\nother_limit_bytes = 1000\n") as running:
        yield running


@pytest.fixture
def box(small_box: Box) -> Box:
    """With no file in it."""
    forms.point(small_box)
    for row in dashscope.Files.list().output["files"]:
        assert dashscope.Files.delete(row["file_id"]).status_code == 200
    return small_box


@pytest.fixture
def own_box(tmp_path: Path) -> Iterator[Box]:
    """A batch that still reads its file may keep it."""
    with boxes.serve(tmp_path / "box") as running:
        forms.point(running)
        yield running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "练习.jsonl"
    path.write_bytes(LINES)
    return path


def form(*files: tuple[str, bytes], **fields: list[str]) -> bytes:
    parts = [f'name="{name}"\r\n\r\n{value}'.encode() for name, values in fields.items() for value in values]
    parts += [f'name="files"; filename="{name}"\r\n\r\n'.encode() + data for name, data in files]
    head = f"--{BOUNDARY}\r\nContent-Disposition: form-data; ".encode()
    return b"".join(head + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()


def upload(box: Box, *files: tuple[str, bytes], **fields: list[str]) -> wire.Heard:
    return wire.post(box, NATIVE, form(*files, **fields), headers=HEADERS)


def described(file_id: str, page: Any) -> dict[str, Any]:
    return next(row for row in page["files"] if row["file_id"] == file_id)


def test_1x_uploads_lists_gets_and_deletes(box: Box, file: Path) -> None:
    sent = dashscope.Files.upload(str(file), description="第一")
    assert (200, []) == (sent.status_code, sent.output["failed_uploads"])
    [kept] = sent.output["uploaded_files"]
    assert file.name == kept["name"]

    listed = dashscope.Files.list(page=1, page_size=2)
    got = dashscope.Files.get(kept["file_id"])
    deleted = dashscope.Files.delete(kept["file_id"])
    missing = dashscope.Files.get(kept["file_id"])

    assert (1, 1, 2) == tuple(listed.output[name] for name in ("total", "page_no", "page_size"))
    assert got.output == described(kept["file_id"], listed.output)
    assert got.output["md5"] == base64.b64encode(hashlib.md5(LINES, usedforsecurity=False).digest()).decode()
    assert (got.output["name"], got.output["description"]) == (file.name, "第一")
    assert (got.output["size"], got.output["purpose"]) == (len(LINES), "fine-tune")
    assert isinstance(got.output["id"], int)
    assert deleted.status_code == 200
    assert (missing.status_code, missing.code) == (404, "NotFound")


def test_v2_uploads_lists_gets_and_deletes(box: Box, file: Path) -> None:
    with forms.v2_client(box) as client:
        kept = client.files.upload(file_path=str(file), description="a")
        page = client.files.list(page_no=1, page_size=5)
        got = client.files.get(kept.file_id)
        assert client.files.delete(kept.file_id).deleted
        with pytest.raises(NotFoundError):
            client.files.get(kept.file_id)
        with pytest.raises(NotFoundError):
            client.files.delete(kept.file_id)

    assert (page.total_count, page.page_no, page.page_size) == (1, 1, 5)
    assert (got.file_id, got.name, got.size, got.purpose) == (kept.file_id, file.name, len(LINES), "fine-tune")
    assert page.files[0].file_id == kept.file_id


def test_v2_asynchronous_client_does_the_same(box: Box, file: Path) -> None:
    async def asking() -> Any:
        async with forms.v2_async_client(box) as client:
            kept = await client.files.upload(file_path=str(file))
            page = await client.files.list()
            got = await client.files.get(kept.file_id)
            await client.files.delete(kept.file_id)
            with pytest.raises(NotFoundError):
                await client.files.get(kept.file_id)
            return kept, page, got

    kept, page, got = forms.run(asking)
    assert (kept.file_id, 1, len(LINES)) == (got.file_id, page.total_count, got.size)


def test_files_of_both_dialects_are_the_same_files(own_box: Box, file: Path) -> None:
    box = own_box
    native = dashscope.Files.upload(str(file)).output["uploaded_files"][0]["file_id"]
    line = b'{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "qwen-turbo", "messages": []}}'
    batch_input = upload(box, ("b.jsonl", line), purpose=["batch"]).json["data"]["uploaded_files"][0]["file_id"]
    with forms.openai_client(box) as client:
        compatible = client.files.create(file=("a.txt", b"hello"), purpose="file-extract").id

        assert {native, compatible, batch_input} == {row.id for row in client.files.list()}
        assert client.files.content(native).content == LINES
        batch = client.batches.create(input_file_id=batch_input, endpoint="/v1/chat/completions", completion_window="24h")
        assert batch.input_file_id == batch_input
        with pytest.raises(openai.BadRequestError, match="was uploaded for fine-tune"):
            client.batches.create(input_file_id=native, endpoint="/v1/chat/completions", completion_window="24h")
        client.files.delete(native)

    got = dashscope.Files.get(compatible).output
    assert (got["purpose"], got["size"]) == ("file-extract", 5)
    assert dashscope.Files.get(native).status_code == 404


def test_several_files_are_kept_or_told_one_by_one(box: Box) -> None:
    big = b"x" * 1_001
    data = upload(box, ("a", b"1"), ("empty", b""), ("big", big), ("c", b"3"), descriptions=["one", "two"]).json["data"]

    assert ["a", "empty", "c"] == [row["name"] for row in data["uploaded_files"]]
    assert [("big", "BadRequest.TooLarge")] == [(row["name"], row["code"]) for row in data["failed_uploads"]]
    page = wire.call(box, "GET", f"{NATIVE}?page_no=2&page_size=2").json["data"]
    first = wire.call(box, "GET", f"{NATIVE}/{data['uploaded_files'][0]['file_id']}").json["data"]
    assert (page["total"], page["page_no"], page["page_size"], len(page["files"])) == (3, 2, 2, 1)
    assert (first["description"], first["size"]) == ("one", 1)

    more = upload(box, ("d", b"4"), ("e", b"5")).json["data"]
    assert ["d"] == [row["name"] for row in more["uploaded_files"]]
    assert [("e", "BadRequest.TooMany")] == [(row["name"], row["code"]) for row in more["failed_uploads"]]


def test_upload_is_an_error_when_nothing_of_it_is_kept(box: Box, tmp_path: Path) -> None:
    alone = upload(box, ("big", b"x" * 1_001))
    assert (alone.status, alone.json["code"]) == (413, "BadRequest.TooLarge")
    for number in range(4):
        upload(box, (f"{number}", b"1"))
    (tmp_path / "one.txt").write_text("more")
    with forms.v2_client(box) as client, pytest.raises(RateLimitError, match="account_files"):
        client.files.upload(file_path=str(tmp_path / "one.txt"), purpose="assistants")


@pytest.mark.parametrize(
    ("body", "headers", "words"),
    [
        (form(), HEADERS, "'files' is a required property"),
        (form(("a", b"1")), {}, "multipart/form-data"),
        (form(("a", b"1"), purpose=["vision"]), HEADERS, "purpose must be one of"),
        (form(*[(str(number), b"1") for number in range(11)]), HEADERS, "more than 10 files"),
        (form(("a", b"1"))[:-8], HEADERS, "ends before its last boundary"),
    ],
)
def test_form_is_refused_when_it_is_none_of_files(box: Box, body: bytes, headers: dict[str, str], words: str) -> None:
    heard = wire.post(box, NATIVE, body, headers=headers)

    assert (heard.status, heard.json["code"]) == (400, "InvalidParameter")
    assert words in heard.json["message"]
    assert wire.call(box, "GET", NATIVE).json["data"]["total"] == 0


def test_page_is_refused_when_its_numbers_are_none(box: Box) -> None:
    with forms.v2_client(box) as client, pytest.raises(BadRequestError, match="page_size"):
        client.files.list(page_size=1_000)
