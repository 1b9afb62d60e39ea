"""`qwenbox batch run` killed at each step it takes, its box killed under it, and interrupted by hand: every line once, paid once."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import boxes
from boxes import Box
from support.books import Books
from support.doorway import Doorway

FILES, BATCHES = "/compatible-mode/v1/files", "/compatible-mode/v1/batches"
# Where the command is killed, in the order in which it gets there; the last ones only after it went on.
STEPS = (
    (f"GET {BATCHES}?", "asked"),
    (f"POST {FILES}", "asked"),
    (f"POST {FILES}", "answered"),
    (f"POST {BATCHES}", "asked"),
    (f"POST {BATCHES}", "answered"),
    (f"GET {BATCHES}/batch_", "answered"),
    (f"GET {FILES}/file-", "asked"),
    ("GET /qwenbox/v1/receipts/", "answered"),
)
# Lines take long enough to be open when something ends.
SLOW = '[engine.echo]\nkind = "echo"\ndelay_s = 0.02\n[batch]\nconcurrency = 8\npoll_s = 0.1\nlease_s = 1.0\n[cache]\nenabled = false\n'
END_S = 120


class Command:
    """`qwenbox batch run` on an input of its own, through a door."""

    def __init__(self, folder: Path, door: Doorway, count: int) -> None:
        folder.mkdir()
        (folder / "in.txt").write_text("".join(f"number {number}\n" for number in range(count)), "utf-8")
        self.folder = folder
        self.count = count
        self._environment = {
            **boxes.clean_environment(),
            "QWENBOX_HOME": str(folder / "home"),
            "OPENAI_BASE_URL": f"{door.address}/compatible-mode/v1",
            "OPENAI_API_KEY": boxes.KEY,
        }

    def start(self, *options: str, **streams: int) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "qwenbox", "batch", "run", "in.txt", "-o", "out.jsonl", "-m", "qwen-plus", *options]
        given = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, **streams}
        started = subprocess.Popen(
            words, cwd=self.folder, env=self._environment, text=True, stdout=subprocess.DEVNULL, preexec_fn=boxes.interruptible, **given
        )
        return started

    def end(self, *options: str) -> str:
        """Run it to its end; what it said."""
        process = self.start(*options)
        said = process.communicate(timeout=END_S)[1]
        assert 0 == process.returncode, said
        return said

    def check(self, box: Box, others: frozenset[str] = frozenset()) -> None:
        """Every line has its answer, in order; nothing else was run or paid. others: ids of calls before."""
        rows = [json.loads(line) for line in (self.folder / "out.jsonl").read_text("utf-8").splitlines()]
        assert [str(number + 1) for number in range(self.count)] == [row["custom_id"] for row in rows]
        assert [] == [row for number, row in enumerate(rows) if not row["answer"].endswith(f": number {number}")]
        books = Books(box)
        assert [] == books.faults()
        billed = {row["id"]: row["cost_micros"] for row in books.rows() if row["cost_micros"] and row["id"] not in others}
        assert billed == {row["request_id"]: row["cost_micros"] for row in rows}


@pytest.fixture(scope="module")
def slow_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with boxes.serve(tmp_path_factory.mktemp("slow"), toml=SLOW) as running:
        yield running


@pytest.fixture
def others(slow_box: Box) -> frozenset[str]:
    """The calls before the test."""
    return frozenset(row["id"] for row in Books(slow_box).rows())


@pytest.fixture
def door() -> Iterator[Doorway]:
    with Doorway() as opened:
        yield opened


def reached(door: Doorway, wanted: str, when: str, then: Callable[[], None]) -> threading.Event:
    """Do something, once, when this request passes, and let it be lost."""
    done = threading.Event()

    def watch(line: str, at: str) -> bytes | None:
        if done.is_set() or not line.startswith(wanted) or at != when:
            return None
        then()
        done.set()
        return b""

    door.watch = watch
    return done


def test_a_command_killed_at_every_step_goes_on_and_nothing_is_paid_twice(
    tmp_path: Path, door: Doorway, slow_box: Box, others: frozenset[str], is_full: bool
) -> None:
    door.port = slow_box.port
    command = Command(tmp_path / "run", door, 60)
    for wanted, when in STEPS if is_full else STEPS[3:6]:
        process = command.start()
        was_reached = reached(door, wanted, when, process.kill)
        said = process.communicate(timeout=END_S)[1]
        assert (-signal.SIGKILL, True) == (process.returncode, was_reached.is_set()), (wanted, when, said)
    command.end()
    command.check(slow_box, others)
    assert 60 + len(others) == len(Books(slow_box).rows())


def test_a_box_killed_under_a_command_is_waited_for(tmp_path: Path, door: Doorway) -> None:
    with contextlib.ExitStack() as stack:
        box = stack.enter_context(boxes.serve(tmp_path / "box", toml=SLOW))
        door.port = box.port
        command = Command(tmp_path / "run", door, 120)
        process = command.start()
        # The answer to a batch's creation is lost with the box that made it; later one dies amid the lines.
        for wanted in (f"POST {BATCHES}", f"GET {BATCHES}/batch_"):
            assert reached(door, wanted, "answered", box.process.kill).wait(END_S)
            box.process.wait()
            box = stack.enter_context(boxes.serve(tmp_path / "box", toml=SLOW))
            door.port = box.port
        said = process.communicate(timeout=END_S)[1]
        assert 0 == process.returncode, said
        assert "Trying again in" in said
        command.check(box)


def test_ctrl_c_leaves_the_batch_running_and_says_how_to_go_on(
    tmp_path: Path, door: Doorway, slow_box: Box, others: frozenset[str]
) -> None:
    door.port = slow_box.port
    command = Command(tmp_path / "run", door, 100)
    process = command.start("--key", boxes.KEY)
    assert reached(door, f"GET {BATCHES}/batch_", "answered", lambda: process.send_signal(signal.SIGINT)).wait(END_S)
    said = process.communicate(timeout=END_S)[1]
    assert 130 == process.returncode, said
    (part,) = json.loads((command.folder / "out.jsonl.state").read_text())["parts"]
    assert f"Still running: {part['batch_id']}. To cancel: qwenbox batch cancel {part['batch_id']}" in said
    assert "The same command goes on from here:\n  qwenbox batch run in.txt -o out.jsonl -m qwen-plus\n" in said
    assert boxes.KEY not in said
    command.end()
    command.check(slow_box, others)


def test_a_second_ctrl_c_asks_and_cancels_and_the_rest_is_asked_again(
    tmp_path: Path, door: Doorway, slow_box: Box, others: frozenset[str]
) -> None:
    door.port = slow_box.port
    # Too many to be over soon: they are cancelled.
    command = Command(tmp_path / "run", door, 400)
    ours, theirs = pty.openpty()
    process = command.start(stdin=theirs, stderr=theirs)
    os.close(theirs)
    screen = _Screen(ours)
    screen.wait(" in_progress")
    process.send_signal(signal.SIGINT)
    screen.wait("Ctrl+C once more")
    process.send_signal(signal.SIGINT)
    screen.wait("Cancel 1 running batch(es)?")
    os.write(ours, b"y\n")
    screen.wait("Cancelling batch_")
    assert 130 == process.wait(END_S)
    os.close(ours)
    # What was not run has failed; once more, and only that.
    process = command.start()
    said = process.communicate(timeout=END_S)[1]
    assert 1 == process.returncode and "batch_cancelled" in said
    command.end("--retry-failed")
    command.check(slow_box, others)


class _Screen:
    """What a terminal was shown."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._text = ""

    def wait(self, text: str) -> None:
        deadline = time.monotonic() + END_S
        while text not in self._text:
            assert time.monotonic() < deadline, self._text
            try:
                self._text += os.read(self._handle, 65_536).decode("utf-8", "replace")
            except OSError as error:
                raise AssertionError(self._text) from error
