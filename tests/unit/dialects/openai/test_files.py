"""Uploads of files, however the body is cut, and whatever it says."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from qwenbox.dialects.base import WireRequest
from qwenbox.dialects.openai import files
from qwenbox.terms.errors import ApiError
from qwenbox.terms.job import NewFile, Purpose

BOUNDARY = b"cut-here"


def body(data: bytes, purpose: bytes = b"batch", filename: bytes = b"a.jsonl", *, is_file_first: bool = False) -> bytes:
    parts = [
        b'Content-Disposition: form-data; name="purpose"\r\n\r\n' + purpose,
        b'Content-Disposition: form-data; name="file"; filename="' + filename + b'"\r\nContent-Type: text/plain\r\n\r\n' + data,
    ]
    if is_file_first:
        parts.reverse()
    return b"".join(b"--" + BOUNDARY + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + BOUNDARY + b"--\r\n"


def reader() -> files.Upload:
    kind = f"multipart/form-data; boundary={BOUNDARY.decode()}"
    return files.upload(WireRequest(id="1", method="POST", path="/v1/files", received_at=0, headers={"content-type": kind}))


@given(data=some.binary(max_size=300), cuts=some.lists(some.integers(1, 40), min_size=1), is_file_first=some.booleans())
def test_a_file_is_the_same_however_the_body_is_cut(data: bytes, cuts: list[int], is_file_first: bool) -> None:
    left, heard, upload, number = body(data, is_file_first=is_file_first), b"", reader(), 0
    while left:
        size = cuts[number % len(cuts)]
        heard += b"".join(piece for _, piece in upload.pieces(left[:size]))
        left, number = left[size:], number + 1
    assert data == heard
    assert (NewFile(purpose=Purpose.BATCH, filename="a.jsonl"),) == upload.end()


@given(data=some.binary(max_size=400))
def test_any_bytes_are_a_form_or_refused(data: bytes) -> None:
    upload = reader()
    with pytest.raises(ApiError):
        upload.pieces(data)
        upload.end()


@pytest.mark.parametrize(
    "sent",
    [
        body(b"x", purpose=b"assistants"),
        body(b"x", purpose=b"p" * 5_000),
        body(b"x")[:-10],
        body(b"x").replace(b'name="file"', b'name="other"'),
        body(b"x").removesuffix(b"--\r\n") + b"\r\n" + body(b"y"),
    ],
)
def test_a_form_that_lacks_something_is_refused(sent: bytes) -> None:
    upload = reader()
    with pytest.raises(ApiError):
        upload.pieces(sent)
        upload.end()


@pytest.mark.parametrize(
    ("sent", "kept"), [(b"../../etc/passwd", "passwd"), (b"C:\\a\\b.txt", "b.txt"), (b"\x1b[31mred", "[31mred"), (b"", "file")]
)
def test_a_filename_is_a_label(sent: bytes, kept: str) -> None:
    upload = reader()
    upload.pieces(body(b"x", filename=sent))
    assert kept == upload.end()[0].filename
