"""The crew: started on one socket, watched, replaced, stopped. Real processes, without a box in them."""

import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from qwenbox.gateway.scheduler import Pools, SchedulerConfig
from qwenbox.telemetry.snapshot import Snapshot
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.workers.census import Census
from qwenbox.workers.parent import Crew, CrewPlan
from qwenbox.workers.port import spread
from qwenbox.workers.turns import Shared

pytestmark = pytest.mark.anyio

WORKER = Path(__file__).parents[2] / "support" / "worker_process.py"


def crew_of(manner: str, *, count: int = 2, config: bytes = b"", drain_s: float = 5.0) -> Crew:
    def command(listener: int, link: int) -> list[str]:
        return [sys.executable, str(WORKER), str(listener), str(link), manner]

    plan = CrewPlan(count=count, command=command, config=config, drain_s=drain_s, patience_s=0.2, backoff_first_s=0.01)
    return Crew(plan, Shared(turns=Pools(SchedulerConfig()), lanes={}, census=Census(Snapshot), console=no_console))


async def no_console() -> int:
    raise ApiError(ErrorKind.NOT_FOUND)


def sockets(count: int) -> tuple[socket.socket, ...]:
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    return spread(bound, count)


@asynccontextmanager
async def running(crew: Crew) -> AsyncGenerator[None]:
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(crew.run, sockets(2))
            await crew.ready.wait()
            try:
                yield
            finally:
                crew.stop()


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 (it is another process that changes it)
        await anyio.sleep(0.01)


def is_alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


async def test_dead_worker_is_replaced_in_its_seat() -> None:
    crew = crew_of("good")
    async with running(crew):
        before = crew.pids
        os.kill(before[2], signal.SIGKILL)
        await until(lambda: 2 in crew.pids and crew.pids[2] != before[2])
        assert before[1] == crew.pids[1]


async def test_seat_is_tried_again_with_pauses_when_its_worker_no_longer_starts(tmp_path: Path) -> None:
    crew = crew_of("copy", config=str(tmp_path).encode())
    async with running(crew):
        os.kill(crew.pids[1], signal.SIGKILL)
        await until(lambda: len((tmp_path / "seat-1").read_text().splitlines()) >= 4)
        assert [2] == [index for index, pid in crew.pids.items() if index == 2 and is_alive(pid)]


async def test_crew_gives_up_when_a_worker_cannot_start_at_all() -> None:
    with anyio.fail_after(60):
        assert not await crew_of("never").run(sockets(2))


async def test_no_worker_is_left_after_the_stop() -> None:
    crew = crew_of("good")
    async with running(crew):
        pids = list(crew.pids.values())
    assert not [pid for pid in pids if is_alive(pid)]


async def test_worker_is_killed_when_it_does_not_end_in_time() -> None:
    crew = crew_of("stubborn", count=1, drain_s=0.1)
    async with running(crew):
        (pid,) = crew.pids.values()
    assert not is_alive(pid)


async def test_nobody_can_connect_any_more_when_the_crew_stops() -> None:
    crew = crew_of("stubborn", count=1, drain_s=0.5)
    (listener,) = sockets(1)
    address = listener.getsockname()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(crew.run, (listener,))
            await crew.ready.wait()
            crew.stop()
            await until(lambda: listener.fileno() == -1)
    with pytest.raises(OSError):
        socket.create_connection(address, timeout=1)
