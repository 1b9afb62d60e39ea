"""What all processes of a box agree on, and the clocks that keep together by it."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from qwenbox.clock import SystemClock, TestClock
from qwenbox.db import Database, open_database
from qwenbox.gateway.settings import Settings
from qwenbox.gateway.shared_clock import SharedClock
from qwenbox.migrations.upgrade import upgrade

pytestmark = pytest.mark.anyio


@pytest.fixture
async def databases(tmp_path: Path) -> AsyncIterator[tuple[Database, Database]]:
    """One SQLite file, opened as two processes would."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'box.db'}"
    async with open_database(url) as one, open_database(url) as other:
        await one.change(upgrade)
        yield one, other


async def test_once_keeps_the_first_value_when_many_are_first(databases: tuple[Database, Database]) -> None:
    heard: list[str] = []

    async def draw(database: Database, value: str) -> None:
        heard.append(await Settings(database).once("secret", value))

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(draw, databases[number % 2], f"value {number}")
    assert (8, 1) == (len(heard), len(set(heard)))


async def test_get_is_none_when_nothing_was_written(databases: tuple[Database, Database]) -> None:
    assert await Settings(databases[0]).get("nothing") is None


async def test_add_loses_nothing_when_two_processes_add(databases: tuple[Database, Database]) -> None:
    async def add(database: Database) -> None:
        for _ in range(10):
            await Settings(database).add("sum", 7)

    async with anyio.create_task_group() as tasks:
        for database in databases:
            tasks.start_soon(add, database)
    assert "140" == await Settings(databases[0]).get("sum")


async def test_clocks_of_two_processes_keep_together(databases: tuple[Database, Database]) -> None:
    real = SystemClock()
    here, there = (SharedClock(Settings(database), TestClock(real), real) for database in databases)
    await here.advance(60.0)
    await there.advance(1.5)
    await here.refresh()
    assert (61.5, 61.5) == (here.clock.offset_s, there.clock.offset_s)


async def test_clock_goes_on_where_it_was_when_the_box_is_started_again(databases: tuple[Database, Database]) -> None:
    real = SystemClock()
    await SharedClock(Settings(databases[0]), TestClock(real), real).advance(3_600.0)
    again = SharedClock(Settings(databases[1]), TestClock(real), real)
    await again.refresh()
    assert 3_600.0 == again.clock.offset_s


async def test_clock_follows_what_another_process_does(databases: tuple[Database, Database]) -> None:
    real = SystemClock()
    here, there = (SharedClock(Settings(database), TestClock(real), real) for database in databases)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(there.follow)
        await here.advance(7.0)
        with anyio.fail_after(30):
            await there.clock.sleep(7.0)
        tasks.cancel_scope.cancel()
    assert 7.0 == there.clock.offset_s
