"""The response cache through real boxes: identical calls share one, dialects share answers, restarts and workers keep them."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

import boxes
from boxes import Box
from conftest import Serve, Stores
from qwenbox.terms.chat import ChatRequest

_ASKED: dict[str, Any] = {"model": "qwen-turbo", "messages": [{"role": "user", "content": "one two three"}], "temperature": 0}


class Upstream(ThreadingHTTPServer):
    """An OpenAI-compatible server that counts its calls and streams slowly enough to be met under way. words: what it says."""

    daemon_threads = True
    request_queue_size = 1_024

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.calls = 0
        self.words = ["one", " two", " three"]
        self.has_begun = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._head("application/json")
        self._piece(b'{"object":"list","data":[]}')
        self._piece(b"")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        with self.server.lock:
            self.server.calls += 1
        self._head("text/event-stream")
        try:
            for number, word in enumerate(self.server.words):
                self._frame({"choices": [{"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None}]})
                if number == 0:
                    self.server.has_begun.set()
                    self.server.may_go_on.wait(60)
            self._frame({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            usage = {"prompt_tokens": 7, "completion_tokens": len(self.server.words), "total_tokens": 7 + len(self.server.words)}
            self._frame({"choices": [], "usage": usage})
            self._piece(b"data: [DONE]\n\n")
            self._piece(b"")
        except OSError:
            self.close_connection = True

    def _head(self, media_type: str) -> None:
        self.send_response(200)
        self.send_header("content-type", media_type)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def _frame(self, event: dict[str, Any]) -> None:
        self._piece(f"data: {json.dumps({'id': 'x', 'object': 'chat.completion.chunk', 'created': 1, 'model': 'm', **event})}\n\n".encode())

    def _piece(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.may_go_on.set()
        server.shutdown()
        thread.join()


def _toml(upstream: Upstream, more: str = "") -> str:
    return f"""
[engine.up]
kind = "openai_server"
address = "{upstream.address}"
model = "m"

[[model]]
name = "qwen-turbo"
deployments = ["up"]
card = {{ context_tokens = 4096, capabilities = ["chat"] }}
{more}
"""


def _ask(
    box: Box, client: httpx.Client | None = None, key: str = "", headers: dict[str, str] | None = None, **changes: Any
) -> httpx.Response:
    own = {"authorization": f"Bearer {key or box.key}", **(headers or {})}
    post = client.post if client else httpx.post
    answer = post(f"{box.compatible}/chat/completions", json={**_ASKED, **changes}, headers=own, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer


def _state(answer: httpx.Response) -> str:
    return answer.headers.get("x-qwenbox-cache", "")


def _cli(box: Box, *arguments: str, environment: dict[str, str] | None = None) -> Any:
    own = {**boxes.clean_environment(), "QWENBOX_HOME": str(box.home), "QWENBOX_PROFILE": box.profile, **(environment or {})}
    done = subprocess.run([sys.executable, "-m", "qwenbox", *arguments, "--json"], env=own, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.mark.parametrize("is_left", [False, True], ids=["all stay", "first caller hangs up"])
def test_identical_calls_together_make_one_upstream_call(serve: Serve, upstream: Upstream, is_full: bool, is_left: bool) -> None:
    box = serve(toml=_toml(upstream))
    count = 1_000 if is_full else 200
    upstream.may_go_on.clear()
    limits = httpx.Limits(max_connections=None)
    with httpx.Client(limits=limits, timeout=120) as client, ThreadPoolExecutor(count) as pool:
        headers = {"authorization": f"Bearer {box.key}"}
        with client.stream("POST", f"{box.compatible}/chat/completions", json={**_ASKED, "stream": True}, headers=headers) as first:
            pieces = first.iter_bytes()
            next(pieces)
            assert upstream.has_begun.wait(60)
            heard = [pool.submit(_ask, box, client) for _ in range(count - 1)]
            if not is_left:
                upstream.may_go_on.set()
                for _ in pieces:
                    pass
        upstream.may_go_on.set()
        answers = [one.result() for one in heard]
    assert 1 == upstream.calls
    assert {"hit"} == {_state(answer) for answer in answers}
    assert {"one two three"} == {answer.json()["choices"][0]["message"]["content"] for answer in answers}
    assert {10} == {answer.json()["usage"]["total_tokens"] for answer in answers}
    told = _cli(box, "usage", "--by", "outcome")
    assert [("completed", count, count - 1)] == [(row["group"], row["calls"], row["cache_hits"]) for row in told["rows"]]


def test_native_stream_replays_what_a_whole_compatible_answer_stored(serve: Serve, upstream: Upstream) -> None:
    box = serve(toml=_toml(upstream))
    whole = _ask(box, top_p=0.5, seed=7).json()
    body = {
        "model": "qwen-turbo",
        "input": {"messages": _ASKED["messages"]},
        "parameters": {"temperature": 0, "top_p": 0.5, "seed": 7, "result_format": "message", "incremental_output": True},
    }
    headers = {"authorization": f"Bearer {box.key}", "x-dashscope-sse": "enable"}
    streamed = httpx.post(f"{box.native}/services/aigc/text-generation/generation", json=body, headers=headers, timeout=60)
    frames = [json.loads(line.removeprefix("data:")) for line in streamed.text.splitlines() if line.startswith("data:")]
    assert ("hit", 1) == (_state(streamed), upstream.calls)
    text = "".join(frame["output"]["choices"][0]["message"]["content"] for frame in frames)
    assert whole["choices"][0]["message"]["content"] == text
    assert whole["usage"]["total_tokens"] == frames[-1]["usage"]["total_tokens"]
    assert len(frames) >= len(upstream.words)


# One other value for each parameter of the wire that reaches a field of ChatRequest; what the field is called there.
_OTHERS: dict[str, list[dict[str, Any]]] = {
    "model": [{"model": "qwen-plus"}],
    "messages": [{"messages": [{"role": "user", "content": "one two"}]}, {"messages": [{"role": "system", "content": "one two three"}]}],
    "sampling": [
        {"top_p": 0.5},
        {"top_k": 5},
        {"presence_penalty": 0.5},
        {"repetition_penalty": 1.5},
        {"seed": 1},
        {"seed": 2},
        {"temperature": 0.5, "seed": 1},
    ],
    "max_output_tokens": [{"max_tokens": 50}],
    "stop": [{"stop": ["zzz"]}],
    "stop_tokens": [{"stop": [[1, 2]]}],
    "n": [{"n": 2}],
    "top_logprobs": [{"logprobs": True, "top_logprobs": 1}],
    "tools": [{"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]}],
    "tool_choice": [{"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}], "tool_choice": "none"}],
    "is_parallel_tool_calls": [
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}], "parallel_tool_calls": True}
    ],
    "response_format": [{"response_format": {"type": "json_object"}}],
    "is_high_resolution": [{"vl_high_resolution_images": True}],
    "thinking": [{"enable_thinking": True}, {"enable_thinking": True, "thinking_budget": 5}],
}
# Not said by a parameter of their own: what the catalog filled in, and an engine's own raw JSON (tests/unit/gateway/cache/test_key.py).
_NOT_ON_THE_WIRE = {"defaults", "extensions", "wants_picture_sizes"}


def test_one_changed_parameter_never_hits(box: Box) -> None:
    assert set(ChatRequest.__struct_fields__) == set(_OTHERS) | _NOT_ON_THE_WIRE
    text = "only here"
    base = {"messages": [{"role": "user", "content": text}]}
    assert ["miss", "hit"] == [_state(_ask(box, **base)) for _ in range(2)]
    seen = [_state(_ask(box, **{**base, **changes})) for others in _OTHERS.values() for changes in others]
    assert {"miss"} == set(seen)
    assert "hit" == _state(_ask(box, **base))


def test_another_account_never_hits_unless_the_box_shares(serve: Serve) -> None:
    for scope, expected in (("account", "miss"), ("box", "hit")):
        box = serve(toml=f'[cache]\nscope = "{scope}"\n')
        _cli(box, "accounts", "create", "other")
        other = _cli(box, "keys", "create", "second", "--account", "other")["secret"]
        assert "miss" == _state(_ask(box))
        assert expected == _state(_retried(box, other))


def _retried(box: Box, key: str) -> httpx.Response:
    """A key made by the command line is known to the running box within a second."""
    for _ in range(600):
        answer = httpx.get(f"{box.compatible}/models", headers={"authorization": f"Bearer {key}"}, timeout=10)
        if answer.status_code == 200:
            break
        time.sleep(0.05)
    return _ask(box, key=key)


def test_restart_keeps_answers_and_other_weights_do_not_get_them(serve: Serve) -> None:
    home = serve.next_home()
    with boxes.serve(home) as box:
        first = _ask(box)
    with boxes.serve(home) as box:
        again = _ask(box)
        assert "hit" == _state(again)
        assert first.json()["choices"] == again.json()["choices"]
    with boxes.serve(home, toml='[engine.echo]\nkind = "echo"\ncontext_tokens = 4096\n') as box:
        assert "miss" == _state(_ask(box))


def test_headers_bypass_and_renew(box: Box) -> None:
    base = {"messages": [{"role": "user", "content": "headers"}]}
    states = [
        _state(_ask(box, headers=headers, **base))
        for headers in ({"cache-control": "no-store"}, {}, {"cache-control": "no-cache"}, {"cache-control": "max-age=60"}, {})
    ]
    assert ["bypass", "miss", "bypass", "hit", "hit"] == states
    assert "" == _state(_ask(box, temperature=1, **base))


def test_answers_expire_by_the_boxs_time_and_are_purged(serve: Serve) -> None:
    box = serve(toml="[cache]\nttl_s = 3600\n", environment={"QWENBOX_TESTING": "1"})
    headers = {"authorization": f"Bearer {_admin_key(box)}"}
    with httpx.Client(base_url=f"{box.base_url}/admin/v1", headers=headers) as admin:
        assert ["miss", "hit"] == [_state(_ask(box)) for _ in range(2)]
        assert 200 == admin.post("/clock", json={"advance_s": 3_600}).status_code
        assert ["miss", "hit"] == [_state(_ask(box)) for _ in range(2)]
        assert 0 == admin.delete("/cache", params={"model": "another"}).json()["entries"]
        assert "hit" == _state(_ask(box))
        assert 200 == admin.delete("/cache").status_code
        assert "miss" == _state(_ask(box))
        told = admin.get("/cache").json()
        assert ("database", 6, 3) == (told["place"], told["calls"], told["hits"])


def _admin_key(box: Box) -> str:
    return (box.home / "admin.key").read_text().strip()


def test_command_line_purges_with_and_without_a_running_box(serve: Serve) -> None:
    home = serve.next_home()
    with boxes.serve(home) as box:
        _ask(box)
    assert 1 == _cli(box, "cache", "stats")["entries"]
    assert 1 == _cli(box, "cache", "purge", "--model", "qwen-turbo")["entries"]
    assert 0 == _cli(box, "cache", "stats")["entries"]


def test_boxes_with_one_valkey_share_answers(serve: Serve, stores: Stores) -> None:
    environment = {"QWENBOX_DATABASE_URL": stores.postgres(), "QWENBOX_VALKEY_URL": stores.valkey().url}
    first, second = serve(environment=environment), serve(environment=environment)
    asked = _ask(first)
    again = _ask(second)
    assert ("miss", "hit") == (_state(asked), _state(again))
    assert asked.json()["choices"] == again.json()["choices"]
    told = _cli(second, "cache", "stats", environment=environment)
    assert ("valkey", 1) == (told["place"], told["entries"])
    assert 1 == _cli(second, "cache", "purge", environment=environment)["entries"]
    assert 0 == _cli(second, "cache", "stats", environment=environment)["entries"]
