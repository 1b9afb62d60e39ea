"""Keys: shown once, stored hashed, refused as soon as they are revoked or over."""

from typing import Any

import msgspec
import pytest
from sqlalchemy import text

from qwenbox.clock import SystemClock
from qwenbox.db import Database
from qwenbox.gateway.accounts import AccountChange, Accounts
from qwenbox.gateway.keys import KeyChange, Keys, NewKey
from qwenbox.terms.caller import CachePolicy, Caller, Compat, SeedPolicy, Thrift
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.limits import Limits
from qwenbox.terms.secret import Secret
from support.clocks import StillClock

pytestmark = pytest.mark.anyio


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


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
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


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
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


FULL = NewKey(
    account_id="",
    name="full",
    compat=Compat.STRICT,
    seeds=SeedPolicy.PASS,
    models=frozenset({"qwen-plus", "qwen-max"}),
    expires_at=1_900_000_000.0,
    budget_micros=5_000_000,
    limits=Limits(rpm=10, tpm=1_000, concurrency=2),
    cache=CachePolicy.ALL,
    thrift=Thrift(history_tokens=4_000, collapses_whitespace=True),
)


def full(account_id: str, **changes: Any) -> NewKey:
    return msgspec.structs.replace(FULL, account_id=account_id, **changes)


def is_refused(keys: Keys, secret: Secret) -> bool:
    try:
        keys.verify(secret.reveal())
    except ApiError as error:
        return error.kind is ErrorKind.UNAUTHENTICATED
    return False


async def test_verify_knows_everything_of_key_and_account(database: Database, account_id: str) -> None:
    keys = Keys(database, StillClock())
    change = AccountChange(tier="premium", time_zone="Asia/Shanghai", is_prepaid=True, budget_micros=7)
    await Accounts(database, StillClock()).update(account_id, change)
    key, secret = await keys.issue(full(account_id))
    expected = Caller(
        account_id=account_id,
        key_id=key.id,
        compat=Compat.STRICT,
        seeds=SeedPolicy.PASS,
        models=frozenset({"qwen-plus", "qwen-max"}),
        tier="premium",
        limits=Limits(rpm=10, tpm=1_000, concurrency=2),
        is_prepaid=True,
        account_budget_micros=7,
        key_budget_micros=5_000_000,
        time_zone="Asia/Shanghai",
        expires_at=1_900_000_000.0,
        cache=CachePolicy.ALL,
        thrift=Thrift(history_tokens=4_000, collapses_whitespace=True),
    )
    assert (expected, expected) == (keys.verify(secret.reveal()), keys.caller(key.id))
    assert [key] == list(await keys.every()) == list(await keys.every(account_id))
    assert (7, 5_000_000, None) == (keys.budget(account_id), keys.budget(key.id), keys.budget("other"))
    assert () == await keys.every("other")


async def test_key_is_refused_from_its_end_on(database: Database, account_id: str) -> None:
    clock = StillClock(1_000.0)
    keys = Keys(database, clock)
    key, secret = await keys.issue(full(account_id, expires_at=1_060.0))
    clock.advance(59.9)
    assert not is_refused(keys, secret)
    clock.advance(0.1)
    assert is_refused(keys, secret)
    with pytest.raises(ApiError):
        keys.caller(key.id)
    await keys.update(key.id, KeyChange(expires_at=None))
    assert not is_refused(keys, secret)


async def test_changes_reach_another_process_with_its_next_look(database: Database, account_id: str) -> None:
    here, elsewhere = Keys(database, StillClock()), Keys(database, StillClock())
    accounts = Accounts(database, StillClock())
    key, secret = await here.issue(full(account_id))
    _, other = await here.issue(NewKey(account_id=account_id, name="other"))
    await elsewhere.refresh()
    await here.update(key.id, KeyChange(models=None, limits=Limits(rpm=3), name="renamed"))
    await accounts.update(account_id, AccountChange(tier="free"))
    await elsewhere.refresh()
    caller = elsewhere.verify(secret.reveal())
    assert (None, Limits(rpm=3), 5_000_000, "free") == (caller.models, caller.limits, caller.key_budget_micros, caller.tier)
    assert "free" == elsewhere.verify(other.reveal()).tier
    await here.revoke("renamed")
    await elsewhere.refresh()
    assert (True, False, None) == (is_refused(elsewhere, secret), is_refused(elsewhere, other), elsewhere.budget(key.id))
    with pytest.raises(ApiError):
        elsewhere.caller(key.id)


async def test_policies_of_a_key_change_one_by_one(database: Database, account_id: str) -> None:
    here, elsewhere = Keys(database, StillClock()), Keys(database, StillClock())
    key, secret = await here.issue(NewKey(account_id=account_id, name="plain"))
    assert (CachePolicy.AUTO, Thrift()) == (key.cache, key.thrift)
    await here.update(key.id, KeyChange(thrift=Thrift(history_tokens=9)))
    await here.update(key.id, KeyChange(cache=CachePolicy.OFF))
    await elsewhere.refresh()
    caller = elsewhere.verify(secret.reveal())
    assert (CachePolicy.OFF, Thrift(history_tokens=9)) == (caller.cache, caller.thrift)


async def test_refresh_reads_more_rows_than_one_batch(database: Database, account_id: str) -> None:
    rows = ", ".join(f"('key-{number:05}', '{account_id}', 'n', 'd{number}', 'sk-', 'exact', 0.0, 0)" for number in range(1_203))
    await database.write(text(f"INSERT INTO keys (id, account_id, name, digest, prefix, seeds, created_at, change) VALUES {rows}"))
    keys = Keys(database, StillClock())
    await keys.refresh()
    assert all(keys.caller(f"key-{number:05}").account_id == account_id for number in range(1_203))


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"models": frozenset({""})}, "models"),
        ({"expires_at": float("nan")}, "expires_at"),
        ({"budget_micros": -1}, "budget_micros"),
        ({"limits": Limits(rpm=2**31)}, "rpm"),
        ({"limits": Limits(tpm=2**31)}, "tpm"),
        ({"limits": Limits(concurrency=2**31)}, "concurrency"),
        ({"thrift": Thrift(history_tokens=0)}, "history_tokens"),
    ],
)
async def test_bad_fields_are_refused_by_name(database: Database, account_id: str, changes: dict[str, Any], param: str) -> None:
    keys = Keys(database, StillClock())
    key, _ = await keys.issue(full(account_id))
    for work in (keys.issue(full(account_id, **changes)), keys.update(key.id, KeyChange(**changes))):
        with pytest.raises(ApiError) as refused:
            await work
        assert (ErrorKind.INVALID_REQUEST, param) == (refused.value.kind, refused.value.param)
    assert key == await keys.get(key.id)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_issue_needs_an_account(database: Database) -> None:
    with pytest.raises(ApiError) as refused:
        await Keys(database, StillClock()).issue(full("nobody"))
    assert (ErrorKind.NOT_FOUND, "account_id") == (refused.value.kind, refused.value.param)


async def test_name_of_two_keys_is_none_of_them(database: Database, account_id: str) -> None:
    keys = Keys(database, StillClock())
    first, _ = await keys.issue(full(account_id))
    await keys.issue(full(account_id))
    with pytest.raises(ApiError, match="2 keys have"):
        await keys.revoke("full")
    await keys.revoke(first.id)
    with pytest.raises(ApiError):
        await keys.revoke(first.id)
    assert "full" == (await keys.revoke("full")).name
