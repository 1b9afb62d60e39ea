"""This is where a client gets a short-lived key for somebody whom it would not trust with its own."""

from qwenbox.dialects.base import Dialect, WireRequest
from qwenbox.server.exchange import Exchange
from qwenbox.server.parts import Parts, missing
from qwenbox.terms.caller import Caller


async def short_lived(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    parse, render = dialect.parse_short_lived or missing(dialect), dialect.render_short_lived or missing(dialect)
    key = parts.short_lived.issue(caller, parse(wire))
    await exchange.page(render(key.secret, key.expires_at))
