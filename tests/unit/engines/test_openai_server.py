"""The engine against scripted servers on loopback: what it sends, what it hears, how it fails."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers import END, HEAD, Peer, Script, frame, peer
from qwenbox.engines import told
from qwenbox.engines.flavours import Partial, Quirks
from qwenbox.engines.openai_server import OpenAiServer, OpenAiServerConfig
from qwenbox.gateway.attempts.policy import Verdict, shown, verdict
from qwenbox.remote import Remote, Timeouts
from qwenbox.terms.chat import ChatRequest, Message, Role, Sampling, TextPart, Thinking
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.engine import HealthState
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, ChoiceFinished, Completed, FinishReason, Started, TextDelta, fold
from qwenbox.terms.usage import Usage

ASKED = ChatRequest(
    model="qwen-turbo",
    messages=(Message(role=Role.USER, content=(TextPart(text="hi"),)),),
    sampling=Sampling(temperature=0.5, top_p=0.9, top_k=20, repetition_penalty=1.1),
    max_output_tokens=100,
)
USAGE = {"prompt_tokens": 9, "completion_tokens": 2}


def sse(*chunks: Any) -> bytes:
    return b"".join(b"data: " + (b"[DONE]" if chunk == "[DONE]" else json.dumps(chunk).encode()) + b"\n\n" for chunk in chunks)


def delta(text: str = "", reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]}


def answering(*bodies: bytes, head: bytes = HEAD) -> Script:
    async def play(_: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        for body in bodies:
            writer.write(frame(body))
            await asyncio.sleep(0.01)
        writer.write(END)

    return play


GOOD = answering(sse(delta("Hel")), sse(delta("lo"), delta(reason="stop"), {"choices": [], "usage": USAGE}, "[DONE]"))


def refusing(status: int, body: bytes, more: bytes = b"") -> Script:
    async def play(_: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 %d No\r\n%bContent-Length: %d\r\n\r\n%b" % (status, more, len(body), body))

    return play


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
async def remote() -> AsyncIterator[Remote]:
    async with Remote() as it:
        yield it


def engine(remote: Remote, url: str, **settings: Any) -> OpenAiServer:
    return OpenAiServer(OpenAiServerConfig(address=f"{url}/v1", model="upstream", **settings), remote, {"KEY": "sk-hidden"})


async def hear(opened: OpenAiServer, request: ChatRequest | CompletionRequest = ASKED) -> list[ChatEvent]:
    async with opened.chat(request) if isinstance(request, ChatRequest) else opened.complete(request) as events:
        return [event async for event in events]


async def failure(opened: OpenAiServer, request: ChatRequest = ASKED) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await hear(opened, request)
    assert "sk-hidden" not in str(caught.value)
    return caught.value


def sent(it: Peer) -> dict[str, Any]:
    return json.loads(it.heard[-1][1])


async def test_chat_hears_events_and_the_servers_usage(remote: Remote) -> None:
    async with peer(GOOD) as it:
        events = await hear(engine(remote, it.url))
    assert events == [
        Started(input_tokens=0),
        TextDelta(text="Hel", tokens=1),
        TextDelta(text="lo", tokens=1),
        ChoiceFinished(reason=FinishReason.STOP),
        Completed(usage=Usage(input_tokens=9, output_tokens=2)),
    ]


async def test_chat_counts_when_the_server_tells_no_usage(remote: Remote) -> None:
    async with peer(answering(sse(delta("a")), sse(delta("b"), delta(reason="stop"), "[DONE]"))) as it:
        usage = fold(await hear(engine(remote, it.url))).usage
    assert (2, True) == (usage.output_tokens, usage.is_counted)


async def test_chat_asks_for_a_stream_under_the_servers_own_name(remote: Remote) -> None:
    async with peer(GOOD) as it:
        await hear(engine(remote, it.url, key_env="KEY"))
        head, body = it.heard[0]
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert b"authorization: Bearer sk-hidden\r\n" in head
    said = json.loads(body)
    assert ("upstream", True, 0.5, 0.9, 20, 1.1, 100) == tuple(
        said[name] for name in ("model", "stream", "temperature", "top_p", "top_k", "repetition_penalty", "max_tokens")
    )


async def test_chat_sends_the_callers_name_when_the_config_has_none(remote: Remote) -> None:
    async with peer(GOOD) as it:
        await hear(OpenAiServer(OpenAiServerConfig(address=it.url), remote))
        assert "qwen-turbo" == sent(it)["model"]


async def test_complete_continues_a_raw_prompt(remote: Remote) -> None:
    async with peer(answering(sse({"choices": [{"index": 0, "text": "def", "finish_reason": "length"}]}, "[DONE]"))) as it:
        result = fold(await hear(engine(remote, it.url), CompletionRequest(model="m", prompt="abc", max_output_tokens=1)))
        assert ("abc", True) == (sent(it)["prompt"], it.heard[0][0].startswith(b"POST /v1/completions "))
    assert ("def", FinishReason.LENGTH) == (result.choices[0].text, result.choices[0].reason)


async def test_the_connection_serves_the_next_call_though_its_listener_left_at_completed(remote: Remote) -> None:
    async with peer(GOOD) as it:
        for _ in range(3):
            async with engine(remote, it.url).chat(ASKED) as events:
                async for event in events:
                    if isinstance(event, Completed):
                        break
        assert (3, 1) == (len(it.heard), it.connections)


async def test_an_answer_is_whole_though_its_body_never_ends(remote: Remote) -> None:
    async def open_end(_: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + frame(sse(delta("a", "stop"), "[DONE]")))
        await asyncio.sleep(60)

    async with peer(open_end) as it:
        with anyio.fail_after(30):
            assert "a" == fold(await hear(engine(remote, it.url))).choices[0].text


async def test_a_server_that_does_not_stream_is_heard_all_the_same(remote: Remote) -> None:
    whole = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}], "usage": USAGE}
    async with peer(refusing(200, json.dumps(whole).encode(), b"Content-Type: application/json\r\n")) as it:
        result = fold(await hear(engine(remote, it.url)))
    assert ("Hello", 2) == (result.choices[0].text, result.usage.output_tokens)


async def test_leaving_early_hangs_up(remote: Remote) -> None:
    async def endless(_: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        while True:
            writer.write(frame(sse(delta("a"))))
            await asyncio.sleep(0.01)

    async with peer(endless) as it:
        async with engine(remote, it.url + "/hang").chat(ASKED) as events:
            async for _ in events:
                break
        with anyio.fail_after(30):
            await it.hung_up.wait()


async def test_a_refusal_is_what_it_means_for_the_caller(remote: Remote) -> None:
    too_long = b'{"error":{"message":"maximum context length is 8","code":"context_length_exceeded"}}'
    async with peer(refusing(400, too_long)) as it:
        assert ErrorKind.CONTEXT_TOO_LONG == (await failure(engine(remote, it.url))).kind
    async with peer(refusing(429, b"slow down", b"Retry-After: 7\r\n")) as it:
        error = await failure(engine(remote, it.url))
        assert (ErrorKind.OVERLOADED, 7.0) == (error.kind, error.retry_after_s)
    async with peer(refusing(401, b"{}")) as it:
        assert ErrorKind.UNAUTHENTICATED == (await failure(engine(remote, it.url))).kind


async def test_an_answer_cut_short_is_a_failure(remote: Remote) -> None:
    async with peer(answering(sse(delta("a")))) as it:
        assert ErrorKind.ENGINE_FAILED == (await failure(engine(remote, it.url))).kind


async def test_a_silence_is_a_timeout(remote: Remote) -> None:
    async def stall(_: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + frame(sse(delta("a"))))
        await asyncio.sleep(60)

    async with peer(stall) as it:
        assert ErrorKind.TIMEOUT == (await failure(engine(remote, it.url, timeouts=Timeouts(between_bytes_s=0.1)))).kind


async def test_quirks_bend_the_body(remote: Remote) -> None:
    quirks = Quirks(
        leave_out=frozenset({"top_k"}), rename={"max_tokens": "max_completion_tokens"}, add={"reasoning_format": "none", "n_probs": 0}
    )
    async with peer(GOOD) as it:
        await hear(engine(remote, it.url, quirks=quirks))
        said = sent(it)
    assert (100, "none", 0) == (said["max_completion_tokens"], said["reasoning_format"], said["n_probs"])
    assert not {"top_k", "max_tokens"} & said.keys()


@pytest.mark.parametrize(("style", "field"), [(Partial.FIELD, None), (Partial.CONTINUE, True)])
async def test_a_partial_turn_is_continued_in_the_servers_way(remote: Remote, style: Partial, field: bool | None) -> None:
    beginning = Message(role=Role.ASSISTANT, content=(TextPart(text="He"),), is_partial=True)
    asked = msgspec.structs.replace(ASKED, messages=(*ASKED.messages, beginning))
    async with peer(GOOD) as it:
        await hear(engine(remote, it.url, quirks=Quirks(partial=style)), asked)
        assert (True, field) == (sent(it)["messages"][-1]["partial"], sent(it).get("continue_final_message"))


async def test_what_a_server_cannot_honour_is_refused_unsent(remote: Remote) -> None:
    beginning = Message(role=Role.ASSISTANT, content=(TextPart(text="He"),), is_partial=True)
    async with peer(GOOD) as it:
        plain = engine(remote, it.url, quirks=Quirks(partial=Partial.REFUSED, takes_stop_tokens=False))
        partial = await failure(plain, msgspec.structs.replace(ASKED, messages=(*ASKED.messages, beginning)))
        stop = await failure(plain, msgspec.structs.replace(ASKED, stop_tokens=((1, 2),)))
    assert [(ErrorKind.INVALID_REQUEST, "messages"), (ErrorKind.INVALID_REQUEST, "stop")] == [(e.kind, e.param) for e in (partial, stop)]
    assert 0 == it.connections


async def test_a_key_that_is_not_there_makes_the_engine_unhealthy(remote: Remote, tmp_path: Path) -> None:
    for place in ({"key_env": "NOWHERE"}, {"key_file": str(tmp_path / "none")}):
        keyless = engine(remote, "http://127.0.0.1:1", **place)
        assert HealthState.DOWN == (await keyless.health()).state
        assert ErrorKind.UNAUTHENTICATED == (await failure(keyless)).kind


async def test_a_model_that_is_not_there_is_not_asked_for_again(remote: Remote) -> None:
    async with peer(refusing(404, b"{}")) as it:
        error = await failure(engine(remote, it.url))
    assert (Verdict.ELSEWHERE, ErrorKind.ENGINE_FAILED) == (verdict(error), shown(error).kind)
    assert "does not know the model" in shown(error).message


async def test_the_key_may_lie_in_a_file(remote: Remote, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-hidden\n")
    async with peer(GOOD) as it:
        await hear(engine(remote, it.url, key_file=str(tmp_path / "key")))
        assert b"authorization: Bearer sk-hidden\r\n" in it.heard[0][0]


@pytest.mark.parametrize(
    ("status", "state"),
    [(200, HealthState.READY), (404, HealthState.READY), (401, HealthState.DOWN), (503, HealthState.DOWN)],
)
async def test_health_is_what_the_models_list_says(remote: Remote, status: int, state: HealthState) -> None:
    async with peer(refusing(status, b"{}")) as it:
        assert state == (await engine(remote, it.url).health()).state
        assert it.heard[0][0].startswith(b"GET /v1/models ")


async def test_health_is_down_when_nobody_listens(remote: Remote) -> None:
    assert HealthState.DOWN == (await engine(remote, "http://127.0.0.1:1").health()).state


def test_config_shows_no_key_and_refuses_what_is_no_address() -> None:
    decoded = msgspec.convert({"kind": "openai_server", "address": "http://h/v1", "key_env": "KEY"}, OpenAiServerConfig)
    assert "sk-hidden" not in repr(decoded)
    for wrong in ({"address": "h:80"}, {"address": "http://h", "key_env": "A", "key_file": "b"}, {"address": "http://h", "adress": "x"}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"kind": "openai_server", **wrong}, OpenAiServerConfig)


FILLED = msgspec.structs.replace(
    ASKED, defaults={"top_k": 20, "repetition_penalty": 1.1, "is_enabled": False}, thinking=Thinking(is_enabled=False)
)


@pytest.mark.parametrize(
    ("flavour", "has", "has_not"),
    [
        ("vllm", {"top_k": 20, "chat_template_kwargs": {"enable_thinking": False}}, {"enable_thinking"}),
        ("sglang", {"repetition_penalty": 1.1}, {"enable_thinking"}),
        ("ollama", {"reasoning_effort": "none"}, {"top_k", "repetition_penalty", "chat_template_kwargs"}),
        ("llama-server", {"repeat_penalty": 1.1, "top_k": 20}, {"repetition_penalty", "enable_thinking"}),
        ("openai", {"max_completion_tokens": 100}, {"max_tokens", "top_k", "enable_thinking"}),
    ],
)
async def test_a_flavour_says_what_its_server_understands(remote: Remote, flavour: Any, has: dict[str, Any], has_not: set[str]) -> None:
    async with peer(GOOD) as it:
        await hear(engine(remote, it.url, flavour=flavour), FILLED)
        said = sent(it)
    assert has == {name: said[name] for name in has}
    assert not has_not & said.keys()


@pytest.mark.parametrize(("flavour", "field"), [("ollama", "top_k"), ("openai", "repetition_penalty")])
async def test_a_flavour_refuses_what_its_server_would_ignore_when_somebody_asked(remote: Remote, flavour: Any, field: str) -> None:
    asked = msgspec.structs.replace(FILLED, defaults={name: value for name, value in FILLED.defaults.items() if name != field})
    error = await failure(engine(remote, "http://127.0.0.1:1", flavour=flavour), asked)
    assert (ErrorKind.INVALID_REQUEST, field) == (error.kind, error.param)


async def test_single_stop_ids_go_where_the_server_takes_them(remote: Remote) -> None:
    async with peer(GOOD) as it:
        await hear(engine(remote, it.url, flavour="vllm"), msgspec.structs.replace(FILLED, stop_tokens=((7,), (9,))))
        said = sent(it)
    assert ([7, 9], False) == (said["stop_token_ids"], "stop" in said)


async def test_health_learns_what_the_server_tells(remote: Remote) -> None:
    async with peer(refusing(200, b'{"data":[{"id":"upstream","max_model_len":4096}]}')) as it:
        opened = engine(remote, it.url, flavour="vllm")
        assert HealthState.READY == (await opened.health()).state
        assert [b"/health", b"/v1/models"] == [head.split(b" ")[1] for head, _ in it.heard]
    assert 4096 == opened.facts.context_tokens


@given(st.binary(max_size=300))
def test_whatever_a_server_tells_of_itself_does_no_harm(body: bytes) -> None:
    assert {frozenset()} >= {told.models(body, "m").capabilities, told.show(body).capabilities}
    assert told.props(body).context_tokens is None
