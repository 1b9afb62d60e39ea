"""Who may read `/metrics`."""

from typing import Any

import pytest

from qwenbox.clock import SystemClock
from qwenbox.gateway.accounts import Account
from qwenbox.server.admin.guard import AdminKey, Guard
from qwenbox.server.exchange import Exchange
from qwenbox.server.metrics import Access, MetricsConfig, MetricsPage
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret

pytestmark = pytest.mark.anyio

KEY = "ak-of-the-box"


async def log_in(name: str, password: Secret) -> Account:
    raise ApiError(ErrorKind.UNAUTHENTICATED)


async def status(access: Access, listens_on: str, *, is_chosen: bool = True, host: str = "127.0.0.1:8000", **headers: str) -> int:
    """Of a request with these headers. is_chosen: whether the admin key is a setting."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nobody reads a body here")

    async def render(accept: str) -> tuple[str, bytes]:
        return "text/plain", b"qwenbox_build_info 1\n"

    named = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/metrics",
        "scheme": "http",
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        "client": ("127.0.0.1", 1),
    }
    guard = Guard(AdminKey(secret=Secret(KEY), is_chosen=is_chosen), listens_on, log_in, SystemClock())
    await MetricsPage(MetricsConfig(access=access), listens_on, guard, render).answer(Exchange(scope, receive, send, "r-1"))
    assert (b"qwenbox_build_info" in sent[-1]["body"]) == (sent[0]["status"] == 200)
    return sent[0]["status"]


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000", "127.0.0.1"])
async def test_this_machine_reads_without_a_key_what_listens_on_loopback(host: str) -> None:
    assert 200 == await status(Access.AUTO, "127.0.0.1", host=host)


@pytest.mark.parametrize("host", ["rebound.example:8000", "10.0.0.7", "127.0.0.1.evil.example", "localhost.evil.example"])
async def test_other_names_of_this_machine_need_the_key(host: str) -> None:
    assert 401 == await status(Access.AUTO, "127.0.0.1", host=host)
    assert 200 == await status(Access.AUTO, "127.0.0.1", host=host, authorization=f"Bearer {KEY}")


@pytest.mark.parametrize("header", ["forwarded", "via", "x_forwarded_for", "x_real_ip"])
async def test_who_comes_through_a_proxy_needs_the_key(header: str) -> None:
    assert 401 == await status(Access.AUTO, "127.0.0.1", **{header: "203.0.113.7"})


async def test_box_that_others_reach_wants_the_key_and_is_off_without_a_chosen_one() -> None:
    assert 401 == await status(Access.AUTO, "0.0.0.0")
    assert 200 == await status(Access.AUTO, "0.0.0.0", authorization=f"Bearer {KEY}")
    assert 403 == await status(Access.AUTO, "0.0.0.0", is_chosen=False, authorization=f"Bearer {KEY}")


async def test_access_is_what_the_owner_says() -> None:
    assert 200 == await status(Access.OPEN, "0.0.0.0", is_chosen=False, host="box.example")
    assert 401 == await status(Access.ADMIN, "127.0.0.1")
    assert 200 == await status(Access.ADMIN, "127.0.0.1", authorization=f"Bearer {KEY}")
    assert 404 == await status(Access.OFF, "127.0.0.1", authorization=f"Bearer {KEY}")
