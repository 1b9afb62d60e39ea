"""This is where groups of bookings are written to SQLite, by the driver itself.

A thread costs two switches per group, and on a busy loop up to 5 ms per statement until it has the interpreter back. So a group is
written on the event loop itself where that waits for nothing: no fsync (sync = "normal"; the fsyncs of checkpoints are the keeper
thread's) and nobody else's lock. Everything else is done by the writer thread. Measured: docs/operations.md
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from sqlalchemy import Integer, bindparam, insert, literal_column, make_url, select, update
from sqlalchemy.dialects.sqlite import dialect
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.sql import ClauseElement

from qwenbox.gateway.counters.base import PurseState
from qwenbox.gateway.journal.disk import Disk
from qwenbox.gateway.journal.store import ENTRY_COLUMNS, USAGE_COLUMNS, VOIDED, Found, Gone, Group, Refused, probe
from qwenbox.gateway.journal.tables import LEDGER_ENTRIES, PURSES, USAGE

T = TypeVar("T")

_log = logging.getLogger(__name__)

# A checkpoint after so many bookings (about 8 pages of 4 KiB each); past so many pages the log is started over, for which writers wait.
_CHECKPOINT_BOOKINGS = 1_000
_RESTART_PAGES = 16_000
_RESTART_WAIT_S = 0.05

# Beyond SQLite's own 2 MB: random ids touch pages all over their index.
_CACHE_KIB = 16_384

_TROUBLE_WITH_DATA = (sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.DataError, OverflowError)


def _compiled(statement: ClauseElement, *columns: str) -> str:
    """The statement's text, with its values in the order of `columns`."""
    compiled = statement.compile(dialect=dialect(paramstyle="qmark"))
    order = tuple(getattr(compiled, "positiontup", ()))  # every compiler of positional parameters has it, the base class does not
    if order != columns:
        raise AssertionError(f"{compiled} takes {order}")
    return str(compiled)


def _compiled_upsert() -> str:
    one = literal_column("1", Integer)
    statement = upsert(PURSES).values(id=bindparam("id"), amount_micros=bindparam("amount_micros"), version=one)
    statement = statement.on_conflict_do_update(
        index_elements=[PURSES.c.id],
        set_={"amount_micros": PURSES.c.amount_micros + statement.excluded.amount_micros, "version": PURSES.c.version + one},
    )
    return _compiled(statement.returning(PURSES.c.amount_micros, PURSES.c.version), "id", "amount_micros")


_INSERT_USAGE = _compiled(insert(USAGE), *USAGE_COLUMNS)
_INSERT_ENTRY = _compiled(insert(LEDGER_ENTRIES), *ENTRY_COLUMNS)
_CHANGE_PURSE = _compiled_upsert()
_VOID = _compiled(
    update(USAGE).where(USAGE.c.id == bindparam("row")).values({name: bindparam(name) for name in VOIDED}),
    *sorted(VOIDED, reverse=True),
    "row",
)
_FIND_USAGE = _compiled(select(USAGE.c.id).where(USAGE.c.id == bindparam("row")), "row")
_FIND_ENTRY = _compiled(select(LEDGER_ENTRIES.c.amount_micros).where(LEDGER_ENTRIES.c.transaction_id == bindparam("row")), "row")
_FIND_PURSE = _compiled(select(PURSES.c.amount_micros, PURSES.c.version).where(PURSES.c.id == bindparam("row")), "row")


class SqliteStore:
    """One file. Three connections: the loop's, which never waits, the writer thread's and the keeper thread's."""

    def __init__(self, url: str, wait_s: float, *, is_full: bool) -> None:
        """wait_s: how long the writer thread waits for somebody else's lock."""
        path = make_url(url).database
        if not path or path == ":memory:":
            raise ValueError("the journal needs a database file: what is in memory belongs to one connection")
        self._path = path
        self._is_full = is_full
        self._now = _Connection(path, 0.0, is_full=is_full)
        self._later = _Connection(path, wait_s, is_full=is_full)
        self._keeper = _Connection(path, _RESTART_WAIT_S, is_full=is_full)
        self._writer_thread = ThreadPoolExecutor(1, "journal")
        self._keeper_thread = ThreadPoolExecutor(1, "journal-keeper")
        self._disk = Disk()
        self._unkept = 0
        self._is_keeping = False

    @property
    def can_write_now(self) -> bool:
        return not self._is_full and not self._disk.is_slow

    def write_now(self, group: Group) -> dict[str, PurseState] | None:
        try:
            with self._disk:
                states = self._now.put(group)
        except Gone as trouble:
            if trouble.is_unclear:
                raise
            return None  # a lock is held, or the disk is full: the thread waits for the one and tells of the other
        self._count(group)
        return states

    async def write(self, group: Group) -> dict[str, PurseState]:
        states = await self._in_thread(lambda: self._later.put(group))
        self._count(group)
        return states

    async def look(self, ids: Sequence[str], purses: Sequence[str]) -> Found:
        return await self._in_thread(lambda: self._later.look(ids, purses))

    async def probe(self) -> None:
        await self._in_thread(lambda: self._later.put(probe()))

    async def close(self) -> None:
        # What runs in the threads ends first; the last connection to close checkpoints everything.
        for thread, connection in ((self._keeper_thread, self._keeper), (self._writer_thread, self._later)):
            await asyncio.wrap_future(thread.submit(connection.close))
            thread.shutdown()
        self._now.close()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._writer_thread.submit(work))

    def _count(self, group: Group) -> None:
        self._unkept += group.size
        if self._unkept >= _CHECKPOINT_BOOKINGS and not self._is_keeping:
            self._unkept = 0
            self._is_keeping = True
            self._keeper_thread.submit(self._keep)

    def _keep(self) -> None:
        try:
            self._keeper.checkpoint()
        finally:
            self._is_keeping = False


class _Connection:
    """A connection that is opened when it is needed, and again after a failure: SQLite forgets what it knew of a sick file."""

    def __init__(self, path: str, wait_s: float, *, is_full: bool) -> None:
        self._path = path
        self._wait_s = wait_s
        self._sync = "FULL" if is_full else "NORMAL"
        self._open: sqlite3.Connection | None = None

    def put(self, group: Group) -> dict[str, PurseState]:
        """Raises Refused and Gone."""
        try:
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            states = _insert(connection, group)
        except _TROUBLE_WITH_DATA as error:
            self.close()
            raise Refused(str(error)) from error
        except sqlite3.Error as error:
            self.close()
            raise Gone(error, is_unclear=False) from error
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self.close()
            raise Gone(error, is_unclear=True) from error
        return states

    def look(self, ids: Sequence[str], purses: Sequence[str]) -> Found:
        try:
            find = self._connection().execute
            entries = {id: find(_FIND_ENTRY, (id,)).fetchall() for id in ids}
            known = {id for id in ids if entries[id] or find(_FIND_USAGE, (id,)).fetchall()}
            charged = {id for id, rows in entries.items() if any(amount for (amount,) in rows)}
            rows = {id: find(_FIND_PURSE, (id,)).fetchone() for id in purses}
        except sqlite3.Error as error:
            self.close()
            raise Gone(error, is_unclear=False) from error
        states = {id: PurseState(id=id, amount_micros=row[0], version=row[1]) for id, row in rows.items() if row is not None}
        return Found(ids=frozenset(known), charged=frozenset(charged), states=states)

    def checkpoint(self) -> None:
        """Move the log into the database. A busy one grows on meanwhile; past a size writers wait until it starts over."""
        try:
            _, pages, _ = self._connection().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if pages > _RESTART_PAGES:
                self._connection().execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        except sqlite3.Error as error:
            self.close()
            _log.warning("The database's log could not be moved into it: %s", error)

    def close(self) -> None:
        connection, self._open = self._open, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _connection(self) -> sqlite3.Connection:
        if self._open is None:
            # The threads take turns with one connection only when the box closes.
            connection = sqlite3.connect(self._path, timeout=self._wait_s, isolation_level=None, check_same_thread=False)
            self._open = connection
            for pragma in (f"synchronous={self._sync}", "wal_autocheckpoint=0", f"cache_size=-{_CACHE_KIB}"):
                connection.execute(f"PRAGMA {pragma}")
        return self._open


def _insert(connection: sqlite3.Connection, group: Group) -> dict[str, PurseState]:
    if group.usage:
        connection.executemany(_INSERT_USAGE, group.usage)
    if group.entries:
        connection.executemany(_INSERT_ENTRY, group.entries)
    for row in group.voids:
        connection.execute(_VOID, (*VOIDED.values(), row))
    states: dict[str, PurseState] = {}
    for id, change in group.purses:
        amount, version = connection.execute(_CHANGE_PURSE, (id, change)).fetchall()[0]
        states[id] = PurseState(id=id, amount_micros=amount, version=version)
    return states
