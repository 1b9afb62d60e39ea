"""This is where stored files are spoken about natively: forms in, their descriptions out (wire reference 7.7; times are Beijing's)."""

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from qwenbox.dialects import forms
from qwenbox.dialects.base import Head, NotKept, Outcome, Page, WireRequest
from qwenbox.dialects.dashscope import errors, tasks
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.job import FilesPage, NewFile, PageAsked, Purpose, StoredFile

_FIELD = "files"
_MOST_FILES = 10
_MOST_LISTED, _DEFAULT_LISTED, _LAST_PAGE = 100, 10, 1_000_000
_MOST_DESCRIPTION = 1_000
# The SDKs never say what a file is for; what they mean by default is fine-tuning.
_PURPOSES: Mapping[str, Purpose] = {
    "": Purpose.FINE_TUNE,
    "fine-tune": Purpose.FINE_TUNE,
    "fine_tune": Purpose.FINE_TUNE,
    "file-extract": Purpose.FILE_EXTRACT,
    "batch": Purpose.BATCH,
}
_PURPOSE_WRONG = "purpose must be one of fine-tune, file-extract, batch"
# The service's code for a file that an account has no room for.
_NO_ROOM = "BadRequest.TooMany"
# Files have a number beside their id here: as much of the id's random part as a double holds.
_NUMBER_DIGITS = 13

_JSON = Head(status=200, media_type="application/json")
_encoder = msgspec.json.Encoder()


class _File(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    file_id: str
    name: str
    description: str
    purpose: str
    size: int
    md5: str
    region: str = tasks.REGION
    url: str = ""
    user_id: str
    api_key_id: str = ""
    gmt_create: str


class _Uploaded(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    file_id: str


class _Failed(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    code: str
    message: str


class _Upload(msgspec.Struct, frozen=True, kw_only=True):
    uploaded_files: list[_Uploaded]
    failed_uploads: list[_Failed]


class _List(msgspec.Struct, frozen=True, kw_only=True):
    total: int
    page_no: int
    page_size: int
    files: list[_File]


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    data: _Upload | _List | _File
    request_id: str


class _Deleted(msgspec.Struct, frozen=True, kw_only=True):
    request_id: str


class Upload:
    """See dialects.base.UploadReader."""

    def __init__(self, boundary: bytes) -> None:
        self._form = forms.Form(boundary, _FIELD, _MOST_FILES)

    def pieces(self, data: bytes) -> list[tuple[int, bytes]]:
        return self._form.pieces(data)

    def end(self) -> tuple[NewFile, ...]:
        self._form.end()
        purpose = _PURPOSES.get(self._form.fields.get("purpose", "").strip())
        if purpose is None:
            raise ApiError(ErrorKind.INVALID_REQUEST, _PURPOSE_WRONG, param="purpose")
        said = [_description(text) for text in self._form.values("descriptions")]
        said += [""] * (len(self._form.filenames) - len(said))
        # More descriptions than files: the rest is about nothing.
        named = zip(self._form.filenames, said, strict=False)
        return tuple([NewFile(purpose=purpose, filename=forms.label(name), description=text) for name, text in named])


def upload(request: WireRequest) -> Upload:
    """For the body of this request. Raises ApiError(INVALID_REQUEST) when it is no form."""
    boundary = forms.boundary(request.headers.get("content-type", ""))
    if boundary is None:
        raise ApiError(ErrorKind.INVALID_REQUEST, "Files are uploaded as multipart/form-data in fields named 'files'.", param=_FIELD)
    return Upload(boundary)


def asked(request: WireRequest) -> PageAsked:
    """Raises ApiError(INVALID_REQUEST) naming the parameter."""
    page_no = tasks.number(request.query, "page_no", 1, _LAST_PAGE)
    page_size = tasks.number(request.query, "page_size", _DEFAULT_LISTED, _MOST_LISTED)
    return PageAsked(limit=page_size, skip=(page_no - 1) * page_size, is_counted=True)


def uploaded(outcomes: tuple[Outcome, ...], request_id: str) -> Page:
    """Raises ApiError where nothing was kept: SDKs take a page of failures only for a success."""
    failed = [outcome for outcome in outcomes if isinstance(outcome, NotKept)]
    if len(failed) == len(outcomes):
        raise failed[0].error
    kept = [_Uploaded(name=outcome.filename, file_id=outcome.id) for outcome in outcomes if isinstance(outcome, StoredFile)]
    return _page(_Told(data=_Upload(uploaded_files=kept, failed_uploads=[_failed(outcome) for outcome in failed]), request_id=request_id))


def one(stored: StoredFile, request_id: str) -> Page:
    return _page(_Told(data=_file(stored), request_id=request_id))


def page(found: FilesPage, asked: PageAsked, request_id: str) -> Page:
    files = [_file(stored) for stored in found.files]
    listed = _List(total=found.total, page_no=asked.skip // asked.limit + 1, page_size=asked.limit, files=files)
    return _page(_Told(data=listed, request_id=request_id))


def deleted(file_id: str, request_id: str) -> Page:
    return _page(_Deleted(request_id=request_id))


def content_head(stored: StoredFile) -> Head:
    """Of the raw bytes, which have no path of their own in this dialect."""
    return Head(status=200, media_type="application/octet-stream", headers={"content-disposition": "attachment"})


def _file(stored: StoredFile) -> _File:
    return _File(
        id=int(stored.id[-_NUMBER_DIGITS:], 16),
        file_id=stored.id,
        name=stored.filename,
        description=stored.description,
        purpose=stored.purpose.value,
        size=stored.size_bytes,
        md5=stored.md5,
        user_id=stored.account_id,
        gmt_create=datetime.fromtimestamp(stored.created_at, UTC).astimezone(tasks.BEIJING).strftime("%Y-%m-%d %H:%M:%S"),
    )


def _failed(outcome: NotKept) -> _Failed:
    entry = errors.wire(outcome.error)
    code = _NO_ROOM if outcome.error.kind is ErrorKind.QUOTA_EXHAUSTED else entry.code
    return _Failed(name=outcome.filename, code=code, message=entry.text)


def _description(text: str) -> str:
    """Without what no database or terminal should see."""
    return "".join(letter for letter in text if letter.isprintable())[:_MOST_DESCRIPTION]


def _page(value: msgspec.Struct) -> Page:
    return Page(head=_JSON, body=_encoder.encode(value))
