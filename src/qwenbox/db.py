"""This is where the database is opened and brought up to date: SQLite by default, PostgreSQL by URL."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager, nullcontext
from typing import TypeVar

import anyio
import msgspec
from sqlalchemy import URL, Column, Connection, Executable, MetaData, Table, Text, event, inspect, make_url, select, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from qwenbox.terms.errors import ApiError, ErrorKind

T = TypeVar("T")

# One MetaData for all tables; each table is declared by the component that owns it.
METADATA = MetaData()

# The newest file in migrations/versions; a test holds the two together.
REVISION = "0013"

# Alembic's own table; not in METADATA, since no component of ours writes it.
_VERSIONS = Table("alembic_version", MetaData(), Column("version_num", Text))

_SQLITE_SIZE = text("SELECT page_count * page_size AS size FROM pragma_page_count(), pragma_page_size()")
_POSTGRES_SIZE = text("SELECT pg_database_size(current_database()) AS size")

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
}

_BUSY_TIMEOUT_MS = 5_000
_CONNECT_S = 5.0
_STATEMENT_S = 60.0

# Connections kept open and opened beyond that, per process; the journal has one more of its own. PostgreSQL allows 100 in all by default.
_POOL, _OVERFLOW = 4, 8
_POOL_WAIT_S = 5.0

# What a transaction begins with, an option of the connection that runs it; see _begin.
_BEGIN = "qwenbox_begin"

# SQLSTATE classes and codes: https://www.postgresql.org/docs/18/errcodes-appendix.html
_WRONG_PASSWORD, _NO_DATABASE = ("28P01", "28000"), "3D000"


class DatabaseConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """url: `postgresql://user:password@host:port/name` or `sqlite:////path/to/file`; "" keeps a SQLite file in the data folder."""

    url: str = ""


class Database:
    """Statements in, rows out; a failure of the database itself is an ApiError(OVERLOADED), never a driver's text."""

    def __init__(self, engine: AsyncEngine, turn: AbstractAsyncContextManager[object]) -> None:
        """turn: held while a connection is used; a lock where there is only one."""
        self._engine = engine
        self._writing = engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
        self._turn = turn
        self._running: set[asyncio.Task[object]] = set()

    async def read(self, statement: Executable) -> list[dict[str, object]]:
        """All rows of a query, by plain column names."""

        async def work() -> list[dict[str, object]]:
            async with self._turn, self._engine.connect() as connection:
                rows = (await connection.execute(statement)).mappings()
                # SQLAlchemy's keys are a subclass of str, which msgspec does not take for one.
                return [{str(name): value for name, value in row.items()} for row in rows]

        return await self._finished(work())

    @property
    def kind(self) -> str:
        """sqlite or postgresql."""
        return self._engine.dialect.name

    async def size_bytes(self) -> int:
        """What all of it takes on its disk."""
        (row,) = await self.read(_POSTGRES_SIZE if self.kind == "postgresql" else _SQLITE_SIZE)
        return int(str(row["size"]))

    async def write(self, *statements: Executable) -> None:
        """Run the statements in one transaction."""

        async def work() -> None:
            async with self._turn, self._writing.begin() as connection:
                for statement in statements:
                    await connection.execute(statement)

        await self._finished(work())

    async def is_current(self) -> bool:
        """Whether the schema is at REVISION; False for a database that is empty, older or newer."""
        return await self.read_only(revision) == REVISION

    async def change(self, work: Callable[[Connection], T]) -> T:
        """Run synchronous work on one connection, in one transaction: migrations, a restore. Raises what the work raises."""

        async def run() -> T:
            async with self._turn, self._writing.begin() as connection:
                return await connection.run_sync(work)

        return await self._finished(run())

    async def read_only(self, work: Callable[[Connection], T]) -> T:
        """Run synchronous work that only reads; all it reads is of one moment."""

        async def run() -> T:
            async with self._turn, self._engine.connect() as connection:
                if self._engine.dialect.name == "postgresql":
                    await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
                return await connection.run_sync(work)

        return await self._finished(run())

    async def settled(self) -> None:
        """Returns when all that was begun has ended."""
        while self._running:
            await asyncio.wait(tuple(self._running))

    async def _finished(self, work: Coroutine[None, None, T]) -> T:
        """What the work gives. It goes on to its end when its caller is cancelled.

        SQLAlchemy ends the connection of a cancelled SQLite statement twice, once in a task that then waits for ever
        (aiosqlite 0.22.1: a thread that has been stopped is asked to stop), and the process with it when it wants to end.
        """
        with _mapped():
            running = asyncio.get_running_loop().create_task(work)
            self._running.add(running)
            running.add_done_callback(self._ended)
            return await asyncio.shield(running)

    def _ended(self, running: asyncio.Task[object]) -> None:
        self._running.discard(running)
        # Looked at, so that nobody warns of a failure whose caller has left.
        if not running.cancelled():
            running.exception()


def unavailable() -> ApiError:
    return ApiError(ErrorKind.OVERLOADED, "The box's database does not answer. Please try again later.", retry_after_s=1)


@asynccontextmanager
async def open_database(url: str) -> AsyncGenerator[Database]:
    """The database for as long as the context lasts, at whatever revision it is.

    Raises ApiError(OVERLOADED), with a message for the box's owner, when it cannot be opened.
    """
    address = address_of(url)
    engine = _engine(address)
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", _tune_sqlite)
        event.listen(engine.sync_engine, "begin", _begin)
    try:
        with explained(address):
            if engine.dialect.name == "sqlite":
                _try_sqlite(address.database or ":memory:")
            async with engine.connect():
                pass
        database = Database(engine, anyio.Lock() if _is_in_memory(address) else nullcontext())
        try:
            yield database
        finally:
            with anyio.CancelScope(shield=True):
                await database.settled()
    finally:
        # Also when cancelled: a connection whose closing is given up keeps its thread, and the process with it.
        with anyio.CancelScope(shield=True):
            await engine.dispose()


def _try_sqlite(path: str) -> None:
    """Raises what is wrong with the file. Here and not through aiosqlite, whose thread outlives an opening that failed."""
    with closing(sqlite3.connect(path, timeout=_BUSY_TIMEOUT_MS / 1000)) as connection:
        connection.execute("PRAGMA schema_version")


def address_of(url: str) -> URL:
    """The URL as SQLAlchemy wants it, with an async driver. Raises ApiError(OVERLOADED) for what is no address of a database."""
    try:
        address = make_url(url)
    except (ArgumentError, ValueError) as error:  # the latter of a port that is no number
        raise _unusable("It is not a URL") from error
    address = address.set(drivername=_DRIVERS.get(address.drivername, address.drivername))
    if address.drivername not in _DRIVERS.values():
        raise _unusable("It does not begin with sqlite:// or postgresql://")
    mode = address.query.get("sslmode")
    if mode is not None and address.drivername != _DRIVERS["sqlite"]:
        # libpq's name for it, which people copy from their provider's page; asyncpg through SQLAlchemy has another.
        address = address.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return address


def is_postgres(url: str) -> bool:
    return address_of(url).drivername == _DRIVERS["postgresql"]


def driver_url(url: str) -> str:
    """The URL of a PostgreSQL database as asyncpg itself wants it. Holds the password."""
    address = address_of(url).set(drivername="postgresql")
    mode = address.query.get("ssl")
    if mode is not None:
        address = address.difference_update_query(["ssl"]).update_query_dict({"sslmode": mode})
    return address.render_as_string(hide_password=False)


@contextmanager
def explained(address: URL) -> Generator[None]:
    """A failure to connect becomes an ApiError that says what to do; it shows host, port and names, never the password."""
    try:
        yield
    except Exception as error:
        if not _is_foreign(error):
            raise
        raise ApiError(ErrorKind.OVERLOADED, _explanation(address, error)) from error


@contextmanager
def _mapped() -> Generator[None]:
    try:
        yield
    except Exception as error:
        if not _is_foreign(error):
            raise
        raise unavailable() from error


def _is_foreign(error: Exception) -> bool:
    """Whether the database or the way to it failed. asyncpg's own errors, known by their sqlstate, reach us unwrapped on connecting."""
    return isinstance(error, DBAPIError | sqlite3.Error | OSError | PoolTimeout) or hasattr(error, "sqlstate")


def _explanation(address: URL, error: Exception) -> str:
    if address.drivername == _DRIVERS["sqlite"]:
        return f"The database file {address.database} cannot be opened: does its folder exist, and may you write to it?"
    where = f"PostgreSQL at {address.host or address.query.get('host', 'localhost')}:{address.port or 5432}"
    # SQLAlchemy wraps asyncpg's errors in some of its releases and not in others.
    state = getattr(getattr(error, "orig", error), "sqlstate", None)
    if state in _WRONG_PASSWORD:
        return f"{where} refuses the user {address.username!r} or its password. See [database] url (QWENBOX_DATABASE_URL)."
    if state == _NO_DATABASE:
        return f"{where} has no database {address.database!r}. Make it (createdb {address.database}), or name another in [database] url."
    return f"{where} does not answer. Is it running, and is [database] url (QWENBOX_DATABASE_URL) right?"


def _unusable(why: str) -> ApiError:
    # The URL itself stays out: it may hold a password.
    return ApiError(
        ErrorKind.OVERLOADED,
        f"[database] url (QWENBOX_DATABASE_URL) cannot be used. {why}; write postgresql://user:password@host:port/name or sqlite:////path.",
    )


def _is_in_memory(address: URL) -> bool:
    return address.drivername == _DRIVERS["sqlite"] and address.database in (None, "", ":memory:")


def _engine(address: URL) -> AsyncEngine:
    if _is_in_memory(address):
        # Every connection would be a database of its own: one serves all.
        return create_async_engine(address, poolclass=StaticPool)
    pool = {"pool_size": _POOL, "max_overflow": _OVERFLOW, "pool_timeout": _POOL_WAIT_S}
    if address.drivername == _DRIVERS["sqlite"]:
        return create_async_engine(address, **pool)
    limits = {"timeout": _CONNECT_S, "command_timeout": _STATEMENT_S, "server_settings": {"application_name": "qwenbox"}}
    # A server that was restarted has closed every pooled connection: asked first, so that no caller notices.
    return create_async_engine(address, **pool, pool_pre_ping=True, connect_args=limits)


def _tune_sqlite(connection: DBAPIConnection, _record: object) -> None:
    # The driver would begin transactions by itself, but not before DDL: a migration could stop half-way. We begin them, see _begin.
    connection.isolation_level = None
    cursor = connection.cursor()
    # The timeout first, since the switch to WAL takes a lock. WAL: a reader (the command line, another worker) never blocks the box.
    # NORMAL survives kill -9, not a power cut.
    for pragma in (f"busy_timeout={_BUSY_TIMEOUT_MS}", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    # A transaction that will write says so at once: one that has read first could not wait for another writer, only fail.
    connection.exec_driver_sql(str(connection.get_execution_options().get(_BEGIN, "BEGIN")))


def revision(connection: Connection) -> str | None:
    """The migration this database is at; None for an empty one."""
    if not inspect(connection).has_table(_VERSIONS.name):
        return None
    return connection.execute(select(_VERSIONS.c.version_num)).scalar()
