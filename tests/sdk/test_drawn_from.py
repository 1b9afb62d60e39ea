"""Pictures that are drawn from others, through the SDKs: the box gets them within its limits, and whoever draws gets their bytes."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dashscope
import httpx
import pytest
from dashscope import ImageSynthesis
from dashscope.aigc.image_generation import ImageGeneration

import boxes
import wire
from boxes import Box
from qwenbox.media import refusals
from sdk import forms
from support import outside, pictures

TOML = """
[media]
allow = ["127.0.0.2"]
[engine.service]
kind = "cloud"
address = "{peer}"
key_file = "{key}"
[[model]]
name = "wanx2.1-imageedit"
deployments = ["service"]
[model.card]
context_tokens = 8192
capabilities = ["image"]
images = {{ width = 512, height = 512, least_side = 384, most_inputs = 2 }}
"""
MODEL = "wanx2.1-imageedit"
EDITING = "/api/v1/services/aigc/image2image/image-synthesis"
FIRST, SECOND = pictures.drawn(colour="navy"), pictures.drawn(colour="red")


@dataclass(frozen=True)
class World:
    """front: a box whose pictures the box behind draws, as if that were the service, which fetches from nowhere."""

    front: Box
    behind: Box
    outside: outside.Server


@pytest.fixture(scope="module")
def world(box: Box, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("front")
    (home / "key").write_text(box.key)
    with (
        outside.serve(answers={"/a.png": outside.file(FIRST), "/b.png": outside.file(SECOND)}) as fetched,
        boxes.serve(home, profile="laptop", toml=boxes.CATALOG_ON_ECHO + TOML.format(peer=box.base_url, key=home / "key")) as front,
    ):
        yield World(front, box, fetched)


@pytest.fixture(autouse=True)
def pointed(world: World) -> None:
    forms.point(world.front)


def inline(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def drawn(url: str, **more: Any) -> Any:
    """The output of a task."""
    reply = ImageSynthesis.call(MODEL, "a cat", base_image_url=url, function="doodle", n=1, size="512*512", seed=3, **more)
    assert reply.status_code == 200, reply
    return reply.output


def file_of(output: Any) -> bytes:
    assert output.task_status == "SUCCEEDED", output
    return httpx.get(output.results[0].url, trust_env=False).content


def test_whoever_draws_gets_the_bytes_wherever_the_picture_is(world: World, tmp_path: Path) -> None:
    (tmp_path / "我的 猫.png").write_bytes(FIRST)
    forms.point(world.behind)
    expected, other = file_of(drawn(inline(FIRST))), file_of(drawn(inline(SECOND)))
    assert expected != other
    forms.point(world.front)

    assert file_of(drawn(inline(FIRST))) == expected
    assert file_of(drawn(f"{world.outside.url}/a.png")) == expected
    assert file_of(drawn(f"{world.outside.url}/b.png")) == other
    assert file_of(drawn(str(tmp_path / "我的 猫.png"))) == expected


def test_messages_are_drawn_from_bytes_too(world: World) -> None:
    forms.point(world.behind)

    def asked(url: str) -> bytes:
        messages: Any = [{"role": "user", "content": [{"image": url}, {"text": "a cat"}]}]
        waited = ImageGeneration.wait(ImageGeneration.async_call(model="wan2.6-image", messages=messages, n=1, seed=1))
        assert waited.output.task_status == "SUCCEEDED", waited
        return httpx.get(waited.output.choices[0].message.content[0]["image"], trust_env=False).content

    assert asked(inline(FIRST)) != asked(inline(SECOND))


@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}/a.png", "http://[::1]:{port}/a.png", "http://169.254.169.254/latest"])
def test_a_task_fails_and_nobody_is_asked_when_the_picture_lies_inside(address: str) -> None:
    with outside.listen_inside() as inside:
        output = drawn(address.format(port=inside.port))

    assert (output.task_status, output.code) == ("FAILED", "InvalidParameter")
    assert inside.connections == 0


def test_a_name_of_an_upload_is_refused_without_its_header_and_when_nobody_uploaded_it(world: World) -> None:
    body = {"model": MODEL, "input": {"prompt": "a", "function": "doodle", "base_image_url": "oss://dashscope-instant/x/a.png"}}
    task = {"x-dashscope-async": "enable"}

    bare = wire.post(world.front, EDITING, body, headers=task)
    submitted = wire.post(world.front, EDITING, body, headers={**task, "x-dashscope-ossresourceresolve": "enable"})
    ended = ImageSynthesis.wait(submitted.json["output"]["task_id"])

    assert (bare.status, bare.json["code"], bare.json["message"]) == (400, "InvalidParameter", refusals.WRONG_URL)
    assert (ended.output.task_status, ended.output.code, ended.output.message) == ("FAILED", "InvalidParameter", refusals.WRONG_URL)


def test_a_file_that_is_no_picture_fails_the_task(world: World, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert dashscope.base_http_api_url == world.front.native

    assert drawn(str(tmp_path / "a.png")).task_status == "FAILED"


@pytest.mark.parametrize("field", ["ref_img", "sketch_image_url", "mask_image_url"])
def test_an_upload_is_refused_by_name_where_only_the_service_looks(world: World, field: str) -> None:
    body = {"model": MODEL, "input": {"prompt": "a", "function": "doodle", "base_image_url": inline(FIRST), field: "oss://x/a.png"}}

    heard = wire.post(world.front, EDITING, body, headers={"x-dashscope-async": "enable"})

    assert (heard.status, heard.json["code"]) == (400, "InvalidParameter")
    assert heard.json["message"].startswith(f"{field} takes http(s) addresses")
