"""This is where a wish for pictures enters, in whatever dialect."""

from qwenbox.dialects.base import Dialect, WireRequest
from qwenbox.server.answer import answer
from qwenbox.server.exchange import Exchange
from qwenbox.server.incoming import call
from qwenbox.server.parts import Parts, missing
from qwenbox.terms.caller import Caller


async def make_image(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    parse = dialect.parse_image or missing(dialect)
    parsed = parse(wire, parts.gateway.compat(caller))
    opening = parts.gateway.image(call(parts, dialect, wire, caller, parsed))
    await answer(parts, exchange, parsed.reply, opening)
