"""Processes of `support.counting_process` as a test sees them: started, told what to do, killed."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from support.counting_process import Answer, Deed, Order, Start

# For anything at all, on a busy machine.
PATIENCE_S = 30.0


class Process:
    """One worker as the test sees it. Orders run at the same time unless their answers are waited for."""

    def __init__(self, pid: int, pipe: socket.socket) -> None:
        self.pid = pid
        self._pipe = pipe
        self._rest = b""
        self._number = 0
        self._answers: dict[int, list[Answer]] = {}
        self.owner = ""
        self.connections = 0

    def send(self, deed: Deed) -> int:
        self._number += 1
        self._pipe.sendall(msgspec.json.encode(Order(self._number, deed)) + b"\n")
        return self._number

    def do(self, deed: Deed) -> Answer:
        """Its answer; fails if that is a refusal."""
        answer = self.answer(self.send(deed))
        assert answer.error == "", (deed, answer)
        return answer

    def answer(self, number: int) -> Answer:
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers.get(number):
            assert self._read(deadline - time.monotonic()), f"process {self.pid} owes answer {number}"
        return self._answers[number].pop(0)

    def answered(self, number: int) -> Answer | None:
        """Its answer if there is one already."""
        while self._read(0):
            pass
        waiting = self._answers.get(number)
        return waiting.pop(0) if waiting else None

    def kill(self) -> None:
        """kill -9; answers that had left it by then can still be read."""
        os.kill(self.pid, signal.SIGKILL)
        while self._read(PATIENCE_S):
            pass

    def close(self) -> None:
        self._pipe.close()

    def _read(self, wait_s: float) -> bool:
        """Whether something came."""
        if not select.select([self._pipe], [], [], max(0.0, wait_s))[0]:
            return False
        try:
            data = self._pipe.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            answer = msgspec.json.decode(line, type=Answer)
            self.owner, self.connections = answer.owner, answer.connections
            self._answers.setdefault(answer.number, []).append(answer)
        return bool(data)


class Nursery:
    def __init__(self, pipe: socket.socket) -> None:
        self._pipe = pipe

    def start(self, start: Start) -> Process:
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._pipe, [msgspec.json.encode(start)], [theirs.fileno()])
        return Process(int(self._pipe.recv(64)), ours)


@contextlib.contextmanager
def nursery(log: Path) -> Iterator[Nursery]:
    """log: what its processes say of deaths and outages."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    tests = Path(__file__).parent.parent
    with ours:
        with theirs:
            command = [sys.executable, "-m", "support.counting_process", str(theirs.fileno())]
            with log.open("ab") as file:
                parent = subprocess.Popen(command, cwd=tests, pass_fds=[theirs.fileno()], stderr=file)
        try:
            yield Nursery(ours)
        finally:
            ours.close()
            parent.wait(PATIENCE_S)
