"""This is where kept answers lie in the box's database, so that a restart keeps them and all workers share them."""

import logging
from typing import cast

import anyio
import msgspec
from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, Table, Text, delete, func, select, text

from qwenbox.clock import Clock
from qwenbox.db import METADATA, Database
from qwenbox.gateway.cache.base import Item, ShelfState
from qwenbox.gateway.cache.config import CacheConfig
from qwenbox.terms.errors import ApiError

CACHED_ANSWERS = Table(
    "cached_answers",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("stored_at", Float, nullable=False),
    Column("used_at", Float, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    # Holds all that choosing whom to forget needs, so that it does not read the answers.
    Index("cached_answers_by_use", "used_at", "size_bytes", "key"),
    Index("cached_answers_by_age", "stored_at"),
)

_KEEP = text(
    "INSERT INTO cached_answers (key, account_id, model, stored_at, used_at, size_bytes, data) "
    "VALUES (:key, :account_id, :model, :stored_at, :stored_at, :size_bytes, :data) ON CONFLICT (key) DO UPDATE "
    "SET stored_at = excluded.stored_at, used_at = excluded.used_at, size_bytes = excluded.size_bytes, data = excluded.data"
)
_TOUCH = text("UPDATE cached_answers SET used_at = :used_at WHERE key = :key AND used_at < :used_at")
_EXPIRE = text("DELETE FROM cached_answers WHERE stored_at <= :before")
_TRIM = text(
    "DELETE FROM cached_answers WHERE key IN (SELECT key FROM ("
    "SELECT key, SUM(size_bytes) OVER (ORDER BY used_at DESC, key) AS total FROM cached_answers) AS sums WHERE total > :most)"
)

# Answers are written together, at most this late and this many at once; what is more than can wait is not kept.
_EVERY_S = 0.2
_BATCH = 64
_MOST_WAITING = 2_000
_MOST_WAITING_BYTES = 64 * 2**20
_EXPIRE_EVERY_S = 60.0
# What must be written still when the box stops.
_LAST_WRITE_S = 5.0

_log = logging.getLogger(__name__)


class DatabaseShelf:
    """See base.Shelf."""

    def __init__(self, database: Database, config: CacheConfig, clock: Clock) -> None:
        self._database = database
        self._config = config
        self._clock = clock
        self._waiting: dict[str, Item] = {}
        self._waiting_bytes = 0
        self._used: dict[str, float] = {}
        self._wake = anyio.Event()
        self._expired_at = float("-inf")

    @property
    def name(self) -> str:
        return "database"

    async def find(self, key: str) -> Item | None:
        if (waiting := self._waiting.get(key)) is not None:
            return waiting
        columns = CACHED_ANSWERS.c
        query = select(columns.key, columns.account_id, columns.model, columns.stored_at, columns.data).where(columns.key == key)
        try:
            rows = await self._database.read(query)
        except ApiError:
            return None
        if not rows:
            return None
        self.touch(key)
        return Item(
            key=key,
            account_id=str(rows[0]["account_id"]),
            model=str(rows[0]["model"]),
            stored_at=cast("float", rows[0]["stored_at"]),
            data=cast("bytes", rows[0]["data"]),
        )

    def touch(self, key: str) -> None:
        self._used[key] = self._clock.now()

    def keep(self, item: Item) -> None:
        if len(self._waiting) >= _MOST_WAITING or self._waiting_bytes + item.size_bytes > _MOST_WAITING_BYTES:
            return
        if item.key not in self._waiting:
            self._waiting_bytes += item.size_bytes
        self._waiting[item.key] = item
        self._wake.set()

    async def purge(self, account_id: str | None, model: str | None) -> int:
        self._written([key for key, item in self._waiting.items() if _is_of(item, account_id, model)])
        columns = CACHED_ANSWERS.c
        chosen = [column == value for column, value in ((columns.account_id, account_id), (columns.model, model)) if value is not None]
        (row,) = await self._database.read(select(func.count().label("entries")).select_from(CACHED_ANSWERS).where(*chosen))
        await self._database.write(delete(CACHED_ANSWERS).where(*chosen))
        return cast("int", row["entries"])

    async def state(self) -> ShelfState:
        columns = CACHED_ANSWERS.c
        sums = select(
            func.count().label("entries"),
            func.coalesce(func.sum(columns.size_bytes), 0).cast(BigInteger).label("bytes"),
            func.min(columns.stored_at).label("oldest_at"),
        )
        (row,) = await self._database.read(sums)
        return msgspec.convert(row, ShelfState)

    async def follow(self) -> None:
        try:
            while True:
                await self._wake.wait()
                await anyio.sleep(_EVERY_S)
                self._wake = anyio.Event()
                await self.flush()
        finally:
            with anyio.move_on_after(_LAST_WRITE_S, shield=True):
                await self.flush()

    async def flush(self) -> None:
        """Write what waits, forget what is too old or too much. What the database does not take is given up."""
        has_written = bool(self._waiting)
        try:
            while self._waiting or self._used:
                keys = list(self._waiting)[:_BATCH]
                used, self._used = self._used, {}
                kept = [_KEEP.bindparams(**_row(self._waiting[key])) for key in keys]
                await self._database.write(*kept, *(_TOUCH.bindparams(key=key, used_at=at) for key, at in used.items()))
                self._written(keys)
            if has_written:
                await self._tidy()
        except ApiError as error:
            _log.warning("Answers are not kept: %s", error.message)
            self._waiting.clear()
            self._waiting_bytes = 0

    def _written(self, keys: list[str]) -> None:
        for key in keys:
            item = self._waiting.pop(key, None)
            if item is not None:
                self._waiting_bytes -= item.size_bytes

    async def _tidy(self) -> None:
        now = self._clock.now()
        if now - self._expired_at >= _EXPIRE_EVERY_S:
            self._expired_at = now
            await self._database.write(_EXPIRE.bindparams(before=now - self._config.ttl_s))
        if (await self.state()).bytes > self._config.max_bytes:
            await self._database.write(_TRIM.bindparams(most=self._config.max_bytes))


def _is_of(item: Item, account_id: str | None, model: str | None) -> bool:
    return account_id in (None, item.account_id) and model in (None, item.model)


def _row(item: Item) -> dict[str, object]:
    return {**msgspec.structs.asdict(item), "size_bytes": item.size_bytes}
