"""A call through `cloud` to a second box that plays DashScope is the call a client could have made there itself, field by field.

Between the two boxes, and before the second one, a plain proxy keeps what was said; nothing of ours is replaced.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import httpx
import pytest

import boxes
from boxes import Box
from sdk import forms
from support.listening import Listening, listening

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "天气",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ASKED = [{"role": "system", "content": "你是一个有帮助的助手。"}, {"role": "user", "content": "请介绍一下 NLP 🙂\n谢谢。"}]
CALLED = [
    {"role": "user", "content": "get_weather 杭州"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "杭州"}'}}],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "晴，22 度"},
]
GREEDY = {"temperature": 0.0}
CASES: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "plain": (ASKED, GREEDY),
    "every parameter": (
        ASKED,
        {"temperature": 1.3, "top_p": 0.7, "top_k": 11, "seed": 42, "max_tokens": 40, "repetition_penalty": 1.2, "presence_penalty": 0.5},
    ),
    "cut": (ASKED, {**GREEDY, "max_tokens": 5}),
    "stopped": (ASKED, {**GREEDY, "stop": ["NLP"]}),
    "three choices": (ASKED, {"temperature": 1.0, "seed": 5, "n": 3}),
    "tools": ([{"role": "user", "content": "get_weather"}], {**GREEDY, "tools": [WEATHER]}),
    "tool result": (CALLED, {**GREEDY, "tools": [WEATHER]}),
    "forced tool": (ASKED, {**GREEDY, "tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}}),
    "json": ([{"role": "user", "content": "json please"}], {**GREEDY, "response_format": {"type": "json_object"}}),
    "logprobs": (ASKED, {**GREEDY, "logprobs": True, "top_logprobs": 2}),
    "thinking": (ASKED, {**GREEDY, "enable_thinking": True, "thinking_budget": 6}),
    "too long": ([{"role": "user", "content": "word " * 140_000}], GREEDY),
}
# So that a box is ready though its service is not.
LOCAL = """
[engine.here]
kind = "echo"
[[model]]
name = "here"
deployments = ["here"]
[model.card]
context_tokens = 1000
"""
every_case = pytest.mark.parametrize("case", CASES)
# Replies differ in nothing else: ids by call, `created` by the second.
_IDS = re.compile(rb"(chatcmpl-)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|call_[0-9a-f]{22,}")
_TIMES = re.compile(rb'"created":\d+')


@pytest.fixture(scope="module")
def wire(box: Box) -> Iterator[Listening]:
    """What the box that plays DashScope was asked."""
    with listening(box.base_url) as heard:
        yield heard


@pytest.fixture(scope="module", params=["native", "openai"])
def through(request: pytest.FixtureRequest, wire: Listening, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """The box in front of it."""
    toml = f"""
[engine.echo]
kind = "cloud"
address = "{wire.url}"
protocol = "{request.param}"
[retries]
attempts = 1
[cache]
enabled = false
"""
    with boxes.serve(tmp_path_factory.mktemp("cloud"), toml=toml, environment={"DASHSCOPE_API_KEY": boxes.KEY}) as running:
        yield running


def protocol_of(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["through"])


def native(messages: list[dict[str, Any]], options: dict[str, Any], *, is_streamed: bool) -> tuple[str, dict[str, Any], dict[str, str]]:
    parameters = {"result_format": "message", **({"incremental_output": True} if is_streamed else {}), **options}
    body = {"model": "qwen-plus", "input": {"messages": messages}, "parameters": parameters}
    return "/api/v1/services/aigc/text-generation/generation", body, {"x-dashscope-sse": "enable"} if is_streamed else {}


def compatible(messages: list[dict[str, Any]], options: dict[str, Any], *, is_streamed: bool) -> tuple[str, dict[str, Any], dict[str, str]]:
    streamed = {"stream": True, "stream_options": {"include_usage": True}} if is_streamed else {}
    return "/compatible-mode/v1/chat/completions", {"model": "qwen-plus", "messages": messages, **streamed, **options}, {}


Shape = Callable[..., tuple[str, dict[str, Any], dict[str, str]]]


def asked(base_url: str, asking: tuple[str, dict[str, Any], dict[str, str]]) -> tuple[int, bytes]:
    path, body, headers = asking
    reply = httpx.post(base_url + path, json=body, headers={"authorization": f"Bearer {boxes.KEY}", **headers}, timeout=60, trust_env=False)
    return reply.status_code, _TIMES.sub(b'"created":0', _IDS.sub(b"ID", reply.content))


@every_case
@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "stream"])
def test_an_answer_equals_the_direct_one_byte_for_byte(box: Box, through: Box, case: str, is_streamed: bool, request) -> None:
    """In the dialect of the protocol: status, body, every frame of a stream with its usage."""
    shape: Shape = native if protocol_of(request) == "native" else compatible
    asking = shape(*CASES[case], is_streamed=is_streamed)
    assert asked(box.base_url, asking) == asked(through.base_url, asking)


@every_case
@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "stream"])
def test_a_request_reaches_the_service_as_it_was_sent(through: Box, wire: Listening, case: str, is_streamed: bool, request) -> None:
    """What the caller said and nothing else, but for streaming, which is always asked for."""
    shape: Shape = native if protocol_of(request) == "native" else compatible
    asking = shape(*CASES[case], is_streamed=True)
    asked(through.base_url, shape(*CASES[case], is_streamed=is_streamed))
    path, headers, body = wire.heard[-1]
    assert (asking[0], asking[1]) == (path, json.loads(body))
    assert f"Bearer {boxes.KEY}" == headers["authorization"]


@pytest.mark.parametrize("form", forms.EVERY.values(), ids=forms.EVERY)
@pytest.mark.parametrize("case", ["plain", "three choices", "tools", "thinking", "logprobs"])
def test_every_sdk_hears_the_same_through_the_box_as_directly(box: Box, through: Box, form: forms.Form, case: str, request) -> None:
    """Texts piece by piece, calls, reasons, tokens and counts; ids apart. dashscope 1.x, its v2 client, and openai.

    The compatible protocol tells usage at a stream's end only, so a native stream on top of it cannot tell it sooner.
    """
    messages, options = CASES[case]
    direct, by_cloud = [comparable(form(where, messages, model="qwen-plus", **options)) for where in (box, through)]
    if protocol_of(request) == "openai" and direct["pieces"] is not None and case == "three choices":
        for counted in ("input_tokens", "output_tokens"):
            del direct[counted], by_cloud[counted]
    assert direct == by_cloud


def comparable(outcome: forms.Outcome) -> dict[str, Any]:
    told = asdict(outcome)
    assert told.pop("request_id")
    for choice in told["choices"]:
        for call in choice["calls"]:
            assert call.pop(0)
    return told


def test_what_the_box_may_not_do_at_the_service_is_not_said_of_its_client(box: Box, serve) -> None:
    """A refused key of the box is no 401 for the client, and names the box."""
    wrong = serve(
        toml=f'[engine.echo]\nkind = "cloud"\naddress = "{box.base_url}"\n' + LOCAL, environment={"DASHSCOPE_API_KEY": "sk-wrong"}
    )
    for asking in (native(ASKED, GREEDY, is_streamed=False), compatible(ASKED, GREEDY, is_streamed=True)):
        status, body = asked(wrong.base_url, asking)
        assert (500, True) == (status, b"this box's API key" in body)
    assert "sk-wrong" not in wrong.log


def test_a_box_without_a_key_starts_and_says_what_is_missing(serve) -> None:
    keyless = serve(profile="cloud", toml=LOCAL)
    ready = httpx.get(f"{keyless.base_url}/ready", trust_env=False).json()["models"]
    status, body = asked(keyless.base_url, native(ASKED, GREEDY, is_streamed=False))
    assert (["down"], ["ready"]) == (ready["qwen-plus"], ready["here"])
    assert (500, True) == (status, b"set DASHSCOPE_API_KEY" in body)
    assert "set DASHSCOPE_API_KEY" in keyless.log
