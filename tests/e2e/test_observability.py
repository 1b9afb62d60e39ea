"""What a running box tells of itself: every metric moves, a trace shows its hops, and nothing says what was asked or answered."""

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families as parsed

import boxes
import wire
from boxes import Box
from qwenbox.telemetry.names import FAMILIES
from support import flaky
from support.admin_calls import ADMIN_KEY
from support.collector import collect

SETTINGS = """
[log]
format = "json"
level = "debug"
access = true
[admin]
key = "{admin}"
[engine.echo]
kind = "echo"
[engine.narrow]
kind = "echo"
slots = 1
kv_tokens = 9000
[[model]]
name = "narrow"
deployments = ["narrow"]
card = {{ context_tokens = 4096 }}
[engine.upstream]
kind = "openai_server"
address = "{url}"
[[model]]
name = "flaky"
deployments = ["upstream"]
card = {{ context_tokens = 4096 }}
[retries]
attempts = 2
base_s = 0.01
[breaker]
least_attempts = 4
open_s = 600
"""

# What an echo box has no part of: its engines have no children, and its books stay open (tests/unit/telemetry/test_gauges.py).
NOT_HERE = {"qwenbox_child_ready", "qwenbox_child_starts_total", "qwenbox_child_restarts_total", "qwenbox_child_resident_memory_bytes"}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(box: Box, **headers: str) -> Samples:
    page = wire.call(box, "GET", "/metrics", key=None, headers=headers)
    assert 200 == page.status, page.body.decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value for family in parsed(page.body.decode()) for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    """The sum over all series that have these labels."""
    return sum(number for (known, all_labels), number in found.items() if known == name and labels.items() <= dict(all_labels).items())


def ask(box: Box, text: str, model: str = "qwen-plus", **more: object) -> wire.Heard:
    body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    return wire.post(box, wire.COMPATIBLE_CHAT, body)


@pytest.fixture(scope="module")
def upstream() -> Iterator[flaky.Upstream]:
    with flaky.serve(lambda question, attempt: "failed") as running:
        yield running


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, upstream: flaky.Upstream) -> Iterator[Box]:
    toml = SETTINGS.format(url=upstream.url, admin=ADMIN_KEY)
    with boxes.serve(tmp_path_factory.mktemp("watched"), toml=toml) as running:
        yield running


def test_every_metric_is_moved_by_what_it_counts(watched: Box) -> None:
    before = samples(watched)
    assert 200 == ask(watched, "one two three").status
    assert 200 == ask(watched, "one two three", seed=7).status
    assert 200 == ask(watched, "one two three", seed=7).status  # from the cache
    assert 200 == ask(watched, "hello", "narrow").status
    for number in range(4):
        assert ask(watched, f"question-{number}", "flaky").status >= 500
    assert 401 == wire.post(watched, wire.COMPATIBLE_CHAT, wire.compatible(), key="sk-wrong").status
    _refuse_by_limit(watched)
    _run_batch(watched)
    after = samples(watched)

    def rise(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    plus = {"model": "qwen-plus", "lane": "interactive"}
    assert 3 == rise("qwenbox_requests_total", dialect="openai", operation="chat", model="qwen-plus", status="200", outcome="completed")
    assert 1 == rise("qwenbox_requests_total", status="401", outcome="refused", model="")
    assert 4 == rise("qwenbox_requests_total", model="flaky", outcome="failed")
    assert 3 == rise("qwenbox_calls_total", **plus, outcome="completed")
    assert 1 == rise("qwenbox_errors_total", dialect="openai", kind="unauthenticated")
    assert 1 == rise("qwenbox_limit_refusals_total", limit="requests")
    assert 1 == rise("qwenbox_cache_answers_total", model="qwen-plus", state="hit")
    assert 2 == rise("qwenbox_call_duration_seconds_count", **plus)
    assert 2 == rise("qwenbox_time_to_first_token_seconds_count", **plus)
    assert 2 == rise("qwenbox_time_per_output_token_seconds_count", **plus)
    assert 1 == rise("qwenbox_queue_seconds_count", model="narrow")
    assert rise("qwenbox_tokens_total", **plus, **{"class": "input"}) > 0 < rise("qwenbox_tokens_total", **plus, **{"class": "output"})
    assert rise("qwenbox_money_settled_total", model="qwen-plus", currency="CNY") > 0
    assert (1, 1) == (rise("qwenbox_batch_lines_total", outcome="completed"), rise("qwenbox_batch_lines_total", outcome="failed"))
    assert rise("qwenbox_attempts_total", deployment="upstream", result="failed") >= 4
    assert rise("qwenbox_retries_total", deployment="upstream") >= 1
    assert 1 == rise("qwenbox_breaker_open", deployment="upstream")
    assert rise("qwenbox_process_cpu_seconds_total", process="box") > 0
    assert (1, 0) == (value(after, "qwenbox_engine_slots", queue="narrow"), value(after, "qwenbox_engine_slots_used", queue="narrow"))
    assert 9000 == value(after, "qwenbox_engine_kv_tokens", queue="narrow")
    assert value(after, "qwenbox_process_resident_memory_bytes", process="box") > 10_000_000
    assert (1, 1, 0) == tuple(value(after, name) for name in ("qwenbox_build_info", "qwenbox_requests_in_progress", "qwenbox_books_closed"))
    shown = {name.removesuffix("_count") if name.endswith("_count") else name for name, _ in after}
    assert FAMILIES.keys() - NOT_HERE == shown & FAMILIES.keys()


def _refuse_by_limit(box: Box) -> None:
    """One call more than a key of its own may make in a minute."""
    limited = wire.call(box, "POST", "/admin/v1/accounts", {"name": "limited"}, key=ADMIN_KEY).json
    made = wire.call(box, "POST", "/admin/v1/keys", {"account": limited["name"], "name": "k", "rpm": 1}, key=ADMIN_KEY).json
    statuses = [wire.post(box, wire.COMPATIBLE_CHAT, wire.compatible(), key=made["secret"]).status for _ in range(2)]
    assert [200, 429] == statuses


def _run_batch(box: Box) -> None:
    with openai.OpenAI(base_url=box.compatible, api_key=box.key) as client:
        bodies = [{"model": "qwen-plus", "messages": [{"role": "user", "content": "hi"}]}, {"model": "qwen-plus", "messages": "none"}]
        texts = [
            json.dumps({"custom_id": str(place), "method": "POST", "url": "/v1/chat/completions", "body": body})
            for place, body in enumerate(bodies)
        ]
        file = client.files.create(file=("lines.jsonl", "\n".join(texts).encode()), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        deadline = time.monotonic() + 60
        while client.batches.retrieve(batch.id).status not in ("completed", "failed", "expired"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "completed" == client.batches.retrieve(batch.id).status


def test_running_and_waiting_calls_are_seen_while_they_last(serve) -> None:
    toml = '[engine.echo]\nkind = "echo"\nslots = 1\nkv_tokens = 9000\nfirst_delay_s = 300\n'
    box = serve(toml=toml)
    with ThreadPoolExecutor(2) as clients, openai.OpenAI(base_url=box.compatible, api_key=box.key, max_retries=0) as client:

        def hang(number: int) -> None:
            with pytest.raises(openai.APIConnectionError):
                client.chat.completions.create(model="qwen-plus", messages=[{"role": "user", "content": f"{number}"}], max_tokens=50)

        running = [clients.submit(hang, number) for number in range(2)]
        deadline = time.monotonic() + 60
        while value(found := samples(box), "qwenbox_engine_waiting", lane="interactive") != 1:
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        assert 1 == value(found, "qwenbox_engine_slots_used", queue="echo")
        assert value(found, "qwenbox_engine_kv_tokens_used", queue="echo") > 50
        assert 3 == value(found, "qwenbox_requests_in_progress")
        box.process.kill()
        for one in running:
            one.result(60)


MARKERS = {
    "prompt": "MARK-PROMPT-7f3a",
    "tool": "mark_tool_51cc",
    "argument": "MARK-ARGUMENT-88ab",
    "model": "mark-model-2b9d",
    "path": "mark-path-c41e",
    "query": "mark-query-09fd",
    "key": "sk-mark-key-55d1",
    "user": "mark-user-7e2b",
}


def test_nothing_that_was_asked_or_answered_is_told(serve, upstream: flaky.Upstream) -> None:
    with collect() as collector:
        box = serve(
            toml=SETTINGS.format(url=upstream.url, admin=ADMIN_KEY),
            environment={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"},
        )
        schema = {"type": "object", "properties": {"where": {"enum": [MARKERS["argument"]]}}, "required": ["where"]}
        tools = [{"type": "function", "function": {"name": MARKERS["tool"], "parameters": schema}}]
        prompt = f"{MARKERS['prompt']} please {MARKERS['tool']}"
        answer = ask(box, prompt)
        assert MARKERS["prompt"] in answer.body.decode()  # echo says it again, so the answer has it too
        for stream in (True, False):
            told = ask(box, prompt, tools=tools, user=MARKERS["user"], stream=stream, tool_choice="auto").body.decode()
            assert stream or MARKERS["argument"] in told
        ask(box, prompt, MARKERS["model"])
        ask(box, prompt, "flaky")
        ask(box, prompt, temperature=MARKERS["prompt"])
        wire.post(box, wire.COMPATIBLE_CHAT, f'{{"model": "{MARKERS["prompt"]}", broken'.encode())
        wire.post(box, wire.COMPATIBLE_CHAT, wire.compatible(), key=MARKERS["key"])
        wire.call(box, "GET", f"/compatible-mode/v1/models/{MARKERS['path']}?{MARKERS['query']}=1")
        wire.call(box, "GET", f"/{MARKERS['path']}?{MARKERS['query']}=1")
        metrics = wire.call(box, "GET", "/metrics", key=None).body.decode()
        box.process.send_signal(signal.SIGTERM)  # which sends the last spans
        box.process.wait(60)
    traces = b"".join(collector.bodies)
    # Not the banner, which shows the first key on purpose.
    log = "\n".join(line for line in box.log.splitlines() if line.startswith("{"))
    assert 10 <= log.count('"qwenbox.access"') and len(collector.spans) > 30 and "qwenbox_calls_total" in metrics
    secrets = {**MARKERS, "box": boxes.KEY, "admin": ADMIN_KEY}
    assert {} == {name: text for name, text in secrets.items() if text.encode() in traces}
    assert {} == {name: text for name, text in secrets.items() if text in metrics}
    assert {} == {name: text for name, text in secrets.items() if text in log}


def test_trace_of_a_streamed_call_shows_its_hops(serve, tmp_path: Path) -> None:
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    with collect() as collector:
        box = serve(
            toml='[engine.echo]\nkind = "echo"\nslots = 2\n',
            environment={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"},
        )
        body = {"model": "qwen-plus", "stream": True, "seed": 1, "messages": [{"role": "user", "content": "one two three"}]}
        heard = wire.post(box, wire.COMPATIBLE_CHAT, body, headers={"traceparent": f"00-{trace}-{parent}-01"})
        assert 200 == heard.status
        spans = {span.name: span for span in collector.until("chat qwen-plus")}
    call = spans.pop("chat qwen-plus")
    hops = ["cache", "count", "admission", "queue", "first token", "stream", "commit"]
    assert hops == sorted(spans, key=lambda name: (spans[name].start_time_unix_nano, hops.index(name)))
    assert (trace, parent) == (call.trace_id.hex(), call.parent_span_id.hex())
    assert {call.span_id} == {span.parent_span_id for span in spans.values()}
    told = {one.key: one.value for one in call.attributes}
    assert heard.headers["x-request-id"] == told["qwenbox.request_id"].string_value
    assert "echo" == told["qwenbox.deployment"].string_value
    assert told["gen_ai.usage.output_tokens"].int_value > 0
    assert abs(call.start_time_unix_nano / 1e9 - time.time()) < 600
    for span in spans.values():
        assert call.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano <= call.end_time_unix_nano


def test_log_lines_of_a_call_carry_its_request_id(watched: Box) -> None:
    heard = ask(watched, "who am I")
    request_id = heard.headers["x-request-id"]
    access = _access_line(watched, request_id)
    assert ("openai", "chat", "qwen-plus", 200, "completed") == tuple(
        access[name] for name in ("dialect", "operation", "model", "status", "outcome")
    )
    assert access["key_id"].startswith("key-") and access["output_tokens"] > 0


def _access_line(box: Box, request_id: str) -> dict[str, object]:
    """Written after the last byte has left."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        lines = [json.loads(line) for line in box.log.splitlines() if line.startswith("{") and line.endswith("}")]
        found = [line for line in lines if line.get("request_id") == request_id and line["logger"] == "qwenbox.access"]
        if found:
            (access,) = found
            return access
        time.sleep(0.02)
    raise AssertionError(box.log)


@pytest.mark.parametrize(
    ("headers", "key", "status"),
    [
        ({}, None, 200),
        ({"x-forwarded-for": "203.0.113.7"}, None, 401),
        ({"host": "rebound.example"}, None, 401),
        ({"x-forwarded-for": "203.0.113.7"}, boxes.KEY, 401),
        ({"x-forwarded-for": "203.0.113.7"}, ADMIN_KEY, 200),
        ({"host": "rebound.example"}, ADMIN_KEY, 200),
    ],
)
def test_metrics_are_open_to_this_machine_and_to_the_admin_key(watched: Box, headers: dict[str, str], key: str | None, status: int) -> None:
    assert status == wire.call(watched, "GET", "/metrics", key=key, headers=headers).status


def test_workers_tell_the_sum_of_all_and_keep_what_a_dead_one_told(serve) -> None:
    box = serve(toml="[limits]\napproximate = true\n[server]\nworkers = 2\n")
    for _ in range(20):
        assert 200 == ask(box, "hello").status
    found = samples(box)
    labels = {"operation": "chat", "outcome": "completed"}
    assert 20 == value(found, "qwenbox_requests_total", **labels)
    assert 3 == value(found, "qwenbox_build_info")
    processes = {dict(labels)["process"] for name, labels in found if name == "qwenbox_process_cpu_seconds_total"}
    assert {"parent", "worker-1", "worker-2"} == processes
    os.kill(_a_worker(box), signal.SIGKILL)
    deadline = time.monotonic() + 60
    while True:
        try:
            found = samples(box)
            assert 20 == value(found, "qwenbox_requests_total", **labels)
            if value(found, "qwenbox_build_info") == 3:
                break
        except OSError:
            pass  # its socket rests until its successor serves
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _a_worker(box: Box) -> int:
    children = Path(f"/proc/{box.process.pid}/task/{box.process.pid}/children").read_text("ascii").split()
    return int(children[0])
