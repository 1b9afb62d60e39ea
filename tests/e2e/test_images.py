"""Pictures through whole boxes: drawn by a second box, kept through the end of a process, fetched until their time is over."""

import contextlib
import json
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import boxes
from boxes import Box
from support.admin_calls import TESTING, advance

PROMPT = "一座桥"
MODEL = "wan2.2-t2i-flash"
SYNTHESIS = "/api/v1/services/aigc/text2image/image-synthesis"
END_S = 60.0

# The second box's models by the OpenAI wire, and by the native one as if it were the service.
BEHIND = """
[engine.behind]
kind = "openai_server"
address = "{peer}/v1"
key_file = "{key}"
[engine.service]
kind = "cloud"
address = "{peer}"
key_file = "{key}"
[[model]]
name = "qwen-image"
deployments = ["behind"]
[model.card]
context_tokens = 8192
capabilities = ["image"]
images = {{ width = 512, height = 384, least_side = 384, most_inputs = 1 }}
"""
AT_SERVICE = """
[[model]]
name = "{name}"
deployments = ["service"]
[model.card]
context_tokens = 8192
capabilities = ["image"]
images = {{ width = 512, height = 512, least_side = 384, most_inputs = 2 }}
"""
SERVICE_MODELS = ("wan2.2-t2i-flash", "wan2.6-t2i", "qwen-image-plus", "wanx2.1-imageedit")
LASTING = """
[engine.echo]
kind = "echo"
first_delay_s = {delay_s}
[tasks]
lease_s = 1.0
poll_s = 0.2
[[price]]
model = "wan2.2-t2i-flash"
from = 2025-01-01
currency = "CNY"
tiers = [{{ input_micros = 0, output_micros = 0, picture_micros = 140_000 }}]
"""


def call(box: Box, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
    given = {"authorization": f"Bearer {box.key}", **headers}
    content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
    return httpx.request(method, f"{box.base_url}{path}", content=content, headers=given, trust_env=False, timeout=60)


def submit(box: Box, **parameters: Any) -> str:
    body = {"model": MODEL, "input": {"prompt": PROMPT}, "parameters": parameters}
    reply = call(box, "POST", SYNTHESIS, body, **{"x-dashscope-async": "enable"})
    assert reply.status_code == 200, reply.text
    return reply.json()["output"]["task_id"]


def task(box: Box, task_id: str) -> dict[str, Any]:
    return call(box, "GET", f"/api/v1/tasks/{task_id}").json()["output"]


def ended(box: Box, task_id: str, *states: str) -> dict[str, Any]:
    deadline = time.monotonic() + END_S
    while (told := task(box, task_id))["task_status"] not in (states or ("SUCCEEDED", "FAILED", "CANCELED", "UNKNOWN")):
        assert time.monotonic() < deadline, told
        time.sleep(0.05)
    return told


@pytest.fixture(scope="module")
def behind(box: Box, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box whose pictures the shared box draws."""
    home = tmp_path_factory.mktemp("behind")
    (home / "key").write_text(box.key)
    toml = BEHIND.format(peer=box.base_url, key=home / "key") + "".join(AT_SERVICE.format(name=name) for name in SERVICE_MODELS)
    with boxes.serve(home, profile="laptop", toml=boxes.CATALOG_ON_ECHO + toml) as running:
        yield running


def test_a_server_with_images_generations_draws(box: Box, behind: Box):
    asked = {"model": "qwen-image", "prompt": PROMPT, "n": 2, "seed": 3, "negative_prompt": "fog", "response_format": "b64_json"}
    ours = call(behind, "POST", "/v1/images/generations", asked)
    theirs = call(box, "POST", "/v1/images/generations", {**asked, "size": "512x384"})
    assert ours.status_code == theirs.status_code == 200, ours.text
    assert ours.json()["data"] == theirs.json()["data"] and len(ours.json()["data"]) == 2
    body = {"model": "qwen-image", "input": {"prompt": PROMPT}, "parameters": {"style": "<sketch>"}}
    refused = call(behind, "POST", SYNTHESIS, body)
    assert refused.status_code == 400 and "style" in refused.json()["message"]


@pytest.mark.parametrize("model", SERVICE_MODELS)
def test_the_service_draws_by_the_path_its_model_lives_on(box: Box, behind: Box, model: str):
    made = call(behind, "POST", "/v1/images/generations", {"model": model, "prompt": PROMPT, "seed": 4})
    assert made.status_code == 200, made.text
    link = made.json()["data"][0]["url"]
    assert link.startswith(behind.base_url)
    theirs = call(box, "POST", "/v1/images/generations", {"model": model, "prompt": PROMPT, "seed": 4, "size": "512x512"})
    assert fetch(link) == fetch(theirs.json()["data"][0]["url"])


def fetch(url: str) -> bytes:
    reply = httpx.get(url, trust_env=False)
    assert reply.status_code == 200, reply.text
    return reply.content


def test_a_task_goes_on_when_its_box_is_killed_and_is_billed_once(tmp_path: Path):
    with boxes.serve(tmp_path, toml=LASTING.format(delay_s=3.0)) as first:
        begun, waiting = submit(first, n=2, seed=1), submit(first, seed=2)
        ended(first, begun, "RUNNING")
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
    with boxes.serve(tmp_path, toml=LASTING.format(delay_s=0.2)) as second:
        told = [ended(second, task_id) for task_id in (begun, waiting)]
        assert [one["task_status"] for one in told] == ["SUCCEEDED"] * 2, told
        assert [len(one["results"]) for one in told] == [2, 1]
        assert all(fetch(result["url"]).startswith(b"\x89PNG") for one in told for result in one["results"])
        assert billed(tmp_path) == [140_000, 280_000]


def test_a_task_goes_on_when_its_box_is_stopped_in_order(tmp_path: Path):
    with boxes.serve(tmp_path, toml=LASTING.format(delay_s=3.0)) as first:
        begun = submit(first, seed=1)
        ended(first, begun, "RUNNING")
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(30) == 0
    with boxes.serve(tmp_path, toml=LASTING.format(delay_s=0.1)) as second:
        assert ended(second, begun)["task_status"] == "SUCCEEDED"
        assert billed(tmp_path) == [140_000]


def billed(home: Path) -> list[int]:
    """What the calls in the books have cost, those that cost nothing left out."""
    with contextlib.closing(sqlite3.connect(home / "qwenbox.db")) as books:
        return sorted(cost for (cost,) in books.execute("SELECT cost_micros FROM usage WHERE cost_micros > 0"))


def test_links_and_tasks_die_on_time_and_cannot_be_forged(tmp_path: Path):
    with boxes.serve(tmp_path, environment=TESTING) as clocked:
        told = ended(clocked, task_id := submit(clocked))
        link = told["results"][0]["url"]
        assert fetch(link).startswith(b"\x89PNG")
        assert httpx.post(link, trust_env=False).status_code == 405
        name, _, query = link.partition("?")
        later = query.replace("Expires=", "Expires=9")
        for url in (name, f"{name}?{later}", f"{name}x?{query}", f"{clocked.base_url}/results/?{query}", f"{link}0", link[:-1] + "é"):
            assert httpx.get(url, trust_env=False).status_code == 403, url
        assert httpx.get(f"{clocked.base_url}/results/../qwenbox.db?{query}", trust_env=False).status_code in (403, 404)

        advance(clocked, 24 * 3600 - 60)
        assert fetch(link) and task(clocked, task_id)["task_status"] == "SUCCEEDED"
        advance(clocked, 120)
        over = httpx.get(link, trust_env=False)
        assert over.status_code == 403 and "24 hours" in over.text
        assert task(clocked, task_id)["task_status"] == "UNKNOWN"
        assert call(clocked, "GET", "/api/v1/tasks").json()["total"] == 0
