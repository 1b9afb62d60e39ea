"""This is where files are spoken about with OpenAI clients: multipart uploads in, file objects out. Wire reference 4.6."""

from calendar import timegm
from datetime import datetime, timedelta, timezone

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from qwenbox.dialects.base import Head, Page, UploadForm, WireRequest
from qwenbox.dialects.openai import fields, render
from qwenbox.terms.job import FilesPage, PageAsked, Purpose, StoredFile

# What one may upload; the fourth purpose is what batches write.
UPLOADED = (Purpose.FILE_EXTRACT, Purpose.BATCH, Purpose.FINE_TUNE)

_PURPOSE_WRONG = "'purpose' must be 'file-extract', 'batch' or 'fine-tune'"
# Of a form field that is not the file.
_FIELD_BYTES = 4096
_FILENAME_CHARACTERS = 255
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
    """Takes a multipart body apart as it comes, however it is cut; holds no more of it than one piece. See dialects.base.UploadReader."""

    def __init__(self, boundary: bytes) -> None:
        self._file = bytearray()
        self._fields: dict[str, bytearray] = {}
        self._filename: str | None = None
        self._header = bytearray()
        self._value = bytearray()
        self._target: bytearray | None = None
        self._is_over = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_part_data": self._data,
                "on_header_field": self._name,
                "on_header_value": self._worth,
                "on_header_end": self._headed,
                "on_end": self._end,
            },
        )

    def feed(self, data: bytes) -> bytes:
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise fields.invalid("The body is not well-formed multipart/form-data.") from error
        found, self._file = bytes(self._file), bytearray()
        # Whoever is the target now goes on being it.
        if self._target is not None and self._target not in self._fields.values():
            self._target = self._file
        return found

    def end(self) -> UploadForm:
        if not self._is_over:
            raise fields.invalid("The multipart body ends before its last boundary.")
        if self._filename is None:
            raise fields.invalid("'file' is a required property, sent as a file of multipart/form-data", "file")
        purpose = bytes(self._fields.get("purpose", b"")).decode("utf-8", "replace").strip()
        if purpose not in UPLOADED:
            raise fields.invalid(_PURPOSE_WRONG, "purpose")
        return UploadForm(purpose=Purpose(purpose), filename=self._filename)

    def _begin(self) -> None:
        self._target = None
        self._header.clear()
        self._value.clear()

    def _name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _worth(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _headed(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            name = options.get(b"name", b"").decode("utf-8", "replace")
            if name == "file":
                if self._filename is not None:
                    raise fields.invalid("One file at a time: the form has two fields named 'file'.", "file")
                self._filename = _label(options.get(b"filename", b"file"))
                self._target = self._file
            elif len(self._fields) < 16:
                self._target = self._fields.setdefault(name, bytearray())
        self._header.clear()
        self._value.clear()

    def _data(self, data: bytes, start: int, end: int) -> None:
        target = self._target
        if target is None:
            return
        target += data[start:end]
        if target is not self._file and len(target) > _FIELD_BYTES:
            raise fields.invalid(f"A form field beside 'file' may have {_FIELD_BYTES} bytes.")

    def _end(self) -> None:
        self._is_over = True


def upload(request: WireRequest) -> Upload:
    """For the body of this request. Raises ApiError(INVALID_REQUEST) when it is no form."""
    kind, options = parse_options_header(request.headers.get("content-type", "").encode("latin-1"))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary or len(boundary) > 256:
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


def one(stored: StoredFile) -> Page:
    return Page(head=render.JSON_HEAD, body=_ENCODER.encode(_wire(stored)))


def page(found: FilesPage) -> Page:
    return Page(head=render.JSON_HEAD, body=_ENCODER.encode(WireFiles(data=[_wire(row) for row in found.files], has_more=found.has_more)))


def deleted(file_id: str) -> Page:
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


def _label(filename: bytes) -> str:
    """What its owner calls the file: the last part of whatever path came, without what no database or terminal should see."""
    last = filename.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in last if letter.isprintable())[:_FILENAME_CHARACTERS] or "file"
