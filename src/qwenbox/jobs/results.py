"""This is where what a call made is kept for a while, to be fetched by a signed link and without a key.

A link is the result's name, when it ends, and HMAC-SHA256 over both under a secret of the box. Whoever has it may fetch that one thing
until then; nothing can be listed, and no link can be made longer-lived by its holder.
"""

import hashlib
import hmac
import secrets
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlencode

import anyio.to_thread
import msgspec
from sqlalchemy import delete, insert, select

from qwenbox.clock import Clock
from qwenbox.db import Database
from qwenbox.files import no_room
from qwenbox.gateway.settings import Settings
from qwenbox.jobs.tables import KEPT_RESULTS
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.job import Kept
from qwenbox.terms.secret import Secret

# Where links lead; before the name.
PREFIX = "/results/"

_SETTING = "results_secret"
_SECRET_BYTES = 32
_NAME_BYTES = 16
# Rows of results that are over, removed in one statement.
_TOGETHER = 500
# A file without a row was being written by a process that died; by the machine's own clock.
_ABANDONED_S = 3600.0
_SWEEP_S = 60.0

_ENDINGS = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}
_EXPIRED = "The link is over; what a call made is kept for {hours:g} hours."
_FORGED = "The link is not one of this box's."


class ResultsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[results]`. kept_s: how long links work; what they lead to is removed afterwards. The service keeps such things for 24 hours."""

    kept_s: float = 24 * 3600.0

    def __post_init__(self) -> None:
        if not 1 <= self.kept_s < float("inf"):
            raise ValueError("kept_s must be at least 1 second")


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """What lies behind a link."""

    data: bytes
    media_type: str


async def results_secret(settings: Settings) -> Secret:
    """What all processes of the box sign links with; drawn by whoever is first."""
    return Secret(await settings.once(_SETTING, secrets.token_hex(_SECRET_BYTES)))


class Results:
    """Rows in the database, bytes under `folder` by names of our own making."""

    def __init__(self, database: Database, folder: Path, config: ResultsConfig, secret: Secret, clock: Clock) -> None:
        self._database = database
        self._folder = folder
        self._config = config
        self._secret = secret.reveal().encode()
        self._clock = clock

    async def keep(self, account_id: str, data: bytes, media_type: str) -> Kept:
        """Raises ApiError(OVERLOADED) when disk or database do not take it."""
        name = f"{secrets.token_hex(_NAME_BYTES)}{_ENDINGS.get(media_type, '')}"
        await anyio.to_thread.run_sync(_write, self._folder / name, data)
        expires_at = int(self._clock.now() + self._config.kept_s)
        row = {"name": name, "account_id": account_id, "media_type": media_type, "size_bytes": len(data), "expires_at": expires_at}
        await self._database.write(insert(KEPT_RESULTS).values(**row))
        return Kept(name=name, expires_at=expires_at)

    def path(self, kept: Kept) -> str:
        """The link, below the address at which its reader finds the box."""
        query = urlencode({"Expires": kept.expires_at, "Signature": self._signature(kept.name, kept.expires_at)})
        return f"{PREFIX}{kept.name}?{query}"

    async def fetch(self, name: str, expires: str, signature: str) -> Fetched:
        """Raises ApiError: FORBIDDEN for a link that is over or not ours, NOT_FOUND when what it leads to is gone."""
        expires_at = int(expires) if expires.isascii() and expires.isdecimal() and len(expires) < 16 else 0
        ours = self._signature(name, expires_at)
        if not signature.isascii() or not hmac.compare_digest(ours, signature):
            raise ApiError(ErrorKind.FORBIDDEN, _FORGED)
        if self._clock.now() >= expires_at:
            raise ApiError(ErrorKind.FORBIDDEN, _EXPIRED.format(hours=self._config.kept_s / 3600))
        # The name is ours from here on: it was signed.
        rows = await self._database.read(select(KEPT_RESULTS.c.media_type).where(KEPT_RESULTS.c.name == name))
        try:
            data = await anyio.to_thread.run_sync((self._folder / name).read_bytes) if rows else None
        except FileNotFoundError:
            data = None
        if data is None:
            raise ApiError(ErrorKind.NOT_FOUND, "This is not here any more; boxes that share a database must share their data folder too.")
        return Fetched(data=data, media_type=str(rows[0]["media_type"]))

    async def follow(self) -> None:
        """Remove for ever what is over; run by whoever owns the box's background tasks."""
        with suppress(ApiError):
            await anyio.to_thread.run_sync(_sweep_abandoned, self._folder, await self._known())
        while True:
            with suppress(ApiError):  # the database is away: next time
                while await self._sweep() == _TOGETHER:
                    pass
            await anyio.sleep(_SWEEP_S)

    async def _sweep(self) -> int:
        over = select(KEPT_RESULTS.c.name).where(KEPT_RESULTS.c.expires_at <= self._clock.now()).limit(_TOGETHER)
        names = [str(row["name"]) for row in await self._database.read(over)]
        for name in names:
            await anyio.Path(self._folder / name).unlink(missing_ok=True)
        if names:
            await self._database.write(delete(KEPT_RESULTS).where(KEPT_RESULTS.c.name.in_(names)))
        return len(names)

    async def _known(self) -> set[str]:
        return {str(row["name"]) for row in await self._database.read(select(KEPT_RESULTS.c.name))}

    def _signature(self, name: str, expires_at: int) -> str:
        return hmac.new(self._secret, f"{expires_at}\n{name}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_bytes(data)
    except OSError as error:
        raise no_room(error) from error


def _sweep_abandoned(folder: Path, known: set[str]) -> None:
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name not in known and time.time() - path.stat().st_mtime > _ABANDONED_S:
            path.unlink(missing_ok=True)
