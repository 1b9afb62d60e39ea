"""This is where tests run llama.cpp's own server as anybody runs it: a process of its own, with its OpenAI endpoints and a key."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from qwenbox.engines.llamacpp.lane import ChildSettings

KEY = "sk-of-the-llama-server"
CONTEXT_TOKENS = 2048


@dataclass(frozen=True)
class LlamaServer:
    """address: its root, without /v1."""

    address: str
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def serve(weights: Path) -> Iterator[LlamaServer]:
    """On a free loopback port, once it has loaded."""
    settings = ChildSettings(
        parent_pid=os.getpid(),
        model=str(weights),
        projector="",
        marker="",
        key=KEY,
        context_tokens=CONTEXT_TOKENS,
        slots=2,
        threads=2,
        batch_tokens=128,
        is_prompt_cached=True,
        cache_mib=0,
        nice=0,
    )
    command = [sys.executable, "-m", "qwenbox.children.llama"]
    # OpenMP's own spinning stops a busy machine.
    environment = {**os.environ, "GOMP_SPINCOUNT": "1000"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(settings) + b"\n")
        process.stdin.flush()
        try:
            yield LlamaServer(address=json.loads(process.stdout.readline())["address"], process=process)
        finally:
            process.kill()
