"""Pictures at hostile addresses, through a running box in both dialects: the service's error, nothing inside touched, no memory taken."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import boxes
import wire
from boxes import Box
from qwenbox.media import refusals
from support import outside, pictures
from support.hostile_urls import INSIDE, MALFORMED
from wire import Heard

TOML = """
[media]
allow = ["127.0.0.2"]
item_s = 1.5
[engine.echo]
kind = "echo"
[[model]]
name = "qwen-vl-plus"
deployments = ["echo"]
card = { context_tokens = 131072, max_output_tokens = 8192, capabilities = ["chat", "vision"] }
"""
_MIB = 1024 * 1024
MOST_GROWTH_BYTES = 50 * _MIB


@dataclass(frozen=True)
class World:
    """outside: where pictures may come from. inside: where nobody may go."""

    box: Box
    outside: outside.Server
    inside: outside.Server


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with (
        boxes.serve(tmp_path_factory.mktemp("pictures"), toml=TOML) as box,
        outside.serve() as fetched,
        outside.listen_inside() as inside,
    ):
        yield World(box, fetched, inside)
        assert inside.connections == 0


def native(box: Box, item: dict[str, Any]) -> Heard:
    body = {"model": "qwen-vl-plus", "input": {"messages": [{"role": "user", "content": [item, {"text": "What is this?"}]}]}}
    return wire.post(box, wire.NATIVE_MULTIMODAL, body)


def compatible(box: Box, url: str, *, is_streamed: bool = False) -> Heard:
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is this?"}]
    return wire.post(
        box, wire.COMPATIBLE_CHAT, {"model": "qwen-vl-plus", "stream": is_streamed, "messages": [{"role": "user", "content": content}]}
    )


def refused(box: Box, url: str) -> str:
    """The text that both dialects refuse a picture with, whole and streamed."""
    heard = [native(box, {"image": url}), compatible(box, url), compatible(box, url, is_streamed=True)]
    assert [one.status for one in heard] == [400] * 3, [one.body for one in heard]
    first, *others = [one.error["message"] for one in heard]
    assert [first, first] == others
    assert heard[0].error["code"] in ("InvalidParameter", "InvalidParameter.DataInspection")
    assert (heard[1].error["code"], heard[1].error["type"]) == ("invalid_parameter_error", "invalid_request_error")
    return first


def memory_bytes(box: Box, name: str = "VmHWM") -> int:
    """VmHWM: the most since `forget_memory`; VmRSS: now."""
    status = Path(f"/proc/{box.process.pid}/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) * 1024


def forget_memory(box: Box) -> int:
    Path(f"/proc/{box.process.pid}/clear_refs").write_text("5")
    return memory_bytes(box, "VmRSS")


@pytest.mark.parametrize("url", [url for url in MALFORMED if "\\" not in url])
def test_url_is_refused_when_it_is_no_plain_http_address(world: World, url: str) -> None:
    assert refused(world.box, url.replace("{port}", str(world.inside.port))) == refusals.WRONG_URL


@pytest.mark.parametrize("url", INSIDE)
def test_address_is_refused_when_it_is_inside(world: World, url: str) -> None:
    assert refused(world.box, url.replace("{port}", str(world.inside.port))) in (refusals.NOT_FETCHED, refusals.WRONG_URL)
    assert world.inside.connections == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_refused_when_it_leads_inside(world: World, status: int) -> None:
    inside = world.inside.url
    world.outside.answers |= {"/there": outside.redirect(f"{inside}/a.png", status), "/further": outside.redirect("/there", status)}

    assert refused(world.box, f"{world.outside.url}/further") == refusals.NOT_FETCHED


@pytest.mark.parametrize(
    "url", [url for url in INSIDE if "{port}" in url and url.isascii()] + ["file:///etc/passwd", "gopher://127.0.0.1:{port}/_"]
)
def test_redirect_is_refused_however_the_address_is_written(world: World, url: str) -> None:
    world.outside.answers["/hop"] = outside.redirect(url.replace("{port}", str(world.inside.port)))

    heard = compatible(world.box, f"{world.outside.url}/hop")

    assert (heard.status, heard.error["message"] in (refusals.NOT_FETCHED, refusals.WRONG_URL)) == (400, True)


def test_redirects_are_given_up_when_they_do_not_end(world: World) -> None:
    world.outside.answers["/circle"] = outside.redirect("/circle")

    assert refused(world.box, f"{world.outside.url}/circle") == refusals.FAILED


def test_frames_of_a_film_are_refused_when_one_is_inside(world: World) -> None:
    world.outside.answers["/frame"] = outside.file(pictures.drawn())
    frames = [f"{world.outside.url}/frame"] * 5 + [f"{world.inside.url}/frame"]

    heard = native(world.box, {"video": frames})

    assert (heard.status, heard.error["message"]) == (400, refusals.NOT_FETCHED)
    assert (native(world.box, {"video": frames[:3]}).error["message"]) == refusals.WRONG_FRAMES


BODIES = {
    "10 GB by its own word": (
        outside.endless(b"HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n", bytes(65_536)),
        refusals.TOO_LARGE,
    ),
    "without end": (outside.endless(b"HTTP/1.1 200 OK\r\n\r\n" + pictures.drawn(), bytes(65_536)), refusals.TOO_LARGE),
    "without end, in pieces": (
        outside.endless(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\n\xff\xd8\xff\xe0\r\n", b"10000\r\n" + bytes(65_536) + b"\r\n"
        ),
        refusals.TOO_LARGE,
    ),
    "without end, of zeros": (outside.endless(b"HTTP/1.1 200 OK\r\n\r\n", bytes(65_536)), refusals.NOT_DECODED),
    "a head without end": (outside.endless(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 100), refusals.FAILED),
    "drop by drop": (outside.slow(pictures.drawn()[:40]), refusals.TIMED_OUT),
    "gzip": (outside.file(pictures.zeros(16), "content-encoding: gzip"), refusals.FAILED),
}


@pytest.mark.parametrize(("answer", "text"), BODIES.values(), ids=BODIES.keys())
def test_body_is_refused_when_it_does_not_end_well(world: World, answer: outside.Answer, text: str) -> None:
    world.outside.answers["/body"] = answer
    before = forget_memory(world.box)

    assert refused(world.box, f"{world.outside.url}/body") == text
    assert memory_bytes(world.box) - before < MOST_GROWTH_BYTES


@pytest.mark.parametrize(("name", "data"), pictures.bombs().items(), ids=pictures.bombs().keys())
def test_bomb_is_refused_before_it_takes_memory(world: World, name: str, data: bytes) -> None:
    world.outside.answers["/bomb"] = outside.file(data)
    before = forget_memory(world.box)

    text = refused(world.box, f"{world.outside.url}/bomb")

    assert text.partition(" [")[0] in (refusals.NOT_DECODED, refusals.WRONG_SIZE)
    assert memory_bytes(world.box) - before < MOST_GROWTH_BYTES


def test_memory_stays_when_many_large_bodies_come_at_once(world: World) -> None:
    world.outside.answers["/many"] = BODIES["without end"][0]
    compatible(world.box, f"{world.outside.url}/many")
    before = forget_memory(world.box)

    with ThreadPoolExecutor(16) as pool:
        heard = list(pool.map(lambda _: compatible(world.box, f"{world.outside.url}/many"), range(48)))

    assert {(one.status, one.error["message"]) for one in heard} <= {(400, refusals.TOO_LARGE), (400, refusals.TIMED_OUT)}
    most, left = memory_bytes(world.box) - before, memory_bytes(world.box, "VmRSS") - before
    print(f"\nat most {most / _MIB:.0f} MiB more than before, {left / _MIB:.0f} MiB afterwards")
    assert most < MOST_GROWTH_BYTES


def test_nothing_of_a_picture_is_logged(world: World) -> None:
    secret = "token=a-secret-in-a-url"

    compatible(world.box, f"{world.outside.url}/none?{secret}")
    compatible(world.box, f"http://10.0.0.1/{secret}")

    assert secret not in world.box.log
    assert json.dumps(secret) not in world.box.log
