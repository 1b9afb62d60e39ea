"""Backup and restore: everything comes back, from either database into either, while a box writes, and never over rows by accident."""

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from sqlalchemy import Connection, MetaData, delete, insert, select, text
from typer.testing import CliRunner, Result

from qwenbox.app.office import open_office
from qwenbox.cli.main import app
from qwenbox.clock import SystemClock
from qwenbox.config import load
from qwenbox.db import open_database
from qwenbox.files import Files, FilesConfig
from qwenbox.gateway.journal.registry import JournalConfig, open_journal
from qwenbox.gateway.keys import NewKey
from qwenbox.gateway.recordings import RECORDINGS
from qwenbox.migrations.upgrade import upgrade
from qwenbox.terms.job import NewFile, Purpose
from support.bookings import call, top_up


@pytest.fixture(params=["sqlite", "postgres"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'source.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres").new_database()


@pytest.fixture(params=["sqlite", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'target.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres").new_database()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QWENBOX_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(url: str, *arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments], env={"QWENBOX_DATABASE_URL": url})


def fill(url: str) -> str:
    """A box with an account, a key, money and calls; returns the key's id."""

    async def work() -> str:
        async with open_office(load(environment={**os.environ, "QWENBOX_PROFILE": "echo", "QWENBOX_DATABASE_URL": url})) as office:
            account = await office.accounts.named("默认 ' \" 100 %")
            key, _ = await office.keys.issue(NewKey(account_id=account.id, name="first"))
            await office.journal.commit(top_up("paid", 10**15, account=account.id))
            for number in range(1_100):
                await office.journal.commit(call(f"{number}", number, account=account.id))
            return key.id

    return anyio.run(work)


def everything(url: str) -> dict[str, list[tuple[object, ...]]]:
    def read(connection: Connection) -> dict[str, list[tuple[object, ...]]]:
        schema = MetaData()
        schema.reflect(connection)
        return {table.name: sorted((tuple(row) for row in connection.execute(select(table))), key=repr) for table in schema.sorted_tables}

    async def work() -> dict[str, list[tuple[object, ...]]]:
        async with open_database(url) as database:
            return await database.read_only(read)

    return anyio.run(work)


def test_everything_comes_back_on_either_database(source: str, target: str, tmp_path: Path):
    fill(source)
    saved = run(source, "backup", tmp_path / "box.db")
    assert 0 == saved.exit_code, saved.output
    restored = run(target, "restore", tmp_path / "box.db")
    assert 0 == restored.exit_code, restored.output
    assert "the books add up" in restored.output
    before, after = everything(source), everything(target)
    assert 1_100 == len(before["usage"])
    assert before == after


def test_no_recording_is_in_a_backup_nor_any_that_was_deleted(source: str, tmp_path: Path):
    fill(source)
    prompts = [f"prompt number {number} " * 300 for number in range(40)]

    async def work() -> None:
        async with open_database(source) as database:
            rows = [
                {"id": f"call-{number}", "account_id": "acc", "at": 1.0, "prompt": prompt, "answer": "[]", "is_cut": False}
                for number, prompt in enumerate(prompts)
            ]
            await database.write(insert(RECORDINGS).values(rows))
            await database.write(delete(RECORDINGS).where(RECORDINGS.c.id < "call-2"))

    anyio.run(work)
    assert 0 == run(source, "backup", tmp_path / "box.db").exit_code
    assert b"prompt number" not in (tmp_path / "box.db").read_bytes()
    assert everything(source)["recordings"]


def test_backup_is_one_private_file_with_everything_of_one_moment(source: str, tmp_path: Path):
    fill(source)

    async def work() -> list[bytes]:
        async with open_journal(source, JournalConfig(), SystemClock()) as journal:
            is_over = asyncio.Event()

            async def book(name: str) -> None:
                number = 0
                while not is_over.is_set():
                    number += 1
                    await journal.commit(call(f"{name}-{number}", 3, account=name))

            copies: list[bytes] = []
            async with anyio.create_task_group() as tasks:
                for name in "abcd":
                    tasks.start_soon(book, name)
                for number in range(3):
                    saved = await anyio.to_thread.run_sync(run, source, "backup", tmp_path / f"{number}.db")
                    copies.append(saved.stdout_bytes)
                is_over.set()
            return copies

    anyio.run(work)
    for number in range(3):
        file = tmp_path / f"{number}.db"
        assert 0o600 == file.stat().st_mode & 0o777
        assert [f"{number}.db"] == [path.name for path in tmp_path.glob(f"{number}.db*")]
        with closing(sqlite3.connect(file)) as copy:
            assert [(0,)] == copy.execute("SELECT sum(amount_micros) FROM ledger_entries").fetchall()
            unequal = (
                "SELECT id FROM purses WHERE id LIKE 'balance/%' AND amount_micros <> (SELECT sum(amount_micros) FROM ledger_entries "
                "WHERE ledger_account = 'customer/' || substr(id, 9))"
            )
            assert [] == copy.execute(unequal).fetchall()


def store(url: str, home: Path, *contents: bytes) -> list[str]:
    """Files of an account, as an upload keeps them; returns their ids."""

    async def work() -> list[str]:
        async with open_office(load(environment={**os.environ, "QWENBOX_PROFILE": "echo", "QWENBOX_DATABASE_URL": url})) as office:
            files = Files(office.database, home / "files", FilesConfig(), office.clock)
            kept = []
            for content in contents:
                async with files.receive("acc") as incoming:
                    await incoming.write(content)
                    kept.append((await files.keep(incoming, "acc", NewFile(purpose=Purpose.BATCH, filename="lines.jsonl"))).id)
            return kept

    return anyio.run(work)


def test_the_bytes_of_stored_files_come_back(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source, target = (f"sqlite:///{tmp_path / name}" for name in ("source.db", "target.db"))
    kept, deleted, lost = store(source, home, b"kept" * 1000, b"deleted", b"lost")
    (home / "files" / deleted).unlink()
    saved = run(source, "backup", tmp_path / "box.db")
    assert (0, True) == (saved.exit_code, "2 stored files are in" in saved.output)
    beside = tmp_path / "box.db.files"
    assert ({kept, lost}, 0o700) == ({path.name for path in beside.iterdir()}, beside.stat().st_mode & 0o777)
    (beside / lost).unlink()

    monkeypatch.setenv("QWENBOX_HOME", str(tmp_path / "other"))
    restored = run(target, "restore", tmp_path / "box.db")
    assert (0, True) == (restored.exit_code, "2 stored files have no bytes" in restored.output)
    assert b"kept" * 1000 == (tmp_path / "other" / "files" / kept).read_bytes()

    # A later backup takes the place of the first; one of a box without files leaves nothing beside it.
    assert 0 == run(target, "backup", tmp_path / "box.db", "--force").exit_code
    assert [kept] == [path.name for path in beside.iterdir()]


def test_restore_over_rows_needs_force_and_then_replaces_them_all(target: str, tmp_path: Path):
    source = f"sqlite:///{tmp_path / 'source.db'}"
    fill(source)
    assert 0 == run(source, "backup", tmp_path / "box.db").exit_code
    other_key = fill(target)
    before = everything(target)
    refused = run(target, "restore", tmp_path / "box.db")
    assert 1 == refused.exit_code
    assert "--force" in refused.output
    assert before == everything(target)
    assert 0 == run(target, "restore", tmp_path / "box.db", "--force").exit_code
    assert everything(source) == everything(target)
    assert other_key not in {row[0] for row in everything(target)["keys"]}


def test_a_backup_that_does_not_fit_leaves_the_database_as_it_was(target: str, tmp_path: Path):
    source = f"sqlite:///{tmp_path / 'source.db'}"
    fill(source)
    assert 0 == run(source, "backup", tmp_path / "box.db").exit_code
    with closing(sqlite3.connect(tmp_path / "box.db")) as file, file:
        file.execute("PRAGMA foreign_keys=OFF")
        file.execute("UPDATE keys SET account_id = 'nobody'")
    fill(target)
    before = everything(target)
    assert 1 == run(target, "restore", tmp_path / "box.db", "--force").exit_code
    assert before == everything(target)


def test_restore_says_so_when_the_books_of_the_backup_do_not_add_up(tmp_path: Path):
    source = f"sqlite:///{tmp_path / 'source.db'}"
    fill(source)
    assert 0 == run(source, "backup", tmp_path / "box.db").exit_code
    with closing(sqlite3.connect(tmp_path / "box.db")) as file, file:
        file.execute("UPDATE purses SET amount_micros = amount_micros + 1 WHERE id LIKE 'balance/%'")
    done = run(f"sqlite:///{tmp_path / 'target.db'}", "restore", tmp_path / "box.db")
    assert 1 == done.exit_code
    assert "a balance is not the sum of its entries" in done.output


def test_a_backup_of_an_older_box_is_brought_up_to_date(target: str, tmp_path: Path):
    async def make() -> None:
        async with open_database(f"sqlite:///{tmp_path / 'old.db'}") as database:
            await database.change(lambda connection: upgrade(connection, "0001"))
            await database.write(
                text("INSERT INTO accounts (id, name, created_at) VALUES ('acc-1', 'default', 1.5)"),
            )

    anyio.run(make)
    assert 0 == run(f"sqlite:///{tmp_path / 'old.db'}", "backup", tmp_path / "box.db").exit_code
    restored = run(target, "restore", tmp_path / "box.db")
    assert 0 == restored.exit_code, restored.output
    assert "acc-1" == everything(target)["accounts"][0][0]


@pytest.mark.parametrize("content", [b"", b"not a database, just text " * 100])
def test_restore_refuses_what_is_no_backup(content: bytes, tmp_path: Path):
    (tmp_path / "text.db").write_bytes(content)
    done = run(f"sqlite:///{tmp_path / 'target.db'}", "restore", tmp_path / "text.db")
    assert 1 == done.exit_code
    assert "text.db" in done.output


def test_restore_refuses_a_backup_of_a_newer_box(tmp_path: Path):
    source = f"sqlite:///{tmp_path / 'source.db'}"
    fill(source)
    assert 0 == run(source, "backup", tmp_path / "box.db").exit_code
    with closing(sqlite3.connect(tmp_path / "box.db")) as file, file:
        file.execute("UPDATE alembic_version SET version_num = '9999'")
    done = run(f"sqlite:///{tmp_path / 'target.db'}", "restore", tmp_path / "box.db")
    assert 1 == done.exit_code
    assert "newer qwenbox" in done.output


def test_backup_refuses_a_file_that_is_there_and_a_database_that_is_not(tmp_path: Path, home: Path):
    home.mkdir()
    empty = run(f"sqlite:///{tmp_path / 'empty.db'}", "backup", tmp_path / "box.db")
    assert (1, True) == (empty.exit_code, "nothing to back up" in empty.output)
    assert not (tmp_path / "box.db").exists()
    (tmp_path / "box.db").touch()
    taken = run(f"sqlite:///{tmp_path / 'empty.db'}", "backup", tmp_path / "box.db")
    assert (1, True) == (taken.exit_code, "--force" in taken.output)
