"""This is where all rows of a box go into one file, and back: a SQLite database, whatever database the box itself is on. The bytes of
stored files go into a folder beside it.
"""

import os
import shutil
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Connection, MetaData, create_engine, delete, event, insert, select

from qwenbox.db import Database, address_of, is_postgres, revision
from qwenbox.migrations.upgrade import NewerDatabase, upgrade
from qwenbox.terms.errors import ApiError, ErrorKind

# Alembic's own, and the one table that a migration leaves rows in.
_VERSIONS, _CHANGES = "alembic_version", "changes"

_ROWS_AT_ONCE = 1_000


async def save(database: Database, url: str, file: Path) -> None:
    """Write everything the database holds at this moment to `file`; the box may go on meanwhile. Replaces a file that is there.

    Everything but recordings: a prompt that is to be gone after some days must not live on in a backup.

    Raises ApiError: NOT_FOUND for a database that no box has used.
    """
    if await database.read_only(revision) is None:
        raise ApiError(ErrorKind.NOT_FOUND, "There is nothing to back up: no box has used this database yet.")
    partial = file.with_name(f"{file.name}.partial")
    partial.unlink(missing_ok=True)
    # It holds the digests of keys and passwords.
    partial.touch(mode=0o600)
    try:
        if is_postgres(url):
            await database.read_only(lambda connection: _dump(connection, partial))
        else:
            _copy_file(str(address_of(url).database), partial)
        _forget_recordings(partial)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


async def load(database: Database, file: Path, *, is_forced: bool) -> None:
    """Put a backup in place of what the database holds, all or nothing; a backup of an older qwenbox is brought up to date.

    Raises ApiError: CONFLICT if the database holds rows and is_forced is False; INVALID_REQUEST for a file that is no backup.
    """
    with TemporaryDirectory() as folder, _readable(file):
        own = Path(folder) / "backup.db"
        own.touch(mode=0o600)
        _copy_file(str(file), own)
        with _opened(own) as source:
            if revision(source) is None:
                raise ApiError(ErrorKind.INVALID_REQUEST, f"{file} is no backup of a box.")
            upgrade(source)
        await database.change(lambda connection: _restore(connection, own, is_forced=is_forced))


def files_of(file: Path) -> Path:
    """The folder beside a backup with the bytes of its stored files, each under its id."""
    return file.with_name(f"{file.name}.files")


def save_files(file: Path, folder: Path) -> int:
    """Put the bytes of all stored files that the backup has rows of beside it, in place of what is there; returns how many.

    folder: where the box keeps them. What was deleted meanwhile is left out. Nothing is made for a box that keeps none.
    """
    beside, names = files_of(file), _stored(file)
    partial = beside.with_name(f"{beside.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    count = 0
    if names:
        partial.mkdir(mode=0o700)
        count = sum(_lay(folder / name, partial / name) for name in names)
    shutil.rmtree(beside, ignore_errors=True)
    if names:
        partial.rename(beside)
    return count


def load_files(file: Path, folder: Path) -> tuple[int, int]:
    """Put the bytes back where the box keeps them; returns how many, and how many the backup has rows of and nobody has the bytes."""
    names, beside = _stored(file), files_of(file)
    if names:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    count = sum(_lay(beside / name, folder / name) for name in names)
    return count, sum(not (folder / name).is_file() for name in names)


def _forget_recordings(file: Path) -> None:
    """From a backup's file, bytes and all: also those of rows that were deleted long ago. An older box had none."""
    with closing(sqlite3.connect(file)) as rows:
        if rows.execute("SELECT 1 FROM sqlite_master WHERE name = 'recordings'").fetchall():
            rows.execute("DELETE FROM recordings")
            rows.commit()
        if rows.execute("PRAGMA freelist_count").fetchone()[0]:
            rows.execute("VACUUM")


def _stored(file: Path) -> list[str]:
    """Ids of the files a backup has rows of; an older box had none."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as rows:
        if not rows.execute("SELECT 1 FROM sqlite_master WHERE name = 'files'").fetchall():
            return []
        return [str(name) for (name,) in rows.execute("SELECT id FROM files ORDER BY id") if Path(str(name)).name == name]


def _lay(source: Path, target: Path) -> bool:
    """False where there are no such bytes. Stored bytes never change, so that a second name for them is a copy, where the disk allows."""
    if not source.is_file():
        return False
    if not target.exists():
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
    return True


def _dump(source: Connection, file: Path) -> None:
    with _opened(file) as target:
        upgrade(target, revision(source) or "head")
        _move(source, target)


def _restore(target: Connection, file: Path, *, is_forced: bool) -> None:
    if not is_forced and _has_rows(target):
        raise ApiError(ErrorKind.CONFLICT, "This database is in use: it has rows. --force replaces them all by those of the backup.")
    upgrade(target)
    with _opened(file) as source:
        _move(source, target)


def _move(source: Connection, target: Connection) -> None:
    """All rows of all tables, in the order that foreign keys ask for. Each side reads its own schema, so that values keep their types."""
    ours, theirs = MetaData(), MetaData()
    ours.reflect(source)
    theirs.reflect(target)
    tables = [table for table in theirs.sorted_tables if table.name != _VERSIONS]
    for table in reversed(tables):
        target.execute(delete(table))
    for table in tables:
        rows = source.execution_options(yield_per=_ROWS_AT_ONCE).execute(select(ours.tables[table.name])).mappings()
        for some in rows.partitions(_ROWS_AT_ONCE):
            target.execute(insert(table), [dict(row) for row in some])


def _has_rows(connection: Connection) -> bool:
    schema = MetaData()
    schema.reflect(connection)
    tables = [table for name, table in schema.tables.items() if name not in (_VERSIONS, _CHANGES)]
    return any(connection.execute(select(table).limit(1)).first() is not None for table in tables)


def _copy_file(source: str, target: Path) -> None:
    """SQLite's own online copy, in one step: of one moment, and writers of the source wait for nothing."""
    with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as database, closing(sqlite3.connect(target)) as copy:
        database.backup(copy)
        # One file, without a log beside it.
        copy.execute("PRAGMA journal_mode=DELETE").fetchall()


@contextmanager
def _opened(file: Path) -> Generator[Connection]:
    """One transaction on a file that nobody else uses."""
    engine = create_engine(f"sqlite:///{file}")

    @event.listens_for(engine, "connect")
    def _(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def _readable(file: Path) -> Generator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise ApiError(ErrorKind.INVALID_REQUEST, f"{file} cannot be read as a backup of a box.") from error
    except NewerDatabase as error:
        raise ApiError(ErrorKind.INVALID_REQUEST, f"{file} was made by a newer qwenbox. Update this one first.") from error
