"""Keys: shown once, stored hashed, refused as soon as they are revoked."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from qwenbox.clock import SystemClock
from qwenbox.db import Database, open_database
from qwenbox.gateway.accounts import Accounts
from qwenbox.gateway.keys import Keys, NewKey
from qwenbox.migrations.upgrade import upgrade
from qwenbox.terms.caller import Compat, SeedPolicy
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret

pytestmark = pytest.mark.anyio


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    async with open_database("sqlite+aiosqlite:///:memory:") as opened:
        await opened.change(upgrade)
        yield opened


@pytest.fixture
async def account_id(database: Database) -> str:
    return (await Accounts(database, SystemClock()).named("default")).id


async def test_account_is_found_again_when_it_exists(database: Database, account_id: str) -> None:
    assert account_id == (await Accounts(database, SystemClock()).named("default")).id


async def test_verify_knows_the_caller_when_the_key_was_issued(database: Database, account_id: str) -> None:
    keys = Keys(database, SystemClock())
    key, secret = await keys.issue(NewKey(account_id=account_id, name="ci", compat=Compat.STRICT, seeds=SeedPolicy.PASS))
    caller = keys.verify(secret.reveal())
    assert (account_id, key.id, Compat.STRICT, SeedPolicy.PASS) == (caller.account_id, caller.key_id, caller.compat, caller.seeds)


@pytest.mark.parametrize("wrong", ["", "sk-", "sk-wrong", "\udc80", "x" * 10_000])
async def test_verify_refuses_when_the_key_is_wrong(database: Database, account_id: str, wrong: str) -> None:
    keys = Keys(database, SystemClock())
    await keys.issue(NewKey(account_id=account_id, name="ci"))
    with pytest.raises(ApiError) as refused:
        keys.verify(wrong)
    assert refused.value.kind is ErrorKind.UNAUTHENTICATED


async def test_issue_stores_no_secret(database: Database, account_id: str) -> None:
    _, secret = await Keys(database, SystemClock()).issue(NewKey(account_id=account_id, name="ci"))
    rows = await database.read(text("SELECT * FROM keys"))
    assert secret.reveal() not in str([dict(row) for row in rows])
    assert secret.reveal() not in repr(secret)


async def test_revoke_refuses_the_key_also_in_another_process(database: Database, account_id: str) -> None:
    here, elsewhere = Keys(database, SystemClock()), Keys(database, SystemClock())
    key, secret = await here.issue(NewKey(account_id=account_id, name="ci"))
    await elsewhere.refresh()
    elsewhere.verify(secret.reveal())
    await here.revoke(key.id)
    await elsewhere.refresh()
    for keys in (here, elsewhere):
        with pytest.raises(ApiError):
            keys.verify(secret.reveal())


async def test_revoke_says_so_when_there_is_no_such_key(database: Database) -> None:
    with pytest.raises(ApiError) as refused:
        await Keys(database, SystemClock()).revoke("nobody")
    assert refused.value.kind is ErrorKind.NOT_FOUND


async def test_issue_revives_a_preset_key_when_it_was_revoked(database: Database, account_id: str) -> None:
    keys = Keys(database, SystemClock())
    preset = NewKey(account_id=account_id, name="first", secret=Secret("sk-preset"))
    first, _ = await keys.issue(preset)
    await keys.revoke(first.id)
    again, _ = await keys.issue(preset)
    assert first.id == again.id
    assert keys.verify("sk-preset").key_id == first.id
    assert len(await keys.every()) == 1
