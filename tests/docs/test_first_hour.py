"""A newcomer's way: init, serve, the first answer, in a terminal's own words."""

import os
import subprocess
import sys
from pathlib import Path

import boxes


def qwenbox(home: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**boxes.clean_environment(), "QWENBOX_HOME": str(home), **variables}
    command = [sys.executable, "-m", "qwenbox", *words]
    return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)


def test_box_serves_with_the_file_that_init_wrote(tmp_path: Path) -> None:
    home = tmp_path / "home"
    written = qwenbox(home, "init", "--yes", "--for", "team", "--address", "127.0.0.1:8000")
    assert written.returncode == 0, written.stderr
    before = (home / "qwenbox.toml").read_text("utf-8")
    assert "standard" in before
    with boxes.serve(home, profile="echo") as box:
        answer = qwenbox(home, "chat", "你好", "--raw", "--key", box.key, "--url", box.base_url)
    assert (0, True) == (answer.returncode, bool(answer.stdout.strip())), answer.stderr
    assert before == (home / "qwenbox.toml").read_text("utf-8")


def test_init_asks_and_gives_up_when_nobody_answers(tmp_path: Path) -> None:
    asked = qwenbox(tmp_path / "home", "init")
    assert (1, False) == (asked.returncode, (tmp_path / "home").exists())
    assert "What is this box for?" in asked.stdout


def test_bash_offers_commands_to_who_types(tmp_path: Path) -> None:
    asked = {"_QWENBOX_COMPLETE": "complete_bash", "COMP_WORDS": "qwenbox ke", "COMP_CWORD": "1", "PATH": os.environ["PATH"]}
    program = str(Path(sys.executable).parent / "qwenbox")
    offered = subprocess.run([program], env={**boxes.clean_environment(), **asked}, capture_output=True, text=True, timeout=60, check=False)
    assert ["keys"] == offered.stdout.split()
