"""This is where tests look into a box's books, beside the running box: rows, entries, purses, and what does not add up."""

from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
from sqlalchemy import Table, select

from boxes import Box
from qwenbox.app.office import Office, open_office
from qwenbox.config import load
from qwenbox.db import open_database
from qwenbox.gateway.journal.tables import LEDGER_ENTRIES, PURSES, USAGE


class Books:
    """The books of the box whose data folder and database these are. url: "" is the folder's own SQLite file."""

    def __init__(self, box: Box, url: str = "") -> None:
        self._url = url or f"sqlite+aiosqlite:///{box.home / 'qwenbox.db'}"
        self._environment = {"QWENBOX_HOME": str(box.home), "QWENBOX_PROFILE": box.profile, "QWENBOX_DATABASE_URL": self._url}

    def rows(self, table: Table = USAGE) -> list[dict[str, Any]]:
        async def read() -> list[dict[str, Any]]:
            async with open_database(self._url) as database:
                return await database.read(select(table))

        return anyio.run(read)

    def office(self, work: Callable[[Office], Coroutine[Any, Any, Any]]) -> Any:
        """What `work` returns; it runs in this process, beside the box."""

        async def run() -> Any:
            async with open_office(load(environment=self._environment)) as office:
                return await work(office)

        return anyio.run(run)

    def balance(self, account_id: str) -> int:
        return next((int(row["amount_micros"]) for row in self.rows(PURSES) if row["id"] == f"balance/{account_id}"), 0)

    def faults(self) -> list[str]:
        """What does not add up, by this file's own arithmetic, not the box's."""
        usage, entries, purses = self.rows(), self.rows(LEDGER_ENTRIES), {row["id"]: row["amount_micros"] for row in self.rows(PURSES)}
        sums: dict[str, int] = defaultdict(int)
        customers: dict[str, int] = defaultdict(int)
        billed: dict[str, int] = {}
        for entry in entries:
            sums[entry["transaction_id"]] += entry["amount_micros"]
            if entry["ledger_account"].startswith("customer/"):
                customers[entry["ledger_account"].removeprefix("customer/")] += entry["amount_micros"]
                if entry["kind"] == "call":
                    billed[entry["transaction_id"]] = -entry["amount_micros"]
        found = [f"transaction {name} sums to {total}" for name, total in sums.items() if total]
        found += [
            f"balance of {name}: purse {purses.get(f'balance/{name}')}, entries {total}"
            for name, total in customers.items()
            if purses.get(f"balance/{name}", 0) != total
        ]
        costs = {row["id"]: row["cost_micros"] for row in usage if row["cost_micros"]}
        found += [
            f"{name}: row {costs.get(name)}, entries {billed.get(name)}"
            for name in costs.keys() | billed.keys()
            if costs.get(name) != billed.get(name)
        ]
        return found
