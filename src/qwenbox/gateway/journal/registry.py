"""This is where the journal of a database is opened, by its URL."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Literal

import msgspec

from qwenbox.clock import Clock
from qwenbox.db import is_postgres
from qwenbox.gateway.journal.group import GroupJournal
from qwenbox.gateway.journal.sqlite import SqliteStore
from qwenbox.gateway.journal.store import Store


class JournalConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """commit_wait_s: how long the end of a call waits for its row, seconds, > 0.

    sync: "normal" survives kill -9 of every process of the box; "full" also a power cut of this machine, by an fsync per group on
    SQLite. On PostgreSQL the server's own setting counts, and "full" makes sure that it waits for its disk.
    """

    commit_wait_s: float = 5.0
    sync: Literal["normal", "full"] = "normal"


@asynccontextmanager
async def open_journal(url: str, config: JournalConfig, clock: Clock) -> AsyncGenerator[GroupJournal]:
    """The journal of a database that is at the newest revision. Leaving writes what is left."""
    journal = GroupJournal(await _store(url, config), config.commit_wait_s, clock)
    try:
        yield journal
    finally:
        await journal.close()


async def _store(url: str, config: JournalConfig) -> Store:
    is_full = config.sync == "full"
    if is_postgres(url):
        # A box on SQLite starts 0.1 s sooner without this driver.
        from qwenbox.gateway.journal.postgres import PostgresStore  # noqa: PLC0415

        return await PostgresStore.open(url, config.commit_wait_s, is_full=is_full)
    return SqliteStore(url, config.commit_wait_s, is_full=is_full)
