"""This is where a child process is started, watched, restarted and stopped; it never outlives us and never takes us down.

The child reads one line of settings on stdin, prints one line of JSON with its address when it is ready, and ends when stdin closes.
"""

import logging
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import anyio
import anyio.abc
import msgspec
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.text import TextReceiveStream

from qwenbox.clock import Clock
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.gauges import ChildState

# What a Python process needs to start; anything else of our environment (keys, say) stays here.
_ENVIRONMENT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "TMPDIR", "SYSTEMROOT")
_LOG = logging.getLogger(__name__)
_MAX_READY_BYTES: Final = 65_536
_LOG_CHUNKS: Final = 200
# Of what a child said before it served, in the box's log.
_MOST_LOGGED: Final = 4_000


class ChildConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Seconds. A child that crashes once is started again by the next call; after that the pause doubles from backoff_first_s.

    calm_s: running this long makes earlier crashes forgotten. stop_s: from closing its stdin to killing it.
    """

    ready_s: float = 120.0
    stop_s: float = 3.0
    backoff_first_s: float = 1.0
    backoff_most_s: float = 60.0
    calm_s: float = 60.0


class Ready(msgspec.Struct, frozen=True):
    """The line a child prints when it serves."""

    address: str


class ChildCommand(msgspec.Struct, frozen=True, kw_only=True):
    """What to start: a module of ours, and what it needs in its environment. name: for people, e.g. the weights' title."""

    name: str
    module: str
    environment: Mapping[str, str] = {}


class _Life:
    """One process from start to end."""

    def __init__(self) -> None:
        self.process: anyio.abc.Process | None = None
        self.settled = anyio.Event()
        self.over = anyio.Event()
        self.ready: Ready | None = None
        self.is_wanted = True


class Child:
    """A supervised process, started by `ready` and kept until `stop`. Its watchers run in `tasks`, which must outlive it."""

    def __init__(self, command: ChildCommand, config: ChildConfig, tasks: anyio.abc.TaskGroup, clock: Clock) -> None:
        self._command = command
        self._config = config
        self._tasks = tasks
        self._clock = clock
        self._life: _Life | None = None
        self._crashes = 0
        self._not_before = 0.0
        self._starts = self._restarts = 0
        self._has_crashed = False
        self._log: deque[str] = deque(maxlen=_LOG_CHUNKS)

    @property
    def is_ready(self) -> bool:
        return self._life is not None and self._life.ready is not None and not self._life.over.is_set()

    def state(self, role: str) -> ChildState:
        memory_bytes = _resident_bytes(self.pid) if self.pid is not None and self.is_ready else 0
        return ChildState(role=role, starts=self._starts, restarts=self._restarts, is_ready=self.is_ready, memory_bytes=memory_bytes)

    @property
    def is_starting(self) -> bool:
        return self._life is not None and not self._life.settled.is_set()

    @property
    def pid(self) -> int | None:
        process = self._life.process if self._life else None
        return process.pid if process else None

    @property
    def log(self) -> str:
        """The last lines of its stderr; for the owner of the machine, never for a caller."""
        return "".join(self._log)

    async def ready(self, settings: Callable[[], bytes]) -> Ready:
        """The running child's address; starts it first if need be, with `settings()` as its line on stdin.

        Raises ApiError: OVERLOADED while a child that keeps crashing rests (retry_after_s), ENGINE_FAILED when it does not start.
        """
        life = self._life
        if life is None or life.over.is_set():
            self._refuse_while_resting()
            life = self._life = _Life()
            self._starts += 1
            self._restarts += self._has_crashed
            self._has_crashed = False
            self._tasks.start_soon(self._live, life, settings())
        await life.settled.wait()
        if life.ready is None:
            await life.over.wait()  # so that whoever asks next starts a new one
            raise ApiError(ErrorKind.ENGINE_FAILED, f"The engine of {self._command.name} did not start; its log says why.")
        return life.ready

    async def stop(self) -> None:
        """End the process and wait until it is gone: first kindly, after stop_s by force."""
        life = self._life
        if life is None:
            return
        life.is_wanted = False
        if life.process is not None and life.process.returncode is None:
            await _end(life.process, self._config.stop_s)
        await life.over.wait()
        self._life = None

    def _refuse_while_resting(self) -> None:
        left_s = self._not_before - self._clock.monotonic()
        if left_s > 0:
            raise ApiError(ErrorKind.OVERLOADED, f"The engine of {self._command.name} is being restarted.", retry_after_s=left_s)

    async def _live(self, life: _Life, settings: bytes) -> None:
        started_s = self._clock.monotonic()
        try:
            await self._start(life, settings)
        except OSError as error:
            self._log.append(f"{error}\n")
        finally:
            if life.process is not None and life.process.returncode is None:
                with anyio.CancelScope(shield=True):
                    _kill(life.process)
                    await life.process.wait()
            if life.is_wanted:
                self._note_crash(self._clock.monotonic() - started_s)
                self._tell(life)
            life.settled.set()
            life.over.set()

    async def _start(self, life: _Life, settings: bytes) -> None:
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | dict(self._command.environment)
        process = life.process = await anyio.open_process(
            [sys.executable, "-P", "-m", self._command.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C in the terminal is for the gateway, which then ends the child itself
        )
        async with process, anyio.create_task_group() as readers:
            if not life.is_wanted:
                _kill(process)
            readers.start_soon(self._keep_log, process)
            with anyio.move_on_after(self._config.ready_s):
                life.ready = await _handshake(process, settings)
            life.settled.set()
            if life.ready is None:
                _kill(process)
            await process.wait()

    async def _keep_log(self, process: anyio.abc.Process) -> None:
        if process.stderr is not None:
            async for text in TextReceiveStream(process.stderr, errors="replace"):
                self._log.append(text[-_MAX_READY_BYTES:])

    def _tell(self, life: _Life) -> None:
        """To the box's log. What a child said after it had served is left out: nobody knows that there are no prompts in it."""
        status = life.process.returncode if life.process is not None else None
        if status is None:
            ended = "could not be started"
        else:
            ended = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        if life.ready is None:
            said = self.log[-_MOST_LOGGED:].strip() or "nothing"
            _LOG.warning("the process of %s %s before it served; it said: %s", self._command.name, ended, said)
        else:
            _LOG.warning("the process of %s %s; the next call starts another", self._command.name, ended)

    def _note_crash(self, lived_s: float) -> None:
        self._has_crashed = True
        self._crashes = 1 if lived_s >= self._config.calm_s else self._crashes + 1
        doublings = min(self._crashes - 2, 16)
        pause_s = 0.0 if self._crashes == 1 else min(self._config.backoff_first_s * 2**doublings, self._config.backoff_most_s)
        self._not_before = self._clock.monotonic() + pause_s


def _resident_bytes(pid: int) -> int:
    """0 where the system does not tell."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


async def _handshake(process: anyio.abc.Process, settings: bytes) -> Ready | None:
    """The child's ready line; None when it ended or spoke otherwise."""
    if process.stdin is None or process.stdout is None:
        return None
    try:
        await process.stdin.send(settings + b"\n")
        line = await BufferedByteReceiveStream(process.stdout).receive_until(b"\n", _MAX_READY_BYTES)
        return msgspec.json.decode(line, type=Ready)
    except (anyio.IncompleteRead, anyio.DelimiterNotFound, anyio.BrokenResourceError, anyio.ClosedResourceError, msgspec.DecodeError):
        return None


async def _end(process: anyio.abc.Process, patience_s: float) -> None:
    with anyio.CancelScope(shield=True):
        if process.stdin is not None:
            await process.stdin.aclose()
        with anyio.move_on_after(patience_s):
            await process.wait()
            return
        _kill(process)
        await process.wait()


def _kill(process: anyio.abc.Process) -> None:
    with suppress(ProcessLookupError):  # gone by itself
        process.kill()
