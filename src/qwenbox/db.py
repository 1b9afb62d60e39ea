"""This is where the database is opened and brought up to date: SQLite by default, PostgreSQL by URL."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import msgspec
from sqlalchemy import Column, Connection, Executable, MetaData, Table, Text, event, inspect, select
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from qwenbox.terms.errors import ApiError, ErrorKind

# One MetaData for all tables; each table is declared by the component that owns it.
METADATA = MetaData()

# The newest file in migrations/versions; a test holds the two together.
REVISION = "0003"

# Alembic's own table; not in METADATA, since no component of ours writes it.
_VERSIONS = Table("alembic_version", MetaData(), Column("version_num", Text))

_BUSY_TIMEOUT_MS = 5_000


class DatabaseConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """url: SQLAlchemy URL with an async driver; "" keeps a SQLite file in the data folder."""

    url: str = ""


class Database:
    """Statements in, rows out; a failure of the database itself is an ApiError(OVERLOADED), never a driver's text."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def read(self, statement: Executable) -> list[dict[str, object]]:
        """All rows of a query, by plain column names."""
        try:
            async with self._engine.connect() as connection:
                rows = (await connection.execute(statement)).mappings()
                # SQLAlchemy's keys are a subclass of str, which msgspec does not take for one.
                return [{str(name): value for name, value in row.items()} for row in rows]
        except (DBAPIError, OSError) as error:
            raise unavailable() from error

    async def write(self, *statements: Executable) -> None:
        """Run the statements in one transaction."""
        try:
            async with self._engine.begin() as connection:
                for statement in statements:
                    await connection.execute(statement)
        except (DBAPIError, OSError) as error:
            raise unavailable() from error

    async def is_current(self) -> bool:
        """Whether the schema is at REVISION; False for a database that is empty, older or newer."""
        async with self._engine.connect() as connection:
            return await connection.run_sync(_revision) == REVISION

    async def change(self, work: Callable[[Connection], None]) -> None:
        """Run synchronous work on one connection, in one transaction: migrations."""
        async with self._engine.begin() as connection:
            await connection.run_sync(work)


def unavailable() -> ApiError:
    return ApiError(ErrorKind.OVERLOADED, "The box's database does not answer. Please try again later.", retry_after_s=1)


@asynccontextmanager
async def open_database(url: str) -> AsyncGenerator[Database]:
    """The database for as long as the context lasts, at whatever revision it is."""
    # In memory every connection would be a database of its own: one connection serves all.
    engine = create_async_engine(url, poolclass=StaticPool) if ":memory:" in url else create_async_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", _tune_sqlite)
    try:
        yield Database(engine)
    finally:
        await engine.dispose()


def _tune_sqlite(connection: DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    # WAL: a reader (the command line, another worker) never blocks the box. NORMAL survives kill -9, not a power cut.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", f"busy_timeout={_BUSY_TIMEOUT_MS}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_VERSIONS.name):
        return None
    return connection.execute(select(_VERSIONS.c.version_num)).scalar()
