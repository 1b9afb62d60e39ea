"""This is where a client asks how many input tokens a chat would take; nothing is generated and nothing is billed."""

from qwenbox.dialects.base import Dialect, WireRequest
from qwenbox.server.exchange import Exchange
from qwenbox.server.parts import Parts, missing
from qwenbox.terms.caller import Caller


async def count_prompt(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    parse, render = dialect.parse_prompt or missing(dialect), dialect.render_prompt or missing(dialect)
    request = parse(wire, parts.gateway.compat(caller))
    await exchange.page(render(await parts.gateway.count(request, caller), wire.id))
