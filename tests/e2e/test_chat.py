"""`qwenbox chat` against a running box: one question, a pipe, and a conversation at a terminal."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from boxes import Box, interruptible
from support.ports import free_port


def environment(box: Box, home: Path) -> dict[str, str]:
    return {**os.environ, "QWENBOX_HOME": str(home), "QWENBOX_PORT": str(box.port), "QWENBOX_PROFILE": "echo", "DASHSCOPE_API_KEY": box.key}


def ask(box: Box, home: Path, *arguments: str, piped: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qwenbox", "chat", *arguments]
    return subprocess.run(command, env=environment(box, home) | variables, input=piped, capture_output=True, text=True, timeout=60)


def test_question_is_answered_as_plain_text_into_a_pipe(box: Box, tmp_path: Path):
    answer = ask(box, tmp_path, "hello **you**")
    assert (0, "") == (answer.returncode, answer.stderr)
    assert answer.stdout.endswith("hello **you**\n")


def test_piped_text_joins_the_question(box: Box, tmp_path: Path):
    said = json.loads(ask(box, tmp_path, "explain", "--json", piped="x = 1\n").stdout)
    assert said["text"].endswith("explain\n\nx = 1")
    assert ("qwen-turbo", "stop") == (said["model"], said["finish_reason"])
    assert said["input_tokens"] > 0 < said["output_tokens"]


def test_piped_text_alone_is_the_question(box: Box, tmp_path: Path):
    assert ask(box, tmp_path, piped="only this").stdout.endswith("only this\n")


def test_options_reach_the_model(box: Box, tmp_path: Path):
    said = json.loads(ask(box, tmp_path, "one two three four five six", "-m", "qwen-max", "--max-tokens", "2", "--json").stdout)
    assert ("qwen-max", "length", 2) == (said["model"], said["finish_reason"], said["output_tokens"])
    texts = [ask(box, tmp_path, "again", "--seed", "3", "--temperature", "1").stdout for _ in range(2)]
    assert texts[0] == texts[1]


def test_thoughts_stay_out_of_the_pipe(box: Box, tmp_path: Path):
    answer = ask(box, tmp_path, "why", "--think")
    assert 0 == answer.returncode
    assert answer.stderr.strip()
    assert answer.stderr.strip() not in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (["hi", "--key", "sk-wrong"], {}, "qwenbox keys create"),
        (["hi"], {"DASHSCOPE_API_KEY": ""}, "No API key"),
        (["hi", "--temperature", "9"], {}, "Temperature"),
    ],
)
def test_refusals_say_what_to_do(box: Box, tmp_path: Path, arguments: list[str], variables: dict[str, str], words: str):
    answer = ask(box, tmp_path, *arguments, **variables)
    assert (1, "") == (answer.returncode, answer.stdout)
    assert words in answer.stderr
    assert "Traceback" not in answer.stderr


def test_no_box_is_said_at_once(box: Box, tmp_path: Path):
    began = time.monotonic()
    answer = ask(box, tmp_path, "hi", QWENBOX_PORT=str(free_port()))
    assert (1, True) == (answer.returncode, "Start one: qwenbox serve" in answer.stderr)
    assert time.monotonic() - began < 15.0


def test_nothing_asked_is_a_usage_error(box: Box, tmp_path: Path):
    assert 2 == ask(box, tmp_path).returncode


class Terminal:
    """`qwenbox chat` on a real pseudo terminal."""

    def __init__(self, box: Box, home: Path, *arguments: str) -> None:
        self._end, theirs = pty.openpty()
        command = [sys.executable, "-m", "qwenbox", "chat", *arguments]
        variables = environment(box, home) | {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
        self.process = subprocess.Popen(
            command, env=variables, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=interruptible
        )
        os.close(theirs)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def expect(self, text: str, timeout_s: float = 30.0) -> None:
        """Read until `text` comes after what was expected last."""
        deadline = time.monotonic() + timeout_s
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self._end], [], [], 0.2)[0]:
                self.seen += os.read(self._end, 65_536).decode(errors="replace")
        self.seen = self.seen.partition(text)[2]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._end)


def test_conversation_remembers_until_it_is_reset(box: Box, tmp_path: Path):
    terminal = Terminal(box, tmp_path)
    try:
        terminal.expect("/help shows commands")
        terminal.expect("> ")
        terminal.type("first question\n")
        terminal.expect("Echo")
        terminal.expect("first question")
        terminal.expect("> ")
        terminal.type("/model qwen-max\n")
        terminal.expect("Asking qwen-max now")
        terminal.type("/system be short\n")
        terminal.expect("begins anew")
        terminal.type("/reset\n")
        terminal.expect("Forgotten")
        terminal.type("/help\n")
        terminal.expect("forget the conversation")
        terminal.type("/exit\n")
        assert 0 == terminal.process.wait(30)
    finally:
        terminal.close()


def test_conversation_goes_on_after_a_refusal_and_ends_at_control_d(box: Box, tmp_path: Path):
    terminal = Terminal(box, tmp_path, "--temperature", "9")
    try:
        terminal.expect("> ")
        terminal.type("hello\n")
        terminal.expect("Temperature")
        terminal.expect("> ")
        terminal.type("\x04")
        assert 0 == terminal.process.wait(30)
    finally:
        terminal.close()


def test_markdown_is_rendered_on_a_terminal(box: Box, tmp_path: Path):
    terminal = Terminal(box, tmp_path, "some **strong** words")
    try:
        terminal.expect("\x1b[1mstrong\x1b[0m")
        assert 0 == terminal.process.wait(30)
    finally:
        terminal.close()


def test_control_c_stops_the_answer_and_not_the_conversation(serve, tmp_path: Path):
    slow = serve(profile="echo", toml="[engine.echo]\ndelay_s = 0.2\n")
    terminal = Terminal(slow, tmp_path)
    try:
        terminal.expect("> ")
        terminal.type("one two three four five six seven eight nine ten eleven twelve\n")
        terminal.expect("Echo")
        os.killpg(terminal.process.pid, signal.SIGINT)
        terminal.expect("(stopped)")
        terminal.expect("> ")
        terminal.type("/exit\n")
        assert 0 == terminal.process.wait(30)
    finally:
        terminal.close()
