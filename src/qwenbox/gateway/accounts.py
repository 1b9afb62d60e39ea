"""This is where accounts live: who pays."""

import uuid

import msgspec
from sqlalchemy import Column, Float, Table, Text, insert, select

from qwenbox.clock import Clock
from qwenbox.db import METADATA, Database

ACCOUNTS = Table(
    "accounts",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_at", Float, nullable=False),
)


class Account(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    created_at: float


class Accounts:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def named(self, name: str) -> Account:
        """The account of that name, made if there is none."""
        rows = await self._database.read(select(ACCOUNTS).where(ACCOUNTS.c.name == name))
        if rows:
            return msgspec.convert(rows[0], Account)
        account = Account(id=f"acc-{uuid.uuid4().hex}", name=name, created_at=self._clock.now())
        await self._database.write(insert(ACCOUNTS).values(msgspec.to_builtins(account)))
        return account
