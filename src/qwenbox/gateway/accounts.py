"""This is where accounts live: who pays, in which tier, with which budget."""

import uuid
from collections.abc import Callable, Collection
from enum import StrEnum
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import BigInteger, Boolean, Column, Float, Table, Text, Update, select, text, update

from qwenbox.clock import Clock
from qwenbox.db import METADATA, Database, unavailable
from qwenbox.gateway.passwords import Passwords
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret

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
    Column("change", BigInteger, nullable=False),
)

# Counts changes of accounts and keys; each changed row carries its number, so that keys.py reads only what it has not seen. Counting
# first locks the counter until the commit: numbers become visible in their own order, and a reader can't pass one by.
CHANGES = Table("changes", METADATA, Column("name", Text, primary_key=True), Column("number", BigInteger, nullable=False))
ACCESS = "access"
COUNT_CHANGE = update(CHANGES).where(CHANGES.c.name == ACCESS).values(number=CHANGES.c.number + 1)
NEXT_CHANGE = select(CHANGES.c.number).where(CHANGES.c.name == ACCESS).scalar_subquery()

# A thousand million of the currency: more is a slip, and sums stay far within 64 bits.
MOST_MICROS = 10**15

_MOST_NAME = 200

# A new account has no keys yet, so nobody has to hear of it.
_ADD = text(
    "INSERT INTO accounts (id, name, created_at, role, tier, time_zone, is_prepaid, budget_micros, change) "
    "VALUES (:id, :name, :created_at, :role, :tier, :time_zone, :is_prepaid, :budget_micros, 0) ON CONFLICT (name) DO NOTHING"
)


class Role(StrEnum):
    """ADMIN may use console and admin API with its password; MEMBER only calls models."""

    ADMIN = "admin"
    MEMBER = "member"


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """tier: a `[tier.NAME]`, "" follows `[limits] default_tier`. time_zone: IANA name; the days and months of
    statements and budgets are its own.

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


class NewAccount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an account shall be; fields as in `Account`."""

    name: str
    role: Role = Role.MEMBER
    tier: str = ""
    time_zone: str = "UTC"
    is_prepaid: bool = False
    budget_micros: int | None = None


class AccountChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What shall be different; what is unset stays. budget_micros: None takes the budget away."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    role: Role | msgspec.UnsetType = msgspec.UNSET
    tier: str | msgspec.UnsetType = msgspec.UNSET
    time_zone: str | msgspec.UnsetType = msgspec.UNSET
    is_prepaid: bool | msgspec.UnsetType = msgspec.UNSET
    budget_micros: int | msgspec.UnsetType | None = msgspec.UNSET


class Proven(msgspec.Struct, frozen=True, kw_only=True):
    """An account whose person has a password. proof: what is stored of it; another password leaves another one."""

    account: Account
    proof: Secret


class Accounts:
    """Accounts in the database. tiers: names that an account's tier may have; None takes any."""

    def __init__(self, database: Database, clock: Clock, tiers: Collection[str] | None = None) -> None:
        self._database = database
        self._clock = clock
        self._tiers = tiers
        self._passwords = Passwords()

    async def named(self, name: str) -> Account:
        """The account of that name, made if there is none."""
        try:
            return await self.get(name)
        except ApiError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
        return (await self._add(NewAccount(name=name)))[0]

    async def create(self, wanted: NewAccount) -> Account:
        """Raises ApiError: INVALID_REQUEST for a field that makes no sense, CONFLICT for a name that is taken."""
        account, is_new = await self._add(wanted)
        if not is_new:
            raise _taken(wanted.name)
        return account

    async def every(self) -> tuple[Account, ...]:
        """All accounts, oldest first."""
        return msgspec.convert(
            await self._database.read(select(ACCOUNTS).order_by(ACCOUNTS.c.created_at, ACCOUNTS.c.id)), tuple[Account, ...]
        )

    async def get(self, account: str) -> Account:
        """By id or name. Raises ApiError(NOT_FOUND)."""
        return msgspec.convert(await self._row(account), Account)

    async def update(self, account: str, change: AccountChange) -> Account:
        """Change the account of that id or name; running boxes know within 2 s. Raises as `create`, and NOT_FOUND."""
        before = await self.get(account)
        changed = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not msgspec.UNSET}
        after = msgspec.structs.replace(before, **changed)
        self._check(after)
        if after.name != before.name and await self._database.read(select(ACCOUNTS.c.id).where(ACCOUNTS.c.name == after.name)):
            raise _taken(after.name)
        # Only what changes is written, so that two people who change different things both get what they want.
        values = {**msgspec.to_builtins(change), "change": NEXT_CHANGE}
        await self._database.write(COUNT_CHANGE, update(ACCOUNTS).where(ACCOUNTS.c.id == before.id).values(values))
        return after

    async def set_password(self, account: str, password: Secret, beside: Callable[[Secret], Update] | None = None) -> None:
        """Let the account's person log in with it. Raises ApiError: INVALID_REQUEST for a bad password, NOT_FOUND.

        beside: what changes in the same moment, given the new `Proven.proof`.
        """
        found = await self.get(account)
        hashed = await self._passwords.hashed(password)
        set_it = update(ACCOUNTS).where(ACCOUNTS.c.id == found.id).values(password_hash=hashed)
        await self._database.write(set_it, *((beside(Secret(hashed)),) if beside else ()))

    async def log_in(self, name: str, password: Secret) -> Account:
        """Whose password this is. Raises ApiError(UNAUTHENTICATED), as slowly for a name that nobody has."""
        return (await self.prove(name, password)).account

    async def prove(self, name: str, password: Secret) -> Proven:
        """The same, with what the password was compared with."""
        rows = await self._database.read(select(ACCOUNTS).where(ACCOUNTS.c.name == name))
        stored = msgspec.convert(rows[0]["password_hash"], str | None) if rows else None
        if not await self._passwords.is_right(stored, password) or stored is None:
            raise ApiError(ErrorKind.UNAUTHENTICATED, "The name or the password is wrong.")
        account = msgspec.convert(rows[0], Account)
        if self._passwords.is_outdated(stored):
            stored = await self._hash_again(account.id, password, stored)
        return Proven(account=account, proof=Secret(stored))

    async def proven(self, account_id: str) -> Proven | None:
        """Who has a password now; None for nobody, and for an account without one."""
        rows = await self._database.read(select(ACCOUNTS).where((ACCOUNTS.c.id == account_id) & ACCOUNTS.c.password_hash.is_not(None)))
        if not rows:
            return None
        return Proven(account=msgspec.convert(rows[0], Account), proof=Secret(str(rows[0]["password_hash"])))

    async def has_admin_password(self) -> bool:
        """Whether somebody with the role admin has a password."""
        of_admins = (ACCOUNTS.c.role == Role.ADMIN.value) & ACCOUNTS.c.password_hash.is_not(None)
        return bool(await self._database.read(select(ACCOUNTS.c.id).where(of_admins).limit(1)))

    async def _hash_again(self, account_id: str, password: Secret, stored: str) -> str:
        hashed = await self._passwords.hashed(password)
        # Not over one that was set meanwhile.
        is_same = (ACCOUNTS.c.id == account_id) & (ACCOUNTS.c.password_hash == stored)
        await self._database.write(update(ACCOUNTS).where(is_same).values(password_hash=hashed))
        return hashed

    async def _row(self, account: str) -> dict[str, object]:
        rows = await self._database.read(select(ACCOUNTS).where((ACCOUNTS.c.id == account) | (ACCOUNTS.c.name == account)))
        # An id wins over somebody's name that looks like it.
        rows.sort(key=lambda row: row["id"] != account)
        if not rows:
            raise ApiError(ErrorKind.NOT_FOUND, f"No account has the id or name {account!r}.", param="account")
        return rows[0]

    async def _add(self, wanted: NewAccount) -> tuple[Account, bool]:
        """The account of that name, and whether it is new."""
        account = Account(id=f"acc-{uuid.uuid4().hex}", created_at=self._clock.now(), **msgspec.structs.asdict(wanted))
        self._check(account)
        await self._database.write(_ADD.bindparams(**msgspec.to_builtins(account)))
        # Read, not assumed: somebody may have had the name before, or in the same moment.
        rows = await self._database.read(select(ACCOUNTS).where(ACCOUNTS.c.name == account.name))
        if not rows:
            raise unavailable()
        return msgspec.convert(rows[0], Account), rows[0]["id"] == account.id

    def _check(self, account: Account) -> None:
        if not account.name.strip() or len(account.name) > _MOST_NAME or not account.name.isprintable():
            raise ApiError(ErrorKind.INVALID_REQUEST, f"A name has 1 to {_MOST_NAME} printable characters.", param="name")
        if account.tier and self._tiers is not None and account.tier not in self._tiers:
            known = ", ".join(sorted(self._tiers))
            raise ApiError(ErrorKind.INVALID_REQUEST, f"There is no tier {account.tier!r}; tiers are {known}.", param="tier")
        if account.budget_micros is not None and not 0 <= account.budget_micros <= MOST_MICROS:
            raise ApiError(ErrorKind.INVALID_REQUEST, f"Range of budget_micros should be [0, {MOST_MICROS}].", param="budget_micros")
        _check_time_zone(account.time_zone)


def _check_time_zone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        text = f"There is no time zone {name!r}; names are those of the IANA database, e.g. Asia/Shanghai."
        raise ApiError(ErrorKind.INVALID_REQUEST, text, param="time_zone") from error


def _taken(name: str) -> ApiError:
    return ApiError(ErrorKind.CONFLICT, f"Another account has the name {name!r}.", param="name")
