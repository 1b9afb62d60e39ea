"""What the first start prints is complete and works when copied, however narrow the terminal."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import openai

from support.ports import free_port


def test_banner_prints_a_key_that_works_and_is_not_shown_again(tmp_path: Path) -> None:
    variables = {**os.environ, "QWENBOX_HOME": str(tmp_path), "QWENBOX_PROFILE": "echo", "QWENBOX_PORT": str(free_port()), "COLUMNS": "50"}
    printed = [_first_lines(tmp_path / f"{start}.log", variables) for start in range(2)]
    base = re.search(r"^export OPENAI_BASE_URL=(\S+)$", printed[0][0], re.MULTILINE)
    key = re.search(r"^export OPENAI_API_KEY=(sk-\S+)$", printed[0][0], re.MULTILINE)
    assert base
    assert key
    frame = " ".join(printed[0][0].partition("╯")[0].replace("│", " ").split())
    assert f"level documented · http://127.0.0.1:{variables['QWENBOX_PORT']}" in frame
    assert ["qwen-turbo", "qwen-plus", "qwen-max"] == printed[0][1][:3]
    assert "sk-" not in printed[1][0]


def _first_lines(log: Path, variables: dict[str, str]) -> tuple[str, list[str]]:
    """What a start printed, and the models its key could list ([] without a key)."""
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "qwenbox", "serve"], env=variables, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 30
        while "OPENAI_API_KEY" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        key = re.search(r"OPENAI_API_KEY=(sk-\S+)", log.read_text())
        if key is None:
            return log.read_text(), []
        client = openai.OpenAI(api_key=key[1], base_url=f"http://127.0.0.1:{variables['QWENBOX_PORT']}/v1")
        return log.read_text(), [model.id for model in client.models.list()]
    finally:
        process.terminate()
        process.wait(60)
