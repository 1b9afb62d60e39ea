"""Measures whether people at the console slow the API down: python -m bench.console_latency [--help].

The box and the load on one core, the console and its visitors (Overview and ten Logs, without a browser) on the other. Calls come at a
fixed rate, whether the one before is answered or not, and are timed from the moment they were due. Runs with and without visitors take
turns, first one then the other; what counts is the median over the pairs.
"""

import asyncio
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Generator
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from bench.box import qwenbox_command
from bench.load import Endpoint, Unfinished, answer_end
from bench.process import Started, cores, family, free_port, start
from bench.target import CHAT, KEY, Place

PATHS = ("/", *["/logs"] * 10)
_DEMAND = 1.10
_SETTLE_S = 3.0


class _Connection(asyncio.Protocol):
    """One connection for one call at a time."""

    def __init__(self) -> None:
        self._data = b""
        self._answered: asyncio.Future[float] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    async def call(self, request: bytes) -> float:
        """When the answer was whole. Raises RuntimeError when it is not 200."""
        self._data = b""
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)  # type: ignore[attr-defined]  # uvloop's transports have no common class
        return await self._answered

    def data_received(self, data: bytes) -> None:
        self._data += data
        try:
            answer_end(self._data)
        except Unfinished:
            return
        assert self._answered is not None
        if self._data.startswith(b"HTTP/1.1 200"):
            self._answered.set_result(time.perf_counter())
        else:
            self._answered.set_exception(RuntimeError(self._data[:300].decode("latin-1")))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(RuntimeError("the box hung up"))


async def _load(endpoint: Endpoint, rate: float, seconds: float) -> list[float]:
    """Seconds of each call, from when it was due."""
    loop = asyncio.get_running_loop()
    idle: list[_Connection] = []
    taken: list[float] = []

    async def one(due: float, number: int) -> None:
        connection = idle.pop() if idle else (await loop.create_connection(_Connection, "127.0.0.1", endpoint.port))[1]
        taken.append(await connection.call(endpoint.request(f"{number} How are you?")) - due)
        idle.append(connection)

    begun = time.perf_counter() + 0.1
    async with asyncio.TaskGroup() as calls:
        for number in range(round(rate * seconds)):
            due = begun + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            calls.create_task(one(due, number))
    return taken


@contextlib.contextmanager
def _visitors(box: str, home: Path, core: set[int]) -> Generator[None]:
    """People at the console, for as long as the context lasts. Raises RuntimeError where nothing was told to them."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.visitors", _link(box, home), *PATHS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, core),
    )
    assert process.stdin and process.stdout
    try:
        if not process.stdout.readline():
            raise RuntimeError("the visitors did not get in")
        yield
    finally:
        process.stdin.close()
        seen = json.loads(process.stdout.readline() or "{}")
        process.wait(20)
    if not seen.get("updates"):
        raise RuntimeError("the pages told their visitors nothing")
    print(f"    visitors got {seen['updates']} updates, {seen['bytes']:,} bytes", file=sys.stderr)


def _link(box: str, home: Path) -> str:
    key = (home / "admin.key").read_text("utf-8").strip()
    asked = urllib.request.Request(f"{box}/admin/v1/console/links", data=b"", method="POST", headers={"authorization": f"Bearer {key}"})
    with urllib.request.urlopen(asked) as answer:
        return f"{box}/console?token={json.load(answer)['token']}"


def _to_core(box: Started, core: set[int]) -> None:
    """The console, which the box has started on its own core, moves to the other one, every thread of it."""
    moved = 0
    for pid in family(box.process.pid):
        if b"qwenbox.console" in Path(f"/proc/{pid}/cmdline").read_bytes():
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), core)
            moved += 1
    if moved != 1:
        raise RuntimeError(f"{moved} consoles run, not one")


def _p99(taken: list[float]) -> float:
    return statistics.quantiles(taken, n=100)[98]


def main(
    rate: Annotated[float, typer.Option(help="Calls a second.", min=1)] = 100.0,
    seconds: Annotated[float, typer.Option(help="Of each run.", min=1)] = 20.0,
    pairs: Annotated[int, typer.Option(help="Runs with and without visitors.", min=1)] = 7,
) -> None:
    """Exits with 1 where the median p99 with visitors is more than a tenth above that without."""
    core, other = cores()
    found: dict[bool, list[list[float]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        place = Place(port=free_port(), upstream=0, folder=Path(folder))
        command = qwenbox_command(place, "[cache]\nenabled = false\n[console]\nport = 0\n")
        endpoint = Endpoint(port=place.port, path=CHAT, model="qwen-turbo", headers={"authorization": f"Bearer {KEY}"})
        with start(command, core, Path(folder) / "box.log") as box:
            address, home = f"http://127.0.0.1:{place.port}", Path(folder) / "home"
            with _visitors(address, home, other):
                _to_core(box, other)
                time.sleep(_SETTLE_S)
            os.sched_setaffinity(0, core)
            uvloop.run(_load(endpoint, rate, min(5.0, seconds)))
            for number in range(pairs):
                for is_visited in random.sample((True, False), 2):
                    with _visitors(address, home, other) if is_visited else contextlib.nullcontext():
                        time.sleep(_SETTLE_S)
                        taken = uvloop.run(_load(endpoint, rate, seconds))
                    found[is_visited].append(taken)
                    print(f"{number + 1} {'with' if is_visited else 'without':>7}  {_said(taken)}")
    raise typer.Exit(_verdict(found))


def _said(taken: list[float]) -> str:
    middle, slow, most = 1000 * statistics.median(taken), 1000 * _p99(taken), 1000 * max(taken)
    return f"p50 {middle:.2f} ms  p99 {slow:.2f} ms  most {most:.1f} ms  calls {len(taken)}"


def _verdict(found: dict[bool, list[list[float]]]) -> int:
    """The exit status."""
    visited, alone = (statistics.median(map(_p99, found[is_visited])) for is_visited in (True, False))
    middle, middle_alone = (statistics.median(map(statistics.median, found[is_visited])) for is_visited in (True, False))
    print(
        f"median p99: {1000 * visited:.2f} ms with the console in use, {1000 * alone:.2f} ms without: {100 * (visited / alone - 1):+.1f} %"
        f" (p50 {100 * (middle / middle_alone - 1):+.1f} %)"
    )
    return int(visited > alone * _DEMAND)


if __name__ == "__main__":
    typer.run(main)
