"""This is where the first workers are made: copies of a process that has imported everything, before it has a loop or a thread.

An import takes most of a second of a core, and a copy shares the memory of what was imported. Whoever replaces a dead worker is a
fresh process, since a program with an event loop and threads cannot be copied safely.
"""

import gc
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeAlias

import anyio.to_thread

# What a worker does with the listening socket and its end of the link.
Work: TypeAlias = Callable[[socket.socket, socket.socket], None]


class Forked:
    """A forked worker as its parent sees it, with the methods of anyio's Process that the parent needs. link: the parent's end."""

    def __init__(self, pid: int, link: socket.socket) -> None:
        self.pid = pid
        self.link = link
        self.returncode: int | None = None

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        if self.returncode is None:
            _, status = await anyio.to_thread.run_sync(os.waitpid, self.pid, 0, abandon_on_cancel=True)
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def fork_workers(sockets: Sequence[socket.socket], work: Work) -> tuple[Forked, ...]:
    """A worker for each listening socket, waiting for its parent's first word; none where copying this process is not safe."""
    if not _is_copyable():
        return ()
    # Collected now and never looked at again, so that no copy touches, and thereby copies, the pages of what was imported.
    gc.collect()
    gc.freeze()
    forked: list[Forked] = []
    for listener in sockets:
        ours, theirs = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            # With a copy of the parent's ends, no worker would ever learn of the parent's death; with another's listening socket,
            # clients could still queue there when that one has closed it.
            foreign = [ours, *(other.link for other in forked), *(other for other in sockets if other is not listener)]
            _become_worker(listener, theirs, foreign, work)
        theirs.close()
        forked.append(Forked(pid, ours))
    return tuple(forked)


def _become_worker(listener: socket.socket, end: socket.socket, foreign: Sequence[socket.socket], work: Work) -> NoReturn:
    status = 1
    try:
        for other in foreign:
            other.close()
        os.setsid()  # Ctrl-C in the terminal is for the parent, which then tells its workers
        work(listener, end)
        status = 0
    except BaseException:  # noqa: BLE001 - nothing may unwind into the parent's own code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _is_copyable() -> bool:
    # macOS's own libraries do not survive a fork without exec.
    return sys.platform == "linux" and threading.active_count() == 1 and len(list(Path("/proc/self/task").iterdir())) == 1


def adopt(descriptor: int) -> socket.socket:
    """A socket inherited under this number; nobody started from here inherits it in turn."""
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)
