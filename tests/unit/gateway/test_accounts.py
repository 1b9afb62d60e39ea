"""Accounts: made, found, changed, logged into; bad fields are named."""

from typing import Any

import anyio
import pytest
from argon2 import PasswordHasher
from sqlalchemy import text

from qwenbox.db import Database
from qwenbox.gateway.accounts import Account, AccountChange, Accounts, NewAccount, Role
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret
from support.clocks import StillClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def accounts(database: Database) -> Accounts:
    return Accounts(database, StillClock(), tiers={"free", "premium"})


async def refused(kind: ErrorKind, work) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await work
    assert kind is caught.value.kind
    return caught.value


async def test_account_is_what_was_asked_for(accounts: Accounts) -> None:
    wanted = NewAccount(name="研究部", role=Role.ADMIN, tier="premium", time_zone="Asia/Shanghai", is_prepaid=True, budget_micros=5_000_000)
    made = await accounts.create(wanted)
    expected = Account(
        id=made.id,
        name="研究部",
        created_at=1_800_000_000.0,
        role=Role.ADMIN,
        tier="premium",
        time_zone="Asia/Shanghai",
        is_prepaid=True,
        budget_micros=5_000_000,
    )
    assert expected == made == await accounts.get(made.id) == await accounts.get("研究部") == await accounts.named("研究部")
    assert (made,) == await accounts.every()


async def test_update_changes_what_is_named_and_nothing_else(accounts: Accounts) -> None:
    made = await accounts.create(NewAccount(name="a", tier="free", budget_micros=5))
    changed = await accounts.update("a", AccountChange(name="b", budget_micros=None, role=Role.ADMIN))
    assert ("b", None, Role.ADMIN, "free", made.id) == (changed.name, changed.budget_micros, changed.role, changed.tier, changed.id)
    assert changed == await accounts.get("b") == await accounts.update(made.id, AccountChange())
    await refused(ErrorKind.NOT_FOUND, accounts.get("a"))


async def test_name_is_nobody_elses(accounts: Accounts) -> None:
    await accounts.create(NewAccount(name="a"))
    await accounts.create(NewAccount(name="b"))
    for work in (accounts.create(NewAccount(name="a")), accounts.update("b", AccountChange(name="a"))):
        assert "name" == (await refused(ErrorKind.CONFLICT, work)).param
    assert ["a", "b"] == sorted(account.name for account in await accounts.every())


async def test_named_makes_one_account_when_many_ask_at_once(accounts: Accounts) -> None:
    found: list[Account] = []

    async def ask() -> None:
        found.append(await accounts.named("default"))

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(ask)
    assert (8, 1, 1) == (len(found), len({account.id for account in found}), len(await accounts.every()))


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"tier": "gold"}, "tier"),
        ({"time_zone": "Mars/Base"}, "time_zone"),
        ({"time_zone": "../../etc/passwd"}, "time_zone"),
        ({"time_zone": "/etc/passwd"}, "time_zone"),
        ({"time_zone": "Europe"}, "time_zone"),
        ({"time_zone": ""}, "time_zone"),
        ({"time_zone": "a\x00b"}, "time_zone"),
        ({"time_zone": "\udc80"}, "time_zone"),
        ({"budget_micros": -1}, "budget_micros"),
        ({"budget_micros": 10**15 + 1}, "budget_micros"),
    ],
)
async def test_bad_fields_are_refused_by_name(accounts: Accounts, changes: dict[str, Any], param: str) -> None:
    await accounts.create(NewAccount(name="there"))
    for work in (accounts.create(NewAccount(**{"name": "new", **changes})), accounts.update("there", AccountChange(**changes))):
        assert param == (await refused(ErrorKind.INVALID_REQUEST, work)).param
    assert ["there"] == [account.name for account in await accounts.every()]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_log_in_knows_the_person_by_the_password(accounts: Accounts) -> None:
    made = await accounts.create(NewAccount(name="a", role=Role.ADMIN))
    await accounts.set_password("a", Secret("correct horse"))
    assert made == await accounts.log_in("a", Secret("correct horse"))
    await accounts.set_password("a", Secret("another horse"))
    for name, password in (("a", "correct horse"), ("nobody", "another horse"), ("a", "x" * 5_000)):
        await refused(ErrorKind.UNAUTHENTICATED, accounts.log_in(name, Secret(password)))


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_log_in_refuses_an_account_without_a_password(accounts: Accounts) -> None:
    await accounts.create(NewAccount(name="a"))
    for password in ("", "correct horse"):
        await refused(ErrorKind.UNAUTHENTICATED, accounts.log_in("a", Secret(password)))


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_log_in_hashes_again_when_the_costs_have_changed(accounts: Accounts, database: Database) -> None:
    await accounts.create(NewAccount(name="a"))
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("correct horse")
    await database.write(text("UPDATE accounts SET password_hash = :hash").bindparams(hash=cheap))
    for _ in range(2):
        await accounts.log_in("a", Secret("correct horse"))
    (row,) = await database.read(text("SELECT password_hash FROM accounts"))
    assert "m=65536" in str(row["password_hash"])
