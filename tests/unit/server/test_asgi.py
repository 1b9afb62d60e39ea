"""The edge without a network: statuses, first byte, hang-ups, body limit, lost clients."""

import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from qwenbox.clock import SystemClock
from qwenbox.dialects.registry import DIALECTS
from qwenbox.engines.echo.engine import Echo, EchoConfig
from qwenbox.files import Files, FilesConfig
from qwenbox.gateway.accounts import Accounts
from qwenbox.gateway.conversations import Conversations, ConversationsConfig
from qwenbox.gateway.keys import Keys, NewKey
from qwenbox.gateway.limits import Tier
from qwenbox.gateway.prices import Prices
from qwenbox.gateway.short_lived import ShortLivedKeys
from qwenbox.jobs.batches import Batches
from qwenbox.jobs.results import Results, ResultsConfig
from qwenbox.jobs.tasks import Tasks, TasksConfig
from qwenbox.jobs.wakeup import Wakeup
from qwenbox.server.asgi import build, new_id
from qwenbox.server.exchange import Exchange, Hangups, ServerConfig
from qwenbox.server.parts import Parts
from qwenbox.server.probes import Probes
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.engine import Events
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Started, TextDelta
from qwenbox.terms.secret import Secret
from qwenbox.uploads import Uploads, UploadsConfig
from support.gateways import Office, open_gateway

pytestmark = pytest.mark.anyio

KEY = "sk-unit"
CHAT = "/compatible-mode/v1/chat/completions"
ASKED = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


class Stumbling(Echo):
    """Echo that fails after its first words, or says nothing for a while."""

    def __init__(self, failure: Exception | None = None, silence_s: float = 0.0) -> None:
        super().__init__(EchoConfig())
        self.failure = failure
        self.silence_s = silence_s
        self.is_begun = anyio.Event()
        self.is_over = anyio.Event()

    @asynccontextmanager
    async def _events(self) -> AsyncGenerator[AsyncIterator[ChatEvent]]:
        async def events() -> AsyncGenerator[ChatEvent]:
            yield Started(input_tokens=1)
            await anyio.sleep(self.silence_s)
            yield TextDelta(text="begun", tokens=1)
            if self.failure:
                raise self.failure
            self.is_begun.set()
            await anyio.sleep_forever()

        stream = events()
        try:
            yield stream
        finally:
            await stream.aclose()
            self.is_over.set()

    def chat(self, request: ChatRequest) -> Events:
        return self._events()


class Reply:
    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.pieces: list[bytes] = []
        self.spoke = anyio.Event()

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


@asynccontextmanager
async def box(folder: Path, engine: Echo | None = None, **config: Any) -> AsyncGenerator[Any]:
    async with open_gateway(folder, engine or Echo(EchoConfig())) as office, app_of(office, **config) as app:
        yield app


@asynccontextmanager
async def app_of(office: Office, **config: Any) -> AsyncGenerator[Any]:
    keys = Keys(office.database, SystemClock())
    account = await Accounts(office.database, SystemClock()).named("default")
    await keys.issue(NewKey(account_id=account.id, name="unit", secret=Secret(KEY)))
    files = Files(office.database, Path("unused"), FilesConfig(), SystemClock())
    parts = Parts(
        gateway=office.gateway,
        files=files,
        uploads=Uploads(office.database, Path("unused"), UploadsConfig(), SystemClock(), Secret("s")),
        batches=Batches(office.database, files, SystemClock(), "CNY", Wakeup()),
        conversations=Conversations(office.database, ConversationsConfig(), SystemClock()),
        tasks=Tasks(office.database, TasksConfig(), SystemClock(), Wakeup()),
        results=Results(office.database, Path("unused"), ResultsConfig(), Secret("s"), SystemClock()),
        keys=keys,
        short_lived=ShortLivedKeys(Secret("s"), keys, SystemClock()),
        prices=Prices(()),
        config=ServerConfig(**config),
        hangups=Hangups(),
    )
    yield build(parts, DIALECTS, Probes(office.gateway.catalog, DIALECTS), {"/desk/": BrokenDesk()})


class BrokenDesk:
    async def answer(self, exchange: Exchange) -> None:
        raise ValueError("a secret of ours")


async def call(
    app: Any, path: str, body: bytes | list[bytes] = b"", method: str = "POST", key: str | None = KEY, gone: Any = None
) -> Reply:
    reply = Reply()
    pieces = body if isinstance(body, list) else [body]
    headers = [(b"host", b"box:1")] + ([(b"authorization", f"Bearer {key}".encode())] if key is not None else [])
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": headers,
        "scheme": "http",
        "server": ("box", 1),
    }

    async def receive() -> dict[str, Any]:
        if pieces:
            piece = pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces)}
        await (gone.wait() if gone else anyio.sleep_forever())
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            reply.status = message["status"]
            reply.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            reply.pieces.append(message["body"])
            reply.spoke.set()

    with anyio.fail_after(60):
        await app(scope, receive, send)
    return reply


def asked(**more: object) -> bytes:
    return json.dumps({**ASKED, **more}).encode()


async def test_chat_answers_with_the_request_id_in_body_and_header(tmp_path: Path) -> None:
    async with box(tmp_path) as app:
        reply = await call(app, CHAT, asked())
    assert reply.status == 200
    assert json.loads(reply.body)["id"] == f"chatcmpl-{reply.headers['x-request-id']}"
    assert int(reply.headers["content-length"]) == len(reply.body)


@pytest.mark.parametrize("key", [None, "", "sk-wrong", KEY + "x"])
async def test_chat_is_401_when_the_key_is_missing_or_wrong(tmp_path: Path, key: str | None) -> None:
    async with box(tmp_path) as app:
        reply = await call(app, CHAT, asked(), key=key)
    assert reply.status == 401
    assert json.loads(reply.body)["error"]["code"] == "invalid_api_key"


async def test_every_route_is_401_without_a_key(tmp_path: Path) -> None:
    async with box(tmp_path) as app:
        for dialect in DIALECTS:
            for prefix in dialect.prefixes:
                for route in dialect.routes:
                    reply = await call(app, f"{prefix}{route.path}".replace("{model}", "m"), method=route.method, key=None)
                    assert (route.path, 401) == (route.path, reply.status)


async def test_chat_is_413_when_the_body_is_too_large_in_one_piece_or_many(tmp_path: Path) -> None:
    async with box(tmp_path, body_limit_bytes=100) as app:
        for body in (b"x" * 101, [b"x" * 60, b"x" * 60, b"x"]):
            assert (await call(app, CHAT, body)).status == 413
        assert (await call(app, CHAT, [b" " * 2, asked()])).status == 200


async def test_stream_ends_in_an_error_frame_when_the_engine_fails_after_its_first_word(tmp_path: Path) -> None:
    async with box(tmp_path, Stumbling(ApiError(ErrorKind.ENGINE_FAILED, "The engine stopped."))) as app:
        reply = await call(app, CHAT, asked(stream=True))
    assert reply.status == 200
    assert b"begun" in reply.body
    assert b'"error"' in reply.pieces[-2]
    assert reply.pieces[-1] == b""


async def test_whole_answer_has_the_true_status_when_the_engine_fails_in_the_middle(tmp_path: Path) -> None:
    async with box(tmp_path, Stumbling(ApiError(ErrorKind.OVERLOADED, retry_after_s=2))) as app:
        reply = await call(app, CHAT, asked())
    assert reply.status == 503
    assert reply.headers["retry-after"] == "2"


@pytest.mark.parametrize("is_stream", [True, False])
async def test_chat_is_500_without_internals_when_something_unexpected_fails(tmp_path: Path, is_stream: bool) -> None:
    async with box(tmp_path, Stumbling(RuntimeError("secret internals"))) as app:
        reply = await call(app, CHAT, asked(stream=is_stream))
    assert reply.status == (200 if is_stream else 500)
    assert b"secret internals" not in reply.body
    assert b"internal_error" in reply.body


@pytest.mark.parametrize("is_stream", [True, False])
async def test_engine_is_left_when_the_client_hangs_up(tmp_path: Path, is_stream: bool) -> None:
    engine, gone = Stumbling(), anyio.Event()
    async with box(tmp_path, engine) as app, anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: call(app, CHAT, asked(stream=is_stream), gone=gone))
        with anyio.fail_after(60):
            await engine.is_begun.wait()
            assert not engine.is_over.is_set()
            gone.set()
            await engine.is_over.wait()


async def test_stream_gets_comments_while_the_engine_is_silent(tmp_path: Path) -> None:
    async with box(tmp_path, Stumbling(ApiError(ErrorKind.TIMEOUT), silence_s=0.3), heartbeat_s=0.05) as app:
        reply = await call(app, CHAT, asked(stream=True))
    assert len([piece for piece in reply.pieces if piece.startswith(b":")]) >= 2
    assert b"begun" in reply.body


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("/chat/completions", "http://box:1/compatible-mode/v1"),
        ("/api/v1/chat/completions", "http://box:1/compatible-mode/v1"),
        ("/compatible-mode/v1/services/aigc/text-generation/generation", "http://box:1/api/v1"),
        ("/services/aigc/text-generation/generation", "http://box:1/api/v1"),
        ("/nothing", "http://box:1/compatible-mode/v1"),
    ],
)
async def test_a_lost_client_is_told_the_right_base_url(tmp_path: Path, path: str, right: str) -> None:
    async with box(tmp_path) as app:
        reply = await call(app, path, asked())
    assert reply.status == 404
    assert right in reply.body.decode()


async def test_a_wrong_method_is_405_and_names_the_right_one(tmp_path: Path) -> None:
    async with box(tmp_path) as app:
        reply = await call(app, CHAT, method="GET")
    assert (405, "POST") == (reply.status, reply.headers["allow"])


@pytest.mark.parametrize(
    ("path", "is_anthropic"), [("/v1/models", False), ("/compatible-mode/v1/models", False), ("/apps/anthropic/v1/models", True)]
)
async def test_a_wrong_method_is_told_in_the_dialect_of_its_path(tmp_path: Path, path: str, is_anthropic: bool) -> None:
    async with box(tmp_path) as app:
        reply = await call(app, path, method="POST")
    assert (405, is_anthropic) == (reply.status, json.loads(reply.body).get("type") == "error")


@pytest.mark.parametrize("path", ["/", "/health", "/ready"])
async def test_probes_need_no_key(tmp_path: Path, path: str) -> None:
    async with box(tmp_path) as app:
        assert (await call(app, path, method="GET", key=None)).status == 200


def test_new_id_is_a_fresh_uuid_in_lower_case() -> None:
    ids = {new_id() for _ in range(1000)}
    assert 1000 == len(ids)
    assert all(str(uuid.UUID(one)) == one for one in ids)
    assert {(7, uuid.RFC_4122)} == {(uuid.UUID(one).version, uuid.UUID(one).variant) for one in ids}


def test_new_ids_are_ordered_by_their_millisecond() -> None:
    before_ms = time.time_ns() // 1_000_000
    ids = [new_id() for _ in range(1000)]
    moments_ms = [uuid.UUID(one).int >> 80 for one in ids]
    assert sorted(moments_ms) == moments_ms
    assert before_ms <= moments_ms[0] and moments_ms[-1] <= time.time_ns() // 1_000_000


async def test_desk_that_fails_tells_nothing_of_why(tmp_path: Path) -> None:
    async with box(tmp_path) as app:
        reply = await call(app, "/desk/anything", method="GET")
        assert 500 == reply.status
        assert b"secret" not in reply.body


async def test_answer_tells_what_is_left_of_the_limits(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, Echo(EchoConfig()), tier=Tier(rpm=2, tpm=10_000)) as office, app_of(office) as app:
        replies = [await call(app, CHAT, json.dumps(ASKED).encode()) for _ in range(3)]
    assert [200, 200, 429] == [reply.status for reply in replies]
    assert ["1", "0", "0"] == [reply.headers["x-ratelimit-remaining-requests"] for reply in replies]
    assert {"10000"} == {reply.headers["x-ratelimit-limit-tokens"] for reply in replies}
    assert 1 <= int(replies[2].headers["retry-after-ms"]) <= 60_000
    assert "limit_requests" == json.loads(replies[2].body)["error"]["code"]
