"""The journal when its database goes away for real: a server stopped, frozen or killed, a disk that fills up, a lock held by others."""

import asyncio
import contextlib
import random
import resource
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest
from sqlalchemy import select

from qwenbox.clock import SystemClock
from qwenbox.db import open_database
from qwenbox.gateway.journal.group import GroupJournal
from qwenbox.gateway.journal.registry import JournalConfig, open_journal
from qwenbox.gateway.journal.tables import USAGE
from qwenbox.terms.errors import ApiError, ErrorKind
from support.bookings import call, faults, prepare
from support.postgres import Server, serve

pytestmark = pytest.mark.anyio

HASTY = JournalConfig(commit_wait_s=1.5)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of this file's own, since its tests stop it."""
    with serve() as running:
        yield running


@pytest.fixture
async def server_url(server: Server) -> str:
    return await prepare(server.new_database())


async def is_open(journal: GroupJournal, *, wanted: bool = True) -> None:
    for _ in range(6_000):
        if journal.is_open is wanted:
            return
        await anyio.sleep(0.005)
    raise TimeoutError(f"is_open stays {journal.is_open}")


async def outcome(journal: GroupJournal, id: str, *, is_owed: bool) -> str:
    try:
        await journal.commit(call(id, is_owed=is_owed))
    except ApiError as error:
        assert error.kind is ErrorKind.OVERLOADED
        return "refused"
    return "written"


async def rows(url: str) -> dict[str, str]:
    async with open_database(url) as database:
        assert [] == await faults(database)
        return {str(row["id"]): str(row["outcome"]) for row in await database.read(select(USAGE))}


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_owed_bookings_are_written_when_the_server_is_back(server: Server, server_url: str, how: str):
    async with open_journal(server_url, HASTY, SystemClock()) as journal:
        await journal.commit(call("before"))
        await anyio.to_thread.run_sync(server.stop if how == "stop" else server.kill)
        try:
            owed, free = await asyncio.gather(outcome(journal, "owed", is_owed=True), outcome(journal, "free", is_owed=False))
            assert ("refused", "refused") == (owed, free)
            assert not journal.is_open
        finally:
            await anyio.to_thread.run_sync(server.start)
        await is_open(journal)
        await journal.commit(call("after"))
    found = await rows(server_url)
    # The one that was not owed may have been on its way: then it is there as a call that failed and cost nothing.
    assert {"before": "completed", "owed": "completed", "after": "completed"} == {id: found[id] for id in found if id != "free"}
    assert found.get("free", "failed") == "failed"


async def test_commits_end_well_over_a_restart_that_is_quick_enough(server: Server, server_url: str):
    async with open_journal(server_url, JournalConfig(commit_wait_s=60.0), SystemClock()) as journal:
        ids = [f"{number}" for number in range(300)]

        async def book() -> None:
            for id in iter(lambda: ids.pop() if ids else None, None):
                await journal.commit(call(id))

        async with anyio.create_task_group() as tasks:
            for _ in range(16):
                tasks.start_soon(book)
            await anyio.to_thread.run_sync(server.restart)
    found = await rows(server_url)
    assert 300 == len(found)
    assert {"completed"} == set(found.values())


async def test_a_frozen_server_is_no_reason_to_bill_what_failed(server: Server, server_url: str):
    async with open_journal(server_url, HASTY, SystemClock()) as journal:
        await journal.commit(call("before"))
        with server.frozen():
            ends = await asyncio.gather(outcome(journal, "owed", is_owed=True), outcome(journal, "free", is_owed=False))
            assert ["refused", "refused"] == ends
            await is_open(journal, wanted=False)
        await is_open(journal)
        await journal.commit(call("after"))
    # Sent to the frozen server, it may land when the server thaws: something of that name is there in any case, and costs nothing.
    assert {"before": "completed", "owed": "completed", "free": "failed", "after": "completed"} == await rows(server_url)


async def test_somebody_elses_lock_stops_no_event_loop(tmp_path: Path):
    url = await prepare(f"sqlite:///{tmp_path / 'box.db'}")
    async with open_journal(url, JournalConfig(), SystemClock()) as journal:
        await journal.commit(call("before"))
        with contextlib.closing(sqlite3.connect(tmp_path / "box.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = asyncio.ensure_future(journal.commit(call("waits")))
            for _ in range(50):
                await anyio.sleep(0.001)
            assert not waiting.done()
            assert journal.is_open
            other.execute("COMMIT")
        await waiting
    assert {"before": "completed", "waits": "completed"} == await rows(url)


@pytest.fixture
async def small_disk(tmp_path: Path) -> AsyncIterator["SmallDisk"]:
    disk = SmallDisk(tmp_path / "disk")
    try:
        yield disk
    finally:
        disk.close()


class SmallDisk:
    """A file system of 4 MB, if we may mount one; else a limit on the size of this process's files, which fails writes much the same."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)]
        self.is_mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        self._filler = folder / "filler"
        self._limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        if not self.is_mounted:
            largest = max(path.stat().st_size for path in self.folder.iterdir())
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 65_536, self._limit[1]))
            return
        with contextlib.suppress(OSError), self._filler.open("ab", 0) as file:
            while file.write(bytes(4_096)):
                pass

    def empty(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limit)
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        self.empty()
        if self.is_mounted:
            subprocess.run(["umount", str(self.folder)], check=True)


@pytest.mark.parametrize("sync", ["normal", "full"])
async def test_a_disk_that_fills_up_and_empties_loses_and_doubles_nothing(small_disk: SmallDisk, sync: str):
    url = await prepare(f"sqlite:///{small_disk.folder / 'box.db'}")
    ends: dict[str, str] = {}
    async with open_journal(url, JournalConfig(commit_wait_s=0.5, sync="full" if sync == "full" else "normal"), SystemClock()) as journal:

        async def book(name: str) -> None:
            for number in range(2_000):
                if not journal.is_open:
                    return
                id = f"{name}-{number}"
                ends[id] = await outcome(journal, id, is_owed=number % 2 == 0)

        await journal.commit(call("before"))
        small_disk.fill()
        async with anyio.create_task_group() as tasks:
            for name in "abcdefgh":
                tasks.start_soon(book, name)
        assert not journal.is_open
        small_disk.empty()
        await is_open(journal)
        await journal.commit(call("after"))
    found = await rows(url)
    refused = {id for id, end in ends.items() if end == "refused"}
    assert refused
    for id, end in ends.items():
        is_owed = int(id.partition("-")[2]) % 2 == 0
        assert ("completed" if is_owed or end == "written" else "failed") == found.get(id, "failed"), id


async def test_every_commit_that_returned_is_there_after_kill_9(tmp_path: Path, is_full: bool):
    url = await prepare(f"sqlite:///{tmp_path / 'box.db'}")
    await killed_again_and_again(url, 20 if is_full else 8)


async def test_every_commit_that_returned_is_there_after_kill_9_on_postgres(server_url: str, is_full: bool):
    await killed_again_and_again(server_url, 20 if is_full else 5)


async def killed_again_and_again(url: str, times: int) -> None:
    told: set[str] = set()
    for _ in range(times):
        told |= await anyio.to_thread.run_sync(load_until_killed, url)
    found = await rows(url)
    print(f"{times} kills: {len(told)} commits returned, {len(found)} rows")
    assert len(told) >= times
    assert set() == told - found.keys()


def load_until_killed(url: str) -> set[str]:
    """Ids whose commit returned in a process that books as fast as it can until it is killed at a random moment."""
    program = [sys.executable, "-m", "support.journal_load", url]
    with subprocess.Popen(program, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(random.randrange(1, 500))]
        process.kill()
        lines += process.stdout.readlines()
    return {line.decode().strip() for line in lines if line.endswith(b"\n")}
