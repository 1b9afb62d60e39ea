"""This is where API keys are issued, hashed, verified and revoked."""

import hashlib
import math
import secrets
import uuid

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    CompoundSelect,
    Executable,
    Float,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    false,
    insert,
    select,
    union,
    update,
)

from qwenbox.clock import Clock
from qwenbox.db import METADATA, Database
from qwenbox.gateway.accounts import ACCESS, ACCOUNTS, CHANGES, COUNT_CHANGE, MOST_MICROS, NEXT_CHANGE
from qwenbox.terms.caller import CachePolicy, Caller, Compat, SeedPolicy, Thrift
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.limits import Limits
from qwenbox.terms.secret import Secret

KEYS = Table(
    "keys",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False, unique=True),
    Column("prefix", Text, nullable=False),
    Column("compat", Text),
    Column("seeds", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("revoked_at", Float),
    Column("models", Text),
    Column("expires_at", Float),
    Column("budget_micros", BigInteger),
    Column("rpm", Integer),
    Column("tpm", Integer),
    Column("concurrency", Integer),
    Column("change", BigInteger, nullable=False),
    Column("cache", Text, nullable=False, server_default=CachePolicy.AUTO),
    Column("history_tokens", Integer),
    Column("collapses_whitespace", Boolean, nullable=False, server_default=false()),
    Index("keys_by_change", "change"),
    Index("keys_by_account", "account_id"),
)

# A revoked key must be refused within 2 s, also when another process revoked it.
REFRESH_S = 1.0

# Rows read at once when much has changed, so that nobody's answer stands still meanwhile.
_BATCH = 500

_PREFIX_LENGTH = 7
_MOST_NAME = 200
_MOST_LIMIT = 2**31 - 1

# Fields of a key that are groups of columns.
_COLUMNS = {"limits": Limits.__struct_fields__, "thrift": Thrift.__struct_fields__}


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it may be shown: everything but the secret. prefix: its first characters, to tell keys apart.

    models: public names it may use, None all. expires_at: refused from then on, seconds since the epoch. budget_micros: per calendar
    month of the account's time zone. limits: its own, on top of the tier's. cache, thrift: what may be answered from the cache, and what is
    done to its prompts.
    """

    id: str
    account_id: str
    name: str
    prefix: str
    created_at: float
    compat: Compat | None = None
    seeds: SeedPolicy = SeedPolicy.EXACT
    revoked_at: float | None = None
    models: frozenset[str] | None = None
    expires_at: float | None = None
    budget_micros: int | None = None
    limits: Limits = Limits()
    cache: CachePolicy = CachePolicy.AUTO
    thrift: Thrift = Thrift()


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """What a key shall be; fields as in `Key`. secret: preset by the owner, None draws a random one."""

    account_id: str
    name: str
    secret: Secret | None = None
    compat: Compat | None = None
    seeds: SeedPolicy = SeedPolicy.EXACT
    models: frozenset[str] | None = None
    expires_at: float | None = None
    budget_micros: int | None = None
    limits: Limits = Limits()
    cache: CachePolicy = CachePolicy.AUTO
    thrift: Thrift = Thrift()


class KeyChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What shall be different; what is unset stays, None takes a restriction away."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    compat: Compat | msgspec.UnsetType | None = msgspec.UNSET
    seeds: SeedPolicy | msgspec.UnsetType = msgspec.UNSET
    models: frozenset[str] | msgspec.UnsetType | None = msgspec.UNSET
    expires_at: float | msgspec.UnsetType | None = msgspec.UNSET
    budget_micros: int | msgspec.UnsetType | None = msgspec.UNSET
    limits: Limits | msgspec.UnsetType = msgspec.UNSET
    cache: CachePolicy | msgspec.UnsetType = msgspec.UNSET
    thrift: Thrift | msgspec.UnsetType = msgspec.UNSET


class Keys:
    """Keys in the database, and the digests of the valid ones in memory so that `verify` waits for nothing."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._callers: dict[str, Caller] = {}
        self._digests: dict[str, str] = {}
        self._budgets: dict[str, int | None] = {}
        self._seen = -1

    def verify(self, secret: str) -> Caller:
        """Who calls with this key. Raises ApiError(UNAUTHENTICATED).

        The digest is looked up, not the secret, so the time a look-up takes tells nothing about a key.
        """
        return self._valid(_digest(secret))

    def caller(self, key_id: str) -> Caller:
        """Who calls with the key of this id, as it is now. Raises ApiError(UNAUTHENTICATED) once it is revoked or expired."""
        return self._valid(self._digests.get(key_id, ""))

    def budget(self, owner_id: str) -> int | None:
        """What the account or key of this id may spend in a month, micro-units; None without end, or for an owner without valid keys."""
        return self._budgets.get(owner_id)

    async def issue(self, wanted: NewKey) -> tuple[Key, Secret]:
        """Make a key; the secret is returned here and never again. A preset secret that exists already is revived.

        Raises ApiError: INVALID_REQUEST for a field that makes no sense, NOT_FOUND without such an account.
        """
        secret = wanted.secret or Secret(f"sk-{secrets.token_hex(24)}")
        digest = _digest(secret.reveal())
        for row in await self._database.read(select(KEYS).where(KEYS.c.digest == digest)):
            if row["revoked_at"] is not None:
                await self._write(update(KEYS).where(KEYS.c.id == row["id"]).values(revoked_at=None, change=NEXT_CHANGE))
            await self.refresh()
            return _key({**row, "revoked_at": None}), secret
        key = Key(
            id=f"key-{uuid.uuid4().hex[:16]}",
            account_id=wanted.account_id,
            name=wanted.name,
            prefix=secret.reveal()[:_PREFIX_LENGTH],
            created_at=self._clock.now(),
            compat=wanted.compat,
            seeds=wanted.seeds,
            models=wanted.models,
            expires_at=wanted.expires_at,
            budget_micros=wanted.budget_micros,
            limits=wanted.limits,
            cache=wanted.cache,
            thrift=wanted.thrift,
        )
        _check(key)
        if not await self._database.read(select(ACCOUNTS.c.id).where(ACCOUNTS.c.id == key.account_id)):
            raise ApiError(ErrorKind.NOT_FOUND, f"There is no account with the id {key.account_id!r}.", param="account_id")
        await self._write(insert(KEYS).values(digest=digest, change=NEXT_CHANGE, **_columns(key)))
        return key, secret

    async def every(self, account_id: str | None = None) -> tuple[Key, ...]:
        """All keys (of one account), oldest first, revoked ones too."""
        query = select(KEYS).order_by(KEYS.c.created_at, KEYS.c.id)
        if account_id is not None:
            query = query.where(KEYS.c.account_id == account_id)
        return tuple(_key(row) for row in await self._database.read(query))

    async def get(self, key: str) -> Key:
        """By id, or by the name of a key that is not revoked. Raises ApiError(NOT_FOUND)."""
        rows = await self._database.read(select(KEYS).where((KEYS.c.id == key) | ((KEYS.c.name == key) & KEYS.c.revoked_at.is_(None))))
        # An id wins over somebody's name that looks like it.
        rows = [row for row in rows if row["id"] == key] or rows
        if len(rows) != 1:
            raise _not_one(key, len(rows))
        return _key(rows[0])

    async def revoke(self, key: str) -> Key:
        """Refuse this key from now on. key: its id or name. Raises ApiError(NOT_FOUND), also for one that is revoked already."""
        found = await self.get(key)
        if found.revoked_at is not None:
            raise _not_one(key, 0)
        now = self._clock.now()
        await self._write(update(KEYS).where(KEYS.c.id == found.id).values(revoked_at=now, change=NEXT_CHANGE))
        return msgspec.structs.replace(found, revoked_at=now)

    async def update(self, key: str, change: KeyChange) -> Key:
        """Change the key of that id or name; other processes know within 2 s. Raises as `issue`, and NOT_FOUND."""
        before = await self.get(key)
        changed = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not msgspec.UNSET}
        after = msgspec.structs.replace(before, **changed)
        _check(after)
        columns = _columns(after)
        names = {column for name in changed for column in _COLUMNS.get(name, (name,))}
        # Only what changes is written, so that two people who change different things both get what they want.
        values = {name: columns[name] for name in names}
        await self._write(update(KEYS).where(KEYS.c.id == after.id).values(change=NEXT_CHANGE, **values))
        return after

    async def refresh(self) -> None:
        """Read what has changed of keys and accounts since the last time, in this process or another; mostly one number."""
        rows = await self._database.read(select(CHANGES.c.number).where(CHANGES.c.name == ACCESS))
        # Read before the rows: a change between the two is read now, and once more the next time.
        number = msgspec.convert(rows[0]["number"], int) if rows else 0
        if number == self._seen:
            return
        last = ""
        while True:
            rows = await self._database.read(_ACCESS.where(KEYS.c.id.in_(_changed(self._seen)), KEYS.c.id > last))
            for access in msgspec.convert(rows, list[_Access]):
                self._learn(access)
                last = access.id
            if len(rows) < _BATCH:
                break
        self._seen = number

    async def follow(self) -> None:
        """Refresh for ever; run by whoever owns the box's background tasks. An outage keeps what was known."""
        while True:
            await self._clock.sleep(REFRESH_S)
            try:
                await self.refresh()
            except ApiError:
                continue

    def _valid(self, digest: str) -> Caller:
        caller = self._callers.get(digest)
        if caller is None or (caller.expires_at is not None and self._clock.now() >= caller.expires_at):
            raise ApiError(ErrorKind.UNAUTHENTICATED)
        return caller

    def _learn(self, access: "_Access") -> None:
        self._budgets[access.account_id] = access.account_budget_micros
        if access.revoked_at is not None:
            self._callers.pop(access.digest, None)
            self._digests.pop(access.id, None)
            self._budgets.pop(access.id, None)
            return
        self._callers[access.digest] = _caller(access)
        self._digests[access.id] = access.digest
        self._budgets[access.id] = access.budget_micros

    async def _write(self, statement: Executable) -> None:
        await self._database.write(COUNT_CHANGE, statement)
        await self.refresh()


class _Access(msgspec.Struct, frozen=True, kw_only=True):
    """A key with what its account adds to it; one row of _ACCESS."""

    id: str
    account_id: str
    digest: str
    compat: Compat | None
    seeds: SeedPolicy
    revoked_at: float | None
    models: str | None
    expires_at: float | None
    budget_micros: int | None
    rpm: int | None
    tpm: int | None
    concurrency: int | None
    cache: CachePolicy
    history_tokens: int | None
    collapses_whitespace: bool
    tier: str
    time_zone: str
    is_prepaid: bool
    account_budget_micros: int | None


_ACCESS = (
    select(
        *(KEYS.c[name] for name in _Access.__struct_fields__ if name in KEYS.c),
        ACCOUNTS.c.tier,
        ACCOUNTS.c.time_zone,
        ACCOUNTS.c.is_prepaid,
        ACCOUNTS.c.budget_micros.label("account_budget_micros"),
    )
    .join_from(KEYS, ACCOUNTS)
    .order_by(KEYS.c.id)
    .limit(_BATCH)
)


def _changed(seen: int) -> CompoundSelect[tuple[str]]:
    """Ids of the keys that changed since, or whose account did; a union, since an OR would have SQLite look at every key."""
    accounts = select(ACCOUNTS.c.id).where(ACCOUNTS.c.change > seen)
    return union(select(KEYS.c.id).where(KEYS.c.change > seen), select(KEYS.c.id).where(KEYS.c.account_id.in_(accounts)))


def _caller(access: _Access) -> Caller:
    return Caller(
        account_id=access.account_id,
        key_id=access.id,
        compat=access.compat,
        seeds=access.seeds,
        models=_models(access.models),
        tier=access.tier,
        limits=Limits(rpm=access.rpm, tpm=access.tpm, concurrency=access.concurrency),
        is_prepaid=access.is_prepaid,
        account_budget_micros=access.account_budget_micros,
        key_budget_micros=access.budget_micros,
        time_zone=access.time_zone,
        expires_at=access.expires_at,
        cache=access.cache,
        thrift=Thrift(history_tokens=access.history_tokens, collapses_whitespace=access.collapses_whitespace),
    )


def _check(key: Key) -> None:
    if not key.name.strip() or len(key.name) > _MOST_NAME or not key.name.isprintable():
        raise ApiError(ErrorKind.INVALID_REQUEST, f"A name has 1 to {_MOST_NAME} printable characters.", param="name")
    if key.models is not None and not all(key.models):
        raise ApiError(ErrorKind.INVALID_REQUEST, "A model's name is empty.", param="models")
    if key.expires_at is not None and not math.isfinite(key.expires_at):
        raise ApiError(ErrorKind.INVALID_REQUEST, "expires_at is a number of seconds since 1970.", param="expires_at")
    if key.budget_micros is not None and not 0 <= key.budget_micros <= MOST_MICROS:
        raise ApiError(ErrorKind.INVALID_REQUEST, f"Range of budget_micros should be [0, {MOST_MICROS}].", param="budget_micros")
    for name, value in (*msgspec.structs.asdict(key.limits).items(), ("history_tokens", key.thrift.history_tokens)):
        if value is not None and not 1 <= value <= _MOST_LIMIT:
            raise ApiError(ErrorKind.INVALID_REQUEST, f"Range of {name} should be [1, {_MOST_LIMIT}].", param=name)


def _not_one(key: str, count: int) -> ApiError:
    what = "No valid key has" if count == 0 else f"{count} keys have"
    return ApiError(ErrorKind.NOT_FOUND, f"{what} the id or name {key!r}. `qwenbox keys list` shows ids and names.", param="key")


def _digest(secret: str) -> str:
    # A fast hash suffices: keys are long and random, there is nothing to guess by trying words.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _columns(key: Key) -> dict[str, object]:
    values: dict[str, object] = msgspec.to_builtins(msgspec.structs.replace(key, models=None))
    for name in _COLUMNS:
        del values[name]
    models = None if key.models is None else msgspec.json.encode(sorted(key.models)).decode()
    return {**values, "models": models, **msgspec.structs.asdict(key.limits), **msgspec.structs.asdict(key.thrift)}


def _key(row: dict[str, object]) -> Key:
    values = {name: row[name] for name in Key.__struct_fields__ if name != "models" and name not in _COLUMNS}
    groups = {name: {column: row[column] for column in columns} for name, columns in _COLUMNS.items()}
    return msgspec.convert({**values, **groups, "models": _models(msgspec.convert(row["models"], str | None))}, Key)


def _models(stored: str | None) -> frozenset[str] | None:
    return None if stored is None else msgspec.json.decode(stored, type=frozenset[str])
