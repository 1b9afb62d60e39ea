"""The database: at the newest revision after an upgrade, and known to be."""

import asyncio
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, select, text
from sqlalchemy.util import await_only

from qwenbox import gateway, jobs
from qwenbox.db import METADATA, REVISION, address_of, driver_url, open_database
from qwenbox.gateway import accounts, keys
from qwenbox.migrations.upgrade import NewerDatabase, upgrade
from qwenbox.terms.errors import ApiError, ErrorKind
from support.postgres import Server, serve

pytestmark = pytest.mark.anyio


async def test_database_is_current_only_after_the_upgrade(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'box.db'}"
    async with open_database(url) as database:
        assert not await database.is_current()
        await database.change(upgrade)
        assert await database.is_current()
    async with open_database(url) as database:
        assert await database.is_current()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    return f"sqlite:///{tmp_path / 'box.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres").new_database()


async def test_migrations_make_the_columns_the_components_declare(url: str):
    for package in (gateway, jobs):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    for name in ("qwenbox.files", "qwenbox.uploads"):
        importlib.import_module(name)
    async with open_database(url) as database:
        await database.change(upgrade)
        made = await database.read_only(_columns)
    declared = {
        table.name: {column.name: (column.type.python_type, column.nullable) for column in table.columns}
        for table in METADATA.tables.values()
    }
    assert declared == {name: columns for name, columns in made.items() if name != "alembic_version"}


def _columns(connection: Connection) -> dict[str, dict[str, tuple[type, bool | None]]]:
    reflected = MetaData()
    reflected.reflect(connection)
    return {
        table.name: {column.name: (column.type.python_type, column.nullable) for column in table.columns}
        for table in reflected.tables.values()
    }


async def test_postgres_keeps_floats_and_money_whole(postgres: Server):
    url = postgres.new_database()
    async with open_database(url) as database:
        await database.change(upgrade)
        rows = await database.read(
            text("SELECT column_name FROM information_schema.columns WHERE data_type IN ('real', 'numeric') AND table_schema = 'public'")
        )
        types = await database.read(text("SELECT data_type FROM information_schema.columns WHERE column_name LIKE '%_micros'"))
    assert [] == rows
    assert {"bigint"} == {str(row["data_type"]) for row in types}


async def test_upgrade_keeps_accounts_and_keys_of_the_first_revision(url: str):
    async with open_database(url) as database:
        await database.change(lambda connection: upgrade(connection, "0001"))
        await database.write(
            text("INSERT INTO accounts (id, name, created_at) VALUES ('acc-1', 'default', 1795000000.123)"),
            text(
                "INSERT INTO keys (id, account_id, name, digest, prefix, compat, seeds, created_at, revoked_at) "
                "VALUES ('key-1', 'acc-1', 'first', 'digest', 'sk-1234', NULL, 'exact', 1795000000.123, NULL)"
            ),
        )
        assert not await database.is_current()
        await database.change(upgrade)
        assert await database.is_current()
        (account,) = await database.read(select(accounts.ACCOUNTS))
        (key,) = await database.read(select(keys.KEYS))
    assert {"id": "acc-1", "name": "default", "created_at": 1795000000.123, "role": "member", "is_prepaid": False} == {
        name: account[name] for name in ("id", "name", "created_at", "role", "is_prepaid")
    }
    assert ("key-1", "acc-1", "sk-1234", None, None) == tuple(key[name] for name in ("id", "account_id", "prefix", "models", "expires_at"))


_UPGRADE = """
import sys, anyio
from qwenbox.db import open_database
from qwenbox.migrations.upgrade import upgrade
async def run():
    async with open_database(sys.argv[1]) as database:
        sys.stdin.read()
        if not await database.is_current():
            await database.change(upgrade)
        assert await database.is_current()
anyio.run(run)
"""


def test_several_processes_upgrade_one_database_at_once(url: str):
    processes = [subprocess.Popen([sys.executable, "-c", _UPGRADE, url], stdin=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    ends = [(process.communicate()[1].decode(), process.returncode) for process in processes]
    assert [("", 0)] * 3 == ends


async def test_a_migration_that_fails_leaves_nothing_behind(url: str):
    def fail(connection: Connection) -> None:
        upgrade(connection)
        raise LookupError

    async with open_database(url) as database:
        with pytest.raises(LookupError):
            await database.change(fail)
        assert {} == await database.read_only(_columns)
        await database.change(upgrade)
        assert await database.is_current()


async def test_reads_of_read_only_are_of_one_moment(url: str):
    async with open_database(url) as database, open_database(url) as other:
        await database.change(upgrade)
        loop = asyncio.get_running_loop()

        def count_twice(connection: Connection) -> tuple[int, int]:
            query = text("SELECT count(*) FROM settings")
            before = connection.execute(query).scalar_one()
            insert = other.write(text("INSERT INTO settings (name, value) VALUES ('a', 'b')"))
            await_only(asyncio.ensure_future(insert, loop=loop))
            return before, connection.execute(query).scalar_one()

        assert (0, 0) == await database.read_only(count_twice)
        assert [{"name": "a"}] == await database.read(text("SELECT name FROM settings"))


def test_revision_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", "src/qwenbox/migrations")
    assert REVISION == ScriptDirectory.from_config(config).get_current_head()


async def test_a_failing_database_is_an_api_error_without_its_text(tmp_path: Path) -> None:
    async with open_database(f"sqlite+aiosqlite:///{tmp_path / 'box.db'}") as database:
        with pytest.raises(ApiError) as refused:
            await database.read(text("SELECT * FROM nowhere"))
    assert refused.value.kind is ErrorKind.OVERLOADED
    assert "nowhere" not in refused.value.message


async def test_a_failing_statement_on_postgres_is_an_api_error_without_its_text(postgres: Server):
    async with open_database(postgres.url()) as database:
        with pytest.raises(ApiError) as refused:
            await database.read(text("SELECT * FROM nowhere"))
    assert refused.value.kind is ErrorKind.OVERLOADED
    assert "nowhere" not in refused.value.message


@pytest.mark.parametrize(
    ("url", "drivers"),
    [
        ("postgres://me:pw@db:5433/box", "postgresql+asyncpg://me:pw@db:5433/box"),
        ("postgresql://me:pw@db/box", "postgresql+asyncpg://me:pw@db/box"),
        ("postgresql+asyncpg://me@db/box", "postgresql+asyncpg://me@db/box"),
        ("postgresql://me@db/box?sslmode=require", "postgresql+asyncpg://me@db/box?ssl=require"),
        ("sqlite:////data/box.db", "sqlite+aiosqlite:////data/box.db"),
        ("sqlite+aiosqlite:////data/box.db", "sqlite+aiosqlite:////data/box.db"),
    ],
)
def test_addresses_are_taken_as_people_write_them(url: str, drivers: str):
    assert drivers == address_of(url).render_as_string(hide_password=False)


def test_the_drivers_own_address_has_its_own_name_for_tls():
    assert "postgresql://me:p%40w@db/box?sslmode=require" == driver_url("postgres://me:p%40w@db/box?ssl=require")


@pytest.mark.parametrize("url", ["mysql://me:secret@db/box", "not a url secret", "postgresql+psycopg://me:secret@db/box", "://secret"])
def test_an_address_of_something_else_is_refused_without_showing_it(url: str):
    with pytest.raises(ApiError, match="postgresql://") as refused:
        address_of(url)
    assert "secret" not in refused.value.message


async def test_start_says_what_is_wrong_and_never_the_password(tmp_path: Path):
    with serve() as server:
        gone = server.url("nobody_made_it", password="pass-word-1")
        await _refused(gone, "has no database 'nobody_made_it'")
        server.require_password("pass-word-1")
        async with open_database(server.url(password="pass-word-1")) as database:
            assert [{"one": 1}] == await database.read(text("SELECT 1 AS one"))
            server.kill()
            with pytest.raises(ApiError) as away:
                await database.read(text("SELECT 1 AS one"))
            assert away.value.kind is ErrorKind.OVERLOADED
            server.start()
            # The pool's connections died with the server; nobody notices.
            assert [{"one": 1}] == await database.read(text("SELECT 1 AS one"))
        await _refused(server.url(password="pass-word-2"), "refuses the user 'postgres' or its password")
    await _refused(server.url(password="pass-word-1"), "does not answer")
    await _refused(f"sqlite:///{tmp_path}/no/such/folder/box.db", "cannot be opened")


async def _refused(url: str, words: str) -> None:
    with pytest.raises(ApiError, match=words) as refused:
        async with open_database(url):
            pass
    assert refused.value.kind is ErrorKind.OVERLOADED
    assert "pass-word" not in refused.value.message


async def test_cancelled_reads_leave_no_task_behind(url: str) -> None:
    before = asyncio.all_tasks()
    async with open_database(url) as database:
        for turns in range(60):
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(database.read, text("SELECT 1 AS one"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                # Told again at every step, as everything is that a box cancels when it closes.
                tasks.cancel_scope.cancel()
        assert [{"one": 1}] == await database.read(text("SELECT 1 AS one"))
    assert before == asyncio.all_tasks()


async def test_upgrade_says_so_when_a_newer_qwenbox_brought_the_database_further(tmp_path: Path) -> None:
    async with open_database(f"sqlite+aiosqlite:///{tmp_path / 'box.db'}") as database:
        await database.change(upgrade)
        await database.change(lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9999'")))
        with pytest.raises(NewerDatabase, match=r"revision 9999; this one knows up to"):
            await database.change(upgrade)
