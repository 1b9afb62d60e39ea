"""This is where real weights are asked, in a child of the box's own making and through the box, turn by turn."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import msgspec

from bench.box import qwenbox_command
from bench.load import Endpoint
from bench.process import free_port, start
from bench.results import EngineMeasured, Spread
from bench.target import CHAT, KEY, Place
from qwenbox.engines.llamacpp.config import LlamaCppConfig
from qwenbox.engines.llamacpp.lane import MODULE, ChildSettings

WEIGHTS = "qwen2.5-coder-0.5b-instruct-q4_k_m"
TEXT = "Count from one to one hundred in words, separated by commas."


def folder_of_weights() -> Path | None:
    """Where the 0.5B weights lie: a folder named in QWENBOX_TEST_WEIGHTS, or the user's data folder."""
    home = Path(os.environ.get("QWENBOX_HOME") or "~/.qwenbox").expanduser()
    named = os.environ.get("QWENBOX_TEST_WEIGHTS")
    for folder in (Path(named) if named else None, home / "weights" / WEIGHTS):
        if folder is not None and (folder / f"{WEIGHTS}.gguf").is_file():
            return folder
    return None


def measure(folder: Path, repeats: int, tokens: int) -> EngineMeasured:
    """Both children are up at the same time, and one works at a time."""
    rates: dict[str, list[float]] = {"direct": [], "box": []}
    ttfts: dict[str, list[float]] = {"direct": [], "box": []}
    with tempfile.TemporaryDirectory(prefix="qwenbox-bench-") as scratch, _child(folder) as child, _box(folder, Path(scratch)) as box:
        ways = {"direct": child, "box": box}
        for endpoint in ways.values():
            _ask(endpoint, tokens)  # loads the weights, and leaves the prompt in the cache of both
        for number in range(repeats):
            # Who comes first takes turns, too.
            for name in ("direct", "box") if number % 2 else ("box", "direct"):
                ttft_s, rate = _ask(ways[name], tokens)
                ttfts[name].append(ttft_s)
                rates[name].append(rate)
            for _ in range(4):
                for name, endpoint in ways.items():
                    ttfts[name].append(_ask(endpoint, 2)[0])
    return EngineMeasured(
        weights=WEIGHTS,
        tokens=tokens,
        direct_tokens_per_s=Spread.of(rates["direct"]),
        box_tokens_per_s=Spread.of(rates["box"]),
        direct_ttft_s=Spread.of(ttfts["direct"]),
        box_ttft_s=Spread.of(ttfts["box"]),
    )


@contextlib.contextmanager
def _child(folder: Path) -> Generator[Endpoint]:
    """The child that the box's own engine starts, with the same settings."""
    config = LlamaCppConfig(weights=WEIGHTS)
    settings = ChildSettings(
        parent_pid=os.getpid(),
        model=str(folder / f"{WEIGHTS}.gguf"),
        key=KEY,
        context_tokens=config.kv_tokens,
        slots=config.slots,
        threads=config.thread_count,
        batch_tokens=config.batch_tokens,
        is_prompt_cached=True,
        cache_mib=config.prompt_cache_mib,
        nice=config.nice,
    )
    environment = {**os.environ, "GOMP_SPINCOUNT": str(config.spin_count)}
    with subprocess.Popen(
        [sys.executable, "-m", MODULE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the child has no pipes")
        process.stdin.write(msgspec.json.encode(settings) + b"\n")
        process.stdin.flush()
        address = json.loads(process.stdout.readline())["address"]
        try:
            yield Endpoint(port=int(address.rpartition(":")[2]), path=CHAT, model=WEIGHTS, headers={"authorization": f"Bearer {KEY}"})
        finally:
            process.stdin.close()


@contextlib.contextmanager
def _box(folder: Path, scratch: Path) -> Generator[Endpoint]:
    place = Place(port=free_port(), upstream=0, folder=scratch)
    command = qwenbox_command(place, f'[store]\nfolders = ["{folder}"]\nsources = ["local"]\n[cache]\nenabled = false\n', profile="laptop")
    with start(command, set(os.sched_getaffinity(0)), scratch / "log"):
        yield Endpoint(port=place.port, path=CHAT, model="qwen-turbo", headers={"authorization": f"Bearer {KEY}"})


def _ask(endpoint: Endpoint, tokens: int) -> tuple[float, float]:
    """Seconds to the first delta, and tokens per second after it. Greedy, so that both ways say the same."""
    body = {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": TEXT}],
        "stream": True,
        "max_tokens": tokens,
        "temperature": 0,
    }
    begun = time.monotonic()
    with _connected(endpoint, msgspec.json.encode(body)) as answer:
        marks = [time.monotonic() for line in answer if line.startswith(b"data: {") and _text(line)]
    if len(marks) < 2:
        raise RuntimeError(f"port {endpoint.port} sent {len(marks)} deltas")
    return marks[0] - begun, (len(marks) - 1) / (marks[-1] - marks[0])


@contextlib.contextmanager
def _connected(endpoint: Endpoint, body: bytes) -> Generator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=300)
    try:
        connection.request("POST", endpoint.path, body, {"content-type": "application/json", **endpoint.headers})
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"port {endpoint.port} answered {answer.status}: {answer.read()[:500]!r}")
        yield answer
    finally:
        connection.close()


def _text(line: bytes) -> str:
    choices = json.loads(line[6:]).get("choices") or [{}]
    return choices[0].get("delta", {}).get("content") or ""
