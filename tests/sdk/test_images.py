"""Pictures as the SDKs ask for them: tasks of ImageSynthesis, sync and aio, the 2.0 client's images, one-shot forms, openai's images."""

import base64
import json
import struct
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import dashscope
import httpx
import openai
import pytest
from dashscope import ImageSynthesis, MultiModalConversation
from dashscope.aigc.image_generation import AioImageGeneration, ImageGeneration
from dashscope.aigc.image_synthesis import AioImageSynthesis
from dashscope.api_entities.aio_session import close_shared_aio_session

import boxes
from boxes import Box
from sdk import forms
from support import pictures

CAT = f"data:image/png;base64,{base64.b64encode(pictures.drawn()).decode()}"
PROMPT = "一只戴帽子的猫, a cat in a hat"
MODEL = "wan2.2-t2i-flash"
PATH = "/api/v1/services/aigc/text2image/image-synthesis"

# One task at a time, each with a while to go: what waits can be looked at.
SLOW = """
[engine.echo]
kind = "echo"
first_delay_s = 1.5
[tasks]
concurrency = 1
lease_s = 1.0
poll_s = 0.2
"""


def png(data: bytes) -> tuple[int, int, dict[str, str]]:
    """Width, height and texts of a PNG file, every chunk of which is sound."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    texts, pixels, place, size = {}, b"", 8, (0, 0)
    while place < len(data):
        length = int.from_bytes(data[place : place + 4])
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        assert zlib.crc32(kind + body) == int.from_bytes(data[place + 8 + length : place + 12 + length])
        if kind == b"IHDR":
            size = struct.unpack(">II", body[:8])
        elif kind == b"iTXt":
            name, _, text = body.partition(b"\0")
            texts[name.decode()] = text[4:].decode()
        elif kind == b"IDAT":
            pixels += body
        place += 12 + length
    assert len(zlib.decompress(pixels)) == (size[0] + 1) * size[1]
    return size[0], size[1], texts


def fetched(url: str) -> bytes:
    reply = httpx.get(url, trust_env=False)
    assert (reply.status_code, reply.headers["content-type"]) == (200, "image/png")
    return reply.content


def headers(key: str = boxes.KEY, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", **more}


@asynccontextmanager
async def aio() -> AsyncIterator[None]:
    """A loop closes what its aio classes opened."""
    try:
        yield
    finally:
        await close_shared_aio_session()


@pytest.fixture
def native(box: Box, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    monkeypatch.setattr(dashscope, "base_http_api_url", box.native)
    monkeypatch.setattr(dashscope, "api_key", box.key)
    yield box


@pytest.fixture(scope="module")
def slow_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with boxes.serve(tmp_path_factory.mktemp("slow"), toml=SLOW) as running:
        yield running


@pytest.fixture
def slow(slow_box: Box, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    monkeypatch.setattr(dashscope, "base_http_api_url", slow_box.native)
    monkeypatch.setattr(dashscope, "api_key", slow_box.key)
    yield slow_box


def test_synthesis_call_gives_every_picture_of_its_size(native: Box):
    reply = ImageSynthesis.call(MODEL, PROMPT, negative_prompt="no dogs", n=2, size="512*768", seed=7)

    assert (reply.status_code, reply.output.task_status, reply.usage.image_count) == (200, "SUCCEEDED", 2), reply
    assert reply.output.task_metrics == {"TOTAL": 2, "SUCCEEDED": 2, "FAILED": 0}
    pictures = [png(fetched(result.url)) for result in reply.output.results]
    assert [(width, height) for width, height, _ in pictures] == [(512, 768)] * 2
    assert [texts["Description"] for _, _, texts in pictures] == [PROMPT] * 2
    assert [texts["Seed"] for _, _, texts in pictures] == ["7", "8"]
    assert pictures[0][2]["Negative"] == "no dogs"
    again = ImageSynthesis.call(MODEL, PROMPT, negative_prompt="no dogs", n=2, size="512*768", seed=7)
    assert [fetched(result.url) for result in again.output.results] == [fetched(result.url) for result in reply.output.results]


def test_a_task_is_submitted_fetched_and_waited_for(native: Box):
    submitted = ImageSynthesis.async_call(MODEL, PROMPT)
    assert (submitted.status_code, submitted.output.task_status) == (200, "PENDING")
    waited = ImageSynthesis.wait(submitted)
    fetched_again = ImageSynthesis.fetch(submitted.output.task_id)

    assert waited.output.task_status == fetched_again.output.task_status == "SUCCEEDED"
    assert waited.output.results == fetched_again.output.results and len(waited.output.results) == 1
    assert png(fetched(waited.output.results[0].url))[:2] == (1024, 1024)
    for name in ("submit_time", "scheduled_time", "end_time"):
        time.strptime(waited.output[name].partition(".")[0], "%Y-%m-%d %H:%M:%S")


async def test_aio_synthesis_is_the_same(native: Box):
    async with aio():
        submitted = await AioImageSynthesis.async_call(MODEL, PROMPT, seed=3)
        waited = await AioImageSynthesis.wait(submitted)
        whole = await AioImageSynthesis.call(MODEL, PROMPT, seed=3)

        assert waited.output.task_status == whole.output.task_status == "SUCCEEDED"
        assert fetched(waited.output.results[0].url) == fetched(whole.output.results[0].url)
        assert (await AioImageSynthesis.fetch(submitted)).output == waited.output
        listed = await AioImageSynthesis.list(page_size=2)
        assert submitted.output.task_id in [task["task_id"] for task in listed.output["data"]]


def test_only_what_waits_can_be_cancelled(slow: Box):
    running, waiting = (ImageSynthesis.async_call(MODEL, PROMPT) for _ in range(2))
    cancelled = ImageSynthesis.cancel(waiting)
    assert cancelled.status_code == HTTPStatus.OK
    assert ImageSynthesis.fetch(waiting).output.task_status == "CANCELED"
    assert ImageSynthesis.wait(waiting).output.task_status == "CANCELED"

    assert ImageSynthesis.wait(running).output.task_status == "SUCCEEDED"
    refused = ImageSynthesis.cancel(running)
    assert (refused.status_code, refused.code) == (400, "UnsupportedOperation")
    assert refused.message == "Failed to cancel the task, please confirm if the task is in PENDING status."
    assert ImageSynthesis.fetch(running).output.task_status == "SUCCEEDED"


async def test_aio_cancels_what_waits(slow: Box):
    async with aio():
        running, waiting = [await AioImageSynthesis.async_call(MODEL, PROMPT) for _ in range(2)]
        assert (await AioImageSynthesis.cancel(waiting)).status_code == 200
        assert (await AioImageSynthesis.fetch(waiting)).output.task_status == "CANCELED"
        assert (await AioImageSynthesis.wait(running)).output.task_status == "SUCCEEDED"


def test_tasks_are_listed_newest_first_and_by_page(native: Box):
    made = [ImageSynthesis.async_call("wanx2.1-t2i-turbo", PROMPT).output.task_id for _ in range(3)]
    for task_id in made:
        ImageSynthesis.wait(task_id)
    listed = ImageSynthesis.list(page_no=1, page_size=2, model_name="wanx2.1-t2i-turbo", status="SUCCEEDED")
    rest = ImageSynthesis.list(page_no=2, page_size=2, model_name="wanx2.1-t2i-turbo")

    assert listed.status_code == 200
    assert (listed.output["total"], listed.output["total_page"]) == (3, 2)
    assert [task["task_id"] for task in listed.output["data"] + rest.output["data"]] == made[::-1]
    task = listed.output["data"][0]
    assert task["user_api_unique_key"] == "apikey:v1:aigc:text2image:image-synthesis:wanx2.1-t2i-turbo"
    assert task["gmt_create"] <= task["start_time"] <= task["end_time"]
    assert ImageSynthesis.list(end_time="20200101000000").output["total"] == 0
    assert ImageSynthesis.list(start_time="20200101000000").output["total"] >= 3


def test_synchronous_forms_answer_at_once(native: Box):
    synthesis = ImageSynthesis.sync_call(MODEL, PROMPT, size="512*512", n=2)
    assert synthesis.status_code == 200 and len(synthesis.output.results) == 2
    assert png(fetched(synthesis.output.results[1].url))[:2] == (512, 512)

    messages: Any = [{"role": "user", "content": [{"text": PROMPT}]}]
    generated = ImageGeneration.call(model="wan2.6-t2i", messages=messages, size="1280*720", n=1)
    assert generated.status_code == 200, generated
    assert generated.output.choices[0].finish_reason == "stop"
    assert png(fetched(generated.output.choices[0].message.content[0]["image"]))[:2] == (1280, 720)
    assert dict(generated.usage)["image_count"] == 1 and dict(generated.usage)["width"] == 1280

    drawn = MultiModalConversation.call(model="qwen-image", messages=messages, watermark=False, prompt_extend=True, negative_prompt="fog")
    assert drawn.status_code == 200, drawn
    width, height, texts = png(fetched(drawn.output.choices[0].message.content[0]["image"]))
    assert (width, height, texts["Negative"]) == (1664, 928, "fog")


def test_generation_from_messages_is_a_task_too(native: Box):
    messages: Any = [{"role": "user", "content": [{"text": PROMPT}, {"image": CAT}]}]
    submitted = ImageGeneration.async_call(model="wan2.6-image", messages=messages, n=2)
    waited = ImageGeneration.wait(submitted)

    assert (waited.output.task_status, len(waited.output.choices)) == ("SUCCEEDED", 2), waited
    assert png(fetched(waited.output.choices[1].message.content[0]["image"]))[:2] == (1280, 1280)


async def test_aio_generation_answers_at_once_and_as_a_task(native: Box):
    async with aio():
        messages: Any = [{"role": "user", "content": [{"text": PROMPT}]}]
        whole = await AioImageGeneration.call(model="wan2.6-t2i", messages=messages, seed=1)
        waited = await AioImageGeneration.wait(await AioImageGeneration.async_call(model="wan2.6-t2i", messages=messages, seed=1))
        first, second = (reply.output.choices[0].message.content[0]["image"] for reply in (whole, waited))
        assert fetched(first) == fetched(second)


@pytest.mark.parametrize("model", [MODEL, "wan2.6-t2i"])
def test_the_new_client_generates_and_follows_jobs(box: Box, model: str):
    with dashscope.Client(api_key=box.key, base_url=box.native, workspace="ws-test") as client:
        job = client.images.generate(model=model, prompt=PROMPT, size="512x512", n=2, seed=5)
        assert job.succeeded and len(job.image_urls) == 2
        assert [png(fetched(url))[:2] for url in job.image_urls] == [(512, 512)] * 2

        created = client.images.jobs.create(model=model, prompt=PROMPT)
        waited = client.images.jobs.wait(created)
        assert waited.succeeded and waited.image_urls
        assert client.images.jobs.fetch(waited.task_id).image_urls == waited.image_urls
        assert waited.task_id in [item.task_id for item in client.images.jobs.list(page_size=5).tasks]
        assert client.images.jobs.fetch("no-such-task").status == "UNKNOWN"


async def test_the_new_async_client_generates(box: Box):
    async with dashscope.AsyncClient(api_key=box.key, base_url=box.native, workspace="ws-test") as client:
        job = await client.images.generate(model=MODEL, prompt=PROMPT)
        assert job.succeeded and png(fetched(job.image_urls[0]))[:2] == (1024, 1024)


def test_openai_gives_links_and_bytes(box: Box):
    with forms.openai_client(box) as client:
        linked = client.images.generate(model="qwen-image", prompt=PROMPT, size="1024x1024", n=2, extra_body={"seed": 9})
        inline = client.images.generate(model="qwen-image", prompt=PROMPT, response_format="b64_json", n=2, extra_body={"seed": 9})
    assert linked.data is not None and inline.data is not None
    assert png(fetched(linked.data[0].url or ""))[:2] == (1024, 1024)
    assert [item.b64_json for item in linked.data] == [None, None]
    assert [png(base64.b64decode(item.b64_json or ""))[:2] for item in inline.data] == [(1664, 928)] * 2
    assert [item.url for item in inline.data] == [None, None]


async def test_openai_async_is_the_same(box: Box):
    async with openai.AsyncOpenAI(base_url=box.compatible, api_key=box.key) as client:
        made = await client.images.generate(model=MODEL, prompt=PROMPT, response_format="b64_json")
    assert made.data and png(base64.b64decode(made.data[0].b64_json or ""))[2]["Software"].startswith("qwenbox echo")


def test_tasks_and_calls_are_told_apart_as_the_service_does(native: Box):
    asked = {"model": "wanx-v1", "input": {"prompt": PROMPT}, "parameters": {}}
    refused = httpx.post(f"{native.base_url}{PATH}", json=asked, headers=headers(), trust_env=False)
    assert refused.status_code == 403
    assert (refused.json()["code"], refused.json()["message"]) == ("AccessDenied", "current user api does not support synchronous calls.")
    messages = {"model": "qwen-plus", "input": {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}}
    for path in ("multimodal-generation/generation", "text-generation/generation"):
        url = f"{native.native}/services/aigc/{path}"
        refused = httpx.post(url, json=messages, headers=headers(**{"x-dashscope-async": "enable"}), trust_env=False)
        assert (refused.status_code, refused.json()["message"]) == (403, "Current user api does not support asynchronous calls.")
    drawn = {"model": "wan2.6-t2i", **{"input": messages["input"]}}
    url = f"{native.native}/services/aigc/image-generation/generation"
    refused = httpx.post(url, json=drawn, headers=headers(), trust_env=False)
    assert (refused.status_code, refused.json()["message"]) == (403, "current user api does not support synchronous calls.")


def test_a_task_nobody_knows_is_unknown(native: Box):
    for task_id in ("1111", "%E4%BD%A0", "a/b", "x" * 300):
        reply = httpx.get(f"{native.native}/tasks/{task_id}", headers=headers(), trust_env=False)
        assert (reply.status_code, reply.json()["output"]["task_status"]) == (200, "UNKNOWN")
    refused = httpx.post(f"{native.native}/tasks/1111/cancel", headers=headers(), trust_env=False)
    assert (refused.status_code, refused.json()["code"]) == (400, "UnsupportedOperation")


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"n": 5}, "InvalidParameter"),
        ({"n": 0}, "InvalidParameter"),
        ({"n": "two"}, "InvalidParameter"),
        ({"size": "big"}, "InvalidParameter"),
        ({"size": "16*16"}, "InvalidParameter"),
        ({"size": "99999*99999"}, "InvalidParameter"),
        ({"seed": -1}, "InvalidParameter"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_it_is_a_task(native: Box, changed: dict[str, Any], code: str):
    body = json.dumps({"model": MODEL, "input": {"prompt": PROMPT}, "parameters": changed}).encode()
    for more in ({}, {"x-dashscope-async": "enable"}):
        reply = httpx.post(f"{native.base_url}{PATH}", content=body, headers=headers(**more), trust_env=False)
        assert (reply.status_code, reply.json()["code"]) == (400, code), reply.text


def test_a_box_that_cannot_draw_says_how_to_get_there(tmp_path: Path):
    with boxes.serve(tmp_path, profile="laptop", toml=boxes.CATALOG_ON_ECHO) as laptop:
        asked = {"model": MODEL, "input": {"prompt": PROMPT}, "parameters": {}}
        native = httpx.post(f"{laptop.base_url}{PATH}", json=asked, headers=headers(**{"x-dashscope-async": "enable"}), trust_env=False)
        assert (native.status_code, native.json()["code"]) == (404, "ModelNotFound")
        messages = {"model": "qwen-image", "input": {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}}
        multimodal = httpx.post(
            f"{laptop.native}/services/aigc/multimodal-generation/generation", json=messages, headers=headers(), trust_env=False
        )
        with forms.openai_client(laptop) as client, pytest.raises(openai.NotFoundError) as refused:
            client.images.generate(model=MODEL, prompt=PROMPT)
    for text in (native.json()["message"], multimodal.json()["message"], refused.value.message):
        assert "qwenbox[images]" in text and "docs/images.md" in text
