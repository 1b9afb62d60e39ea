"""The console's process: started by the first visit, started again by the next one, closed where it must be. With a stand-in for it."""

import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import msgspec
import pytest

from qwenbox.app.console import Console, Entrance, box_address, first_way_in
from qwenbox.clock import SystemClock
from qwenbox.config import Config
from qwenbox.console.settings import ConsoleConfig, Opening
from qwenbox.gateway.accounts import NewAccount, Role
from qwenbox.server.admin.guard import AdminKey
from qwenbox.server.exchange import ServerConfig
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret
from support.administration import administration

pytestmark = pytest.mark.anyio

TESTS = Path(__file__).parents[2]
KEY = AdminKey(secret=Secret("ak-hidden"), is_chosen=False)
CHOSEN = AdminKey(secret=Secret("ak-hidden"), is_chosen=True)


@pytest.fixture(autouse=True)
def _tests_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))


def config(*, host: str = "127.0.0.1", public_url: str = "", enabled: bool = True, port: int = 0) -> Config:
    return Config(
        home=Path("/nowhere"),
        server=ServerConfig(host=host, port=8123, public_url=public_url),
        console=ConsoleConfig(enabled=enabled, port=port),
    )


@asynccontextmanager
async def console(settings: Config) -> AsyncIterator[Console]:
    with anyio.fail_after(60):
        async with Console(settings, KEY, SystemClock(), "support.console_process") as opened:
            yield opened


async def asked(port: int) -> Opening:
    """What the process that listens there was told."""
    async with httpx.AsyncClient() as client:
        return msgspec.json.decode((await client.get(f"http://127.0.0.1:{port}/")).content, type=Opening)


async def refused(kind: ErrorKind, opened: Console) -> str:
    with pytest.raises(ApiError) as caught:
        await opened.port()
    assert kind is caught.value.kind
    return caught.value.message


async def test_console_is_started_by_the_first_visit_and_no_sooner() -> None:
    async with console(config()) as opened:
        assert opened.pid is None
        ports: list[int] = []

        async def visit() -> None:
            ports.append(await opened.port())

        async with anyio.create_task_group() as visitors:
            for _ in range(5):
                visitors.start_soon(visit)
        assert 1 == len(set(ports))
        expected = Opening(
            box="http://127.0.0.1:8123", admin_key="ak-hidden", host="127.0.0.1", port=0, is_local=True, base_url="http://127.0.0.1:8123"
        )
        assert expected == await asked(ports[0])
        pid = opened.pid
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_console_tells_programs_the_address_that_the_owner_chose() -> None:
    async with console(config(public_url="https://qwen.example.com")) as opened:
        told = await asked(await opened.port())
    assert ("http://127.0.0.1:8123", "https://qwen.example.com") == (told.box, told.base_url)


async def test_console_does_not_name_an_address_where_the_box_is_on_every_one() -> None:
    async with console(config(host="0.0.0.0")) as opened:
        told = await asked(await opened.port())
    assert ("http://127.0.0.1:8123", "0.0.0.0", "") == (told.box, told.host, told.base_url)


async def test_console_is_back_with_the_next_visit_when_it_was_killed(caplog: pytest.LogCaptureFixture) -> None:
    async with console(config()) as opened:
        first = await opened.port()
        for _ in range(2):
            before = opened.pid
            assert before is not None
            os.kill(before, signal.SIGKILL)
            while True:
                port = await opened.port()  # the death may not have been noticed yet
                if opened.pid != before:
                    break
            await asked(port)
            assert first == port
    assert "the console ended and is started again" in caplog.text


async def test_visitors_are_told_of_a_taken_port_and_so_is_the_owner(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        async with console(config(port=port)) as opened:
            for _ in range(3):
                said = await refused(ErrorKind.OVERLOADED, opened)
                assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in said
                assert "QWENBOX_CONSOLE_PORT" in said
                assert said in caplog.text
            other.close()
            while True:
                try:
                    assert port == await opened.port()
                    break
                except ApiError as error:
                    await anyio.sleep(error.retry_after_s or 0)


async def test_what_a_console_says_that_does_not_start_is_for_the_owner_only(caplog: pytest.LogCaptureFixture) -> None:
    async with console(config(public_url="http://crash")) as opened:
        for _ in range(2):
            said = await refused(ErrorKind.OVERLOADED, opened)
            assert "The console did not start; the box's log says why." == said
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:8123"),
        ("0.0.0.0", "http://127.0.0.1:8123"),
        ("::", "http://[::1]:8123"),
        ("fd00::1", "http://[fd00::1]:8123"),
    ],
)
def test_the_box_is_asked_at_an_address_of_this_machine(host: str, address: str) -> None:
    assert address == box_address(config(host=host))


@pytest.mark.parametrize(
    ("settings", "key", "has_password", "kind", "words"),
    [
        (config(), KEY, False, None, ""),
        (config(host="::1"), KEY, False, None, ""),
        (config(enabled=False), KEY, True, ErrorKind.NOT_FOUND, "enabled is false"),
        (config(host="0.0.0.0"), KEY, True, ErrorKind.FORBIDDEN, "QWENBOX_ADMIN_KEY"),
        (config(host="0.0.0.0"), CHOSEN, False, ErrorKind.FORBIDDEN, "qwenbox accounts password"),
        (config(host="0.0.0.0"), CHOSEN, True, None, ""),
    ],
)
async def test_the_way_in_is_closed_where_it_must_be(
    tmp_path: Path, settings: Config, key: AdminKey, has_password: bool, kind: ErrorKind | None, words: str
) -> None:
    visits: list[int] = []

    async def port() -> int:
        visits.append(1)
        return 8001

    async with administration(f"sqlite+aiosqlite:///{tmp_path / 'box.db'}") as admin:
        if has_password:
            await admin.parts.accounts.create(NewAccount(name="ann", role=Role.ADMIN))
            await admin.parts.accounts.set_password("ann", Secret("correct horse"))
        entrance = Entrance(settings, key, admin.parts.sign_in, port)
        shown = await first_way_in(settings, key, admin.parts.sign_in)
        if kind is None:
            assert 8001 == await entrance.find()
            assert shown == "/console" if has_password else str(shown).startswith("/console?token=")
            return
        with pytest.raises(ApiError, match=words) as caught:
            await entrance.find()
    assert (kind, None, []) == (caught.value.kind, shown, visits)


async def test_the_link_that_a_start_shows_lets_somebody_in_once(tmp_path: Path) -> None:
    async with administration(f"sqlite+aiosqlite:///{tmp_path / 'box.db'}") as admin:
        path = await first_way_in(config(), KEY, admin.parts.sign_in)
        token = Secret(str(path).partition("token=")[2])
        await admin.parts.sign_in.redeem(token, "127.0.0.1")
        with pytest.raises(ApiError):
            await admin.parts.sign_in.redeem(token, "127.0.0.1")
