"""This is where accounts live: who pays, in which tier, with which budget."""

import uuid
from enum import StrEnum

import msgspec
from sqlalchemy import BigInteger, Boolean, Column, Float, Table, Text, insert, select

from qwenbox.clock import Clock
from qwenbox.db import METADATA, Database

ACCOUNTS = Table(
    "accounts",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_at", Float, nullable=False),
    Column("role", Text, nullable=False),
    Column("tier", Text, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("is_prepaid", Boolean, nullable=False),
    Column("budget_micros", BigInteger),
    Column("password_hash", Text),
)


class Role(StrEnum):
    """ADMIN may use console and admin API with its password; MEMBER only calls models."""

    ADMIN = "admin"
    MEMBER = "member"


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """tier: a `[tier.NAME]`, "" follows `[limits] default_tier`. time_zone: IANA name; days and months of statements and budgets are its own.

    is_prepaid: calls are refused when the balance cannot pay them. budget_micros: per calendar month, None without end.
    """

    id: str
    name: str
    created_at: float
    role: Role = Role.MEMBER
    tier: str = ""
    time_zone: str = "UTC"
    is_prepaid: bool = False
    budget_micros: int | None = None


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
