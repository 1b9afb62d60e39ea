"""This is where several worker processes are started on one listening socket, watched, replaced and stopped."""

import logging
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

import anyio
import anyio.abc
import msgspec

from qwenbox.workers.fork import Forked
from qwenbox.workers.link import FROM_WORKER, Begin, FromWorker, Wire
from qwenbox.workers.port import rest
from qwenbox.workers.turns import Host, Shared

_LOG = logging.getLogger("qwenbox.workers")


WorkerCommand: TypeAlias = Callable[[int, int], Sequence[str]]


class CrewPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What workers are started with. Seconds.

    count: of processes. command: of one, given the numbers of the files it inherits, listening socket and link. config: told to each.
    drain_s: how long running calls may take to end; patience_s: then by force. A worker that dies is replaced at once; one that dies
    before it served only after a pause that doubles from backoff_first_s to backoff_most_s.
    """

    count: int
    command: WorkerCommand
    config: bytes
    drain_s: float
    patience_s: float = 3.0
    backoff_first_s: float = 0.5
    backoff_most_s: float = 30.0


class Crew:
    """The workers of one box. forked: the first of them, by seat."""

    def __init__(self, plan: CrewPlan, shared: Shared, forked: Sequence[Forked] = ()) -> None:
        self._plan = plan
        self._shared = shared
        self._started_at = time.time()
        self._forked = dict(enumerate(forked, 1))
        self._processes: dict[int, anyio.abc.Process | Forked] = {}
        self._serving: set[int] = set()
        self._stopping = anyio.Event()
        self._has_failed = False
        self.ready = anyio.Event()

    @property
    def pids(self) -> dict[int, int]:
        """Process ids by seat."""
        return {index: process.pid for index, process in self._processes.items()}

    async def run(self, sockets: tuple[socket.socket, ...]) -> bool:
        """Until `stop` and the end of all workers. False when one did not start at all, which ends the others; its log says why.

        sockets: by seat, bound; the workers listen on them. Closed at the stop, so that nobody new waits in vain.
        """
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._close_at_stop, sockets, tasks.cancel_scope)
            async with anyio.create_task_group() as seats:
                for index in range(1, self._plan.count + 1):
                    seats.start_soon(self._keep, index, sockets)
            tasks.cancel_scope.cancel()
        return not self._has_failed

    def stop(self) -> None:
        """Let running calls end; called again, let them not."""
        self._stopping.set()
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)

    async def _close_at_stop(self, sockets: tuple[socket.socket, ...], crew: anyio.CancelScope) -> None:
        await self._stopping.wait()
        for one in sockets:
            one.close()
        await anyio.sleep(self._plan.drain_s + self._plan.patience_s)
        crew.cancel()

    async def _keep(self, index: int, sockets: tuple[socket.socket, ...]) -> None:
        """One seat: whoever dies is replaced."""
        failures = 0
        while not self._stopping.is_set():
            code = await self._live(index, sockets[index - 1])
            has_served = index in self._serving
            self._serving.discard(index)
            if self._stopping.is_set():
                break
            if not has_served and not self.ready.is_set():
                self._has_failed = True
                self.stop()
                break
            failures = 0 if has_served else failures + 1
            pause_s = 0.0 if has_served else min(self._plan.backoff_first_s * 2.0 ** min(failures - 1, 16), self._plan.backoff_most_s)
            if self._serving or pause_s:  # with all of them dead, clients had better wait for the next one
                rest(sockets, index)
            _LOG.warning("worker %d ended with %s; another takes its place%s", index, code, f" in {pause_s:g} s" if pause_s else "")
            with anyio.move_on_after(pause_s):
                await self._stopping.wait()

    async def _live(self, index: int, listener: socket.socket) -> int | None:
        """One worker from start to end; its exit status."""
        forked = self._forked.pop(index, None)
        process, ours = (forked, forked.link) if forked else await self._start(listener)
        self._processes[index] = process
        try:
            wire = await Wire[FromWorker].open(ours, FROM_WORKER)
            if self._stopping.is_set():  # while it was being started
                process.send_signal(signal.SIGTERM)
            wire.send(Begin(index=index, count=self._plan.count, config=self._plan.config, started_at=self._started_at))
            await Host(wire, self._shared, lambda: self._note_serving(index)).serve()
            # Its link is closed, so it is dead or as good as: nothing can reach it any more.
            with anyio.move_on_after(self._plan.patience_s):
                return await process.wait()
            return None
        finally:
            with anyio.CancelScope(shield=True):
                if process.returncode is None:
                    with suppress(ProcessLookupError):
                        process.kill()
                await process.wait()
            del self._processes[index]

    async def _start(self, listener: socket.socket) -> tuple[anyio.abc.Process, socket.socket]:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await anyio.open_process(
                list(self._plan.command(listener.fileno(), theirs.fileno())),
                stdin=subprocess.DEVNULL,
                stdout=None,
                stderr=None,
                pass_fds=(listener.fileno(), theirs.fileno()),
                start_new_session=True,  # Ctrl-C in the terminal is for the parent, which then tells its workers
            )
        return process, ours

    def _note_serving(self, index: int) -> None:
        self._serving.add(index)
        if len(self._serving) == self._plan.count:
            self.ready.set()
