"""This is where a box's office is opened: accounts, keys and books on its database, also beside a running box; and its first key."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from qwenbox.clock import Clock, SystemClock, TestClock
from qwenbox.config import Config, ConfigError
from qwenbox.db import Database, open_database
from qwenbox.gateway.accounts import Accounts
from qwenbox.gateway.journal.base import Journal
from qwenbox.gateway.journal.registry import open_journal
from qwenbox.gateway.keys import Keys, NewKey
from qwenbox.gateway.ledger import Ledger
from qwenbox.gateway.prices import Prices
from qwenbox.gateway.settings import Settings
from qwenbox.gateway.shared_clock import SharedClock
from qwenbox.gateway.statements import Statements
from qwenbox.terms.secret import Secret

DEFAULT_ACCOUNT = "default"
FIRST_KEY = "first"


class Office(msgspec.Struct, frozen=True, kw_only=True):
    """What administration needs of a box, running or not. shared_clock: the same clock as somebody to move it; only for testing."""

    clock: Clock
    shared_clock: SharedClock | None
    database: Database
    journal: Journal
    accounts: Accounts
    keys: Keys
    ledger: Ledger
    statements: Statements
    prices: Prices


@asynccontextmanager
async def open_office(config: Config, clock: Clock | None = None) -> AsyncGenerator[Office]:
    """Accounts, keys and books on the box's database, also beside a running box. Raises ConfigError where the data folder cannot be."""
    _make_home(config.home)
    real = SystemClock(config.testing.skew_s)
    clock = clock or (TestClock(real) if config.testing.clock else real)
    async with open_database(config.database_url) as database:
        if not await database.is_current():
            # Alembic takes 0.2 s to import and is needed once per upgrade, not at every start.
            from qwenbox.migrations.upgrade import NewerDatabase, upgrade

            try:
                await database.change(upgrade)
            except NewerDatabase as error:
                raise ConfigError(str(error)) from error
        async with open_journal(config.database_url, config.journal, clock) as journal:
            prices = config.prices
            ledger = Ledger(database, journal, clock, prices.currency)
            await ledger.open()
            shared_clock = None
            if isinstance(clock, TestClock):
                shared_clock = SharedClock(Settings(database), clock, real)
                await shared_clock.refresh()
            yield Office(
                clock=clock,
                shared_clock=shared_clock,
                database=database,
                journal=journal,
                accounts=Accounts(database, clock, tiers=frozenset(config.tier)),
                keys=Keys(database, clock),
                ledger=ledger,
                statements=Statements(database),
                prices=prices,
            )


async def make_first_key(office: Office, preset: Secret | None, *, may_draw: bool = True) -> Secret | None:
    """A preset key is made sure of at every start; without one, the first start draws one. may_draw: False in a worker.

    The key, to be shown once; None when there were keys already.
    """
    await office.keys.refresh()
    if not may_draw:
        return None
    if preset is None and any(key.revoked_at is None for key in await office.keys.every()):
        return None
    account = await office.accounts.named(DEFAULT_ACCOUNT)
    _, secret = await office.keys.issue(NewKey(account_id=account.id, name=FIRST_KEY, secret=preset))
    return secret


def _make_home(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"The data folder {home} cannot be made: {error.strerror}. Choose another one with QWENBOX_HOME.") from error
