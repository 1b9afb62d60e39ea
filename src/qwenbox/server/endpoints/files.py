"""This is where files come in, are listed, read and deleted."""

from contextlib import AsyncExitStack, aclosing

import anyio.to_thread

from qwenbox.dialects.base import Dialect, NotKept, Outcome, WireRequest
from qwenbox.files import Incoming
from qwenbox.server.exchange import Exchange
from qwenbox.server.parts import Parts, missing
from qwenbox.terms.caller import Caller
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.job import NewFile

# One hop to a thread for each.
_PIECE_BYTES = 1024 * 1024


async def upload(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    """The body goes to the disk as it comes, in constant memory; nothing is kept before it is whole."""
    speech = dialect.files or missing(dialect)
    reader = speech.upload(wire)
    arriving: list[Incoming] = []
    async with AsyncExitStack() as stack, aclosing(exchange.pieces()) as pieces:
        async for piece in pieces:
            for number, data in reader.pieces(piece):
                if number == len(arriving):
                    arriving.append(await stack.enter_async_context(parts.files.receive(caller.account_id)))
                await arriving[number].write(data)
        found = zip(arriving, reader.end(), strict=True)
        outcomes = tuple([await _keep(parts, caller, incoming, new) for incoming, new in found])
    await exchange.page(speech.uploaded(outcomes, wire.id))


async def _keep(parts: Parts, caller: Caller, incoming: Incoming, new: NewFile) -> Outcome:
    try:
        return await parts.files.keep(incoming, caller.account_id, new)
    except ApiError as error:
        return NotKept(filename=new.filename, error=error)


async def list_files(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    speech = dialect.files or missing(dialect)
    asked = speech.asked(wire)
    await exchange.page(speech.page(await parts.files.page(caller.account_id, asked), asked, wire.id))


async def get(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    speech = dialect.files or missing(dialect)
    await exchange.page(speech.one(await parts.files.get(caller.account_id, wire.path_params["id"]), wire.id))


async def delete(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    speech = dialect.files or missing(dialect)
    stored = await parts.files.get(caller.account_id, wire.path_params["id"])
    if await parts.batches.reads(stored.id):
        raise ApiError(ErrorKind.CONFLICT, f"A batch still reads {stored.id}: cancel it, or wait for its end.", param="id")
    await parts.files.delete(caller.account_id, stored.id)
    await exchange.page(speech.deleted(stored.id, wire.id))


async def content(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    speech = dialect.files or missing(dialect)
    stored = await parts.files.get(caller.account_id, wire.path_params["id"])
    with await parts.files.open(stored) as handle:
        await exchange.begin(speech.content_head(stored), stored.size_bytes)
        while data := await anyio.to_thread.run_sync(handle.read, _PIECE_BYTES):
            await exchange.write(data)
        await exchange.write(b"", is_last=True)
