"""What the SDKs of Anthropic's Messages and of OpenAI's Responses meet alike: refusals with their classes, hang-ups, receipts, silence."""

import json
import time
from collections.abc import Iterator
from typing import Any, Protocol

import anthropic
import httpx
import openai
import pytest

import boxes
import wire
from boxes import Box

LONG = " ".join(["word"] * 400)
# Says one token every 20 ms, after half a second of silence; knows two models, and one account's third call of a minute is too many.
SLOW = """
[server]
heartbeat_s = 0.1
[engine.echo]
kind = "echo"
delay_s = 0.02
first_delay_s = 0.5
"""
NARROW = '[limits]\ndefault_tier = "test"\n[tier.test]\nrpm = 2\n'


class Sdk(Protocol):
    errors: Any
    path: str

    def client(self, box: Box, key: str = "") -> Any: ...
    def ask(self, client: Any, text: str, model: str = "qwen-turbo") -> Any: ...
    def body(self, text: str) -> dict[str, Any]: ...
    def tokens(self, answer: Any) -> tuple[int, int]: ...


class Anthropic:
    errors = anthropic
    path = wire.ANTHROPIC

    def client(self, box: Box, key: str = "") -> anthropic.Anthropic:
        return anthropic.Anthropic(api_key=key or box.key, base_url=f"{box.base_url}/apps/anthropic", max_retries=0)

    def ask(self, client: anthropic.Anthropic, text: str, model: str = "qwen-turbo") -> Any:
        return client.messages.create(model=model, max_tokens=2_000, messages=[{"role": "user", "content": text}])

    def body(self, text: str) -> dict[str, Any]:
        return wire.anthropic(messages=[{"role": "user", "content": text}], max_tokens=2_000, stream=True)

    def tokens(self, answer: Any) -> tuple[int, int]:
        return answer.usage.input_tokens + answer.usage.cache_read_input_tokens, answer.usage.output_tokens


class Responses:
    errors = openai
    path = wire.RESPONSES

    def client(self, box: Box, key: str = "") -> openai.OpenAI:
        return openai.OpenAI(api_key=key or box.key, base_url=box.compatible, max_retries=0)

    def ask(self, client: openai.OpenAI, text: str, model: str = "qwen-turbo") -> Any:
        return client.responses.create(model=model, input=text)

    def body(self, text: str) -> dict[str, Any]:
        return wire.responses(input=text, stream=True)

    def tokens(self, answer: Any) -> tuple[int, int]:
        return answer.usage.input_tokens, answer.usage.output_tokens


both = pytest.mark.parametrize("sdk", [Anthropic(), Responses()], ids=["anthropic", "responses"])


@pytest.fixture(scope="module")
def slow_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with boxes.serve(tmp_path_factory.mktemp("slow"), toml=SLOW) as running:
        yield running


@both
def test_refusals_have_their_classes(catalog_box: Box, sdk: Sdk):
    with sdk.client(catalog_box, "sk-wrong") as stranger, pytest.raises(sdk.errors.AuthenticationError):
        sdk.ask(stranger, "hi")
    with sdk.client(catalog_box) as client:
        with pytest.raises(sdk.errors.NotFoundError, match="qwen-imaginary"):
            sdk.ask(client, "hi", "qwen-imaginary")
        with pytest.raises(sdk.errors.BadRequestError, match="input length"):
            sdk.ask(client, "字" * 140_000)


@both
def test_too_many_calls_are_429_with_the_time_to_wait(serve, sdk: Sdk):
    with sdk.client(serve(toml=NARROW)) as client:
        for number in range(2):
            sdk.ask(client, f"question {number}")
        with pytest.raises(sdk.errors.RateLimitError) as caught:
            sdk.ask(client, "one more")

    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60


@both
def test_receipt_equals_the_usage(box: Box, sdk: Sdk):
    with sdk.client(box) as client:
        answer = sdk.ask(client, "讲个故事 once")

    bill = wire.call(box, "GET", f"/qwenbox/v1/receipts/{answer._request_id}").json["call"]

    assert (bill["input_tokens"], bill["output_tokens"]) == sdk.tokens(answer)
    assert (bill["outcome"], bill["dialect"]) == ("completed", "anthropic" if sdk.path == wire.ANTHROPIC else "openai")


@both
def test_hung_up_stream_is_billed_for_what_was_said(slow_box: Box, sdk: Sdk):
    headers = {"authorization": f"Bearer {slow_box.key}"}
    with httpx.stream("POST", f"{slow_box.base_url}{sdk.path}", json=sdk.body(LONG), headers=headers, timeout=30) as response:
        heard = 0
        for line in response.iter_lines():
            heard += "_delta" in line or "output_text.delta" in line
            if heard >= 10:
                break
        request_id = response.headers["x-request-id"]

    bill = _receipt(slow_box, request_id)

    assert bill["outcome"] == "hung_up"
    assert 3 <= bill["output_tokens"] < 400


@both
def test_silent_stream_is_kept_alive_with_what_its_wire_has(slow_box: Box, sdk: Sdk):
    heard = wire.post(slow_box, sdk.path, {**sdk.body("hi"), "max_tokens": 3, "max_output_tokens": 3})

    frames = heard.body.split(b"\n\n")
    beat = b'event: ping\ndata: {"type":"ping"}' if sdk.path == wire.ANTHROPIC else b": keep-alive"
    assert frames[0] == beat
    assert [frame for frame in frames if frame not in (beat, b"")][-1].startswith((b"event: message_stop", b"event: response.incomplete"))


def test_sdk_does_not_mind_pings(slow_box: Box):
    asked: Any = {"model": "qwen-turbo", "max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]}
    with Anthropic().client(slow_box) as client, client.messages.stream(**asked) as stream:
        assert stream.get_final_message().stop_reason == "max_tokens"


def _receipt(box: Box, request_id: str) -> dict[str, Any]:
    """A call that was cut is booked a moment after its client has gone."""
    deadline = time.monotonic() + 30
    while (heard := wire.call(box, "GET", f"/qwenbox/v1/receipts/{request_id}")).status == 404 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert heard.status == 200, heard.body
    return json.loads(heard.body)["call"]
