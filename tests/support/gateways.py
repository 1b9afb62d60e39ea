"""This is where tests put a gateway together on a database of their own: everything but server and dialects."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from qwenbox.clock import Clock, SystemClock
from qwenbox.db import Database, open_database
from qwenbox.gateway.admission import Admission
from qwenbox.gateway.catalog import Catalog, ModelEntry
from qwenbox.gateway.counters.base import CountersConfig, PurseState
from qwenbox.gateway.counters.memory import MemoryCounters
from qwenbox.gateway.journal.base import Journal
from qwenbox.gateway.journal.registry import JournalConfig, open_journal
from qwenbox.gateway.ledger import Ledger
from qwenbox.gateway.limits import LimitsConfig, Tier, Tiers
from qwenbox.gateway.metering import Metering
from qwenbox.gateway.pipeline import Gateway
from qwenbox.gateway.prices import PriceRow, Prices
from qwenbox.gateway.router import Router
from qwenbox.gateway.scheduler import SchedulerConfig
from qwenbox.migrations.upgrade import upgrade
from qwenbox.terms.caller import Compat
from qwenbox.terms.engine import TextEngine
from qwenbox.terms.model import Capability, Choice, ModelCard

CARD = ModelCard(context_tokens=4096, capabilities=frozenset(Capability))
PRICES = msgspec.convert(
    [{"model": "m", "from": "2026-01-01", "currency": "CNY", "tiers": [{"input_micros": 1_000_000, "output_micros": 2_000_000}]}],
    tuple[PriceRow, ...],
    strict=False,
)


class Office(msgspec.Struct, frozen=True, kw_only=True):
    """told: every purse state that metering passed on."""

    gateway: Gateway
    counters: MemoryCounters
    database: Database
    journal: Journal
    ledger: Ledger
    metering: Metering
    told: list[PurseState]


@asynccontextmanager
async def open_gateway(
    folder: Path,
    *engines: TextEngine,
    card: ModelCard = CARD,
    tier: Tier | None = None,
    journal: Journal | None = None,
    choice: Choice = Choice.ORDERED,
) -> AsyncGenerator[Office]:
    """A gateway whose one model `m` runs on `engines`, best first. journal: instead of the database's own."""
    url = f"sqlite+aiosqlite:///{folder / 'books.db'}"
    clock: Clock = SystemClock()
    async with open_database(url) as database:
        await database.change(upgrade)
        async with open_journal(url, JournalConfig(), clock) as own:
            books = journal or own
            names = tuple(f"e{number}" for number in range(len(engines)))
            entry = ModelEntry(name="m", card=card, deployments=names, choice=choice)
            catalog = Catalog((entry,), dict(zip(names, engines, strict=True)))
            ledger = Ledger(database, own, clock)
            counters = MemoryCounters(CountersConfig(wait_s=5.0), clock, ledger.load)
            tiers = Tiers(LimitsConfig(default_tier="test"), {"test": tier or Tier()})
            admission = Admission(counters, tiers, Prices(PRICES), books, clock)
            told: list[PurseState] = []
            metering = Metering(books, admission, clock, told.extend)
            gateway = Gateway(catalog, Router(SchedulerConfig()), admission, metering, Compat.DOCUMENTED)
            yield Office(gateway=gateway, counters=counters, database=database, journal=books, ledger=ledger, metering=metering, told=told)
