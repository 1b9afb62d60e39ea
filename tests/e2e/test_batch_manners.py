"""A batch on real weights while a person calls every few seconds: how much longer the person waits for the first token."""

import json
import statistics
import time
from typing import Any

import openai
import pytest

from boxes import Box
from e2e.test_long_input import prompt
from sdk import forms

pytestmark = pytest.mark.e2e

MODEL = "qwen-turbo"
QUESTION = "Question {}: in one short sentence, why is the sky blue at noon and red in the evening? Please be brief and exact."
LINE = "Text {}: the ship left the harbour at dawn and came back at dusk with its hold full of fish. Say in one sentence what it carried."
# The engine reads prompts in pieces of so many tokens ([engine.NAME] batch_tokens).
CHUNK_TOKENS = 128


def ttft_s(client: openai.OpenAI, text: str) -> float:
    begun_s, first_s = time.monotonic(), 0.0
    for chunk in client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": text}], stream=True, max_tokens=16):
        if not first_s and chunk.choices and chunk.choices[0].delta.content:
            first_s = time.monotonic() - begun_s
    return first_s


def chunk_s(client: openai.OpenAI, number: int) -> float:
    """What one piece of a prompt takes, on an idle engine: a prompt of several that it has not seen, by their number."""
    text = f"Reading {number}. {prompt(3 * CHUNK_TOKENS)}"
    begun_s = time.monotonic()
    answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": text}], max_tokens=1)
    assert answer.usage is not None
    return (time.monotonic() - begun_s) * CHUNK_TOKENS / answer.usage.prompt_tokens


def submit(client: openai.OpenAI, count: int) -> Any:
    bodies = [{"model": MODEL, "messages": [{"role": "user", "content": LINE.format(number)}], "max_tokens": 48} for number in range(count)]
    lines = [
        {"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": body} for number, body in enumerate(bodies)
    ]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    stored = client.files.create(file=("in.jsonl", data), purpose="batch")
    return client.batches.create(input_file_id=stored.id, endpoint="/v1/chat/completions", completion_window="24h")


@pytest.mark.timeout(1_800)
def test_a_person_hardly_notices_a_batch(weights_box: Box, is_full: bool) -> None:
    count, every_s, idle_calls = (100, 5.0, 12) if is_full else (6, 1.0, 3)
    with forms.openai_client(weights_box) as client:
        ttft_s(client, "Hello")
        chunk = statistics.median(chunk_s(client, number) for number in range(3))
        idle = sorted(ttft_s(client, QUESTION.format(number)) for number in range(idle_calls))
        batch, busy = submit(client, count), list[float]()
        while (state := client.batches.retrieve(batch.id)).status != "completed":
            assert state.status not in ("failed", "cancelled"), state
            due_s = time.monotonic() + every_s
            busy.append(ttft_s(client, QUESTION.format(f"B{len(busy)}")))
            time.sleep(max(0.0, due_s - time.monotonic()))
        assert state.completed_at is not None and state.in_progress_at is not None and state.request_counts is not None
        assert (count, 0) == (state.request_counts.completed, state.request_counts.failed)
        p50 = statistics.median(busy) / statistics.median(idle)
        print(
            f"\n{count} lines in {state.completed_at - state.in_progress_at} s; a person every {every_s:g} s, time to first token: "
            f"idle p50 {statistics.median(idle):.3f} s, max {idle[-1]:.3f} s; beside the batch p50 {statistics.median(busy):.3f} s "
            f"({p50:.2f} times), max {max(busy):.3f} s over {len(busy)} calls; one piece of a prompt {chunk:.3f} s"
        )
        if is_full:
            assert p50 <= 1.5
            assert max(busy) <= idle[-1] + chunk
