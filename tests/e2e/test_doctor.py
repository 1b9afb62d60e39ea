"""`qwenbox doctor`: what it finds, and what it says to do."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from boxes import Box
from mirrors import blob, published
from support.ports import free_port

NOWHERE = '[store]\nsources = ["local"]\n'


def examine(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qwenbox", "doctor", *arguments]
    environment = {**os.environ, "QWENBOX_HOME": str(home), "QWENBOX_PORT": str(free_port())} | variables
    return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)


def findings(answer: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    return {finding["check"]: finding for finding in json.loads(answer.stdout)}


@pytest.fixture
def stranger() -> Iterator[int]:
    """Another program's port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        server.RequestHandlerClass.log_message = lambda *_: None
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_running_box_with_a_good_key_is_well(box: Box, tmp_path: Path):
    answer = examine(tmp_path, "--json", QWENBOX_PROFILE="echo", QWENBOX_PORT=str(box.port), QWENBOX_API_KEY=box.key)
    found = findings(answer)
    assert 0 == answer.returncode, answer.stderr
    assert {"home", "box", "key", "qwen-turbo", "qwen-plus", "qwen-max"} <= set(found)
    assert {("ok", "")} == {(finding["verdict"], finding["todo"]) for finding in found.values()}


def test_speed_is_measured_when_asked(box: Box, tmp_path: Path):
    answer = examine(tmp_path, "--speed", QWENBOX_PROFILE="echo", QWENBOX_PORT=str(box.port), QWENBOX_API_KEY=box.key)
    assert 0 == answer.returncode, answer.stderr
    assert "qwen-turbo:" in answer.stdout
    assert "tokens/s" in answer.stdout


def test_wrong_key_fails_and_says_how_to_make_one(box: Box, tmp_path: Path):
    answer = examine(tmp_path, "--json", "--key", "sk-wrong", QWENBOX_PROFILE="echo", QWENBOX_PORT=str(box.port))
    assert (1, "failed") == (answer.returncode, findings(answer)["key"]["verdict"])
    assert "qwenbox keys create" in findings(answer)["key"]["todo"]


def test_no_key_is_a_warning(box: Box, tmp_path: Path):
    answer = examine(tmp_path, "--json", QWENBOX_PROFILE="echo", QWENBOX_PORT=str(box.port))
    assert (0, "warning") == (answer.returncode, findings(answer)["key"]["verdict"])


def test_no_box_is_no_fault(tmp_path: Path):
    answer = examine(tmp_path, "--json", QWENBOX_PROFILE="echo")
    assert (0, "qwenbox serve") == (answer.returncode, findings(answer)["box"]["todo"])


def test_taken_port_fails_and_names_another(tmp_path: Path, stranger: int):
    answer = examine(tmp_path, "--json", QWENBOX_PROFILE="echo", QWENBOX_PORT=str(stranger))
    assert (1, "failed") == (answer.returncode, findings(answer)["box"]["verdict"])
    assert f"--port {stranger + 1}" in findings(answer)["box"]["todo"]


def test_home_that_cannot_be_made_fails(tmp_path: Path):
    (tmp_path / "file").write_text("")
    answer = examine(tmp_path / "file" / "home", "--json", QWENBOX_PROFILE="echo")
    assert (1, "failed") == (answer.returncode, findings(answer)["home"]["verdict"])


def test_missing_weights_fail_when_no_source_has_them(tmp_path: Path):
    (tmp_path / "qwenbox.toml").write_text(NOWHERE)
    answer = examine(tmp_path, QWENBOX_PROFILE="laptop")
    assert 1 == answer.returncode
    assert "no source has them" in answer.stdout
    assert "--from PATH" in answer.stdout


def test_missing_weights_are_a_warning_when_a_source_has_them(tmp_path: Path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"):
        (folder / name).write_bytes(b"GGUF")
    (tmp_path / "qwenbox.toml").write_text(f'[store]\nsources = ["local"]\nfolders = ["{folder}"]\n')
    answer = examine(tmp_path, QWENBOX_PROFILE="laptop")
    assert 0 == answer.returncode, answer.stdout
    assert "local would bring them" in answer.stdout


def test_deep_finds_weights_that_rotted(tmp_path: Path):
    data = blob(100_000)
    entry = published(data)
    (tmp_path / "qwenbox.toml").write_text(
        f'[store]\nsources = ["local"]\n[weights.m]\ntitle = "M"\nrepository = "a/b"\nfile = "{entry.file}"\nbytes = {entry.bytes}\n'
        f'sha256 = "{entry.sha256}"\n[engine.small]\nkind = "llamacpp"\nweights = "m"\n[engine.large]\nkind = "llamacpp"\nweights = "m"\n'
    )
    (tmp_path / "m.gguf").write_bytes(data)
    pull = [sys.executable, "-m", "qwenbox", "pull", "m", "--from", str(tmp_path / "m.gguf")]
    subprocess.run(pull, env={**os.environ, "QWENBOX_HOME": str(tmp_path)}, check=True, capture_output=True)
    assert 0 == examine(tmp_path, "--deep").returncode
    place = tmp_path / "weights/m" / entry.file
    times = place.stat()
    place.write_bytes(data[:-1] + b"!")
    os.utime(place, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert 0 == examine(tmp_path).returncode
    rotten = examine(tmp_path, "--deep")
    assert (1, True) == (rotten.returncode, "the sha256 is wrong" in rotten.stdout)
