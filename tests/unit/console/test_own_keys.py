"""The console's own keys, made by the real admin API in this process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from qwenbox.client.admin import AdminClient
from qwenbox.client.shapes import NewAccount, NewKey
from qwenbox.console.own_keys import LASTS_S, NAME, OwnKeys
from qwenbox.terms.errors import ApiError, ErrorKind
from support.administration import Administration, administration

pytestmark = pytest.mark.anyio


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Administration]:
    async with administration(f"sqlite+aiosqlite:///{tmp_path / 'box.db'}", is_testing=True) as opened:
        yield opened


class _Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


async def _clock(client: AdminClient) -> _Clock:
    return _Clock((await client.clock()).now_at)


async def test_a_key_is_made_once_and_used_again_until_it_is_nearly_over(admin: Administration) -> None:
    await admin.client.create_account(NewAccount(name="alice"))
    clock = await _clock(admin.client)
    async with OwnKeys(admin.client, clock) as own:
        first = await own.key("alice")
        assert first == await own.key("alice")
        (key,) = await admin.client.keys("alice")
        assert (NAME, clock.now + LASTS_S) == (key.name, key.expires_at)
        clock.now += LASTS_S - 60
        assert first != await own.key("alice")


async def test_every_key_is_revoked_when_the_console_ends(admin: Administration) -> None:
    for name in ("alice", "bob"):
        await admin.client.create_account(NewAccount(name=name))
    async with OwnKeys(admin.client, await _clock(admin.client)) as own:
        assert await own.key("alice") != await own.key("bob")
        assert [None, None] == [key.revoked_at for key in await admin.client.keys()]
    assert all(key.revoked_at is not None for key in await admin.client.keys())


async def test_what_a_dead_console_left_is_revoked_and_a_persons_key_is_not(admin: Administration) -> None:
    await admin.client.create_account(NewAccount(name="alice"))
    clock = await _clock(admin.client)
    dead = await OwnKeys(admin.client, clock).key("alice")
    theirs = await admin.client.create_key(NewKey(account="alice", name=NAME))
    async with OwnKeys(admin.client, clock) as own:
        revoked = {key.id for key in await admin.client.keys() if key.revoked_at is not None}
        assert 1 == len(revoked) and theirs.id not in revoked
        assert dead != await own.key("alice")


async def test_a_visitor_with_a_link_pays_from_the_default_account_else_the_oldest_else_a_new_one(admin: Administration) -> None:
    own = OwnKeys(admin.client)
    assert "default" == await own.account()
    assert ["default"] == [account.name for account in await admin.client.accounts()]
    await admin.client.create_account(NewAccount(name="alice"))
    assert ("default", "alice") == (await own.account(), await own.account("alice"))


async def test_a_forgotten_key_is_replaced(admin: Administration) -> None:
    await admin.client.create_account(NewAccount(name="alice"))
    async with OwnKeys(admin.client, await _clock(admin.client)) as own:
        first = await own.key("")
        own.forget(first)
        assert first != await own.key("")


async def test_an_unknown_account_is_told(admin: Administration) -> None:
    async with OwnKeys(admin.client, await _clock(admin.client)) as own:
        with pytest.raises(ApiError) as refused:
            await own.key("nobody")
    assert ErrorKind.NOT_FOUND is refused.value.kind
