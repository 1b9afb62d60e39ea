"""This is where processes of the bench are started on their cores, watched, and ended."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from pathlib import Path

import msgspec

TICKS = os.sysconf("SC_CLK_TCK")


def cores() -> tuple[set[int], set[int]]:
    """For what is measured, and for load and upstream: the first core we may use, and the second; one core is all there may be."""
    mine = sorted(os.sched_getaffinity(0))
    return {mine[0]}, {mine[1] if len(mine) > 1 else mine[0]}


def raise_file_limit(wanted: int = 65_536) -> int:
    """For this process and those it starts. Returns what was reached."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (wanted, hard):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, limit), max(hard, limit)))
            break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Started:
    """A running process and its descendants."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, start_s: float) -> None:
        self.process = process
        self.log = log
        self.start_s = start_s

    def cpu_s(self) -> float:
        return cpu_s(self.process.pid)

    def rss_bytes(self) -> int:
        total = 0
        for pid in family(self.process.pid):
            with contextlib.suppress(OSError):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return total


def family(pid: int) -> list[int]:
    """The process and its descendants."""
    found = [pid]
    for each in found:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in children.read_text().split()]
    return found


def cpu_s(pid: int) -> float:
    """CPU time of the process and its descendants so far, in nanosecond steps where the kernel tells them, else in ticks."""
    return sum(_cpu_s(each) for each in family(pid))


def _cpu_s(pid: int) -> float:
    try:
        return sum(int(stat.read_text().split()[0]) for stat in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9
    except (OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What to run. ready: the URL that answers 200 once it may be measured. environment: added to ours."""

    arguments: tuple[str, ...]
    ready: str
    environment: Mapping[str, str] = {}
    limit_s: float = 120.0


@contextlib.contextmanager
def start(command: Command, core: set[int], log: Path) -> Generator[Started]:
    """Run it on `core` for as long as the context lasts; entered when it is ready.

    Raises RuntimeError with the end of its log when it ends or is not ready in time.
    """
    with log.open("wb") as output:
        begun = time.monotonic()
        process = subprocess.Popen(
            command.arguments,
            env={**os.environ, **command.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, core),
        )
    try:
        _wait(process, command.ready, log, begun + command.limit_s)
        yield Started(process, log, time.monotonic() - begun)
    finally:
        _end(process)


def _wait(process: subprocess.Popen[bytes], ready: str, log: Path, deadline: float) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError), opener.open(ready, timeout=5):
            return
        time.sleep(0.01)
    said = log.read_text("utf-8", "replace").split("\n")
    raise RuntimeError(f"it is not ready; its last words: {next((line for line in reversed(said) if line.strip()), 'none')[-300:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """The whole session: npm's and LiteLLM's launchers leave children behind otherwise."""
    for kind, wait_s in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, kind)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)
            return
