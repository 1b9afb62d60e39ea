"""This is where tests start a real box: `python -m qwenbox serve` as a process on a free loopback port, with a home of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from support.ports import free_port

KEY = "sk-test-0123456789abcdef0123456789abcdef"

# A box of tests takes nothing from the developer's own shell but where Python and pip find their things.
FOREIGN = ("QWENBOX_", "DASHSCOPE_", "OPENAI_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")

# The laptop's catalog (three names, everything else is unknown), answered by echo.
CATALOG_ON_ECHO = """
[engine.small]
kind = "echo"
[engine.large]
kind = "echo"
"""

# For tests of engines and seeds, which a kept answer would prove nothing about.
NO_CACHE = """
[cache]
enabled = false
"""


@dataclass(frozen=True)
class Box:
    """A running box. native, compatible: the base URLs for dashscope and openai."""

    base_url: str
    key: str
    home: Path
    process: subprocess.Popen[bytes]
    profile: str
    compat: str

    @property
    def native(self) -> str:
        return f"{self.base_url}/api/v1"

    @property
    def compatible(self) -> str:
        return f"{self.base_url}/compatible-mode/v1"

    @property
    def port(self) -> int:
        return int(self.base_url.rpartition(":")[2])

    @property
    def log(self) -> str:
        """All the box has printed so far."""
        return (self.home / "serve.log").read_text("utf-8", "replace")


def is_foreign(name: str) -> bool:
    return name.upper().startswith(FOREIGN)


def interruptible() -> None:
    """For `preexec_fn`: a shell's background jobs, such as CI's, hand down an ignored Ctrl+C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def serve(
    home: Path,
    *,
    profile: str = "echo",
    compat: str = "documented",
    toml: str = "",
    environment: Mapping[str, str] | None = None,
    start_s: float = 60.0,
    port: int | None = None,
) -> Iterator[Box]:
    """A box for as long as the context lasts; raises RuntimeError with its log when it is not ready within `start_s`.

    toml: written as the data folder's qwenbox.toml. environment: added to the box's own. port: None takes a free one.
    """
    home.mkdir(parents=True, exist_ok=True)
    if toml:
        (home / "qwenbox.toml").write_text(toml, "utf-8")
    port = port or free_port()
    own = {
        "QWENBOX_HOME": str(home),
        "QWENBOX_PROFILE": profile,
        "QWENBOX_COMPAT": compat,
        "QWENBOX_PORT": str(port),
        "QWENBOX_CONSOLE_PORT": "0",
        "QWENBOX_API_KEY": KEY,
    }
    with (home / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "qwenbox", "serve"],
            env={**clean_environment(), **own, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    box = Box(base_url=f"http://127.0.0.1:{port}", key=KEY, home=home, process=process, profile=profile, compat=compat)
    try:
        _wait_ready(box, start_s)
        yield box
    finally:
        _stop(process)


def pull(box: Box, model: str) -> None:
    """Put the model's weights where the running box looks for them; does nothing when they are there."""
    environment = {**clean_environment(), "QWENBOX_HOME": str(box.home)}
    done = subprocess.run(
        [sys.executable, "-m", "qwenbox", "pull", model], env=environment, capture_output=True, timeout=3_600, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"qwenbox pull {model} failed:\n{done.stdout.decode()}\n{done.stderr.decode()}")


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not is_foreign(name)}


def _wait_ready(box: Box, start_s: float) -> None:
    deadline = time.monotonic() + start_s
    # Without proxies, whatever the environment says.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline:
        if box.process.poll() is not None:
            raise RuntimeError(f"the box ended with {box.process.returncode} at its start:\n{box.log[-4000:]}")
        with contextlib.suppress(urllib.error.URLError, OSError), opener.open(f"{box.base_url}/ready", timeout=5):
            return
        time.sleep(0.05)
    raise RuntimeError(f"the box was not ready after {start_s} s:\n{box.log[-4000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
