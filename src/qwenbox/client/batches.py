"""This is where a program uploads files and runs batches: the compatible Files and Batches API over HTTP, of a box or of the service."""

import io
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from secrets import token_hex
from typing import BinaryIO, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import anyio.to_thread
import msgspec

from qwenbox.client.usage import Receipt
from qwenbox.remote import Remote, RemoteAnswer, RemoteReply, RemoteRequest, Source, Timeouts
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret

T = TypeVar("T")

OVER = frozenset({"completed", "failed", "expired", "cancelled"})
PAGE_SIZE = 100
_PIECE_BYTES = 1024 * 1024

_TIMEOUTS = Timeouts(connect_s=5.0, first_byte_s=60.0, between_bytes_s=60.0)
# The body goes out before the first byte comes in, over whatever line there is.
_UPLOAD_TIMEOUTS = Timeouts(connect_s=5.0, first_byte_s=1_800.0, between_bytes_s=60.0)
# The service reads dates in Beijing's time.
_BEIJING = timezone(timedelta(hours=8))
_KINDS = {
    400: ErrorKind.INVALID_REQUEST,
    401: ErrorKind.UNAUTHENTICATED,
    403: ErrorKind.FORBIDDEN,
    404: ErrorKind.NOT_FOUND,
    405: ErrorKind.METHOD_NOT_ALLOWED,
    408: ErrorKind.TIMEOUT,
    409: ErrorKind.CONFLICT,
    413: ErrorKind.TOO_LARGE,
    429: ErrorKind.RATE_LIMITED,
    500: ErrorKind.INTERNAL,
    502: ErrorKind.ENGINE_FAILED,
    503: ErrorKind.OVERLOADED,
    504: ErrorKind.TIMEOUT,
}


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """What the other side tells; fields that it leaves out or that we do not know do no harm."""


class StoredFile(_Told, frozen=True, kw_only=True):
    id: str
    bytes: int = 0
    filename: str = ""


class Fault(_Told, frozen=True, kw_only=True):
    """Why a batch's file was not run. line: of the file, from 1."""

    code: str | None = ""
    message: str | None = ""
    line: int | None = None


class Faults(_Told, frozen=True, kw_only=True):
    data: tuple[Fault, ...] | None = ()


class Counts(_Told, frozen=True, kw_only=True):
    total: int = 0
    completed: int = 0
    failed: int = 0


class BatchUsage(_Told, frozen=True, kw_only=True):
    input_tokens: int = 0
    output_tokens: int = 0


class BatchCost(_Told, frozen=True, kw_only=True):
    """Only a box tells it: what the lines that are done have cost."""

    cost_micros: int
    currency: str


class Batch(_Told, frozen=True, kw_only=True):
    """Times are whole seconds since the epoch. usage, qwenbox: None where the service does not tell them."""

    id: str
    endpoint: str = ""
    status: str
    input_file_id: str = ""
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: Faults | None = None
    completion_window: str = ""
    created_at: int = 0
    in_progress_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelled_at: int | None = None
    expires_at: int | None = None
    request_counts: Counts | None = None
    metadata: dict[str, str] | None = None
    model: str | None = None
    usage: BatchUsage | None = None
    qwenbox: BatchCost | None = None

    @property
    def is_over(self) -> bool:
        return self.status in OVER

    @property
    def counts(self) -> Counts:
        return self.request_counts or Counts()

    @property
    def name(self) -> str:
        return (self.metadata or {}).get("ds_name", "")

    @property
    def description(self) -> str:
        return (self.metadata or {}).get("ds_description", "")


class NewBatch(msgspec.Struct, frozen=True, kw_only=True):
    input_file_id: str
    endpoint: str
    completion_window: str = "24h"
    metadata: dict[str, str] = {}


class _Page(_Told, frozen=True, kw_only=True):
    # The service says null for an empty list.
    data: tuple[Batch, ...] | None = ()
    has_more: bool = False


class _FilesPage(_Told, frozen=True, kw_only=True):
    data: tuple[StoredFile, ...] | None = ()
    has_more: bool = False


class _Deleted(_Told, frozen=True, kw_only=True):
    deleted: bool = True


class _Problem(_Told, frozen=True, kw_only=True):
    message: str | None = ""


class _Refusal(_Told, frozen=True, kw_only=True):
    error: _Problem = _Problem()


class BatchesClient:
    """address: the compatible base URL, such as "http://127.0.0.1:8000/compatible-mode/v1". Every call raises ApiError in its words."""

    def __init__(self, remote: Remote, address: str, key: Secret) -> None:
        self.address = address.rstrip("/")
        self._remote = remote
        self._key = key
        self._peer = f"The server at {self.address}"

    async def upload(self, filename: str, data: bytes) -> StoredFile:
        """Store the lines of a batch. filename: plain ASCII without quotes."""
        return await self.upload_from(filename, io.BytesIO(data), len(data))

    async def upload_from(self, filename: str, handle: BinaryIO, size_bytes: int) -> StoredFile:
        """The same from a file, piece by piece, from its first byte to `size_bytes`."""
        boundary = f"qwenbox-{token_hex(16)}"
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n'
            "Content-Type: application/jsonl\r\n\r\n"
        )
        tail = f"\r\n--{boundary}--\r\n".encode()

        async def pieces() -> AsyncGenerator[bytes]:
            handle.seek(0)
            left = size_bytes
            while left and (piece := await anyio.to_thread.run_sync(handle.read, min(_PIECE_BYTES, left))):
                left -= len(piece)
                yield piece
            yield tail

        headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
        request = self._request("POST", "/files", head.encode(), headers)
        source = Source(size_bytes=size_bytes + len(tail), open=pieces)
        request = msgspec.structs.replace(request, timeouts=_UPLOAD_TIMEOUTS, source=source)
        return self._read(await self._remote.call(request), StoredFile)

    async def find_file(self, filename: str, since: float) -> StoredFile | None:
        """The newest batch input of that name which was stored after `since` (seconds since the epoch)."""
        created = datetime.fromtimestamp(since, _BEIJING).strftime("%Y%m%d%H%M%S")
        after = ""
        while True:
            query = {"purpose": "batch", "limit": str(PAGE_SIZE), "create_after": created, **({"after": after} if after else {})}
            page = await self._get(f"/files?{urlencode(query)}", _FilesPage)
            rows = page.data or ()
            for row in rows:
                if row.filename == filename:
                    return row
            if not page.has_more or not rows:
                return None
            after = rows[-1].id

    async def delete_file(self, file_id: str) -> None:
        """Raises ApiError: NOT_FOUND, or CONFLICT while a batch reads it."""
        self._read(await self._remote.call(self._request("DELETE", f"/files/{_segment(file_id)}")), _Deleted)

    async def content(self, file_id: str, target: BinaryIO) -> None:
        """Write a file's bytes to `target`, as they come. Raises ApiError(ENGINE_FAILED) when they end too soon."""
        async with self.reading(file_id) as answer:
            async for chunk in answer:
                target.write(chunk)

    @asynccontextmanager
    async def reading(self, file_id: str) -> AsyncGenerator[RemoteAnswer]:
        """A file's bytes as they come; whoever leaves early wants no more of them. Raises as `content` does."""
        async with self._remote.stream(self._request("GET", f"/files/{_segment(file_id)}/content")) as answer:
            if answer.status != 200:
                raise _refused(RemoteReply(status=answer.status, headers=answer.headers, body=await answer.read()))
            yield answer

    async def create(self, new: NewBatch) -> Batch:
        """Ask once. A failure other than a refusal does not tell whether the batch was made."""
        request = self._request("POST", "/batches", msgspec.json.encode(new), {"content-type": "application/json"})
        # On a connection of its own: an exchange on a kept one that ends before its answer is asked again, which here might pay twice.
        async with Remote() as remote:
            return self._read(await remote.call(request), Batch)

    async def get(self, batch_id: str) -> Batch:
        return await self._get(f"/batches/{_segment(batch_id)}", Batch)

    async def cancel(self, batch_id: str) -> Batch:
        """Raises ApiError(CONFLICT) when it is over."""
        return self._read(await self._remote.call(self._request("POST", f"/batches/{_segment(batch_id)}/cancel")), Batch)

    async def every(self, *, name: str = "", statuses: str = "") -> AsyncIterator[Batch]:
        """Newest first. name: part of their `ds_name`; statuses: separated by commas."""
        after = ""
        while True:
            wanted = {"limit": str(PAGE_SIZE), "after": after, "ds_name": name, "status": statuses}
            page = await self._get(f"/batches?{urlencode({key: value for key, value in wanted.items() if value})}", _Page)
            rows = page.data or ()
            for row in rows:
                yield row
            if not page.has_more or not rows:
                return
            after = rows[-1].id

    async def receipt(self, request_id: str) -> Receipt:
        """What one call cost; only a box tells it."""
        parts = urlsplit(self.address)
        url = f"{parts.scheme}://{parts.netloc}/qwenbox/v1/receipts/{_segment(request_id)}"
        request = msgspec.structs.replace(self._request("GET", ""), url=url)
        return self._read(await self._remote.call(request), Receipt)

    def _request(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> RemoteRequest:
        return RemoteRequest(
            method=method,
            url=self.address + path,
            body=body,
            headers={"authorization": f"Bearer {self._key.reveal()}", "accept": "*/*", **(headers or {})},
            timeouts=_TIMEOUTS,
            peer=self._peer,
        )

    async def _get(self, path: str, kind: type[T]) -> T:
        return self._read(await self._remote.call(self._request("GET", path)), kind)

    def _read(self, reply: RemoteReply, kind: type[T]) -> T:
        if reply.status >= 300:
            raise _refused(reply)
        try:
            return msgspec.json.decode(reply.body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            text = f"{self._peer} answered something that is no answer of the Batches API; is the address the compatible base URL?"
            raise ApiError(ErrorKind.INVALID_REQUEST, text) from error


@asynccontextmanager
async def open_batches(address: str, key: Secret) -> AsyncGenerator[BatchesClient]:
    async with Remote() as remote:
        yield BatchesClient(remote, address, key)


def _refused(reply: RemoteReply) -> ApiError:
    try:
        said = msgspec.json.decode(reply.body, type=_Refusal).error.message or ""
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = ""
    kind = _KINDS.get(reply.status) or (ErrorKind.INTERNAL if reply.status >= 500 else ErrorKind.INVALID_REQUEST)
    wait = reply.headers.get("retry-after", "")
    return ApiError(kind, said or f"The server answered HTTP {reply.status}.", retry_after_s=float(wait) if wait.isdecimal() else None)


def _segment(name: str) -> str:
    return quote(name, safe="")
