import json
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from qwenbox.clock import SystemClock
from qwenbox.engines.child import Child, ChildCommand, ChildConfig
from qwenbox.terms.errors import ApiError, ErrorKind

pytestmark = pytest.mark.anyio

TESTS = Path(__file__).parents[2]


class StillClock(SystemClock):
    """Monotonic time that a test moves."""

    def __init__(self) -> None:
        self.at_s = 1000.0

    def monotonic(self) -> float:
        return self.at_s


@pytest.fixture(autouse=True)
def _tests_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setenv("DASHSCOPE_API_KEY", "sk-secret")


@asynccontextmanager
async def _child(config: ChildConfig | None = None, clock: SystemClock | None = None) -> AsyncGenerator[Child]:
    command = ChildCommand(name="Tiny", module="support.child_process", environment={"GOMP_SPINCOUNT": "7"})
    async with anyio.create_task_group() as tasks:
        child = Child(command, config or ChildConfig(), tasks, clock or SystemClock())
        yield child
        await child.stop()


def _like(behaviour: str) -> bytes:
    return json.dumps({"behaviour": behaviour}).encode()


async def _gone(pid: int) -> bool:
    """Whether the process ends within two seconds."""
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        await anyio.sleep(0.01)
    return False


async def _noticed(child: Child) -> None:
    """Until the watcher has seen the death."""
    for _ in range(500):
        if not child.is_ready:
            return
        await anyio.sleep(0.01)


async def test_child_serves_until_it_is_stopped() -> None:
    async with _child() as child:
        await child.ready(lambda: _like("serve"))
        pid = child.pid
        assert child.is_ready and pid is not None
        await child.stop()

        assert not child.is_ready
        assert await _gone(pid)


async def test_child_is_started_once_when_many_ask() -> None:
    async with _child() as child:
        answers: list[str] = []

        async def ask() -> None:
            answers.append((await child.ready(lambda: _like("serve"))).address)

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(ask)

        assert (5, 1) == (len(answers), child.log.count("starting"))


async def test_child_gets_no_secrets_from_our_environment() -> None:
    async with _child() as child:
        names = json.loads((await child.ready(lambda: _like("serve"))).address)

        assert "GOMP_SPINCOUNT" in names
        assert "PATH" in names
        assert "DASHSCOPE_API_KEY" not in names


async def test_ready_starts_it_anew_at_once_when_it_was_killed() -> None:
    async with _child() as child:
        await child.ready(lambda: _like("serve"))
        first = child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await _noticed(child)

        await child.ready(lambda: _like("serve"))

        assert child.pid not in (None, first)


async def test_ready_waits_longer_each_time_when_it_keeps_crashing() -> None:
    clock = StillClock()
    async with _child(ChildConfig(backoff_first_s=1.0, backoff_most_s=3.0), clock) as child:
        seen: list[float | ErrorKind | None] = []
        for _ in range(7):
            with pytest.raises(ApiError) as raised:
                await child.ready(lambda: _like("crash"))
            seen.append(raised.value.retry_after_s or raised.value.kind)
            clock.at_s += raised.value.retry_after_s or 0.0

        failed = ErrorKind.ENGINE_FAILED
        assert [failed, failed, 1.0, failed, 2.0, failed, 3.0] == seen


async def test_crashes_are_forgotten_when_it_ran_calmly_in_between() -> None:
    clock = StillClock()
    async with _child(ChildConfig(calm_s=60.0), clock) as child:
        with pytest.raises(ApiError):
            await child.ready(lambda: _like("crash"))
        await child.ready(lambda: _like("serve"))
        clock.at_s += 100.0
        pid = child.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await _noticed(child)

        assert (await child.ready(lambda: _like("serve"))).address


@pytest.mark.parametrize("behaviour", ["silent", "babble"])
async def test_ready_gives_up_and_leaves_nothing_behind_when_it_never_serves(behaviour: str) -> None:
    async with _child(ChildConfig(ready_s=1.0)) as child:
        with pytest.raises(ApiError) as raised:
            await child.ready(lambda: _like(behaviour))

        assert ErrorKind.ENGINE_FAILED is raised.value.kind
        assert "Tiny" in raised.value.message
        pid = child.pid
        assert pid is None or await _gone(pid)


async def test_stop_kills_it_when_it_does_not_listen() -> None:
    async with _child(ChildConfig(stop_s=0.1)) as child:
        await child.ready(lambda: _like("deaf"))
        pid = child.pid
        await child.stop()

        assert pid is not None
        assert await _gone(pid)


async def test_start_goes_on_when_the_one_who_asked_first_leaves() -> None:
    async with _child() as child:
        with anyio.move_on_after(0.01):
            await child.ready(lambda: _like("serve"))

        await child.ready(lambda: _like("serve"))

        assert 1 == child.log.count("starting")


async def test_child_dies_when_its_parent_is_killed() -> None:
    """The parent gets no chance to say good-bye; closing its end of stdin is all the child notices."""
    parent = (
        "import anyio, json, sys\n"
        "from qwenbox.clock import SystemClock\n"
        "from qwenbox.engines.child import Child, ChildCommand, ChildConfig\n"
        "async def main():\n"
        "    async with anyio.create_task_group() as tasks:\n"
        "        child = Child(ChildCommand(name='Tiny', module='support.child_process'), ChildConfig(), tasks, SystemClock())\n"
        "        await child.ready(lambda: json.dumps({'behaviour': 'serve'}).encode())\n"
        "        print(child.pid, flush=True)\n"
        "        await anyio.sleep(60)\n"
        "anyio.run(main)\n"
    )
    async with await anyio.open_process([sys.executable, "-c", parent], stderr=None) as process:
        assert process.stdout is not None
        pid = int(await process.stdout.receive())
        process.kill()
        await process.wait()

    assert await _gone(pid)
