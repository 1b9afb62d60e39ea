"""This is where a caller gets the receipt of its own call, with its own key: GET /qwenbox/v1/receipts/{request id}.

Not below a dialect's prefix: the services we are compatible with have paths of their own there.
"""

from collections.abc import Callable

import msgspec

from qwenbox.client import usage
from qwenbox.dialects.base import Head, Page
from qwenbox.gateway.statements import Receipt, Statements
from qwenbox.server import problems
from qwenbox.server.exchange import Exchange
from qwenbox.terms.caller import Caller
from qwenbox.terms.errors import ApiError, ErrorKind

PREFIX = "/qwenbox/v1/receipts/"

_MOST_ID = 128
_BODY_LIMIT_BYTES = 64 * 1024
_NONE = "No call of yours has this request id. A receipt is there as soon as the call's answer is."
_encoder = msgspec.json.Encoder()


class Receipts:
    """verify: who calls with a key; raises ApiError(UNAUTHENTICATED)."""

    def __init__(self, statements: Statements, verify: Callable[[str], Caller]) -> None:
        self._statements = statements
        self._verify = verify

    async def answer(self, exchange: Exchange) -> None:
        """The receipt, or why there is none: 404 also for other accounts' calls. What it does not expect is raised."""
        try:
            await exchange.page(await self._page(exchange))
        except ApiError as error:
            await exchange.page(problems.page(error))

    async def _page(self, exchange: Exchange) -> Page:
        wire = await exchange.read(_BODY_LIMIT_BYTES)
        caller = self._verify(_credential(wire.headers.get("authorization", "")))
        if wire.method != "GET":
            raise ApiError(ErrorKind.METHOD_NOT_ALLOWED, "A receipt can only be read: GET.")
        request_id = wire.path.removeprefix(PREFIX)
        # What no id can be is not asked of a database, which may refuse the very characters.
        is_id = len(request_id) <= _MOST_ID and request_id.isascii() and request_id.isprintable()
        found = await self._statements.receipt(request_id) if is_id else None
        if found is None or found.call.account_id != caller.account_id:
            raise ApiError(ErrorKind.NOT_FOUND, _NONE)
        return Page(head=Head(status=200, media_type="application/json"), body=_encoder.encode(shown(found)))


def shown(receipt: Receipt) -> usage.Receipt:
    """As our own APIs tell it."""
    values = msgspec.to_builtins(receipt)
    values["call"]["notes"] = msgspec.json.decode(receipt.call.notes)
    return msgspec.convert(values, usage.Receipt)


def _credential(authorization: str) -> str:
    scheme, _, key = authorization.strip().partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise ApiError(ErrorKind.UNAUTHENTICATED, "A receipt needs the API key of the account that called, as `Authorization: Bearer`.")
    return key.strip()
