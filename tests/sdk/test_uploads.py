"""Local files through the official SDKs: policy, form and oss:// name as 1.x and v2 make them; and what is refused of all that."""

import asyncio
import base64
import hashlib
import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dashscope
import openai
import pytest
from dashscope.aigc.multimodal_conversation import AioMultiModalConversation
from dashscope.api_entities.aio_session import close_shared_aio_session
from dashscope.utils.oss_utils import OssUtils

import boxes
import wire
from boxes import Box
from qwenbox.media import refusals
from sdk import forms
from support import outside, pictures, seeing
from support.admin_calls import TESTING, admin, advance
from wire import Heard

TOML = """
[media]
allow = ["127.0.0.2"]
[uploads]
limit_bytes = 2000000
[engine.sees]
kind = "openai_server"
address = "{address}"
[[model]]
name = "qwen-vl-plus"
deployments = ["sees"]
card = {{ context_tokens = 131072, max_output_tokens = 8192, capabilities = ["chat", "vision"] }}
"""
FIRST, SECOND = pictures.drawn(colour="navy"), pictures.drawn(colour="red")
RESOLVE = {"X-DashScope-OssResourceResolve": "enable"}


@dataclass(frozen=True)
class World:
    box: Box
    server: seeing.Seeing
    outside: outside.Server


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with seeing.serve() as server, outside.serve() as fetched:
        toml = TOML.format(address=server.url)
        with boxes.serve(tmp_path_factory.mktemp("uploads"), toml=toml, environment=TESTING) as box:
            yield World(box, server, fetched)


@pytest.fixture(autouse=True)
def pointed(world: World) -> None:
    forms.point(world.box)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Two pictures of one name, with signs in it that a path, a URL and a header write differently."""
    places = (tmp_path / "a" / "我的 图片&1.png", tmp_path / "b" / "我的 图片&1.png")
    for place, data in zip(places, (FIRST, SECOND), strict=True):
        place.parent.mkdir()
        place.write_bytes(data)
    return places


def asked(*urls: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*({"image": url} for url in urls), {"text": "What is this?"}]}]


def text_of(response: Any) -> str:
    assert response.status_code == 200, response
    return response.output.choices[0].message.content[0]["text"]


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_local_file_reaches_the_model_when_1x_sends_it(files: tuple[Path, Path], form: str) -> None:
    response = dashscope.MultiModalConversation.call(model="qwen-vl-plus", messages=asked(form.format(files[0])))

    assert text_of(response) == seeing.checksums(FIRST)


def test_two_files_of_one_name_are_two_pictures_when_1x_sends_them(files: tuple[Path, Path]) -> None:
    """The SDK uploads both under one name; the service itself refuses the second."""
    response = dashscope.MultiModalConversation.call(model="qwen-vl-plus", messages=asked(*map(str, files), str(files[0])))

    assert text_of(response) == seeing.checksums(FIRST, SECOND, FIRST)


def test_frames_reach_the_model_when_1x_sends_them(files: tuple[Path, Path]) -> None:
    first, second = map(str, files)
    messages = [{"role": "user", "content": [{"video": [first, second, first, second]}, {"text": "What is this?"}]}]

    assert text_of(dashscope.MultiModalConversation.call(model="qwen-vl-plus", messages=messages)) == seeing.checksums(*[FIRST, SECOND] * 2)


def test_local_file_reaches_the_model_when_1x_streams(files: tuple[Path, Path]) -> None:
    stream = dashscope.MultiModalConversation.call(
        model="qwen-vl-plus", messages=asked(str(files[0])), stream=True, incremental_output=True
    )
    texts = [piece["text"] for frame in stream for piece in frame.output.choices[0].message.content]

    assert "".join(texts) == seeing.checksums(FIRST)


def test_local_file_reaches_the_model_when_1x_is_asynchronous(files: tuple[Path, Path]) -> None:
    async def call() -> Any:
        try:
            return await AioMultiModalConversation.call(model="qwen-vl-plus", messages=asked(*map(str, files)))
        finally:
            await close_shared_aio_session()

    assert text_of(asyncio.run(call())) == seeing.checksums(FIRST, SECOND)


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_local_file_reaches_the_model_when_v2_sends_it(world: World, files: tuple[Path, Path], form: str) -> None:
    with forms.v2_client(world.box) as client:
        answer = client.multimodal.chat.create(model="qwen-vl-plus", messages=asked(form.format(files[0]), form.format(files[1])))

    assert answer.choices[0].message.content == seeing.checksums(FIRST, SECOND)


def test_local_file_reaches_the_model_when_v2_is_asynchronous(world: World, files: tuple[Path, Path]) -> None:
    async def call() -> Any:
        async with forms.v2_async_client(world.box) as client:
            return await client.multimodal.chat.create(model="qwen-vl-plus", messages=asked(str(files[0])))

    assert asyncio.run(call()).choices[0].message.content == seeing.checksums(FIRST)


def test_picture_reaches_the_model_as_bytes_from_wherever_it_is(world: World) -> None:
    """By address, by redirect, as a data URL and by the name of an upload; the model's server never sees an address."""
    world.outside.answers |= {"/a.png": outside.file(FIRST), "/to": outside.redirect("/a.png")}
    stored = upload(world.box, FIRST)
    inline = f"data:image/png;base64,{base64.b64encode(FIRST).decode()}"
    urls = [f"{world.outside.url}/a.png", f"{world.outside.url}/to", inline, stored]
    content = [*({"type": "image_url", "image_url": {"url": url}} for url in urls), {"type": "text", "text": "What is this?"}]
    client = openai.OpenAI(api_key=world.box.key, base_url=world.box.compatible, default_headers=RESOLVE, max_retries=0)

    answer = client.chat.completions.create(model="qwen-vl-plus", messages=[{"role": "user", "content": content}])  # type: ignore[list-item]

    assert answer.choices[0].message.content == seeing.checksums(*[FIRST] * 4)
    assert {address[:22] for address in world.server.sent[-1]} == {"data:image/png;base64,"}


def granted(box: Box, key: str = "") -> dict[str, Any]:
    heard = wire.call(box, "GET", "/api/v1/uploads?action=getPolicy&model=qwen-vl-plus", key=key)
    assert heard.status == 200, heard.body
    return heard.json["data"]


def form(grant: dict[str, Any], data: bytes, *, name: str = "a.png", **other: str | None) -> list[tuple[str, str]]:
    """The fields in the SDK's order; other: instead of them, None leaves one out."""
    fields: dict[str, str | None] = {
        "OSSAccessKeyId": grant["oss_access_key_id"],
        "Signature": grant["signature"],
        "policy": grant["policy"],
        "key": f"{grant['upload_dir']}/{name}",
        "x-oss-object-acl": grant["x_oss_object_acl"],
        "x-oss-forbid-overwrite": grant["x_oss_forbid_overwrite"],
        "success_action_status": "200",
        "x-oss-content-type": "image/png",
    }
    return [(name, value) for name, value in {**fields, **other}.items() if value is not None]


def post(grant: dict[str, Any], data: bytes, fields: list[tuple[str, str]], *, is_file_first: bool = False) -> Heard:
    boundary = "0123456789abcdef"
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields]
    held = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="../../etc/passwd"\r\n\r\n'.encode() + data + b"\r\n"
    parts.insert(0 if is_file_first else len(parts), held)
    place = urlsplit(grant["upload_host"])
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
    try:
        body = b"".join(parts) + f"--{boundary}--\r\n".encode()
        connection.request("POST", place.path, body, {"content-type": f"multipart/form-data; boundary={boundary}"})
        response = connection.getresponse()
        return Heard(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


def upload(box: Box, data: bytes, key: str = "") -> str:
    grant = granted(box, key)
    heard = post(grant, data, form(grant, data))
    assert heard.status == 200, heard.body
    return f"oss://{grant['upload_dir']}/a.png"


def seen(box: Box, url: str, *, key: str = "", headers: dict[str, str] | None = None) -> Heard:
    body = {"model": "qwen-vl-plus", "input": {"messages": asked(url)}}
    return wire.post(box, wire.NATIVE_MULTIMODAL, body, key=key, headers=RESOLVE if headers is None else headers)


def test_policy_is_told_as_the_service_tells_it(world: World) -> None:
    grant = granted(world.box)

    assert grant["upload_host"].startswith(world.box.base_url)
    assert (grant["expire_in_seconds"], grant["max_file_size_mb"], grant["x_oss_object_acl"]) == (300, 1, "private")
    assert grant["x_oss_forbid_overwrite"] == "true"
    policy = json.loads(base64.b64decode(grant["policy"]))
    assert ["content-length-range", 0, 2_000_000] in policy["conditions"]
    assert ["starts-with", "$key", f"{grant['upload_dir']}/"] in policy["conditions"]
    assert OssUtils.get_upload_certificate("qwen-vl-plus").output["upload_dir"] != grant["upload_dir"]


@pytest.mark.parametrize(
    ("query", "status"),
    [("", 400), ("action=getPolicy", 400), ("action=other&model=qwen-vl-plus", 400)],
)
def test_policy_is_refused_when_the_question_makes_no_sense(world: World, query: str, status: int) -> None:
    assert wire.call(world.box, "GET", f"/api/v1/uploads?{query}").status == status
    assert wire.call(world.box, "GET", "/api/v1/uploads?action=getPolicy&model=qwen-vl-plus", key=None).status == 401


def test_policy_is_refused_when_nobody_knows_the_model(catalog_box: Box) -> None:
    heard = wire.call(catalog_box, "GET", "/api/v1/uploads?action=getPolicy&model=none-such")

    assert (heard.status, heard.error["code"]) == (404, "ModelNotFound")


@pytest.mark.parametrize(
    "other",
    [
        {"Signature": "AAAA"},
        {"Signature": None},
        {"Signature": "ä"},
        {"policy": None},
        {"policy": base64.b64encode(b'{"expiration": "2099-01-01T00:00:00.000Z", "conditions": []}').decode()},
        {"key": "dashscope-instant/other/2025-01-01/x/a.png"},
        {"key": "../../../../etc/passwd"},
        {"key": None},
    ],
)
def test_upload_is_refused_when_it_is_not_what_was_signed(world: World, other: dict[str, str | None]) -> None:
    grant = granted(world.box)

    assert post(grant, FIRST, form(grant, FIRST, **other)).status == 403


def test_upload_is_refused_when_the_file_comes_before_its_policy(world: World) -> None:
    grant = granted(world.box)

    assert post(grant, FIRST, form(grant, FIRST), is_file_first=True).status == 403


def test_upload_is_refused_when_it_is_larger_than_was_signed(world: World) -> None:
    grant = granted(world.box)
    data = bytes(2_000_001)

    assert post(grant, data, form(grant, data)).status == 413


def test_upload_is_refused_when_its_policy_is_another_accounts(world: World) -> None:
    """A policy is good for its own folder only."""
    grant, other = granted(world.box), granted(world.box)

    assert post(grant, FIRST, form(grant, FIRST, key=f"{other['upload_dir']}/a.png")).status == 403


def test_nothing_a_client_said_is_kept_when_a_file_is(world: World, files: tuple[Path, Path]) -> None:
    dashscope.MultiModalConversation.call(model="qwen-vl-plus", messages=asked(str(files[0])))

    kept = sorted((world.box.home / "uploads").iterdir())
    assert {place.name[:7] for place in kept} == {"upload-"}
    assert hashlib.sha256(FIRST).digest() in {hashlib.sha256(place.read_bytes()).digest() for place in kept}
    database = b"".join(place.read_bytes() for place in world.box.home.glob("qwenbox.db*"))
    assert not [word for word in ("我的", "passwd", str(files[0].parent)) if word.encode() in database]


def test_name_is_refused_when_the_header_is_missing(world: World) -> None:
    stored = upload(world.box, FIRST)

    heard = seen(world.box, stored, headers={})

    assert (heard.status, heard.error["code"], heard.error["message"]) == (400, "InvalidParameter", refusals.WRONG_URL)
    assert seen(world.box, stored).status == 200


@pytest.mark.parametrize("url", ["oss://", "oss://dashscope-instant/none/a.png", "oss://../../qwenbox.db", "oss://\ud800", "oss:// \0"])
def test_name_is_refused_when_nobody_uploaded_it(world: World, url: str) -> None:
    body = json.dumps({"model": "qwen-vl-plus", "input": {"messages": asked(url)}}).encode()
    heard = wire.post(world.box, wire.NATIVE_MULTIMODAL, body, headers=RESOLVE)

    assert heard.status == 400
    assert heard.error["message"] == refusals.WRONG_URL or "\ud800" in url


def test_name_is_refused_when_another_account_uploaded_it(world: World) -> None:
    admin(world.box, "POST", "/accounts", {"name": "other"})
    other = admin(world.box, "POST", "/keys", {"account": "other", "name": "k"}).json["secret"]
    stored, theirs = upload(world.box, FIRST), upload(world.box, SECOND, other)

    foreign = [seen(world.box, stored, key=other), seen(world.box, theirs)]

    assert [(heard.status, heard.error["message"]) for heard in foreign] == [(400, refusals.WRONG_URL)] * 2
    assert [seen(world.box, stored).status, seen(world.box, theirs, key=other).status] == [200, 200]


def test_policy_and_file_are_over_when_their_time_is(tmp_path: Path) -> None:
    """On a box of its own, since its time is moved."""
    with seeing.serve() as server, boxes.serve(tmp_path, toml=TOML.format(address=server.url), environment=TESTING) as box:
        grant, stored = granted(box), upload(box, FIRST)
        advance(box, 301)
        late = post(grant, FIRST, form(grant, FIRST))
        assert (late.status, b"Policy expired" in late.body) == (403, True)
        advance(box, 48 * 3600 - 400)
        assert seen(box, stored).status == 200
        advance(box, 400)
        assert (seen(box, stored).status, seen(box, stored).error["message"]) == (400, refusals.WRONG_URL)

        # Whatever wakes the sweeper wakes it now: its bytes go, too.
        advance(box, 601)
        deadline = time.monotonic() + 60
        while list((tmp_path / "uploads").iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert list((tmp_path / "uploads").iterdir()) == []
