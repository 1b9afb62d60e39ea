"""States of a moment as metrics: what an echo box has no part of."""

import os
import signal

import anyio
import pytest

from qwenbox.clock import SystemClock
from qwenbox.engines.child import Child, ChildCommand, ChildConfig
from qwenbox.telemetry import gauges
from qwenbox.telemetry.snapshot import Sample
from qwenbox.terms.gauges import ChildState, HasChildren
from unit.engines.test_child import TESTS, _like, _noticed

pytestmark = pytest.mark.anyio


class Owner:
    """An engine with one child."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def children(self) -> tuple[ChildState, ...]:
        return (self._child.state("shared"),)


async def test_children_are_told_with_their_starts_and_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    async with anyio.create_task_group() as tasks:
        child = Child(ChildCommand(name="Tiny", module="support.child_process"), ChildConfig(), tasks, SystemClock())
        owner = Owner(child)
        assert isinstance(owner, HasChildren)

        def told() -> list[float]:
            found: list[Sample] = list(gauges.children({"small": owner}))
            assert {("small", "shared")} == {one.labels for one in found}
            *told, memory_bytes = [one.value for one in found]
            assert (memory_bytes > 2**20) == child.is_ready, "a process of Python has more than a megabyte"
            return told

        assert [0, 0, 0] == told()
        await child.ready(lambda: _like("serve"))
        assert [1, 1, 0] == told()
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        await _noticed(child)
        assert [0, 1, 0] == told()
        await child.ready(lambda: _like("serve"))
        assert [1, 2, 1] == told()
        await child.stop()
        await child.ready(lambda: _like("serve"))
        assert [1, 3, 1] == told()
        await child.stop()


def test_books_that_are_closed_are_told() -> None:
    assert [[0.0], [1.0]] == [[one.value for one in gauges.books(is_open)] for is_open in (True, False)]
