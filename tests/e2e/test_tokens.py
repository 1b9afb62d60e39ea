"""`qwenbox tokens` says beforehand what a call will report as its input; a trimmed history is told in header and receipt."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import dashscope
import openai
import pytest

import boxes
from boxes import Box
from wire import COMPATIBLE_CHAT, NATIVE_CHAT, call, post

pytestmark = pytest.mark.e2e

# Printed by what fails: the prompts follow from it.
SEED = 20261123
COUNT = 200
FEW = 5

WORDS = ("the", "model", "reads", "tokens,", "quick", "über", "naïve", "42", "3.14", "don't", "<|im_end|>", "🙂", "  ", "\n")
HAN = "今天天气怎么样？我们一起去公园散步吧，顺便聊聊人工智能与大模型的最佳实践。"
CODE = "def area(r: float) -> float:\n    # πr²\n    return 3.14159 * r ** 2\n\n\nprint(f'{area(2):.2f}')\n"
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "查询天气 by city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "enum": ["北京", "Zürich"]}}, "required": ["city"]},
    },
}


def prompts(count: int, longest: int) -> list[dict[str, Any]]:
    """Bodies of both dialects by turns. longest: about how many words the long ones have."""
    random_ = random.Random(SEED)
    return [_body(random_, number, longest) for number in range(count)]


def _body(random_: random.Random, number: int, longest: int) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    if random_.random() < 0.5:
        messages.append({"role": "system", "content": _text(random_, 12)})
    for _ in range(random_.choice((0, 0, 1, 4))):
        messages += [{"role": "user", "content": _text(random_, 20)}, {"role": "assistant", "content": _text(random_, 20)}]
    has_tools = number % 5 == 4
    if has_tools and random_.random() < 0.5:
        made = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "北京"}'}}
        messages += [{"role": "user", "content": "北京?"}, {"role": "assistant", "content": "", "tool_calls": [made]}]
        messages.append({"role": "tool", "tool_call_id": "call_1", "content": '{"sky":  "clear", "t": -3}'})
    messages.append({"role": "user", "content": _text(random_, longest if number % 7 == 0 else 8)})
    tools = {"tools": [TOOL]} if has_tools else {}
    if number % 2:
        return {
            "model": "qwen-turbo",
            "input": {"messages": messages},
            "parameters": {"result_format": "message", "max_tokens": 1, **tools},
        }
    return {"model": "qwen-turbo", "messages": messages, "max_tokens": 1, **tools}


def _text(random_: random.Random, words: int) -> str:
    kind = random_.randrange(3)
    if kind == 0:
        return " ".join(random_.choice(WORDS) for _ in range(random_.randint(1, words)))
    if kind == 1:
        return "".join(random_.choice(HAN) for _ in range(random_.randint(1, words)))
    return CODE * max(1, words // 30) + "".join(random_.choice(HAN + CODE) for _ in range(words // 2))


def cli(box: Box, *arguments: str, text: str = "") -> str:
    """The command line beside the box, on its data folder."""
    return _run(box.home, box.profile, *arguments, text=text)


def _run(home: Path, profile: str, *arguments: str, text: str = "") -> str:
    own = {"QWENBOX_HOME": str(home), "QWENBOX_PROFILE": profile, "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "qwenbox", *arguments],
        env={**boxes.clean_environment(), **own},
        input=text,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout


def told_and_reported(box: Box, bodies: list[dict[str, Any]], folder: Path) -> tuple[list[int], list[int]]:
    """What the command says of all of them at once, and what each call reports."""
    lines = folder / "prompts.jsonl"
    lines.write_text("".join(json.dumps(body, ensure_ascii=False) + "\n" for body in bodies), "utf-8")
    told = [json.loads(line) for line in cli(box, "tokens", str(lines), "--json").splitlines()]
    assert all(each["is_exact"] for each in told)
    return [each["input_tokens"] for each in told], [_reported(box, body) for body in bodies]


def _reported(box: Box, body: Mapping[str, Any]) -> int:
    heard = post(box, NATIVE_CHAT if "input" in body else COMPATIBLE_CHAT, body, timeout_s=300)
    assert 200 == heard.status, heard.body
    usage = heard.json["usage"]
    return usage["input_tokens"] if "input" in body else usage["prompt_tokens"]


def test_tokens_equal_what_the_call_reports_on_echo(box: Box, tmp_path: Path) -> None:
    told, reported = told_and_reported(box, prompts(COUNT, 400), tmp_path)
    assert COUNT == len(told)
    assert told == reported


@pytest.mark.timeout(3_600)
def test_tokens_equal_what_the_call_reports_on_weights(weights_box: Box, tmp_path: Path, is_full: bool) -> None:
    count = COUNT if is_full else FEW
    told, reported = told_and_reported(weights_box, prompts(count, 400 if is_full else 10), tmp_path)
    print(f"\n{count} prompts of {min(told)} to {max(told)} tokens (seed {SEED}), {sum(told):,} in all: told and reported agree")
    assert told == reported


def test_tokens_reads_every_kind_of_file(box: Box, tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "你好"}]
    expected = _reported(box, {"model": "qwen-turbo", "messages": messages})
    kinds = (
        messages,
        {"messages": messages},
        {"model": "qwen-turbo", "input": {"messages": messages}},
        {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "qwen-turbo", "messages": messages}},
    )
    lines = "\n".join(json.dumps(kind) for kind in kinds)
    heard = [json.loads(line)["input_tokens"] for line in cli(box, "tokens", "-", "--json", text=lines).splitlines()]
    assert [expected] * len(kinds) == heard
    file = tmp_path / "prompt.txt"
    file.write_text('Count me: {"a": 1}\n', "utf-8")
    counted = json.loads(cli(box, "tokens", str(file), "--json"))
    assert _reported(box, {"model": "qwen-turbo", "messages": [{"role": "user", "content": file.read_text()}]}) == counted["input_tokens"]
    assert counted["input_tokens"] == sum(share["tokens"] for share in counted["shares"])
    assert "qwen-max" in (shown := cli(box, "tokens", "-", text=json.dumps(messages)))
    assert "Be brief." in shown
    assert "█" in shown


TURNS = [{"role": role, "content": f"{role} {number} " * 30} for number in range(12) for role in ("user", "assistant")]
CONVERSATION = [{"role": "system", "content": "Be   brief."}, *TURNS, {"role": "user", "content": "And now?"}]


@pytest.fixture(scope="module")
def thrifty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Box, str]]:
    """A box, and a key whose histories have 400 tokens and whose white space is collapsed."""
    home = tmp_path_factory.mktemp("thrifty")
    made = _run(home, "echo", "keys", "create", "bot", "--history-tokens", "400", "--collapse-whitespace", "--json")
    with boxes.serve(home) as running:
        yield running, json.loads(made)["secret"]


def is_trimmed(header: str, box: Box, key: str, request_id: str) -> int:
    """The input tokens of a call whose header and receipt say what was done to its prompt."""
    collapsed, trimmed = header.split(", ")
    bill = call(box, "GET", f"/qwenbox/v1/receipts/{request_id}", key=key).json["call"]
    done = bill["notes"]["thrift"]
    assert f"whitespace-collapsed;characters={done['collapsed_characters']}" == collapsed
    assert f"history-trimmed;turns={done['trimmed_turns']};tokens={done['trimmed_tokens']}" == trimmed
    assert 0 < bill["input_tokens"] <= 400
    return bill["input_tokens"]


def test_trimmed_history_is_told_in_header_and_receipt_through_openai(thrifty: tuple[Box, str]) -> None:
    box, key = thrifty
    client = openai.OpenAI(api_key=key, base_url=box.compatible, max_retries=0)
    raw = client.chat.completions.with_raw_response.create(model="qwen-turbo", messages=CONVERSATION)
    answer = raw.parse()
    assert answer.usage.prompt_tokens == is_trimmed(raw.headers["x-qwenbox-applied"], box, key, raw.headers["x-request-id"])
    assert "And now?" in answer.choices[0].message.content
    # A stream says the same, and a short chat is left alone.
    streamed = client.chat.completions.with_raw_response.create(model="qwen-turbo", messages=CONVERSATION, stream=True)
    assert raw.headers["x-qwenbox-applied"] == streamed.headers["x-qwenbox-applied"]
    for _ in streamed.parse():
        pass
    short = client.chat.completions.with_raw_response.create(model="qwen-turbo", messages=CONVERSATION[-1:])
    assert "x-qwenbox-applied" not in short.headers


def test_trimmed_history_is_told_in_header_and_receipt_through_dashscope(thrifty: tuple[Box, str], monkeypatch: pytest.MonkeyPatch) -> None:
    box, key = thrifty
    monkeypatch.setattr(dashscope, "base_http_api_url", box.native)
    answer = dashscope.Generation.call(model="qwen-turbo", api_key=key, messages=CONVERSATION, result_format="message")
    assert HTTPStatus.OK == answer.status_code, answer
    header = {name.lower(): value for name, value in answer.headers.items()}["x-qwenbox-applied"]
    assert answer.usage.input_tokens == is_trimmed(header, box, key, answer.request_id)
