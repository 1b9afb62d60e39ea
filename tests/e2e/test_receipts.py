"""Receipts: every way a call can end is billed once, for what was produced, and never for less than the client received."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import httpx
import openai
import pytest

from boxes import Box
from e2e.engines import weights_file
from peers import END, HEAD, Peer, frame, peer
from qwenbox.engines import gguf
from qwenbox.engines.prompt import PromptTemplate, render_ids
from qwenbox.engines.tokenizer import Tokenizer
from qwenbox.terms.chat import ChatRequest, Message, Role, TextPart, ToolSpec
from support.books import Books
from wire import COMPATIBLE_CHAT, NATIVE_CHAT, call, native, post

SLOW = '[engine.echo]\nkind = "echo"\ndelay_s = 0.02\n'
LONG = " ".join(["word"] * 200)
TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "数到六：count to six\n\n<|im_end|>"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "description": "城市"}}, "required": ["city"]}


def upstream(address: str, *, has_key: bool = False, more: str = "") -> str:
    key = 'key_env = "UPSTREAM_KEY"\n' if has_key else ""
    model = '[[model]]\nname = "qwen-turbo"\ndeployments = ["up"]\n[model.card]\ncontext_tokens = 4096\ncapabilities = ["chat", "tools"]\n'
    return f'[engine.up]\nkind = "openai_server"\naddress = "{address}"\n{key}{more}{model}'


def receipt(box: Box, request_id: str) -> Mapping[str, Any]:
    """As its caller asks for it. A call that was cut is booked a moment after the client has gone."""
    deadline = time.monotonic() + 60
    while (heard := call(box, "GET", f"/qwenbox/v1/receipts/{request_id}")).status == 404 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert 200 == heard.status, heard.body
    bill = heard.json
    print("\n" + json.dumps(bill, ensure_ascii=False))
    assert bill["call"]["cost_micros"] == -(-sum(line["tokens"] * line["price_micros"] for line in bill["lines"]) // 1_000_000)
    return bill["call"]


def stream_some(box: Box, pieces: int, headers: Mapping[str, str] | None = None) -> tuple[str, int]:
    """Read so many chunks with text of a long stream and hang up: the request id, and the tokens received (echo: one per chunk)."""
    body = {"model": "qwen-turbo", "messages": [{"role": "user", "content": LONG}], "stream": True}
    seen = 0
    with httpx.stream("POST", f"{box.base_url}{COMPATIBLE_CHAT}", json=body, headers={"authorization": f"Bearer {box.key}"}) as response:
        for line in response.iter_lines():
            if line.startswith("data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                seen += 1
                if seen == pieces:
                    break
        return response.headers["x-request-id"], seen


def test_receipt_of_a_whole_call_adds_up(box: Box) -> None:
    heard = post(box, COMPATIBLE_CHAT, {"model": "qwen-plus", "messages": [{"role": "user", "content": "hello"}]})
    bill = receipt(box, heard.headers["x-request-id"])
    assert heard.json["usage"]["prompt_tokens"] == bill["input_tokens"]
    assert heard.json["usage"]["completion_tokens"] == bill["output_tokens"]
    assert "completed" == bill["outcome"]
    assert bill["cost_micros"] > 0


def test_receipt_of_a_stream_equals_its_usage(box: Box) -> None:
    client = openai.OpenAI(api_key=box.key, base_url=box.compatible)
    stream = client.chat.completions.create(
        model="qwen-plus", messages=[{"role": "user", "content": LONG}], stream=True, stream_options={"include_usage": True}
    )
    usage = [chunk.usage for chunk in stream if chunk.usage][-1]
    bill = receipt(box, stream.response.headers["x-request-id"])
    assert (usage.prompt_tokens, usage.completion_tokens) == (bill["input_tokens"], bill["output_tokens"])


def test_receipt_of_a_hung_up_stream_bills_what_was_produced(serve) -> None:
    box = serve(toml=SLOW)
    request_id, received = stream_some(box, 20)
    bill = receipt(box, request_id)
    assert "hung_up" == bill["outcome"]
    assert received <= bill["output_tokens"] < 200
    assert bill["cost_micros"] > 0


def test_receipt_of_a_stream_whose_engine_was_killed_bills_what_was_produced(serve) -> None:
    engine = serve(toml=SLOW)
    box = serve(toml=upstream(engine.compatible, has_key=True), environment={"UPSTREAM_KEY": engine.key})
    body = {"model": "qwen-turbo", "messages": [{"role": "user", "content": LONG}], "stream": True}
    received, is_failed = 0, False
    with httpx.stream("POST", f"{box.base_url}{COMPATIBLE_CHAT}", json=body, headers={"authorization": f"Bearer {box.key}"}) as response:
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            data = json.loads(line[6:])
            if "error" in data:
                is_failed = True
                break
            received += bool(data["choices"] and data["choices"][0]["delta"].get("content"))
            if received == 20:
                engine.process.kill()
    bill = receipt(box, response.headers["x-request-id"])
    assert is_failed
    assert "failed" == bill["outcome"]
    assert received <= bill["output_tokens"] < 200
    assert bill["cost_micros"] > 0


async def _silent_about_usage(it: Peer, writer) -> None:
    writer.write(HEAD)
    for text in ("one two three ", "four five six"):
        delta = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        chunk = {**delta, "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
        writer.write(frame(b"data: " + json.dumps(chunk).encode() + b"\n\n"))
    stop = {**delta, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    writer.write(frame(b"data: " + json.dumps(stop).encode() + b"\n\ndata: [DONE]\n\n") + END)
    await writer.drain()


@pytest.mark.anyio
@pytest.mark.parametrize("is_streamed", [True, False])
async def test_receipt_of_an_upstream_without_usage_is_counted(serve, is_streamed: bool) -> None:
    async with peer(_silent_about_usage) as silent:
        box = await anyio.to_thread.run_sync(lambda: serve(toml=upstream(silent.url)))
        body = {"model": "qwen-turbo", "messages": [{"role": "user", "content": "count to six"}], "stream": is_streamed}
        heard = await anyio.to_thread.run_sync(lambda: post(box, COMPATIBLE_CHAT, body))
        bill = await anyio.to_thread.run_sync(lambda: receipt(box, heard.headers["x-request-id"]))
    assert bill["is_counted"]
    assert 6 <= bill["output_tokens"] <= 12
    assert bill["input_tokens"] >= 3
    assert bill["cost_micros"] > 0


@pytest.mark.e2e
@pytest.mark.anyio
@pytest.mark.parametrize("tokenizer", ['tokenizer = "own"\n', ""], ids=["own", "any"])
@pytest.mark.parametrize("is_streamed", [True, False])
async def test_receipt_of_an_upstream_without_usage_is_what_the_qwen_vocabulary_says(
    serve, weights_folder: Path, tokenizer: str, is_streamed: bool
) -> None:
    file = weights_file(weights_folder)
    own = f'[weights.own]\ntitle = "own"\npath = "{file}"\n'
    tool = {"type": "function", "function": {"name": "weather", "description": "of a city, now", "parameters": SCHEMA}}
    body = {"model": "qwen-turbo", "messages": TURNS, "tools": [tool], "stream": is_streamed}
    async with peer(_silent_about_usage) as silent:
        box = await anyio.to_thread.run_sync(lambda: serve(toml=upstream(silent.url, more=tokenizer) + own))
        heard = await anyio.to_thread.run_sync(lambda: post(box, COMPATIBLE_CHAT, body))
        bill = await anyio.to_thread.run_sync(lambda: receipt(box, heard.headers["x-request-id"]))
    weights = gguf.read(file)
    tokenizer_of_file = Tokenizer(weights)
    request = ChatRequest(
        model="m",
        messages=tuple(Message(role=Role(turn["role"]), content=(TextPart(text=turn["content"]),)) for turn in TURNS),
        tools=(ToolSpec(name="weather", description="of a city, now", parameters=json.dumps(SCHEMA).encode()),),
    )
    assert len(render_ids(PromptTemplate(weights.chat_template), tokenizer_of_file, request)) == bill["input_tokens"]
    assert len(tokenizer_of_file.encode_plain("one two three four five six")) == bill["output_tokens"]
    assert (True, {"counted_by": "vocabulary"}) == (bill["is_counted"], bill["notes"])
    if not is_streamed:
        usage = heard.json["usage"]
        assert (bill["input_tokens"], bill["output_tokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])


@pytest.mark.e2e
@pytest.mark.anyio
async def test_native_stream_of_an_upstream_without_usage_ends_with_what_is_billed(serve, weights_folder: Path) -> None:
    own = f'[weights.own]\ntitle = "own"\npath = "{weights_file(weights_folder)}"\n'
    async with peer(_silent_about_usage) as silent:
        box = await anyio.to_thread.run_sync(lambda: serve(toml=upstream(silent.url) + own))
        heard = await anyio.to_thread.run_sync(lambda: post(box, NATIVE_CHAT, native(), headers={"x-dashscope-sse": "enable"}))
        bill = await anyio.to_thread.run_sync(lambda: receipt(box, heard.headers["x-request-id"]))
    usage = json.loads(heard.body.rsplit(b"data:", 1)[1])["usage"]
    assert (bill["input_tokens"], bill["output_tokens"]) == (usage["input_tokens"], usage["output_tokens"])
    assert bill["input_tokens"] > 5


def test_receipt_of_a_whole_answer_that_failed_costs_nothing(serve) -> None:
    engine = serve(toml=SLOW)
    box = serve(toml=upstream(engine.compatible, has_key=True), environment={"UPSTREAM_KEY": engine.key})
    engine.process.kill()
    heard = post(box, COMPATIBLE_CHAT, {"model": "qwen-turbo", "messages": [{"role": "user", "content": LONG}]})
    assert heard.status >= 500
    bill = receipt(box, heard.headers["x-request-id"])
    assert ("failed", 0) == (bill["outcome"], bill["cost_micros"])


def test_receipts_of_one_call_rise_from_turbo_to_plus_to_max(serve) -> None:
    box = serve()
    bills = []
    for model in ("qwen-turbo", "qwen-plus", "qwen-max"):
        heard = post(box, COMPATIBLE_CHAT, {"model": model, "messages": [{"role": "user", "content": "the same question"}]})
        bills.append(receipt(box, heard.headers["x-request-id"]))
    assert 1 == len({(bill["input_tokens"], bill["output_tokens"]) for bill in bills})
    costs = [bill["cost_micros"] for bill in bills]
    assert sorted(set(costs)) == costs
    assert [] == Books(box).faults()


def test_receipt_is_its_callers_own(box: Box, catalog_box: Box) -> None:
    heard = post(catalog_box, COMPATIBLE_CHAT, {"model": "qwen-turbo", "messages": [{"role": "user", "content": "mine"}]})
    assert 404 == call(box, "GET", f"/qwenbox/v1/receipts/{heard.headers['x-request-id']}").status
    assert 401 == call(catalog_box, "GET", f"/qwenbox/v1/receipts/{heard.headers['x-request-id']}", key=None).status
