"""A database of each kind at the newest revision, for components whose statements must mean the same on both.

Migrations run once a session; each test has a copy. A test that does not depend on the kind asks for one:
`@pytest.mark.parametrize("url", ["sqlite"], indirect=True)`.
"""

import shutil
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from qwenbox.db import Database, open_database
from qwenbox.migrations.upgrade import upgrade
from support.postgres import Server


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database of the test's own."""
    if request.param == "postgres":
        server: Server = request.getfixturevalue("postgres")
        name = f"box_{uuid.uuid4().hex[:12]}"
        server.sql(f"CREATE DATABASE {name} TEMPLATE {request.getfixturevalue('postgres_template')}")
        return server.url(name)
    shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "box.db")
    return f"sqlite:///{tmp_path / 'box.db'}"


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with open_database(url) as opened:
        yield opened


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "box.db"
    anyio.run(_migrate, f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres: Server) -> str:
    postgres.sql("CREATE DATABASE template_box")
    anyio.run(_migrate, postgres.url("template_box"))
    return "template_box"


async def _migrate(url: str) -> None:
    async with open_database(url) as database:
        await database.change(upgrade)
