"""A box that is stopped while it answers: whoever waits longer than it is told so, in his dialect, and nothing looks like a failure."""

import concurrent.futures
import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import anthropic
import dashscope
import openai
import pytest

import boxes

pytestmark = pytest.mark.e2e

SLOW = "[server]\ndrain_s = 1\n[engine.echo]\ndelay_s = 0.4\n"
ENDLESS = "one two three four five six seven eight nine ten " * 20
MESSAGES = [{"role": "user", "content": ENDLESS}]
STOPPED = "The box was stopped before the answer was complete."


def compatible(box: boxes.Box, begun: Callable[[], object]) -> tuple[str, str]:
    """The call's id, and how it ended."""
    client = openai.OpenAI(api_key=box.key, base_url=box.compatible, max_retries=0)
    stream = client.chat.completions.create(model="qwen-turbo", messages=MESSAGES, stream=True)
    try:
        for _ in stream:
            begun()
    except openai.APIError as error:
        return stream.response.headers["x-request-id"], error.message
    return "", "no error"


def native(box: boxes.Box, begun: Callable[[], object]) -> tuple[str, str]:
    dashscope.base_http_api_url = box.native
    for part in dashscope.Generation.call(model="qwen-turbo", messages=MESSAGES, api_key=box.key, stream=True):
        if part.status_code != 200:
            return part.request_id, part.message
        begun()
    return "", "no error"


def messages(box: boxes.Box, begun: Callable[[], object]) -> tuple[str, str]:
    client = anthropic.Anthropic(api_key=box.key, base_url=f"{box.base_url}/apps/anthropic", max_retries=0)
    asked: Any = MESSAGES
    with client.messages.stream(model="qwen-turbo", max_tokens=1000, messages=asked) as stream:
        try:
            for _ in stream:
                begun()
        except anthropic.APIError as error:
            return stream.response.headers["x-request-id"], str(error)
    return "", "no error"


def whole(box: boxes.Box, begun: Callable[[], object]) -> tuple[str, str]:
    client = openai.OpenAI(api_key=box.key, base_url=box.compatible, max_retries=0)
    try:
        begun()
        client.chat.completions.create(model="qwen-turbo", messages=MESSAGES)
    except openai.APIStatusError as error:
        assert 503 == error.status_code
        assert "3" == error.response.headers["retry-after"]
        return error.response.headers["x-request-id"], error.message
    return "", "no error"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_answers_that_outlast_the_box_end_with_an_error_when_it_is_stopped(serve, workers: str) -> None:
    asking = [compatible, native, messages, whole]
    box = serve(toml=f"{SLOW}[limits]\napproximate = true\n", environment={"QWENBOX_WORKERS": workers})
    with concurrent.futures.ThreadPoolExecutor(len(asking)) as pool:
        begun = [threading.Event() for _ in asking]
        ended = [pool.submit(one, box, event.set) for one, event in zip(asking, begun, strict=True)]
        assert all(event.wait(60) for event in begun)
        while asked(box) < len(asking):
            time.sleep(0.02)
        box.process.send_signal(signal.SIGTERM)
        told = [one.result(60) for one in ended]
    assert 0 == box.process.wait(60)
    assert [STOPPED] * len(told) == [STOPPED if STOPPED in message else message for _, message in told]
    assert not [line for line in box.log.splitlines() if "Traceback" in line or "ERROR" in line]
    receipts = [receipt(box, call) for call, _ in told]
    assert {("failed", "overloaded")} == {(one["outcome"], one["error_kind"]) for one in receipts}
    # Streams are paid as far as they came; who has got nothing pays nothing.
    assert [True, True, True, False] == [one["cost_micros"] > 0 for one in receipts]


def test_second_signal_ends_answers_at_once(serve) -> None:
    box = serve(toml=f"[server]\ndrain_s = 600\n{SLOW.split(chr(10), 2)[2]}")
    begun = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        ended = pool.submit(compatible, box, begun.set)
        assert begun.wait(60)
        box.process.send_signal(signal.SIGINT)
        with pytest.raises(concurrent.futures.TimeoutError):
            ended.result(1)  # it waits for the answer
        box.process.send_signal(signal.SIGINT)
        assert STOPPED in ended.result(60)[1]
    assert 0 == box.process.wait(60)
    assert "Traceback" not in box.log


def receipt(box: boxes.Box, call: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "qwenbox", "usage", "receipt", call, "--json"],
        env={**boxes.clean_environment(), "QWENBOX_HOME": str(box.home), "QWENBOX_PROFILE": "echo"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)["call"]


def asked(box: boxes.Box) -> int:
    """Requests that are being answered, but for the one that tells it."""
    with urllib.request.urlopen(f"{box.base_url}/metrics") as page:
        found = re.findall(r"^qwenbox_requests_in_progress\S* (\S+)$", page.read().decode(), re.MULTILINE)
    return sum(int(float(one)) for one in found) - 1
