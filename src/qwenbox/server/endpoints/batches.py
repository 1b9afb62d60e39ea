"""This is where batches are asked for, shown and cancelled; their lines run elsewhere (jobs)."""

from qwenbox.dialects.base import Dialect, WireRequest
from qwenbox.server.exchange import Exchange
from qwenbox.server.parts import Parts, missing
from qwenbox.terms.caller import Caller


async def create(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    speech = dialect.batches or missing(dialect)
    await exchange.page(speech.one(await parts.batches.create(caller, speech.new(wire))))


async def list_batches(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    speech = dialect.batches or missing(dialect)
    await exchange.page(speech.page(await parts.batches.page(caller.account_id, speech.asked(wire))))


async def get(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    speech = dialect.batches or missing(dialect)
    await exchange.page(speech.one(await parts.batches.get(caller.account_id, wire.path_params["id"])))


async def cancel(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    speech = dialect.batches or missing(dialect)
    await exchange.page(speech.one(await parts.batches.cancel(caller.account_id, wire.path_params["id"])))
