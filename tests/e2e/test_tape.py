"""Exchanges with a model server, recorded once and played again without it."""

import re
import time
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

import boxes
from boxes import Box

pytestmark = pytest.mark.e2e

UPSTREAM_KEY = "sk-upstream-5d1c0ffee5d1c0ffee5d1c0ffee5d1c0ffe"
DELAY_S = 0.05
QUESTION = "one two three four five six seven eight 九 十"


def toml(address: str, mode: str, pace: str = "fast") -> str:
    return f"""
[tape]
file = "exchanges.jsonl"
mode = "{mode}"
pace = "{pace}"
[engine.far]
kind = "openai_server"
address = "{address}"
model = "qwen-plus"
key_env = "UPSTREAM_KEY"
[[model]]
name = "qwen-far"
deployments = ["far"]
card = {{ context_tokens = 8192 }}
"""


def ask(box: Box, text: str = QUESTION, *, is_streamed: bool = True) -> tuple[bytes, list[float]]:
    """The whole answer without what is new every time, and when its pieces came."""
    body = {"model": "qwen-far", "messages": [{"role": "user", "content": text}], "temperature": 0, "stream": is_streamed}
    headers = {"authorization": f"Bearer {box.key}", "cache-control": "no-store"}
    pieces: list[bytes] = []
    at_s: list[float] = []
    with httpx.stream("POST", f"{box.compatible}/chat/completions", json=body, headers=headers, timeout=60) as answer:
        for piece in answer.iter_bytes():
            pieces.append(piece)
            at_s.append(time.monotonic())
    whole = re.sub(rb'[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}|"created":\d+', b"", b"".join(pieces))
    return whole, at_s


def environment() -> dict[str, str]:
    return {"UPSTREAM_KEY": UPSTREAM_KEY}


def test_recorded_exchange_plays_again_without_its_server(tmp_path: Path) -> None:
    home = tmp_path / "box"
    slow = f'[engine.echo]\nkind = "echo"\ndelay_s = {DELAY_S}\n'
    with boxes.serve(tmp_path / "upstream", toml=slow, environment={"QWENBOX_API_KEY": UPSTREAM_KEY}) as upstream:
        address = upstream.compatible
        with boxes.serve(home, toml=toml(address, "record"), environment=environment()) as recording:
            streamed, whole = ask(recording), ask(recording, is_streamed=False)
    tape = (home / "exchanges.jsonl").read_bytes()
    with boxes.serve(home, toml=toml(address, "replay"), environment=environment()) as playing:
        at_once = [ask(playing) for _ in range(5)]
        assert ask(playing, is_streamed=False)[0] == whole[0]
        unknown, _ = ask(playing, "something else")
    with boxes.serve(home, toml=toml(address, "replay", "own"), environment=environment()) as playing:
        at_its_pace = ask(playing)

    assert "Echo: one two three" in _said(streamed[0])
    assert {answer for answer, _ in (*at_once, at_its_pace)} == {streamed[0]}
    # At its own pace: pieces do not come faster than they were sent. At once: the whole is quicker than that, but for a busy machine.
    gaps = sorted(later - earlier for earlier, later in pairwise(at_its_pace[1]))
    assert gaps[len(gaps) // 2] > DELAY_S / 2
    assert min(at_s[-1] - at_s[0] for _, at_s in at_once) < at_its_pace[1][-1] - at_its_pace[1][0]
    assert b"has no answer to this request" in unknown
    assert UPSTREAM_KEY.encode() not in tape
    assert boxes.KEY.encode() not in tape


def _said(answer: bytes) -> str:
    return "".join(re.findall(r'"content":"([^"]*)"', answer.decode()))


def test_damaged_tape_is_told_at_the_start(tmp_path: Path) -> None:
    home = tmp_path / "box"
    home.mkdir()
    (home / "exchanges.jsonl").write_text('{"method":"POST"}\n', "utf-8")

    with (
        pytest.raises(RuntimeError, match=r"exchanges\.jsonl is damaged in line 1"),
        boxes.serve(home, toml=toml("http://127.0.0.1:9/v1", "replay"), environment=environment()),
    ):
        pass
