"""Who may use the admin API, and who may not."""

import base64
import stat
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qwenbox.gateway.tries import FREE_FAILURES, PENALTY_S
from qwenbox.server.admin import guard
from qwenbox.server.admin.guard import AdminConfig, admin_key, is_loopback
from qwenbox.terms.secret import Secret
from support.administration import KEY, Administration, administration

pytestmark = pytest.mark.anyio

PASSWORD = "correct horse battery"


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Administration]:
    async with administration(f"sqlite+aiosqlite:///{tmp_path / 'box.db'}", is_testing=True) as opened:
        yield opened


def basic(name: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"


async def make_admin(admin: Administration, role: str = "admin") -> None:
    await admin.call("POST", "/accounts", {"name": "root", "role": role})
    assert 204 == (await admin.call("PUT", "/accounts/root/password", {"password": PASSWORD})).status


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {KEY}x",
        f"bearer {KEY[:-1]}",
        KEY,
        f"Basic {KEY}",
        "Basic !!",
        "Basic gIA=",
        "Bearer \xff",
        "Digest x",
    ],
)
async def test_every_path_is_401_without_the_right_credential(admin: Administration, authorization: str) -> None:
    for path in ("/accounts", "/openapi.json", "/nothing", "/clock"):
        refused = await admin.call("GET", path, authorization=authorization)
        assert (path, 401, "unauthenticated") == (path, refused.status, refused.error["code"])
        # Not Basic, or browsers would keep a password and send it along.
        assert refused.headers["www-authenticate"].startswith("Bearer")


async def test_api_key_is_401(admin: Administration) -> None:
    await admin.call("POST", "/accounts", {"name": "alice"})
    secret = (await admin.call("POST", "/keys", {"account": "alice", "name": "ci"})).json["secret"]
    assert 401 == (await admin.call("GET", "/accounts", authorization=f"Bearer {secret}")).status


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])
async def test_api_is_off_on_open_addresses_until_a_key_is_chosen(tmp_path: Path, host: str) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'box.db'}"
    async with administration(url, host=host) as admin:
        refused = await admin.call("GET", "/accounts")
        assert 403 == refused.status
        assert "QWENBOX_ADMIN_KEY" in refused.error["message"]
    async with administration(url, host=host, is_chosen=True) as admin:
        assert 200 == (await admin.call("GET", "/accounts")).status


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_is_known(host: str) -> None:
    assert is_loopback(host)


async def test_admin_comes_in_with_its_password(admin: Administration) -> None:
    await make_admin(admin)
    assert 200 == (await admin.call("GET", "/accounts", authorization=basic("root", PASSWORD))).status
    for name, password in (("root", "wrong"), ("nobody", PASSWORD), ("root", ""), ("", "")):
        assert (name, 401) == (name, (await admin.call("GET", "/accounts", authorization=basic(name, password))).status)


async def test_member_is_forbidden_with_its_password(admin: Administration) -> None:
    await make_admin(admin, role="member")
    assert 403 == (await admin.call("GET", "/accounts", authorization=basic("root", PASSWORD))).status


async def test_guesser_has_to_wait_and_is_let_in_with_the_right_password_later(admin: Administration) -> None:
    await make_admin(admin)
    for _ in range(FREE_FAILURES):
        assert 401 == (await admin.call("GET", "/accounts", authorization=basic("root", "wrong"))).status
    refused = await admin.call("GET", "/accounts", authorization=basic("root", PASSWORD))
    assert 429 == refused.status
    assert 0 < int(refused.headers["retry-after"]) <= PENALTY_S
    # The key still opens, and so does the password after the wait.
    await admin.call("POST", "/clock", {"advance_s": PENALTY_S + 1})
    assert 200 == (await admin.call("GET", "/accounts", authorization=basic("root", PASSWORD))).status


async def test_right_password_clears_the_count_of_wrong_ones(admin: Administration) -> None:
    await make_admin(admin)
    for _ in range(2):
        for _ in range(FREE_FAILURES - 1):
            await admin.call("GET", "/accounts", authorization=basic("root", "wrong"))
        assert 200 == (await admin.call("GET", "/accounts", authorization=basic("root", PASSWORD))).status


@pytest.mark.parametrize("password", ["short", "x" * 2_000])
async def test_password_is_refused_when_it_is_too_short_or_too_long(admin: Administration, password: str) -> None:
    await admin.call("POST", "/accounts", {"name": "root"})
    refused = await admin.call("PUT", "/accounts/root/password", {"password": password})
    assert (400, "password") == (refused.status, refused.error["param"])
    assert password not in refused.error["message"]


def test_key_is_drawn_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: admin_key(AdminConfig(), tmp_path), range(32)))
    assert 1 == len({key.secret.reveal() for key in keys})
    assert not keys[0].is_chosen
    assert [guard.KEY_FILE] == [path.name for path in tmp_path.iterdir()]
    assert 0o600 == stat.S_IMODE((tmp_path / guard.KEY_FILE).stat().st_mode)


def test_chosen_key_wins_and_leaves_no_file(tmp_path: Path) -> None:
    key = admin_key(AdminConfig(key=Secret("mine")), tmp_path)
    assert (Secret("mine"), True, []) == (key.secret, key.is_chosen, list(tmp_path.iterdir()))
