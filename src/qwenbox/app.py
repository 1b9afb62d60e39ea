"""This is where a box is put together: Config in, running box out. The only place that builds components."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import msgspec

from qwenbox.clock import Clock, SystemClock
from qwenbox.config import Config
from qwenbox.db import Database, open_database
from qwenbox.dialects.registry import DIALECTS
from qwenbox.engines.memory import MemoryBudget
from qwenbox.engines.registry import EngineParts, open_engine
from qwenbox.engines.tokenizer import Vocabularies
from qwenbox.gateway.accounts import Accounts
from qwenbox.gateway.admission import Admission
from qwenbox.gateway.alerts import Alerts
from qwenbox.gateway.catalog import Catalog
from qwenbox.gateway.counters.base import Counters, CountersConfig
from qwenbox.gateway.counters.memory import MemoryCounters
from qwenbox.gateway.journal.base import Journal
from qwenbox.gateway.journal.registry import open_journal
from qwenbox.gateway.keys import Keys, NewKey
from qwenbox.gateway.ledger import Ledger
from qwenbox.gateway.limits import Tiers
from qwenbox.gateway.metering import Metering
from qwenbox.gateway.pipeline import Gateway
from qwenbox.gateway.prices import Prices, record
from qwenbox.gateway.router import Router
from qwenbox.remote import Remote
from qwenbox.server.asgi import build
from qwenbox.server.exchange import Hangups, Receive, Scope, Send
from qwenbox.server.parts import Parts
from qwenbox.server.probes import Probes
from qwenbox.terms.engine import TextEngine
from qwenbox.terms.secret import Secret
from qwenbox.weights.store import WeightsStore

DEFAULT_ACCOUNT = "default"
FIRST_KEY = "first"


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """A running box. first_key: the key made at this start, shown once; None when there were keys already."""

    application: Callable[[Scope, Receive, Send], Awaitable[None]]
    catalog: Catalog
    first_key: Secret | None


class Office(msgspec.Struct, frozen=True, kw_only=True):
    """What administration needs of a box, running or not."""

    database: Database
    journal: Journal
    accounts: Accounts
    keys: Keys
    ledger: Ledger
    prices: Prices


@asynccontextmanager
async def open_office(config: Config, clock: Clock | None = None) -> AsyncGenerator[Office]:
    """Accounts, keys and books on the box's database, also beside a running box."""
    config.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    clock = clock or SystemClock()
    async with open_database(config.database_url) as database:
        if not await database.is_current():
            # Alembic takes 0.2 s to import and is needed once per upgrade, not at every start.
            from qwenbox.migrations.upgrade import upgrade

            await database.change(upgrade)
        async with open_journal(config.database_url, config.journal, clock) as journal:
            prices = config.prices
            ledger = Ledger(database, journal, clock, prices.currency)
            await ledger.open()
            yield Office(
                database=database,
                journal=journal,
                accounts=Accounts(database, clock),
                keys=Keys(database, clock),
                ledger=ledger,
                prices=prices,
            )


@asynccontextmanager
async def open_box(config: Config, clock: Clock | None = None) -> AsyncGenerator[Box]:
    """Everything, opened in dependency order and closed in reverse."""
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        office = await stack.enter_async_context(open_office(config, clock))
        first_key = await _first_key(office, config.api_key)
        await record(office.database, office.prices)
        engines = await _open_engines(stack, config, clock)
        catalog = Catalog(config.model, engines)
        counters = MemoryCounters(CountersConfig(window_s=config.limits.window_s, wait_s=config.money.wait_s), clock, office.ledger.load)
        gateway = _gateway(config, office, catalog, counters, clock)
        parts = Parts(gateway=gateway, keys=office.keys, prices=office.prices, config=config.server, hangups=Hangups())
        tasks = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(tasks.cancel_scope.cancel)
        tasks.start_soon(office.keys.follow)
        yield Box(application=build(parts, DIALECTS, Probes(catalog, DIALECTS)), catalog=catalog, first_key=first_key)


def _gateway(config: Config, office: Office, catalog: Catalog, counters: Counters, clock: Clock) -> Gateway:
    admission = Admission(counters, Tiers(config.limits, config.tier), office.prices, office.journal, clock)
    alerts = Alerts(config.money.alert_share, office.keys.budget)
    metering = Metering(office.journal, admission, clock, alerts.hear)
    return Gateway(catalog, Router(config.scheduler), admission, metering, config.compat)


async def _open_engines(stack: AsyncExitStack, config: Config, clock: Clock) -> dict[str, TextEngine]:
    remote = await stack.enter_async_context(Remote())
    store = await stack.enter_async_context(WeightsStore(config.home, config.weights, config.store))
    parts = EngineParts(
        remote=remote, store=store, memory=MemoryBudget(config.memory.bytes_allowed), vocabularies=Vocabularies(), clock=clock
    )
    return {name: await stack.enter_async_context(open_engine(engine, parts)) for name, engine in config.engine.items()}


async def _first_key(office: Office, preset: Secret | None) -> Secret | None:
    """A preset key is made sure of at every start; without one, the first start draws one."""
    await office.keys.refresh()
    if preset is None and any(key.revoked_at is None for key in await office.keys.every()):
        return None
    account = await office.accounts.named(DEFAULT_ACCOUNT)
    _, secret = await office.keys.issue(NewKey(account_id=account.id, name=FIRST_KEY, secret=preset))
    return secret
