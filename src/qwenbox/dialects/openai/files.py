"""This is where files are spoken about with OpenAI clients: multipart uploads in, file objects out. Wire reference 4.6."""

from calendar import timegm
from datetime import datetime, timedelta, timezone

import msgspec

from qwenbox.dialects import forms
from qwenbox.dialects.base import Head, Outcome, Page, WireRequest
from qwenbox.dialects.openai import fields, render
from qwenbox.terms.job import FilesPage, NewFile, PageAsked, Purpose, StoredFile

# What one may upload; the fourth purpose is what batches write.
UPLOADED = (Purpose.FILE_EXTRACT, Purpose.BATCH, Purpose.FINE_TUNE)

_PURPOSE_WRONG = "'purpose' must be 'file-extract', 'batch' or 'fine-tune'"
_MOST_LISTED = 10_000
_DEFAULT_LISTED = 100
# The service tells and reads its dates in Beijing's time.
_BEIJING = timezone(timedelta(hours=8))
_ENCODER = msgspec.json.Encoder()


class WireFile(msgspec.Struct, kw_only=True):
    id: str
    object: str = "file"
    bytes: int
    filename: str
    purpose: str
    status: str = "processed"
    created_at: int


class WireFiles(msgspec.Struct, kw_only=True):
    object: str = "list"
    data: list[WireFile]
    has_more: bool


class WireDeleted(msgspec.Struct, kw_only=True):
    id: str
    object: str = "file"
    deleted: bool = True


class Upload:
    """See dialects.base.UploadReader."""

    def __init__(self, boundary: bytes) -> None:
        self._form = forms.Form(boundary)

    def pieces(self, data: bytes) -> list[tuple[int, bytes]]:
        return self._form.pieces(data)

    def end(self) -> tuple[NewFile, ...]:
        self._form.end()
        purpose = self._form.fields.get("purpose", "").strip()
        if purpose not in UPLOADED:
            raise fields.invalid(_PURPOSE_WRONG, "purpose")
        return (NewFile(purpose=Purpose(purpose), filename=forms.label(self._form.filename or "")),)


def upload(request: WireRequest) -> Upload:
    """For the body of this request. Raises ApiError(INVALID_REQUEST) when it is no form."""
    boundary = forms.boundary(request.headers.get("content-type", ""))
    if boundary is None:
        raise fields.invalid("Files are uploaded as multipart/form-data with the fields 'purpose' and 'file'.")
    return Upload(boundary)


def asked(request: WireRequest) -> PageAsked:
    """Raises ApiError(INVALID_REQUEST) naming the parameter."""
    query = request.query
    return PageAsked(
        limit=limit(query.get("limit"), _DEFAULT_LISTED, _MOST_LISTED),
        after=query.get("after") or None,
        created_after=moment(query.get("create_after"), "create_after"),
        created_before=moment(query.get("create_before"), "create_before"),
        purpose=query.get("purpose") or None,
    )


def limit(text: str | None, default: int, most: int) -> int:
    """How many rows a page has."""
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 7 and 1 <= int(text) <= most):
        raise fields.invalid(f"Range of limit should be [1, {most}]", "limit")
    return int(text)


def moment(text: str | None, param: str) -> float | None:
    """ "20250101" or "20250101123000" in Beijing's time, as seconds since the epoch."""
    if not text:
        return None
    shape = {8: "%Y%m%d", 14: "%Y%m%d%H%M%S"}.get(len(text))
    try:
        if shape is None:
            raise ValueError(text)
        return float(timegm(datetime.strptime(text, shape).replace(tzinfo=_BEIJING).utctimetuple()))
    except (ValueError, OverflowError) as error:
        raise fields.invalid(f"{param} is a date as 20250101 or 20250101123000 (UTC+8)", param) from error


def uploaded(outcomes: tuple[Outcome, ...], request_id: str) -> Page:
    """Of the one file there is. Raises ApiError where it was not kept."""
    stored = outcomes[0]
    if not isinstance(stored, StoredFile):
        raise stored.error
    return one(stored, request_id)


def one(stored: StoredFile, request_id: str) -> Page:
    return Page(head=render.JSON_HEAD, body=_ENCODER.encode(_wire(stored)))


def page(found: FilesPage, asked: PageAsked, request_id: str) -> Page:
    return Page(head=render.JSON_HEAD, body=_ENCODER.encode(WireFiles(data=[_wire(row) for row in found.files], has_more=found.has_more)))


def deleted(file_id: str, request_id: str) -> Page:
    return Page(head=render.JSON_HEAD, body=_ENCODER.encode(WireDeleted(id=file_id)))


def content_head(stored: StoredFile) -> Head:
    """Of the raw bytes. A browser that is led here shows nothing of them."""
    headers = {"content-disposition": "attachment", "x-content-type-options": "nosniff"}
    return Head(status=200, media_type="application/octet-stream", headers=headers)


def _wire(stored: StoredFile) -> WireFile:
    return WireFile(
        id=stored.id,
        bytes=stored.size_bytes,
        filename=stored.filename,
        purpose=stored.purpose.value,
        created_at=int(stored.created_at),
    )
