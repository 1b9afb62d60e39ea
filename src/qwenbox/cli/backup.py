"""This is where a box's rows are saved to a file and put back, from and to SQLite or PostgreSQL."""

from pathlib import Path
from typing import Annotated

import anyio
import anyio.to_thread
import typer

from qwenbox.cli.console import err, out, settings, told
from qwenbox.config import Config
from qwenbox.db import open_database
from qwenbox.gateway import audit
from qwenbox.terms.errors import ApiError, ErrorKind


def backup(
    file: Annotated[Path, typer.Argument(help="Where to write it. It holds the hashes of keys: keep it as safe as the box.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Save accounts, keys, usage and ledger to one file, as they are at this moment. The box may go on serving.

    The file is a SQLite database, whichever database the box is on; the bytes of stored files go into a folder beside it, FILE.files.
    Weights, settings and uploads that expire are not in it.

    Example: `qwenbox backup box-$(date +%F).db`
    """
    with told():
        if file.exists() and not force:
            raise ApiError(ErrorKind.CONFLICT, f"{file} is there already. Choose another name, or replace it with --force.")
        if not file.absolute().parent.is_dir():
            raise ApiError(ErrorKind.NOT_FOUND, f"There is no folder {file.absolute().parent}.")
        count = anyio.run(_save, settings(), file)
    out.print(f"Saved to {file} ({file.stat().st_size / 1_000_000:,.1f} MB).", markup=False)
    if count:
        out.print(f"{count:,} stored files are in {file}.files: keep both together.", markup=False)


def restore(
    file: Annotated[Path, typer.Argument(help="What `qwenbox backup` wrote, on SQLite or PostgreSQL, of this version or an older one.")],
    force: Annotated[bool, typer.Option("--force", help="Replace everything the database holds.")] = False,
) -> None:
    """Put a backup into the box's database, all or nothing, and check that its books add up. Stop the box first.

    Into an empty database, unless told to replace what is there. This is also the way from SQLite to PostgreSQL.

    Example: `QWENBOX_DATABASE_URL=postgresql://box@db/box qwenbox restore box.db`
    """
    with told():
        if not file.is_file():
            raise ApiError(ErrorKind.NOT_FOUND, f"There is no file {file}.")
        complaints, missing = anyio.run(_load, settings(), file, force)
    if missing:
        err.print(f"{missing:,} stored files have no bytes: they are not in {file}.files.", style="yellow", markup=False)
    if complaints:
        err.print(f"{file} is restored as it is, but its books do not add up:", style="red", markup=False)
        for complaint in complaints:
            err.print(f"  {complaint}", markup=False)
        raise typer.Exit(1)
    out.print(f"Restored from {file}; the books add up.", markup=False)


async def _save(config: Config, file: Path) -> int:
    # Alembic takes 0.2 s to import, and every command would wait for it.
    from qwenbox.migrations import backup as copies  # noqa: PLC0415

    async with open_database(config.database_url) as database:
        await copies.save(database, config.database_url, file)
    return await anyio.to_thread.run_sync(copies.save_files, file, config.home / "files")


async def _load(config: Config, file: Path, is_forced: bool) -> tuple[list[str], int]:
    from qwenbox.migrations import backup as copies  # noqa: PLC0415

    config.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with open_database(config.database_url) as database:
        await copies.load(database, file, is_forced=is_forced)
        complaints = await audit.complaints(database)
    _, missing = await anyio.to_thread.run_sync(copies.load_files, file, config.home / "files")
    return complaints, missing
