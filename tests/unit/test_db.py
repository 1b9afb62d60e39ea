"""The database: at the newest revision after an upgrade, and known to be."""

from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text

from qwenbox.db import METADATA, REVISION, open_database
from qwenbox.gateway import accounts, keys
from qwenbox.migrations.upgrade import upgrade
from qwenbox.terms.errors import ApiError, ErrorKind

pytestmark = pytest.mark.anyio


async def test_database_is_current_only_after_the_upgrade(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'box.db'}"
    async with open_database(url) as database:
        assert not await database.is_current()
        await database.change(upgrade)
        assert await database.is_current()
    async with open_database(url) as database:
        assert await database.is_current()


async def test_migrations_make_the_columns_the_components_declare(tmp_path: Path) -> None:
    async with open_database(f"sqlite+aiosqlite:///{tmp_path / 'box.db'}") as database:
        await database.change(upgrade)
        for table in (accounts.ACCOUNTS, keys.KEYS):
            made = {row["name"] for row in await database.read(text(f"PRAGMA table_info({table.name})"))}
            assert {column.name for column in METADATA.tables[table.name].columns} == made


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
