"""This is where groups of bookings are written to PostgreSQL, by the driver itself: one statement, one round trip per group."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Protocol, Self, TypeAlias, TypeVar, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]  (it has none; _Line and _Statement stand for them)
from sqlalchemy import ARRAY, BigInteger, Table, Text, any_, bindparam, column, func, insert, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.dml import Insert

from qwenbox.db import address_of, driver_url, explained
from qwenbox.gateway.counters.base import PurseState
from qwenbox.gateway.journal.store import ENTRY_COLUMNS, USAGE_COLUMNS, VOIDED, Found, Gone, Group, Refused, probe
from qwenbox.gateway.journal.tables import LEDGER_ENTRIES, PURSES, USAGE

T = TypeVar("T")

_GOODBYE_S = 1.0

_log = logging.getLogger(__name__)

# Of the columns a statement here selects, as many as it has, in this order: text, amount, version.
_Row: TypeAlias = tuple[str, int, int]

# What the data are to blame for, by SQLSTATE class: data exceptions, and constraints such as a primary key.
_TROUBLE_WITH_DATA = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)

# A server's last words: it may have committed before.
_BROKEN = (asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError, asyncpg.CrashShutdownError)


def _rows(table: Table, prefix: str) -> Insert:
    """Insert rows that come as one array per column: the statement's text is the same for any number of them."""
    columns = list(table.columns)
    arrays = [bindparam(f"{prefix}{own.name}", type_=ARRAY(own.type)) for own in columns]
    rows = func.unnest(*arrays).table_valued(*[column(own.name, own.type) for own in columns]).render_derived()
    return insert(table).from_select([own.name for own in columns], select(*rows.c))


def _group_statement() -> str:
    """Everything of a group at once: usage rows and entries as columns, what void rows become and their ids, purses' ids and changes."""
    one = literal_column("1", BigInteger)
    changed = func.unnest(bindparam("purse_ids", type_=ARRAY(Text)), bindparam("purse_changes", type_=ARRAY(BigInteger)))
    purses = changed.table_valued(column("id", Text), column("change", BigInteger)).render_derived()
    # In order of their ids, so that two workers with the same purses wait for each other and never in a circle.
    statement = upsert(PURSES).from_select(
        ["id", "amount_micros", "version"], select(purses.c.id, purses.c.change, one).order_by(purses.c.id)
    )
    statement = statement.on_conflict_do_update(
        index_elements=[PURSES.c.id],
        set_={"amount_micros": PURSES.c.amount_micros + statement.excluded.amount_micros, "version": PURSES.c.version + one},
    ).returning(PURSES.c.id, PURSES.c.amount_micros, PURSES.c.version)
    void = update(USAGE).where(USAGE.c.id == any_(bindparam("voids", type_=ARRAY(Text))))
    void = void.values({name: bindparam(f"void_{name}", type_=USAGE.c[name].type) for name in VOIDED})
    whole = statement.add_cte(_rows(USAGE, "u_").cte("usage_rows"), _rows(LEDGER_ENTRIES, "e_").cte("entry_rows"), void.cte("void_rows"))
    order = (
        *(f"u_{name}" for name in USAGE_COLUMNS),
        *(f"e_{name}" for name in ENTRY_COLUMNS),
        *(f"void_{name}" for name in VOIDED),
        "voids",
        "purse_ids",
        "purse_changes",
    )
    return _compiled(whole, *order)


def _compiled(statement: ClauseElement, *parameters: str) -> str:
    """The statement's text, its parameters in this order."""
    compiled = statement.compile(dialect=dialect())
    order = tuple(getattr(compiled, "positiontup", ()))  # every compiler of positional parameters has it, the base class does not
    if order != parameters:
        raise AssertionError(f"{compiled} takes {order}")
    return str(compiled)


_ids = bindparam("ids", type_=ARRAY(Text))
_WRITE = _group_statement()
_FIND_USAGE = _compiled(select(USAGE.c.id).where(USAGE.c.id == any_(_ids)), "ids")
_FIND_ENTRIES = _compiled(
    select(LEDGER_ENTRIES.c.transaction_id, LEDGER_ENTRIES.c.amount_micros).where(LEDGER_ENTRIES.c.transaction_id == any_(_ids)), "ids"
)
_FIND_PURSES = _compiled(select(PURSES.c.id, PURSES.c.amount_micros, PURSES.c.version).where(PURSES.c.id == any_(_ids)), "ids")
_NO_USAGE: tuple[tuple[object, ...], ...] = ((),) * len(USAGE_COLUMNS)
_NO_ENTRIES: tuple[tuple[object, ...], ...] = ((),) * len(ENTRY_COLUMNS)


class _Statement(Protocol):
    """What is used of asyncpg's PreparedStatement; the package has no types of its own."""

    async def fetch(self, *values: object) -> list[_Row]: ...


class _Line(Protocol):
    """What is used of asyncpg's Connection."""

    async def fetch(self, query: str, *values: object) -> list[_Row]: ...
    async def fetchval(self, query: str) -> object: ...
    async def execute(self, query: str) -> str: ...
    async def prepare(self, query: str) -> _Statement: ...
    async def close(self) -> None: ...
    def terminate(self) -> None: ...
    def is_closed(self) -> bool: ...


class PostgresStore:
    """One connection of its own, made again after every failure."""

    can_write_now = False

    def __init__(self, url: str, wait_s: float, *, is_full: bool) -> None:
        self._url = url
        self._wait_s = wait_s
        self._is_full = is_full
        self._line: _Line | None = None
        self._write: _Statement | None = None

    @classmethod
    async def open(cls, url: str, wait_s: float, *, is_full: bool) -> Self:
        """wait_s: after so long a statement's outcome is unclear. Raises ApiError(OVERLOADED) when the server cannot be reached."""
        store = cls(url, wait_s, is_full=is_full)
        with explained(address_of(url)):
            await store._connected()
        return store

    def write_now(self, group: Group) -> dict[str, PurseState] | None:
        return None

    async def write(self, group: Group) -> dict[str, PurseState]:
        usage = zip(*group.usage, strict=True) if group.usage else _NO_USAGE
        entries = zip(*group.entries, strict=True) if group.entries else _NO_ENTRIES
        purses = zip(*group.purses, strict=True) if group.purses else ((), ())

        async def work() -> list[_Row]:
            statement = self._write or await self._prepared()
            return await statement.fetch(*usage, *entries, *VOIDED.values(), group.voids, *purses)

        return _states(await self._try(work))

    async def look(self, ids: Sequence[str], purses: Sequence[str]) -> Found:
        async def work() -> Found:
            line = await self._connected()
            entries = await line.fetch(_FIND_ENTRIES, ids)
            usage = await line.fetch(_FIND_USAGE, ids)
            states = await line.fetch(_FIND_PURSES, purses)
            return Found(
                ids=frozenset([*(row[0] for row in usage), *(row[0] for row in entries)]),
                charged=frozenset(row[0] for row in entries if row[1]),
                states=_states(states),
            )

        return await self._try(work)

    async def probe(self) -> None:
        await self.write(probe())

    async def close(self) -> None:
        line, self._line, self._write = self._line, None, None
        if line is not None:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                async with asyncio.timeout(_GOODBYE_S):
                    await line.close()

    async def _try(self, work: Callable[[], Coroutine[None, None, T]]) -> T:
        """Raises Refused, and Gone for everything that only another connection can mend."""
        try:
            async with asyncio.timeout(self._wait_s):
                return await work()
        except _TROUBLE_WITH_DATA as error:
            raise Refused(str(error)) from error
        except Exception as error:
            # Whatever a driver raises while its server goes down under it, even about itself. The server's own word is clear; silence
            # and a broken line are not.
            is_unclear = not isinstance(error, asyncpg.PostgresError) or isinstance(error, _BROKEN)
            self._hang_up()
            raise Gone(error, is_unclear=is_unclear) from error
        except BaseException:
            self._hang_up()
            raise

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.terminate()
        self._line = self._write = None

    async def _connected(self) -> _Line:
        line = self._line
        if line is None or line.is_closed():
            self._write = None
            line = self._line = await _connect(self._url, self._wait_s)
            if self._is_full:
                await self._make_full(line)
        return line

    async def _prepared(self) -> _Statement:
        self._write = await (await self._connected()).prepare(_WRITE)
        return self._write

    async def _make_full(self, line: _Line) -> None:
        if await line.fetchval("SHOW synchronous_commit") in ("off", "local"):
            await line.execute("SET synchronous_commit = on")
        if await line.fetchval("SHOW fsync") != "on":
            _log.warning('[journal] sync = "full" is no use: the PostgreSQL server itself runs with fsync off.')


def _states(rows: list[_Row]) -> dict[str, PurseState]:
    return {row[0]: PurseState(id=row[0], amount_micros=row[1], version=row[2]) for row in rows}


async def _connect(url: str, wait_s: float) -> _Line:
    connect = cast(Callable[..., Awaitable[_Line]], asyncpg.connect)  # pyright: ignore[reportUnknownMemberType]
    return await connect(driver_url(url), timeout=wait_s, server_settings={"application_name": "qwenbox journal"})
