"""This is where a batch's results leave for the browser, piece by piece: as the service's own lines, or as a table of answers."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import BinaryIO, TypeVar
from urllib.parse import quote

from fastapi import FastAPI
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from qwenbox.client import batch_results, spreadsheets
from qwenbox.client.batches import BatchesClient, open_batches
from qwenbox.client.jobs import BatchJob
from qwenbox.console.house import House
from qwenbox.terms.errors import ApiError, ErrorKind

T = TypeVar("T")

_STATUS = {ErrorKind.NOT_FOUND: 404, ErrorKind.OVERLOADED: 503}


class Shelf:
    """The files of one account, by a key of the console's own; one that somebody revoked is replaced."""

    def __init__(self, house: House, account_id: str) -> None:
        self._house = house
        self._account_id = account_id

    @asynccontextmanager
    async def reading(self, file_id: str) -> AsyncGenerator[AsyncIterator[bytes]]:
        """A file's bytes as they come."""
        async with AsyncExitStack() as stack:
            yield await self._tried(stack, lambda client: stack.enter_async_context(client.reading(file_id)))

    async def upload(self, name: str, handle: BinaryIO, size_bytes: int) -> str:
        """The id of what was stored. name: may be anything; the box is told a plain one."""
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[-100:]
        async with AsyncExitStack() as stack:
            return (await self._tried(stack, lambda client: client.upload_from(plain, handle, size_bytes))).id

    async def _tried(self, stack: AsyncExitStack, use: Callable[[BatchesClient], Awaitable[T]]) -> T:
        keys, address = self._house.own_keys, f"{self._house.box}/compatible-mode/v1"
        account = (await self._house.admin.account(self._account_id)).name
        key = await keys.key(account)
        try:
            return await use(await stack.enter_async_context(open_batches(address, key)))
        except ApiError as error:
            if error.kind is not ErrorKind.UNAUTHENTICATED:
                raise
        keys.forget(key)
        return await use(await stack.enter_async_context(open_batches(address, await keys.key(account))))


async def lines(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """Whole lines of a file that comes in pieces."""
    rest = b""
    async for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            if line.strip():
                yield line
    if rest.strip():
        yield rest


def mount(outer: FastAPI, house: House) -> None:
    """`/batches/{id}/results.jsonl`, `errors.jsonl` and `answers.csv`; the door stands before them as before any page."""

    async def fetch(batch_id: str, kind: str) -> Response:
        try:
            batch = await house.admin.batch(batch_id)
            file_id = batch.error_file_id if kind == "errors.jsonl" else batch.output_file_id
            if file_id is None or kind not in ("results.jsonl", "errors.jsonl", "answers.csv"):
                raise ApiError(ErrorKind.NOT_FOUND, "This batch has no such file.")
            stack = AsyncExitStack()
            try:
                answer = await stack.enter_async_context(Shelf(house, batch.account_id).reading(file_id))
            except BaseException:
                await stack.aclose()
                raise
        except ApiError as error:
            return PlainTextResponse(error.message or error.kind.value, _STATUS.get(error.kind, 502))
        is_table = kind.endswith(".csv")
        pieces = _closing(stack, table(answer) if is_table else answer)
        headers = {"content-disposition": attachment(batch, kind), "cache-control": "no-store"}
        return StreamingResponse(pieces, headers=headers, media_type="text/csv" if is_table else "application/jsonl")

    outer.get("/batches/{batch_id}/{kind}", include_in_schema=False)(fetch)


async def _closing(stack: AsyncExitStack, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    async with stack:
        async for piece in pieces:
            yield piece


async def table(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    # With a mark, without which a spreadsheet takes UTF-8 for something else.
    yield b"\xef\xbb\xbf" + _record("custom_id", "answer", "finish_reason", "input_tokens", "output_tokens")
    async for line in lines(pieces):
        row = batch_results.row(0, batch_results.custom_id(line), line)
        usage = batch_results.usage(row)
        tokens = (str(usage.input_tokens), str(usage.output_tokens)) if usage else ("", "")
        yield _record(row.custom_id, row.answer or "", row.finish_reason or "", *tokens)


def _record(*cells: str) -> bytes:
    return spreadsheets.rows([cells]).encode()


def attachment(batch: BatchJob, kind: str) -> str:
    """A name from the batch's own, for every browser: letters that none misunderstands, and the true ones for those that can."""
    base = re.sub(r"\.[A-Za-z0-9]{1,5}$", "", batch.name) or batch.id
    name = f"{base[:80]}-{kind}"
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".")
    true = re.sub(r"[\x00-\x1f\x7f/\\]", "_", name).lstrip(".")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(true, safe='')}"
