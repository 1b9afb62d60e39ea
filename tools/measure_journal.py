"""Measures what a booking costs: CPU, wall time and latency of an awaited commit, and how long the event loop stood still.

Best of three runs each, since other work on the machine only adds. Run it from the root: python tools/measure_journal.py
"""

import asyncio
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

import uvloop

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from qwenbox.clock import SystemClock
from qwenbox.gateway.journal.group import GroupJournal
from qwenbox.gateway.journal.registry import JournalConfig, open_journal
from support.bookings import call, prepare
from support.postgres import serve

RUNS = 3
WARM_UP = 20


class Figures(NamedTuple):
    """µs per booking, but for stall_ms."""

    cpu: float
    wall: float
    p50: float
    p99: float
    stall_ms: float


async def measure(url: str, sync: Literal["normal", "full"], at_once: int, total: int) -> Figures:
    async with open_journal(url, JournalConfig(sync=sync), SystemClock()) as journal:
        await _book(journal, at_once, WARM_UP, [])
        latencies: list[float] = []
        stalls = [0.0]
        watch = asyncio.ensure_future(_watch(stalls))
        cpu, wall = time.process_time(), time.perf_counter()
        await _book(journal, at_once, total // at_once, latencies)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        watch.cancel()
    latencies.sort()
    count = len(latencies)
    return Figures(
        cpu=cpu / count * 1e6,
        wall=wall / count * 1e6,
        p50=latencies[count // 2] * 1e6,
        p99=latencies[count * 99 // 100] * 1e6,
        stall_ms=max(stalls) * 1e3,
    )


async def _book(journal: GroupJournal, at_once: int, each: int, latencies: list[float]) -> None:
    bookings = [[call(uuid.uuid4().hex, account=f"acc-{task % 4}") for _ in range(each)] for task in range(at_once)]

    async def work(task: int) -> None:
        for booking in bookings[task]:
            begun = time.perf_counter()
            await journal.commit(booking)
            latencies.append(time.perf_counter() - begun)

    await asyncio.gather(*[work(task) for task in range(at_once)])


async def _watch(stalls: list[float]) -> None:
    while True:
        begun = time.perf_counter()
        await asyncio.sleep(0.001)
        stalls.append(time.perf_counter() - begun - 0.001)


def report(name: str, new_url: Callable[[], str], sync: Literal["normal", "full"], scale: float = 1.0) -> None:
    for at_once, total in ((1, 4_000), (32, 16_000)):
        runs: list[Figures] = []
        for _ in range(RUNS):
            url = new_url()
            asyncio.run(prepare(url))
            runs.append(uvloop.run(measure(url, sync, at_once, int(total * scale))))
        best = Figures(*map(min, zip(*runs, strict=True)))
        print(
            f"| {name} | {at_once} | {best.cpu:.0f} | {best.wall:.0f} | {best.p50:.0f} | {best.p99:.0f} | {best.stall_ms:.1f} |", flush=True
        )


def main() -> None:
    print("| database | at once | CPU µs per booking | wall µs per booking | p50 µs | p99 µs | longest stall of the loop ms |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with TemporaryDirectory() as folder:

        def new_file() -> str:
            return f"sqlite:///{folder}/{uuid.uuid4().hex}.db"

        report("SQLite, normal", new_file, "normal")
        report("SQLite, full", new_file, "full", 0.25)
    with serve(is_safe=True) as server:
        report("PostgreSQL, fsync on", server.new_database, "normal")


if __name__ == "__main__":
    main()
