"""This is where the admin API finds what it works with."""

from collections.abc import Awaitable, Callable

import msgspec

from qwenbox.clock import Clock
from qwenbox.gateway.accounts import Accounts
from qwenbox.gateway.cache.cache import Cache
from qwenbox.gateway.catalog import Catalog
from qwenbox.gateway.counters.base import LiveWindow
from qwenbox.gateway.keys import Keys
from qwenbox.gateway.ledger import Ledger
from qwenbox.gateway.limits import Tiers
from qwenbox.gateway.prices import Prices
from qwenbox.gateway.recordings import Recordings
from qwenbox.gateway.shared_clock import SharedClock
from qwenbox.gateway.sign_in import SignIn
from qwenbox.gateway.statements import Statements
from qwenbox.jobs.batches import Batches
from qwenbox.server.admin.machine import Machine
from qwenbox.terms.errors import ApiError, ErrorKind


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """What only a running box has. windows: what its counters hold now. machine: what runs below models. tiers: all limits."""

    catalog: Catalog
    windows: Callable[[], Awaitable[tuple[LiveWindow, ...]]]
    machine: Machine
    batches: Batches
    tiers: Tiers


class AdminParts(msgspec.Struct, frozen=True, kw_only=True):
    """live: None beside a running box, or without one. test_clock: None unless the box is started for testing.

    recordings: prompts and answers, where calls are recorded or were. alert_share: `[money] alert_share`.
    """

    accounts: Accounts
    sign_in: SignIn
    keys: Keys
    ledger: Ledger
    statements: Statements
    prices: Prices
    cache: Cache
    clock: Clock
    recordings: Recordings
    alert_share: float
    live: Live | None = None
    test_clock: SharedClock | None = None


def live(parts: AdminParts) -> Live:
    """Raises ApiError(NOT_FOUND) where no box runs."""
    if parts.live is None:
        raise ApiError(ErrorKind.NOT_FOUND, "Only a running box can tell this; ask it by its address (--url, QWENBOX_ADMIN_URL).")
    return parts.live
