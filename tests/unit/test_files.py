"""Stored bytes: what is swept from the data folder, and what never is."""

import os
import time
from pathlib import Path

import pytest

from qwenbox.clock import SystemClock
from qwenbox.db import Database, open_database
from qwenbox.files import Files, FilesConfig
from qwenbox.migrations.upgrade import upgrade
from qwenbox.terms.job import NewFile, Purpose

pytestmark = pytest.mark.anyio


async def kept(files: Files) -> Path:
    async with files.receive("acc") as incoming:
        await incoming.write(b"some lines")
        return files.path((await files.keep(incoming, "acc", NewFile(purpose=Purpose.BATCH, filename="lines.jsonl"))).id)


def grow_old(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (time.time() - 48 * 3600,) * 2)


def opened(database: Database, folder: Path) -> Files:
    return Files(database, folder, FilesConfig(), SystemClock())


async def test_sweep_takes_old_bytes_that_no_row_knows(tmp_path: Path) -> None:
    async with open_database(f"sqlite:///{tmp_path / 'box.db'}") as database:
        await database.change(upgrade)
        files = opened(database, tmp_path / "files")
        stored, orphan, left, strange = (
            await kept(files),
            *(tmp_path / "files" / name for name in ("file-batch-1", "incoming-1", "notes")),
        )
        fresh = tmp_path / "files" / "file-batch-2"
        fresh.touch()
        grow_old(stored, orphan, left, strange)

        await files.sweep()

        assert {stored, fresh, strange} == set((tmp_path / "files").iterdir())


async def test_sweep_takes_nothing_when_the_database_knows_no_file_or_is_not_there(tmp_path: Path) -> None:
    orphan = tmp_path / "files" / "file-batch-1"
    grow_old(orphan)
    async with open_database(f"sqlite:///{tmp_path / 'box.db'}") as database:
        await opened(database, tmp_path / "files").sweep()  # without tables
        await database.change(upgrade)
        await opened(database, tmp_path / "files").sweep()
        assert orphan.exists()
