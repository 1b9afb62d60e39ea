"""Our own client of chats, against a real box."""

import asyncio
from typing import Any

import msgspec
import pytest

from boxes import Box
from conftest import Serve
from qwenbox.client.admin import AdminClient, open_remote
from qwenbox.client.chat import ChatClient, Refused, open_chat
from qwenbox.client.usage import Receipt
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatResult, Fold, TextDelta
from qwenbox.terms.secret import Secret

pytestmark = pytest.mark.anyio

_TOOL = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def _body(text: str, **more: Any) -> bytes:
    asked = {"model": "qwen-turbo", "messages": [{"role": "user", "content": text}], "temperature": 0, **more}
    return msgspec.json.encode({**asked, "stream": True, "stream_options": {"include_usage": True}})


async def _ask(client: ChatClient, body: bytes) -> tuple[str, ChatResult]:
    fold = Fold()
    async with client.chat(body) as answer:
        async for event in answer.events:
            fold.add(event)
        return answer.request_id, fold.result()


async def test_an_answer_comes_as_events_and_has_a_receipt(box: Box) -> None:
    async with open_chat(box.base_url, Secret(box.key)) as client, open_remote(box.base_url, _admin_key(box)) as admin:
        request_id, result = await _ask(client, _body("你好 \\ \"'", enable_thinking=True))
        receipt = await admin.receipt(request_id)
    choice = result.choices[0]
    assert ("Echo: 你好 \\ \"'", True) == (choice.text, bool(choice.reasoning))
    assert (result.usage.input_tokens, result.usage.output_tokens) == (receipt.call.input_tokens, receipt.call.output_tokens)


async def test_a_count_is_what_the_call_is_billed_for(box: Box) -> None:
    tool = {"name": "weather", "description": "now", "parameters": _TOOL}
    body = _body("hello there", tools=[{"type": "function", "function": tool}])
    counted = {"model": "qwen-turbo", "messages": [{"role": "user", "content": "hello there"}]}
    tools = [{"name": "weather", "description": "now", "input_schema": _TOOL}]
    async with open_chat(box.base_url, Secret(box.key)) as client:
        _, result = await _ask(client, body)
        assert result.usage.input_tokens == await client.count(msgspec.json.encode({**counted, "tools": tools}))


async def test_a_refusal_has_the_boxs_words_code_and_request_id(box: Box) -> None:
    async with open_chat(box.base_url, Secret(box.key)) as client:
        with pytest.raises(Refused) as refused:
            await _ask(client, _body("hi", temperature=7))
        with pytest.raises(Refused) as miscounted:
            await client.count(b'{"model": "qwen-turbo", "messages": 1}')
    error = refused.value
    assert (400, "invalid_parameter_error", ErrorKind.INVALID_REQUEST) == (error.status, error.code, error.kind)
    assert "Temperature should be in [0.0, 2.0]" in error.message and error.request_id
    assert (400, "invalid_request_error") == (miscounted.value.status, miscounted.value.code)


async def test_a_wrong_key_is_told_and_not_shown(box: Box) -> None:
    async with open_chat(box.base_url, Secret("sk-not-a-key")) as client:
        with pytest.raises(Refused) as refused:
            await _ask(client, _body("hi"))
    assert (401, "invalid_api_key") == (refused.value.status, refused.value.code)
    assert "sk-not-a-key" not in repr(refused.value) + repr(client)


async def test_nobody_at_the_address_is_told() -> None:
    async with open_chat("http://127.0.0.1:9", Secret("sk-x")) as client:
        with pytest.raises(ApiError) as nobody:
            await _ask(client, _body("hi"))
    assert ErrorKind.OVERLOADED is nobody.value.kind


async def test_leaving_early_hangs_up_and_what_was_made_is_billed(serve: Serve) -> None:
    box = serve(toml='[engine.echo]\nkind = "echo"\ndelay_s = 0.02\n')
    async with open_chat(box.base_url, Secret(box.key)) as client, open_remote(box.base_url, _admin_key(box)) as admin:
        async with client.chat(_body("word " * 500)) as answer:
            async for event in answer.events:
                if isinstance(event, TextDelta):
                    break
        receipt = await _receipt(admin, answer.request_id)
    assert "hung_up" == receipt.call.outcome and 0 < receipt.call.output_tokens < 500


def _admin_key(box: Box) -> Secret:
    return Secret((box.home / "admin.key").read_text().strip())


async def _receipt(admin: AdminClient, request_id: str) -> Receipt:
    for _ in range(200):
        try:
            return await admin.receipt(request_id)
        except ApiError:
            await asyncio.sleep(0.05)
    raise AssertionError("no receipt")
