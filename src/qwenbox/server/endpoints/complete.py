"""This is where a raw prompt enters, in whatever dialect."""

from zlib import crc32

from qwenbox.dialects.base import Dialect, WireRequest
from qwenbox.server.answer import answer
from qwenbox.server.exchange import Exchange
from qwenbox.server.parts import Parts, missing
from qwenbox.terms.call import Call
from qwenbox.terms.caller import Caller


async def complete(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    parse = dialect.parse_completion or missing(dialect)
    parsed = parse(wire, parts.gateway.compat(caller))
    call = Call(
        id=wire.id,
        caller=caller,
        request=parsed.request,
        dialect=dialect.name,
        arrived_at=wire.received_at,
        is_incremental=parsed.reply.heartbeat() != b"",
        mark=crc32(wire.body, crc32(caller.key_id.encode())) or 1,
    )
    await answer(parts, exchange, parsed.reply, parts.gateway.complete(call))
