"""This is where files lie that were uploaded for a call: of an account, for 48 hours, found by the checksum of their name.

No name that a client chose is kept, on the disk or in a row.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
from sqlalchemy import BigInteger, Column, Float, Index, Integer, Table, Text, cast, delete, func, insert, select

from qwenbox.clock import Clock
from qwenbox.db import METADATA, Database
from qwenbox.files import Incoming, open_new, sweep_incoming
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret
from qwenbox.terms.upload import Permit

SCHEME = "oss://"
# Under which the box keeps what it signs with.
SIGNING = "upload_secret"

UPLOADS = Table(
    "uploads",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("name_hash", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("expires_at", Float, nullable=False),
    Index("uploads_by_name", "account_id", "name_hash", "number"),
    Index("uploads_by_end", "expires_at"),
)

_MIB = 1024 * 1024
_SWEEP_EVERY_S = 600.0
# Removed in one statement.
_TOGETHER = 500
_MOST_NAME = 1024


class UploadsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[uploads]`: files that SDKs upload for a call.

    limit_bytes: the largest. account_files, account_bytes: kept for one account at a time. keep_s: how long. permit_s: how long a leave to
    upload is good for.
    """

    limit_bytes: int = 100 * _MIB
    account_files: int = 2_000
    account_bytes: int = 5 * 1024 * _MIB
    keep_s: float = 48 * 3600.0
    permit_s: int = 300

    def __post_init__(self) -> None:
        if not (self.limit_bytes > 0 and self.account_files > 0 and self.account_bytes > 0 and self.keep_s > 0 and self.permit_s > 0):
            raise ValueError("limit_bytes, account_files, account_bytes, keep_s and permit_s must be above 0")


class Uploads:
    """secret: what all processes of the box sign with."""

    def __init__(self, database: Database, folder: Path, config: UploadsConfig, clock: Clock, secret: Secret) -> None:
        self.config = config
        self._database = database
        self._folder = folder
        self._clock = clock
        self._secret = secret.reveal().encode()

    def permit(self, account_id: str) -> Permit:
        """For one call of an SDK: it uploads all files of the call with it, into a folder of its own."""
        now = self._clock.now()
        account = hashlib.sha256(account_id.encode()).hexdigest()[:32]
        day = datetime.fromtimestamp(now, UTC).date().isoformat()
        return Permit(
            account_id=account_id,
            folder=f"dashscope-instant/{account}/{day}/{secrets.token_hex(16)}",
            expires_at=now + self.config.permit_s,
            most_bytes=self.config.limit_bytes,
        )

    def sign(self, policy: str) -> str:
        """Base64 of HMAC-SHA256."""
        return base64.b64encode(hmac.digest(self._secret, b"upload " + policy.encode(), hashlib.sha256)).decode()

    def is_signed(self, policy: str, signature: str) -> bool:
        return hmac.compare_digest(self.sign(policy).encode(), signature.encode("utf-8", "replace"))

    def check(self, permit: Permit, name: str) -> None:
        """Raises ApiError(FORBIDDEN) with the service's text."""
        if self._clock.now() >= permit.expires_at:
            raise ApiError(ErrorKind.FORBIDDEN, "Invalid according to Policy: Policy expired.")
        if not name.startswith(f"{permit.folder}/") or len(name) > _MOST_NAME:
            raise ApiError(ErrorKind.FORBIDDEN, 'Invalid according to Policy: Policy Condition failed: ["starts-with", "$key"].')

    @asynccontextmanager
    async def receive(self, permit: Permit) -> AsyncGenerator[Incoming]:
        """A place to write to; what was not kept is gone afterwards. Raises ApiError(QUOTA_EXHAUSTED) when the account has no room."""
        await self._check_room(permit.account_id, 0)
        path = self._folder / f"incoming-{secrets.token_hex(12)}"
        handle = await anyio.to_thread.run_sync(open_new, path)
        try:
            yield Incoming(path, handle, permit.most_bytes)
        finally:
            handle.close()
            path.unlink(missing_ok=True)

    async def keep(self, incoming: Incoming, permit: Permit, name: str) -> None:
        """The file is whole. A name may come again: SDKs give two files of one call the same one. Raises ApiError as `receive`."""
        await incoming.flush()
        await self._check_room(permit.account_id, incoming.size_bytes)
        upload_id, hashed = f"upload-{secrets.token_hex(16)}", _hashed(name)
        named = (UPLOADS.c.account_id == permit.account_id, UPLOADS.c.name_hash == hashed)
        number = select(func.coalesce(func.max(UPLOADS.c.number) + 1, 0)).where(*named).scalar_subquery()
        row = {"id": upload_id, "account_id": permit.account_id, "name_hash": hashed, "size_bytes": incoming.size_bytes}
        # The row first: bytes without one would be nobody's to remove.
        await self._database.write(insert(UPLOADS).values(**row, number=number, expires_at=self._clock.now() + self.config.keep_s))
        await anyio.Path(incoming.path).rename(self._folder / upload_id)

    async def read(self, account_id: str, url: str, number: int, most_bytes: int) -> bytes | None:
        """At most one byte more than `most_bytes` of the `number`th file, from 0, that was uploaded under this oss:// name, or of the last.

        None where the account has none, or no longer.
        """
        query = select(UPLOADS.c.id).where(UPLOADS.c.account_id == account_id, UPLOADS.c.name_hash == _hashed(url.removeprefix(SCHEME)))
        query = query.where(UPLOADS.c.expires_at > self._clock.now()).order_by(UPLOADS.c.number)
        rows = await self._database.read(query)
        if not rows:
            return None
        return await anyio.to_thread.run_sync(_read, self._folder / str(rows[min(number, len(rows) - 1)]["id"]), most_bytes + 1)

    async def sweep(self) -> None:
        """Remove what is over, and what uploads of dead processes left behind."""
        query = select(UPLOADS.c.id).where(UPLOADS.c.expires_at <= self._clock.now()).limit(_TOGETHER)
        while rows := [str(row["id"]) for row in await self._database.read(query)]:
            for upload_id in rows:
                await anyio.Path(self._folder / upload_id).unlink(missing_ok=True)
            await self._database.write(delete(UPLOADS).where(UPLOADS.c.id.in_(rows)))
        await anyio.to_thread.run_sync(sweep_incoming, self._folder)

    async def follow(self) -> None:
        """Sweep for ever; run by whoever owns the box's background tasks. An outage is tried again."""
        while True:
            with suppress(ApiError):
                await self.sweep()
            await self._clock.sleep(_SWEEP_EVERY_S)

    async def _check_room(self, account_id: str, size_bytes: int) -> None:
        query = select(
            func.count().label("count"), cast(func.coalesce(func.sum(UPLOADS.c.size_bytes), 0), BigInteger).label("size_bytes")
        ).where(UPLOADS.c.account_id == account_id, UPLOADS.c.expires_at > self._clock.now())
        used = msgspec.convert((await self._database.read(query))[0], _Used, strict=False)
        if used.count >= self.config.account_files:
            raise _no_room(f"{self.config.account_files} files ([uploads] account_files)")
        if used.size_bytes + size_bytes > self.config.account_bytes:
            raise _no_room(f"{self.config.account_bytes} bytes ([uploads] account_bytes)")


class _Used(msgspec.Struct, frozen=True):
    count: int
    size_bytes: int


def _no_room(what: str) -> ApiError:
    return ApiError(ErrorKind.QUOTA_EXHAUSTED, f"Uploads of your account may be {what} at a time; each is removed when its time is over.")


def _hashed(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def _read(path: Path, most_bytes: int) -> bytes | None:
    try:
        with path.open("rb") as handle:
            return handle.read(most_bytes)
    except FileNotFoundError:
        return None
