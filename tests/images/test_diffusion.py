"""A diffusers pipeline behind the SDKs: random weights, so that the picture means nothing and everything around it is real."""

import base64
import io
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dashscope
import httpx
import pytest
from dashscope import ImageSynthesis
from PIL import Image, ImageChops

import boxes
from boxes import Box
from images import tiny_pipeline
from sdk import forms

PROMPT = "a cat in a hat"
MODEL = "tiny"
TOML = """
[engine.tiny]
kind = "diffusion"
folder = "{folder}"
steps = 4
threads = 1
[engine.nowhere]
kind = "diffusion"
folder = "{folder}-nowhere"
[[model]]
name = "tiny"
deployments = ["tiny"]
[model.card]
context_tokens = 8192
capabilities = ["image"]
images = {{ width = 64, height = 64, least_side = 16, most_side = 256, most_n = 4 }}
[[model]]
name = "nowhere"
deployments = ["nowhere"]
[model.card]
context_tokens = 8192
capabilities = ["image"]
[[price]]
model = "tiny"
from = 2025-01-01
currency = "CNY"
tiers = [{{ input_micros = 0, output_micros = 0, picture_micros = 140_000 }}]
"""


@pytest.fixture(scope="module")
def drawing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    home = tmp_path_factory.mktemp("drawing")
    folder = tiny_pipeline.write(home / "weights" / "tiny")
    with boxes.serve(home, toml=TOML.format(folder=folder)) as running:
        yield running


@pytest.fixture
def native(drawing: Box, monkeypatch: pytest.MonkeyPatch) -> Box:
    monkeypatch.setattr(dashscope, "base_http_api_url", drawing.native)
    monkeypatch.setattr(dashscope, "api_key", drawing.key)
    return drawing


def drawn(url: str) -> Image.Image:
    reply = httpx.get(url, trust_env=False)
    assert (reply.status_code, reply.headers["content-type"]) == (200, "image/png")
    image = Image.open(io.BytesIO(reply.content))
    image.load()
    return image


def inline(box: Box, **asked: Any) -> list[bytes]:
    extra = {name: asked.pop(name) for name in ("seed", "negative_prompt", "watermark", "num_inference_steps") if name in asked}
    with forms.openai_client(box) as client:
        made = client.images.generate(model=MODEL, prompt=PROMPT, response_format="b64_json", extra_body=extra, **asked)
    return [base64.b64decode(item.b64_json or "") for item in made.data or []]


def test_a_task_draws_every_picture_in_its_size(native: Box):
    reply = ImageSynthesis.call(MODEL, PROMPT, negative_prompt="dogs", n=2, size="64*96", seed=1)

    assert (reply.output.task_status, reply.usage.image_count) == ("SUCCEEDED", 2), reply
    first, second = (drawn(result.url) for result in reply.output.results)
    assert first.size == second.size == (64, 96)
    assert first.tobytes() != second.tobytes()


def test_a_seed_is_a_promise(drawing: Box):
    first, again, other = (inline(drawing, seed=seed, n=2) for seed in (5, 5, 6))
    assert first == again
    # Pictures count on from the first one's seed.
    assert first[1] == other[0] != first[0]
    assert inline(drawing, seed=5, negative_prompt="dogs")[0] != first[0]
    assert inline(drawing, seed=5, num_inference_steps=2)[0] != first[0]
    assert inline(drawing)[0] != inline(drawing)[0]


def test_a_mark_is_drawn_where_it_is_asked_for(drawing: Box):
    plain, marked = (Image.open(io.BytesIO(inline(drawing, seed=1, watermark=mark)[0])) for mark in (False, True))
    where = ImageChops.difference(plain.convert("RGB"), marked.convert("RGB")).getbbox()
    assert where is not None and where[0] >= 32 and where[1] >= 32


@pytest.mark.parametrize(
    ("asked", "said"), [({"size": "65x64"}, "multiples of 2"), ({"size": "512x512"}, "sides of a picture"), ({"n": 9}, "Range of n")]
)
def test_what_the_pipeline_cannot_draw_is_refused(drawing: Box, asked: dict[str, Any], said: str):
    body = {"model": MODEL, "prompt": PROMPT, **asked}
    reply = httpx.post(
        f"{drawing.compatible}/images/generations", json=body, headers={"authorization": f"Bearer {drawing.key}"}, trust_env=False
    )
    assert reply.status_code == 400 and said in reply.json()["error"]["message"], reply.text


def test_weights_that_are_not_here_are_told(drawing: Box):
    body = {"model": "nowhere", "prompt": PROMPT}
    reply = httpx.post(
        f"{drawing.compatible}/images/generations", json=body, headers={"authorization": f"Bearer {drawing.key}"}, trust_env=False
    )
    assert reply.status_code == 404 and "model_index.json" in reply.json()["error"]["message"], reply.text


def test_every_picture_has_its_price(drawing: Box):
    body = {"model": MODEL, "prompt": PROMPT, "n": 3}
    reply = httpx.post(
        f"{drawing.compatible}/images/generations", json=body, headers={"authorization": f"Bearer {drawing.key}"}, trust_env=False
    )
    receipt = httpx.get(
        f"{drawing.base_url}/qwenbox/v1/receipts/{reply.headers['x-request-id']}",
        headers={"authorization": f"Bearer {drawing.key}"},
        trust_env=False,
    ).json()
    assert receipt["call"]["cost_micros"] == 3 * 140_000, receipt
    assert [(line["kind"], line["tokens"], line["amount_micros"]) for line in receipt["lines"]] == [("pictures", 3, 420_000)]


def test_a_child_that_dies_is_started_again(native: Box):
    inline(native, seed=1)
    child = _child(native)
    os.kill(child, signal.SIGKILL)
    # A task outlives the child: it is tried again.
    reply = ImageSynthesis.call(MODEL, PROMPT, seed=1)
    assert reply.output.task_status == "SUCCEEDED", reply
    assert _child(native) != child


def _child(box: Box) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _is_child(entry, box.process.pid):
                return int(entry.name)
        time.sleep(0.1)
    raise AssertionError("the box has no child that draws")


def _is_child(entry: Path, parent: int) -> bool:
    try:
        command = (entry / "cmdline").read_bytes()
        return b"qwenbox.children.diffusion" in command and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent
    except (OSError, ValueError):
        return False


def test_what_it_takes_is_measured(drawing: Box, capsys: pytest.CaptureFixture[str]):
    """Figures for docs/images.md; nothing is asserted of time."""
    inline(drawing, seed=1)
    started = time.monotonic()
    inline(drawing, seed=1, num_inference_steps=10)
    took = time.monotonic() - started
    status = (Path("/proc") / str(_child(drawing)) / "status").read_text()
    held = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    with capsys.disabled():
        print(json.dumps({"picture_64x64_10_steps_s": round(took, 3), "child_rss_mb": int(held) // 1024}))
