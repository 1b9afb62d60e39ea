"""This is where files come in, are listed, read and deleted."""

from contextlib import aclosing

import anyio.to_thread

from qwenbox.dialects.base import Dialect, WireRequest
from qwenbox.server.exchange import Exchange
from qwenbox.server.parts import Parts, missing
from qwenbox.terms.caller import Caller
from qwenbox.terms.errors import ApiError, ErrorKind

# One hop to a thread for each.
_PIECE_BYTES = 1024 * 1024


async def upload(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    """The body goes to the disk as it comes, in constant memory."""
    speech = dialect.files or missing(dialect)
    reader = speech.upload(wire)
    async with parts.files.receive(caller.account_id) as incoming, aclosing(exchange.pieces()) as pieces:
        async for piece in pieces:
            await incoming.write(reader.feed(piece))
        form = reader.end()
        stored = await parts.files.keep(incoming, caller.account_id, form.purpose, form.filename)
    await exchange.page(speech.one(stored))


async def list_files(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    speech = dialect.files or missing(dialect)
    await exchange.page(speech.page(await parts.files.page(caller.account_id, speech.asked(wire))))


async def get(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    speech = dialect.files or missing(dialect)
    await exchange.page(speech.one(await parts.files.get(caller.account_id, wire.path_params["id"])))


async def delete(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    speech = dialect.files or missing(dialect)
    stored = await parts.files.get(caller.account_id, wire.path_params["id"])
    if await parts.batches.reads(stored.id):
        raise ApiError(ErrorKind.CONFLICT, f"A batch still reads {stored.id}: cancel it, or wait for its end.", param="id")
    await parts.files.delete(caller.account_id, stored.id)
    await exchange.page(speech.deleted(stored.id))


async def content(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    speech = dialect.files or missing(dialect)
    stored = await parts.files.get(caller.account_id, wire.path_params["id"])
    with await parts.files.open(stored) as handle:
        await exchange.begin(speech.content_head(stored), stored.size_bytes)
        while data := await anyio.to_thread.run_sync(handle.read, _PIECE_BYTES):
            await exchange.write(data)
        await exchange.write(b"", is_last=True)
