"""Processes that count and book, with the stores they share, for a test that kills all of them now and then."""

import contextlib
import socket
import time
from collections import Counter
from collections.abc import Iterator

import msgspec
from anyio.from_thread import BlockingPortal, start_blocking_portal
from sqlalchemy import Executable, text

from qwenbox.db import Database, open_database
from support import valkey
from support.bookings import prepare
from support.counting_process import Look, Start
from support.nursery import Nursery, Process

# How far the clocks of the two processes are apart.
SKEWS_S = (0.0, 3.0)

_JOURNALS = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'qwenbox journal'"


class World:
    """What all runs of one test share: two processes on PostgreSQL and `store`, or one on SQLite that counts in memory (None).

    offset_s: how far the test clock is ahead. figures: what happened so far.
    """

    def __init__(self, start: Start, nursery: Nursery, portal: BlockingPortal, database: Database, store: valkey.Server | None) -> None:
        self.database = database
        self.store = store
        self.portal = portal
        self.figures: Counter[str] = Counter()
        self.offset_s = 0.0
        self._start = start
        self.is_open = start.on_outage == "open"
        self._nursery = nursery
        self._without_line: set[int] = set()
        self.processes = [self._begun(number) for number in range(2 if store else 1)]
        self._names = [("", 0) for _ in self.processes]
        self.join_again()

    def read(self, query: Executable) -> list[dict[str, object]]:
        return self.portal.call(self.database.read, query)

    def replace(self, *numbers: int, is_up: bool = True) -> None:
        """Others take the place of processes that are dead."""
        for number in numbers:
            self.processes[number].close()
            self.processes[number] = self._begun(number)
            self._without_line.discard(number)
        for number in numbers:
            self.processes[number].do(Look(is_joined=is_up))
            self._note_name(number)

    def kill(self, *numbers: int) -> list[Process]:
        """What is left of them: answers that had left them. Returns when the database has done what they asked of it, or never will."""
        self.figures["crashes"] += len(numbers)
        dead = [self.processes[number] for number in numbers]
        for process in dead:
            process.kill()
        if self.store is not None:
            lines = len(set(range(len(self.processes))) - set(numbers) - self._without_line)
            while self.read(text(f"SELECT COUNT(*) AS many {_JOURNALS}"))[0]["many"] != lines:
                time.sleep(0.002)
        return dead

    def cut_database(self) -> None:
        """The journals' connections break, which they learn with the next booking."""
        self._without_line = set(range(len(self.processes)))
        self.read(text(f"SELECT pg_terminate_backend(pid) {_JOURNALS}"))
        while self.read(text(f"SELECT COUNT(*) AS many {_JOURNALS}"))[0]["many"]:
            time.sleep(0.002)

    def has_booked(self, number: int) -> None:
        self._without_line.discard(number)

    def cut_store(self) -> None:
        assert self.store is not None
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(self.store.socket))
            line.sendall(b"CLIENT KILL TYPE normal SKIPME yes\r\n")
            line.recv(64)

    def restart_store(self) -> None:
        assert self.store is not None
        self.store.port = 0  # somebody else may have taken the port; processes know the socket
        self.store.start()

    def join_again(self) -> None:
        for number, process in enumerate(self.processes):
            process.do(Look(is_joined=True))
            self._note_name(number)

    def is_disturbed(self) -> bool:
        """Whether this machine was so busy that a living process was taken for dead: it has another name, or another connection."""
        time.sleep(0.5)
        for process in self.processes:
            process.do(Look(is_joined=True))
        return self._names != [(process.owner, process.connections) for process in self.processes]

    def close(self) -> None:
        for process in self.processes:
            process.close()

    def _begun(self, number: int) -> Process:
        return self._nursery.start(msgspec.structs.replace(self._start, skew_s=SKEWS_S[number], offset_s=self.offset_s))

    def _note_name(self, number: int) -> None:
        process = self.processes[number]
        self._names[number] = (process.owner, process.connections)


@contextlib.contextmanager
def world_of(start: Start, nursery: Nursery, store: valkey.Server | None) -> Iterator[World]:
    with start_blocking_portal() as portal:
        portal.call(prepare, start.database_url)
        with portal.wrap_async_context_manager(open_database(start.database_url)) as database:
            world = World(start, nursery, portal, database, store)
            try:
                yield world
            finally:
                world.close()
