"""Hostile requests for pictures, tasks and links over raw HTTP: no 5xx, nothing of our insides, nobody else's tasks."""

import json
import random
from typing import Any

import pytest

import wire
from boxes import Box
from contract.test_hostile_requests import LEAKS

NATIVE = "/api/v1/services/aigc/"
PATHS = ("text2image/image-synthesis", "image2image/image-synthesis", "image-generation/generation", "multimodal-generation/generation")
SYNTHESIS: dict[str, Any] = {
    "model": "wan2.2-t2i-flash",
    "input": {"prompt": "p", "negative_prompt": "n", "images": ["https://x/a.png"], "function": "doodle"},
    "parameters": {"size": "512*512", "n": 1, "seed": 1, "style": "<auto>", "watermark": False, "ref_mode": "repaint"},
}
MESSAGES: dict[str, Any] = {
    "model": "wan2.6-t2i",
    "input": {"messages": [{"role": "user", "content": [{"text": "p"}, {"image": "oss://x"}]}]},
    "parameters": {"size": "512*512", "n": 1, "prompt_extend": True},
}
COMPATIBLE: dict[str, Any] = {"model": "qwen-image", "prompt": "p", "n": 1, "size": "512x512", "response_format": "url", "seed": 1}
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    5,
    2**63,
    10**400,
    0.5,
    "",
    "\0",
    "x" * 5_000,
    "\ud800",
    "0*0",
    "99999*99999",
    [],
    [None],
    {},
    {"a": {}},
    [[[]]],
)
NAMES = ("wanx-v1", "qwen-plus", "qwen-image", "*", "../../etc/passwd", "text-embedding-v4", "\0", "模型")


def mutated(body: Any, draw: random.Random) -> Any:
    """One to three places changed or gone."""
    for _ in range(draw.randint(1, 3)):
        holder = body
        while True:
            key = draw.choice(list(holder)) if isinstance(holder, dict) else draw.randrange(len(holder))
            if isinstance(holder[key], dict | list) and holder[key] and draw.random() < 0.8:
                holder = holder[key]
                continue
            break
        if draw.random() < 0.2:
            del holder[key]
        else:
            holder[key] = draw.choice(NAMES if key == "model" else VALUES)
        if not body:
            break
    return body


def sound(heard: wire.Heard, asked: object) -> None:
    assert heard.status < 500, (asked, heard.status, heard.body)
    if heard.status != 200:
        assert not any(leak in heard.body for leak in LEAKS), (asked, heard.body)


@pytest.mark.parametrize("seed", range(4))
def test_no_body_breaks_what_draws(box: Box, seed: int, is_full: bool):
    draw = random.Random(seed)
    statuses: list[int] = []
    for _ in range(1_000 if is_full else 60):
        path = draw.choice([*(NATIVE + name for name in PATHS), "/v1/images/generations"])
        base = COMPATIBLE if path.startswith("/v1") else MESSAGES if draw.random() < 0.5 else SYNTHESIS
        body = json.dumps(mutated(json.loads(json.dumps(base)), draw)).encode()
        if draw.random() < 0.1:
            body = body[: draw.randrange(len(body))]
        headers = {"x-dashscope-async": "enable"} if draw.random() < 0.5 else {}
        heard = wire.call(box, "POST", path, body, headers=headers)
        sound(heard, (path, body))
        statuses.append(heard.status)
    assert 200 in statuses and 400 in statuses


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/tasks/%00",
        "/api/v1/tasks/../../models",
        "/api/v1/tasks/" + "a" * 5_000,
        "/api/v1/tasks/%ff%fe",
        "/api/v1/tasks?page_no=0",
        "/api/v1/tasks?page_no=99999999999999999999",
        "/api/v1/tasks?page_size=%D9%A3",
        "/api/v1/tasks?start_time=99999999999999",
        "/api/v1/tasks?status=nothing",
        "/api/v1/tasks?model_name=%00",
        "/results/",
        "/results/..%2f..%2fqwenbox.db?Expires=1&Signature=1",
        "/results/a.png?Expires=%D9%A3&Signature=%ff",
        "/results/a.png?Expires=" + "9" * 400 + "&Signature=0",
    ],
)
def test_no_path_breaks_tasks_and_links(box: Box, path: str):
    for method in ("GET", "POST", "DELETE"):
        sound(wire.call(box, method, path), (method, path))


def test_a_link_says_nothing_of_a_foreign_host(box: Box):
    body = {"model": "wan2.2-t2i-flash", "input": {"prompt": "p"}, "parameters": {"size": "512*512"}}
    path = NATIVE + PATHS[0]
    heard = wire.call(box, "POST", path, json.dumps(body).encode(), headers={"host": 'evil"><script>'})
    assert b"script" not in heard.body
