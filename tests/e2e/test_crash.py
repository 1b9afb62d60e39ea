"""The engine's child dies: running calls say so in their dialect, the box lives on and answers again."""

import concurrent.futures
import os
import signal
import threading
import time

import openai
import pytest
from dashscope import Generation

from boxes import Box
from e2e import children

pytestmark = pytest.mark.e2e

# Greedy, for one answer in eight that is drawn at random only says that it cannot help.
LONG = [{"role": "user", "content": "Write a very long story about a river, at least two thousand words."}]


def openai_stream(box: Box, begun: threading.Barrier) -> str:
    """What the stream ended in: the error's code, or "done". Meets the others after its third piece."""
    try:
        with openai.OpenAI(api_key=box.key, base_url=box.compatible, max_retries=0) as client:
            stream = client.chat.completions.create(model="qwen-turbo", messages=LONG, stream=True, max_tokens=600, temperature=0)
            for count, _ in enumerate(stream):
                if count == 3:
                    begun.wait(60)
    except openai.APIError as error:
        return str(error.code)
    return "done"


def native_stream(box: Box, begun: threading.Barrier) -> str:
    last = "nothing"
    stream = Generation.call(
        model="qwen-turbo",
        messages=LONG,
        stream=True,
        max_tokens=600,
        temperature=0,
        api_key=box.key,
        base_address=box.native,
        incremental_output=True,
    )
    for count, chunk in enumerate(stream):
        if count == 3:
            begun.wait(60)
        last = "done" if chunk.status_code == 200 else chunk.code
    return last


def test_streams_end_in_error_frames_and_the_next_call_succeeds_when_the_child_is_killed(weights_box: Box, is_full: bool) -> None:
    box = weights_box
    client = openai.OpenAI(api_key=box.key, base_url=box.compatible, max_retries=0)
    begun = threading.Barrier(5)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        running = [pool.submit(one, box, begun) for one in (openai_stream, openai_stream, native_stream, native_stream)]
        begun.wait(60)
        killed = children.of(box.process.pid)
        assert killed
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        ends = [one.result(60) for one in running]
    started = time.monotonic()
    answer = client.chat.completions.create(model="qwen-turbo", messages=[{"role": "user", "content": "hi"}], max_tokens=2)
    passed_s = time.monotonic() - started
    print(f"\nends after kill -9: {ends}; next answer after {passed_s:.1f} s")
    assert ["internal_error", "internal_error", "InternalError.Algo", "InternalError.Algo"] == ends
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert passed_s < (10 if is_full else 60)
    assert box.process.poll() is None


def test_no_child_is_left_when_the_box_itself_is_killed(weights_serve) -> None:
    box = weights_serve()
    openai.OpenAI(api_key=box.key, base_url=box.compatible).chat.completions.create(
        model="qwen-turbo", messages=[{"role": "user", "content": "hi"}], max_tokens=2
    )
    left = children.of(box.process.pid)
    assert left
    box.process.kill()
    box.process.wait()
    deadline = time.monotonic() + 30
    while any(os.path.exists(f"/proc/{pid}") for pid in left) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in left if os.path.exists(f"/proc/{pid}")]


def test_all_calls_answer_whole_when_together_they_need_twice_the_kv_pool(weights_serve, is_full: bool) -> None:
    """Six calls of about a third of the pool each: they wait for their turn, none is cut or fails."""
    held, most = (1024, 240) if is_full else (512, 80)
    box = weights_serve(f"[engine.small]\nkv_tokens = {held}\ncontext_tokens = {held}\n")
    client = openai.OpenAI(api_key=box.key, base_url=box.compatible, max_retries=0)

    def ask(number: int) -> openai.types.chat.ChatCompletion:
        text = f"Call {number}. Repeat the word yes for ever, separated by spaces, without any end. " * 4
        return client.chat.completions.create(
            model="qwen-turbo",
            messages=[{"role": "user", "content": text}],
            max_tokens=most,
            temperature=0,
            extra_body={"repetition_penalty": 1},
        )

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, range(6)))
    needs = [answer.usage.prompt_tokens + most for answer in answers]
    print(f"\nKV pool {held}, needed together {sum(needs)}: ends {[answer.choices[0].finish_reason for answer in answers]}")
    assert sum(needs) >= 2 * held
    for answer in answers:
        is_whole = answer.choices[0].finish_reason == "stop" or answer.usage.completion_tokens == most
        assert is_whole
