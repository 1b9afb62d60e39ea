"""This is where an endpoint finds what it works with."""

from typing import NoReturn

import msgspec

from qwenbox.dialects.base import Dialect
from qwenbox.files import Files
from qwenbox.gateway.conversations import Conversations
from qwenbox.gateway.keys import Keys
from qwenbox.gateway.pipeline import Gateway
from qwenbox.gateway.prices import Prices
from qwenbox.gateway.short_lived import PREFIX, ShortLivedKeys
from qwenbox.jobs.batches import Batches
from qwenbox.jobs.results import Results
from qwenbox.jobs.tasks import Tasks
from qwenbox.server.exchange import Exchange, Hangups, ServerConfig
from qwenbox.terms.caller import Caller
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.uploads import Uploads


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """provokes: requests may ask for a fault, since the box was started for testing."""

    gateway: Gateway
    files: Files
    uploads: Uploads
    batches: Batches
    conversations: Conversations
    tasks: Tasks
    results: Results
    keys: Keys
    short_lived: ShortLivedKeys
    prices: Prices
    config: ServerConfig
    hangups: Hangups
    provokes: bool = False

    def verify(self, secret: str) -> Caller:
        """Who calls with this key, long- or short-lived. Raises ApiError(UNAUTHENTICATED)."""
        if secret.startswith(PREFIX):
            return self.short_lived.verify(secret)
        return self.keys.verify(secret)

    def address(self, exchange: Exchange) -> str:
        """Where the client of this exchange finds the box: scheme and host, for links that it is to follow."""
        return self.config.public_url or exchange.address


def missing(dialect: Dialect) -> NoReturn:
    """A dialect that routes a verb but cannot parse it is a defect of ours."""
    raise ApiError(ErrorKind.INTERNAL, f"the dialect {dialect.name} has a route without a parser")
