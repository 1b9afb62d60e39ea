"""This is where API keys are issued, hashed, verified and revoked."""

import hashlib
import secrets
import uuid

import msgspec
from sqlalchemy import BigInteger, Column, Float, ForeignKey, Integer, Table, Text, insert, select, update

from qwenbox.clock import Clock
from qwenbox.db import METADATA, Database
from qwenbox.terms.caller import Caller, Compat, SeedPolicy
from qwenbox.terms.errors import ApiError, ErrorKind
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
)

# A revoked key must be refused within 2 s, also when another process revoked it.
REFRESH_S = 1.0

_PREFIX_LENGTH = 7


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it may be shown: everything but the secret. prefix: its first characters, to tell keys apart."""

    id: str
    account_id: str
    name: str
    prefix: str
    created_at: float
    compat: Compat | None = None
    seeds: SeedPolicy = SeedPolicy.EXACT
    revoked_at: float | None = None


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """What a key shall be. secret: preset by the owner, None draws a random one."""

    account_id: str
    name: str
    secret: Secret | None = None
    compat: Compat | None = None
    seeds: SeedPolicy = SeedPolicy.EXACT


class Keys:
    """Keys in the database, and the digests of the valid ones in memory so that `verify` waits for nothing."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._callers: dict[str, Caller] = {}

    def verify(self, secret: str) -> Caller:
        """Who calls with this key. Raises ApiError(UNAUTHENTICATED).

        The digest is looked up, not the secret, so the time a look-up takes tells nothing about a key.
        """
        caller = self._callers.get(_digest(secret))
        if caller is None:
            raise ApiError(ErrorKind.UNAUTHENTICATED)
        return caller

    async def issue(self, wanted: NewKey) -> tuple[Key, Secret]:
        """Make a key; the secret is returned here and never again. A preset secret that exists already is revived."""
        secret = wanted.secret or Secret(f"sk-{secrets.token_hex(24)}")
        digest = _digest(secret.reveal())
        for row in await self._database.read(select(KEYS).where(KEYS.c.digest == digest)):
            await self._database.write(update(KEYS).where(KEYS.c.id == row["id"]).values(revoked_at=None))
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
        )
        await self._database.write(insert(KEYS).values(digest=digest, **msgspec.to_builtins(key)))
        await self.refresh()
        return key, secret

    async def every(self) -> tuple[Key, ...]:
        """All keys, oldest first, revoked ones too."""
        return tuple(_key(row) for row in await self._database.read(select(KEYS).order_by(KEYS.c.created_at)))

    async def revoke(self, key: str) -> Key:
        """Refuse this key from now on. key: its id or name. Raises ApiError(NOT_FOUND)."""
        rows = await self._database.read(select(KEYS).where((KEYS.c.id == key) | (KEYS.c.name == key), KEYS.c.revoked_at.is_(None)))
        if len(rows) != 1:
            what = "No valid key has" if not rows else f"{len(rows)} keys have"
            raise ApiError(ErrorKind.NOT_FOUND, f"{what} the id or name {key!r}. `qwenbox keys list` shows ids and names.")
        await self._database.write(update(KEYS).where(KEYS.c.id == rows[0]["id"]).values(revoked_at=self._clock.now()))
        await self.refresh()
        return _key({**rows[0], "revoked_at": self._clock.now()})

    async def refresh(self) -> None:
        """Read the valid keys again; another process may have issued or revoked some."""
        rows = await self._database.read(select(KEYS).where(KEYS.c.revoked_at.is_(None)))
        self._callers = {str(row["digest"]): _caller(_key(row)) for row in rows}

    async def follow(self) -> None:
        """Refresh for ever; run by whoever owns the box's background tasks. An outage keeps what was known."""
        while True:
            await self._clock.sleep(REFRESH_S)
            try:
                await self.refresh()
            except ApiError:
                continue


def _digest(secret: str) -> str:
    # A fast hash suffices: keys are long and random, there is nothing to guess by trying words.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _key(row: dict[str, object]) -> Key:
    return msgspec.convert({name: row[name] for name in Key.__struct_fields__}, Key)


def _caller(key: Key) -> Caller:
    return Caller(account_id=key.account_id, key_id=key.id, compat=key.compat, seeds=key.seeds)
