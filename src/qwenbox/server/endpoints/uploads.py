"""This is where a client gets a leave to upload files for a call."""

from qwenbox.dialects.base import Dialect, WireRequest
from qwenbox.server.exchange import Exchange
from qwenbox.server.parts import Parts, missing
from qwenbox.server.uploads import PREFIX
from qwenbox.terms.caller import Caller
from qwenbox.terms.upload import Grant


async def grant(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    speech, uploads = dialect.uploads or missing(dialect), parts.uploads
    # An upload for a model that this key may not use is of no use either.
    parts.gateway.catalog.resolve(speech.asked(wire), caller)
    permit = uploads.permit(caller.account_id)
    policy = speech.policy(permit)
    given = Grant(
        permit=permit,
        policy=policy,
        signature=uploads.sign(policy),
        url=parts.address(exchange) + PREFIX,
        lasts_s=uploads.config.permit_s,
        account_bytes=uploads.config.account_bytes,
    )
    await exchange.page(speech.granted(given, wire.id))
