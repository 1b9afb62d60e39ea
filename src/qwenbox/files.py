"""This is where bytes are kept that outlive a request: uploads and what batches write; who owns them, how much one may keep."""

import base64
import hashlib
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import anyio
import anyio.to_thread
import msgspec
from sqlalchemy import BigInteger, Column, Connection, Float, Index, Table, Text, cast, delete, func, insert, or_, select
from sqlalchemy import and_ as both

from qwenbox.clock import Clock
from qwenbox.db import METADATA, Database
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.job import FilesPage, NewFile, PageAsked, Purpose, StoredFile

FILES = Table(
    "files",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("description", Text, nullable=False),
    Column("md5", Text, nullable=False),
    Index("files_by_account", "account_id", "created_at"),
)

_MIB = 1024 * 1024
# What is on its way in; renamed when it is whole.
_INCOMING = "incoming-"
# Nobody uploads one file for longer; what is older was left by a process that died.
_ABANDONED_S = 24 * 3600.0
# Pieces are written together up to this size: one hop to a thread for each.
_WRITE_BYTES = _MIB
_ASKED_AT_ONCE = 500
_PREFIXES = {Purpose.FILE_EXTRACT: "file-fe-", Purpose.FINE_TUNE: "file-ft-"}


class FilesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[files]`: the largest file for a batch and for anything else, in bytes; how many files, and bytes of files, an account may keep."""

    batch_limit_bytes: int = 500 * _MIB
    other_limit_bytes: int = 150 * _MIB
    account_files: int = 10_000
    account_bytes: int = 100 * 1024 * _MIB

    def limit_bytes(self, purpose: Purpose) -> int:
        return self.batch_limit_bytes if purpose is Purpose.BATCH else self.other_limit_bytes


class Incoming:
    """A file on its way in, in constant memory."""

    def __init__(self, path: Path, handle: BinaryIO, limit_bytes: int) -> None:
        self.path = path
        self.size_bytes = 0
        self._handle = handle
        self._limit_bytes = limit_bytes
        self._waiting = bytearray()
        # A checksum that clients compare, nothing that must hold against anybody.
        self._md5 = hashlib.md5(usedforsecurity=False)

    @property
    def md5(self) -> str:
        """Of what was flushed, base64."""
        return base64.b64encode(self._md5.digest()).decode()

    async def write(self, data: bytes) -> None:
        """Raises ApiError(TOO_LARGE) past what any purpose allows."""
        self.size_bytes += len(data)
        if self.size_bytes > self._limit_bytes:
            raise too_large(self._limit_bytes)
        self._waiting += data
        if len(self._waiting) >= _WRITE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        waiting, self._waiting = self._waiting, bytearray()
        await anyio.to_thread.run_sync(self._write, waiting)

    def _write(self, data: bytearray) -> None:
        self._md5.update(data)
        _write(self._handle, data)


class Files:
    """Rows in the database, bytes under `folder` by ids of our own making: nothing a client says becomes a path."""

    def __init__(self, database: Database, folder: Path, config: FilesConfig, clock: Clock) -> None:
        self.folder = folder
        self.config = config
        self._database = database
        self._clock = clock

    @asynccontextmanager
    async def receive(self, account_id: str) -> AsyncGenerator[Incoming]:
        """A place to write to; what was not kept is gone afterwards. Raises ApiError(QUOTA_EXHAUSTED) when the account has no room."""
        await self._check_room(account_id, 1)
        path = self.folder / f"{_INCOMING}{secrets.token_hex(12)}"
        handle = await anyio.to_thread.run_sync(open_new, path)
        try:
            yield Incoming(path, handle, max(self.config.batch_limit_bytes, self.config.other_limit_bytes))
        finally:
            handle.close()
            path.unlink(missing_ok=True)

    async def keep(self, incoming: Incoming, account_id: str, new: NewFile) -> StoredFile:
        """The file is whole. Raises ApiError as `receive`, or TOO_LARGE for its purpose."""
        await incoming.flush()
        limit_bytes = self.config.limit_bytes(new.purpose)
        if incoming.size_bytes > limit_bytes:
            raise too_large(limit_bytes)
        await self._check_room(account_id, incoming.size_bytes)
        stored = StoredFile(
            id=f"{_PREFIXES.get(new.purpose, f'file-{new.purpose.value}-')}{secrets.token_hex(12)}",
            account_id=account_id,
            purpose=new.purpose,
            filename=new.filename,
            description=new.description,
            size_bytes=incoming.size_bytes,
            created_at=self._clock.now(),
            md5=incoming.md5,
        )
        await anyio.Path(incoming.path).rename(self.path(stored.id))
        await self._database.write(insert(FILES).values(**row_of(stored)))
        return stored

    async def get(self, account_id: str, file_id: str) -> StoredFile:
        """Raises ApiError(NOT_FOUND), also for other accounts' files."""
        rows = (
            await self._database.read(select(FILES).where(FILES.c.id == file_id, FILES.c.account_id == account_id))
            if _is_id(file_id)
            else []
        )
        if not rows:
            raise ApiError(ErrorKind.NOT_FOUND, f"No such file object: {_shown(file_id)}", param="id")
        return msgspec.convert(rows[0], StoredFile)

    async def page(self, account_id: str, asked: PageAsked) -> FilesPage:
        """Newest first. Raises ApiError(NOT_FOUND) for an `after` that is no file of the account's."""
        query = select(FILES).where(FILES.c.account_id == account_id)
        total = (await self._used(account_id)).count if asked.is_counted else 0
        if asked.purpose is not None:
            query = query.where(FILES.c.purpose == asked.purpose)
        if asked.created_after is not None:
            query = query.where(FILES.c.created_at >= asked.created_after)
        if asked.created_before is not None:
            query = query.where(FILES.c.created_at <= asked.created_before)
        if asked.after is not None:
            last = await self.get(account_id, asked.after)
            older = FILES.c.created_at < last.created_at
            query = query.where(or_(older, both(FILES.c.created_at == last.created_at, FILES.c.id < last.id)))
        query = query.order_by(FILES.c.created_at.desc(), FILES.c.id.desc()).limit(asked.limit + 1).offset(asked.skip)
        found = msgspec.convert(await self._database.read(query), tuple[StoredFile, ...])
        return FilesPage(files=found[: asked.limit], has_more=len(found) > asked.limit, total=total)

    async def delete(self, account_id: str, file_id: str) -> None:
        """Raises ApiError(NOT_FOUND)."""
        await self.get(account_id, file_id)
        await self._database.write(delete(FILES).where(FILES.c.id == file_id))
        await anyio.Path(self.path(file_id)).unlink(missing_ok=True)

    def path(self, file_id: str) -> Path:
        """Where the bytes of a file lie. file_id: of a row, never a client's word."""
        return self.folder / file_id

    async def open(self, stored: StoredFile) -> BinaryIO:
        """The bytes, for whoever closes it. Raises ApiError(NOT_FOUND) when they are gone from this machine."""
        try:
            return await anyio.to_thread.run_sync(_open, self.path(stored.id))
        except FileNotFoundError as error:
            text = f"The bytes of {stored.id} are not in this box's data folder; boxes that share a database must share it too."
            raise ApiError(ErrorKind.NOT_FOUND, text) from error

    async def sweep(self) -> None:
        """Remove what uploads of dead processes left behind, and old bytes that no row knows, if the database can be asked."""
        await anyio.to_thread.run_sync(sweep_incoming, self.folder)
        aged = await anyio.to_thread.run_sync(_aged, self.folder)
        # No row at all: more likely another database than files that all lost theirs.
        with suppress(ApiError):
            if aged and await self._database.read(select(FILES.c.id).limit(1)):
                for some in (aged[start : start + _ASKED_AT_ONCE] for start in range(0, len(aged), _ASKED_AT_ONCE)):
                    await self._sweep_unknown(some)

    async def _sweep_unknown(self, names: list[str]) -> None:
        known = {row["id"] for row in await self._database.read(select(FILES.c.id).where(FILES.c.id.in_(names)))}
        for name in names:
            if name not in known:
                await anyio.Path(self.path(name)).unlink(missing_ok=True)

    async def _check_room(self, account_id: str, size_bytes: int) -> None:
        used = await self._used(account_id)
        if used.count >= self.config.account_files:
            text = f"Your account keeps {used.count} files, and may keep {self.config.account_files} ([files] account_files). Delete some."
            raise ApiError(ErrorKind.QUOTA_EXHAUSTED, text)
        if used.size_bytes + size_bytes > self.config.account_bytes:
            text = f"Your account may keep {self.config.account_bytes} bytes of files ([files] account_bytes). Delete some."
            raise ApiError(ErrorKind.QUOTA_EXHAUSTED, text)

    async def _used(self, account_id: str) -> "_Used":
        query = select(func.count().label("count"), cast(func.coalesce(func.sum(FILES.c.size_bytes), 0), BigInteger).label("size_bytes"))
        return msgspec.convert((await self._database.read(query.where(FILES.c.account_id == account_id)))[0], _Used, strict=False)


class _Used(msgspec.Struct, frozen=True):
    count: int
    size_bytes: int


def row_of(stored: StoredFile) -> dict[str, object]:
    """A file's row, for whoever writes it together with rows of its own."""
    return {**msgspec.structs.asdict(stored), "purpose": stored.purpose.value}


def is_there(connection: Connection, file_id: str) -> bool:
    return connection.execute(select(FILES.c.id).where(FILES.c.id == file_id)).first() is not None


def too_large(limit_bytes: int) -> ApiError:
    return ApiError(ErrorKind.TOO_LARGE, f"The file is larger than {limit_bytes} bytes ([files] of this box).", param="file")


def no_room(error: OSError) -> ApiError:
    return ApiError(ErrorKind.OVERLOADED, f"The box cannot store files now: {error.strerror or 'the disk fails'}.", retry_after_s=30)


def _is_id(file_id: str) -> bool:
    # What no id can be is not asked of a database, which may refuse the very characters.
    return len(file_id) <= 128 and file_id.isascii() and file_id.isprintable()


def _shown(file_id: str) -> str:
    return file_id[:128].encode("ascii", "replace").decode()


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


def open_new(path: Path) -> BinaryIO:
    """For writing. Raises ApiError(OVERLOADED) where the disk fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path.open("xb")
    except OSError as error:
        raise no_room(error) from error


def _write(handle: BinaryIO, data: bytearray) -> None:
    try:
        handle.write(data)
        handle.flush()
    except OSError as error:
        raise no_room(error) from error


def sweep_incoming(folder: Path) -> None:
    """Remove what uploads of dead processes left in a folder."""
    if not folder.is_dir():
        return
    for path in folder.glob(f"{_INCOMING}*"):
        if time.time() - path.stat().st_mtime > _ABANDONED_S:
            path.unlink(missing_ok=True)


def _aged(folder: Path) -> list[str]:
    """Names of kept files that are older than any row on its way."""
    if not folder.is_dir():
        return []
    return [path.name for path in folder.glob("file-*") if time.time() - path.stat().st_mtime > _ABANDONED_S]
