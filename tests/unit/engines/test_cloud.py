"""The service's engine against scripted servers on loopback: hosts, heads, paths, health, and what the service printed."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from peers import HEAD, Peer, Script, frame, peer
from qwenbox.engines.cloud import Cloud, CloudConfig, Protocol
from qwenbox.remote import Remote
from qwenbox.terms.chat import ChatRequest, ImagePart, Message, Role, Sampling, TextPart
from qwenbox.terms.engine import HealthState
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, fold

FOLDER = Path(__file__).parents[2] / "golden" / "cloud"
ASKED = ChatRequest(
    model="qwen-plus",
    messages=(Message(role=Role.USER, content=(TextPart(text="hi"),)),),
    sampling=Sampling(temperature=1.0, top_p=0.5),
    max_output_tokens=9,
    defaults={"temperature": 1.0, "max_output_tokens": 9, "is_enabled": False},
)
ANSWER = (
    b'id:1\nevent:result\n:HTTP_STATUS/200\ndata:{"output":{"choices":[{"message":{"content":"Hello","role":"assistant"},'
    b'"finish_reason":"stop"}]},"usage":{"input_tokens":3,"output_tokens":2},"request_id":"x"}\n\n'
)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
async def remote() -> AsyncIterator[Remote]:
    async with Remote() as it:
        yield it


def playing(*answers: tuple[int, bytes, bytes]) -> Script:
    """Status, media type and body of each answer in turn; the last one stays."""
    waiting = list(answers)

    async def play(_: Peer, writer: asyncio.StreamWriter) -> None:
        status, kind, body = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        writer.write(b"HTTP/1.1 %d X\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (status, kind, len(body), body))

    return play


GOOD = playing((200, b"text/event-stream", ANSWER))


def cloud(remote: Remote, url: str, environment: Mapping[str, str] | None = None, **settings: Any) -> Cloud:
    return Cloud(CloudConfig(address=url, **settings), remote, {"DASHSCOPE_API_KEY": "sk-hidden"} if environment is None else environment)


async def hear(engine: Cloud, request: ChatRequest = ASKED) -> list[ChatEvent]:
    async with engine.chat(request) as events:
        return [event async for event in events]


@pytest.mark.parametrize(
    ("settings", "root"),
    [
        ({}, "https://dashscope.aliyuncs.com"),
        ({"region": "ap-southeast-1"}, "https://dashscope-intl.aliyuncs.com"),
        ({"region": "us-east-1"}, "https://dashscope-us.aliyuncs.com"),
        ({"region": "cn-hongkong"}, "https://cn-hongkong.dashscope.aliyuncs.com"),
        ({"region": "eu-central-1", "workspace": "ws-1"}, "https://ws-1.eu-central-1.maas.aliyuncs.com"),
        ({"address": "https://proxy.example.com/ali/api/v1/"}, "https://proxy.example.com/ali"),
        ({"address": "http://127.0.0.1:1/compatible-mode/v1"}, "http://127.0.0.1:1"),
    ],
)
def test_config_names_the_host_by_region_workspace_or_address(settings: dict[str, str], root: str) -> None:
    assert root == msgspec.convert({"kind": "cloud", **settings}, CloudConfig).root


@pytest.mark.parametrize(
    "settings", [{"region": "eu-central-1"}, {"region": "mars"}, {"workspace": "evil.com/"}, {"address": "h"}, {"key": "sk-1"}]
)
def test_config_refuses_what_names_no_host(settings: dict[str, str]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"kind": "cloud", **settings}, CloudConfig)


async def test_a_call_says_what_the_caller_said_and_who_asks(remote: Remote) -> None:
    async with peer(GOOD) as it:
        assert "Hello" == fold(await hear(cloud(remote, it.url, workspace="ws-1"))).choices[0].text
    head, body = it.heard[0]
    assert head.startswith(b"POST /api/v1/services/aigc/text-generation/generation ")
    for line in (b"authorization: Bearer sk-hidden", b"x-dashscope-workspace: ws-1", b"x-dashscope-sse: enable"):
        assert line in head
    assert {"result_format": "message", "incremental_output": True, "top_p": 0.5} == json.loads(body)["parameters"]


async def test_a_call_says_the_catalogs_defaults_when_told_to(remote: Remote) -> None:
    async with peer(GOOD) as it:
        await hear(cloud(remote, it.url, sends_defaults=True))
    assert (1.0, 9) == tuple(json.loads(it.heard[0][1])["parameters"][name] for name in ("temperature", "max_tokens"))


async def test_a_shorter_answer_than_the_default_is_asked_for_when_a_limit_wants_it(remote: Remote) -> None:
    async with peer(GOOD) as it:
        await hear(cloud(remote, it.url), msgspec.structs.replace(ASKED, max_output_tokens=5))
    assert 5 == json.loads(it.heard[0][1])["parameters"]["max_tokens"]


async def test_a_model_of_the_other_path_is_asked_there_and_remembered(remote: Remote) -> None:
    wrong = '{"code":"InvalidParameter","message":"url error, please check url！"}'.encode()
    async with peer(playing((400, b"application/json", wrong), (200, b"text/event-stream", ANSWER))) as it:
        engine = cloud(remote, it.url)
        for _ in range(2):
            await hear(engine)
    paths = [head.split(b" ")[1].split(b"/")[-2] for head, _ in it.heard]
    assert [b"text-generation", b"multimodal-generation", b"multimodal-generation"] == paths


async def test_a_stored_picture_is_resolved_there(remote: Remote) -> None:
    picture = Message(role=Role.USER, content=(ImagePart(url="oss://a/b.png"), TextPart(text="?")))
    async with peer(GOOD) as it:
        await hear(cloud(remote, it.url), msgspec.structs.replace(ASKED, messages=(picture,)))
    assert b"x-dashscope-ossresourceresolve: enable" in it.heard[0][0]


@pytest.mark.parametrize(("model", "kind"), [("", ErrorKind.MODEL_NOT_FOUND), ("theirs", ErrorKind.FORBIDDEN)])
async def test_an_unknown_model_is_the_mistake_of_whoever_named_it(remote: Remote, model: str, kind: ErrorKind) -> None:
    body = b'{"code":"ModelNotFound","message":"Model can not be found."}'
    async with peer(playing((404, b"application/json", body))) as it:
        with pytest.raises(ApiError) as caught:
            await hear(cloud(remote, it.url, model=model))
    assert kind is caught.value.kind


@pytest.mark.parametrize("protocol", ["native", "openai"])
async def test_a_refused_key_says_so_and_never_itself(remote: Remote, protocol: str) -> None:
    async with peer(playing((401, b"application/json", b'{"code":"InvalidApiKey","error":{"code":"invalid_api_key"}}'))) as it:
        engine = cloud(remote, it.url, protocol=Protocol(protocol))
        with pytest.raises(ApiError) as caught:
            await hear(engine)
        health = await engine.health()
    assert ErrorKind.UNAUTHENTICATED is caught.value.kind
    assert (HealthState.DOWN, True) == (health.state, "check DASHSCOPE_API_KEY" in health.detail)
    assert "sk-hidden" not in f"{caught.value} {health} {engine.facts}"


async def test_health_is_asked_once_for_many_questions(remote: Remote) -> None:
    async with peer(playing((200, b"application/json", b"{}"))) as it:
        engine = cloud(remote, it.url)
        assert {HealthState.READY} == {(await engine.health()).state for _ in range(20)}
    assert 1 == len(it.heard)


@pytest.mark.parametrize("settings", [{}, {"key_file": "/nowhere/key"}])
async def test_a_missing_key_is_named_before_anybody_is_asked(remote: Remote, settings: dict[str, str]) -> None:
    engine = cloud(remote, "http://127.0.0.1:1", {}, **settings)
    health = await engine.health()
    assert HealthState.DOWN is health.state
    assert settings.get("key_file", "DASHSCOPE_API_KEY") in health.detail
    with pytest.raises(ApiError, match="no API key"):
        engine.chat(ASKED)


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("case", sorted(path.parent.name for path in FOLDER.glob("*/terms.json")))
async def test_what_the_service_printed_is_heard_as_it_meant_it(remote: Remote, case: str, size: int) -> None:
    """Captures of the service (their dates in terms.json), however the bytes are cut."""
    terms = json.loads((FOLDER / case / "terms.json").read_text())
    replies = sorted((FOLDER / case).glob("reply.*"))
    data = replies[0].read_bytes()

    async def play(_: Peer, writer: asyncio.StreamWriter) -> None:
        head = HEAD.replace(b"200 OK", b"%d X" % terms.get("status", 200))
        writer.write(head if replies[0].suffix == ".sse" else head.replace(b"text/event-stream", b"application/json"))
        for at in range(0, len(data), size):
            writer.write(frame(data[at : at + size]))
        writer.write(b"0\r\n\r\n")

    async with peer(play) as it:
        engine = Cloud(CloudConfig(address=it.url, protocol=Protocol(terms.get("protocol", "native"))), remote, {"DASHSCOPE_API_KEY": "k"})
        request = msgspec.structs.replace(ASKED, n=terms.get("n", 1))
        if "error" in terms:
            with pytest.raises(ApiError) as caught:
                await hear(engine, request)
            assert terms["error"] == [caught.value.kind.value, caught.value.message]
        else:
            assert msgspec.convert(terms["events"], list[ChatEvent]) == await hear(engine, request)
