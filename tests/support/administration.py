"""This is where tests have an admin API without a network: the real one, on a real database, its usage rows written as calls would."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from urllib.parse import quote

from qwenbox.client.admin import AdminClient, InProcess
from qwenbox.clock import Clock, SystemClock, TestClock
from qwenbox.db import Database, open_database
from qwenbox.gateway import ledger
from qwenbox.gateway.accounts import Accounts
from qwenbox.gateway.cache.cache import Cache
from qwenbox.gateway.cache.config import CacheConfig
from qwenbox.gateway.cache.database import DatabaseShelf
from qwenbox.gateway.journal.base import Journal, Outcome, UsageRow
from qwenbox.gateway.journal.registry import JournalConfig, open_journal
from qwenbox.gateway.keys import Keys
from qwenbox.gateway.prices import PriceRow, Prices, record
from qwenbox.gateway.recordings import RecordingConfig, Recordings
from qwenbox.gateway.settings import Settings
from qwenbox.gateway.shared_clock import SharedClock
from qwenbox.gateway.sign_in import SignIn
from qwenbox.gateway.statements import Statements
from qwenbox.migrations.upgrade import upgrade
from qwenbox.server.admin.api import AdminApi
from qwenbox.server.admin.guard import AdminKey, Guard
from qwenbox.server.admin.parts import AdminParts, Live
from qwenbox.terms.caller import Caller
from qwenbox.terms.model import PriceTier
from qwenbox.terms.secret import Secret

KEY = "ak-test"
BOOK = (
    PriceRow(model="qwen-turbo", since=date(2024, 1, 1), currency="CNY", tiers=(PriceTier(input_micros=300_000, output_micros=600_000),)),
)


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Mapping[str, Any]:
        return self.json["error"]


@dataclass
class Administration:
    """An admin API, and what lies behind it."""

    api: AdminApi
    parts: AdminParts
    database: Database
    journal: Journal
    clock: Clock
    client: AdminClient = field(init=False)

    def __post_init__(self) -> None:
        self.client = AdminClient(InProcess(self.api.application), Secret(KEY))

    async def call(self, method: str, path: str, body: Any = None, *, authorization: str = f"Bearer {KEY}", query: str = "") -> Answer:
        """One request below /admin/v1. body: bytes as they are, anything else as JSON."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        headers = {"authorization": authorization} if authorization else {}
        target = f"/admin/v1{quote(path)}" + (f"?{query}" if query else "")
        reply = await InProcess(self.api.application).send(method, target, headers, data)
        return Answer(reply.status, reply.headers, reply.body)

    async def used(self, account_id: str, key_id: str = "key-1", **columns: Any) -> UsageRow:
        """A call that is over and booked."""
        number = len(await self.database.read(ledger.LEDGER_ENTRIES.select())) + 1
        values: dict[str, Any] = {
            "id": f"call-{number}",
            "account_id": account_id,
            "key_id": key_id,
            "model": "qwen-turbo",
            "deployment": "echo",
            "dialect": "openai",
            "lane": "interactive",
            "day": "2026-11-23",
            "arrived_at": 1_795_400_000.0 + number,
            "admitted_at": 1_795_400_000.0 + number,
            "ttft_s": 0.1,
            "duration_s": 0.5,
            "input_tokens": 1_000,
            "cached_tokens": None,
            "output_tokens": 100,
            "reasoning_tokens": None,
            "outcome": Outcome.COMPLETED,
            "finish_reason": "stop",
            "error_kind": None,
            "cost_micros": 360,
            "currency": "CNY",
            "price_version": BOOK[0].version,
        }
        row = UsageRow(**{**values, **columns})
        await self.journal.commit(ledger.booking(row, Caller(account_id=account_id, key_id=key_id), is_owed=True))
        return row


@asynccontextmanager
async def administration(
    url: str, *, host: str = "127.0.0.1", is_chosen: bool = False, is_testing: bool = False, live: Live | None = None
) -> AsyncGenerator[Administration]:
    """An admin API on an empty database. host, is_chosen: where the box listens, and whether its owner chose the admin key."""
    clock = TestClock(SystemClock()) if is_testing else SystemClock()
    async with open_database(url) as database:
        await database.change(upgrade)
        async with open_journal(url, JournalConfig(), clock) as journal:
            prices = Prices(BOOK)
            await record(database, prices)
            accounts = Accounts(database, clock, ("free", "standard"))
            parts = AdminParts(
                accounts=accounts,
                sign_in=SignIn(database, accounts, clock, Secret(KEY), session_s=3_600.0),
                keys=Keys(database, clock),
                ledger=ledger.Ledger(database, journal, clock, prices.currency),
                statements=Statements(database),
                prices=prices,
                cache=Cache(CacheConfig(), DatabaseShelf(database, CacheConfig(), clock), Settings(database), clock),
                clock=clock,
                recordings=Recordings(database, RecordingConfig(enabled=True), clock),
                alert_share=0.8,
                live=live,
                test_clock=SharedClock(Settings(database), clock, SystemClock()) if isinstance(clock, TestClock) else None,
            )
            guard = Guard(AdminKey(secret=Secret(KEY), is_chosen=is_chosen), host, accounts.log_in, clock)
            yield Administration(AdminApi(parts, guard, 64 * 1024), parts, database, journal, clock)
