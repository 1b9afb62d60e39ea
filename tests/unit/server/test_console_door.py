"""`/console`: leads to the console's own port on the host the visitor came to, and passes on nothing but a link's token."""

import json
from typing import Any

import pytest

from qwenbox.client.admin import InProcess
from qwenbox.remote import RemoteReply
from qwenbox.server.console_door import ConsoleDoor
from qwenbox.server.exchange import Exchange
from qwenbox.terms.errors import ApiError, ErrorKind

pytestmark = pytest.mark.anyio


async def visit(
    target: str = "/console",
    host: str = "127.0.0.1:8000",
    *,
    method: str = "GET",
    error: ApiError | None = None,
    public_url: str = "",
    accept: str = "text/html,*/*",
) -> RemoteReply:
    async def find() -> int:
        if error is not None:
            raise error
        return 8001

    door = ConsoleDoor(find, public_url)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await door.answer(Exchange(scope, receive, send, "request"))

    return await InProcess(application).send(method, target, {"accept": accept, **({"host": host} if host else {})}, b"")


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8001"),
        ("localhost:8000", "http://localhost:8001"),
        ("qwen.lan", "http://qwen.lan:8001"),
        ("[::1]:8000", "http://[::1]:8001"),
        # No name of a host: as we listen.
        ("evil.com/@x", "http://in-process:8001"),
        ('a"b', "http://in-process:8001"),
        ("", "http://in-process:8001"),
    ],
)
async def test_visitor_is_led_to_the_same_host_at_the_consoles_port(host: str, origin: str) -> None:
    for target in ("/console", "/console/"):
        reply = await visit(target, host)
        assert (307, f"{origin}/") == (reply.status, reply.headers["location"])
        assert ("no-store", "no-referrer") == (reply.headers["cache-control"], reply.headers["referrer-policy"])


async def test_visitor_is_led_to_the_address_that_the_owner_chose() -> None:
    reply = await visit("/console?token=abc", public_url="https://console.example.com")
    assert "https://console.example.com/link?token=abc" == reply.headers["location"]


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("token=aZ09-_", "/link?token=aZ09-_"),
        ("token=a&next=//evil.com", "/link?token=a"),
        ("token=", "/"),
        ("token=a%0d%0aSet-Cookie:x", "/"),
        ("token=//evil.com", "/"),
        ("token=a%23b", "/"),
        ("token=" + "a" * 201, "/"),
        ("next=//evil.com", "/"),
    ],
)
async def test_nothing_but_a_token_is_passed_on(query: str, path: str) -> None:
    assert f"http://127.0.0.1:8001{path}" == (await visit(f"/console?{query}")).headers["location"]


@pytest.mark.parametrize(
    ("kind", "status"),
    [(ErrorKind.NOT_FOUND, 404), (ErrorKind.FORBIDDEN, 403), (ErrorKind.OVERLOADED, 503)],
)
async def test_visitor_reads_why_there_is_no_console(kind: ErrorKind, status: int) -> None:
    reply = await visit(error=ApiError(kind, "Because of <this> & `that`.", retry_after_s=1.2 if status == 503 else None))
    assert (status, "text/html; charset=utf-8") == (reply.status, reply.headers["content-type"])
    assert "Because of &lt;this&gt; &amp; `that`." in reply.body.decode()
    assert "location" not in reply.headers
    assert ("2" if status == 503 else None) == reply.headers.get("retry-after")
    assert "default-src 'none'" in reply.headers["content-security-policy"]


async def test_programs_are_told_as_on_the_other_apis_of_ours() -> None:
    reply = await visit(error=ApiError(ErrorKind.FORBIDDEN, "Closed."), accept="*/*")
    assert (403, {"code": "forbidden", "message": "Closed.", "param": None}) == (reply.status, json.loads(reply.body)["error"])


async def test_head_is_answered_without_a_body() -> None:
    led, closed = await visit(method="HEAD"), await visit(method="HEAD", error=ApiError(ErrorKind.FORBIDDEN, "Closed."))
    assert (307, b"", 403, b"") == (led.status, led.body, closed.status, closed.body)


async def test_other_methods_and_paths_are_no_way_in() -> None:
    assert 405 == (await visit(method="POST")).status
    for path in ("/console/keys", "/consoles", "/console/../admin/v1/keys"):
        assert 404 == (await visit(path)).status
