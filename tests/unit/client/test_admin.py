"""The admin client: every method against the real API in this process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from qwenbox.client.admin import AdminClient, InProcess, open_remote
from qwenbox.client.shapes import AccountChange, Adjustment, KeyChange, NewAccount, NewKey, NewPassword, Paging, TopUp
from qwenbox.client.sign_in import LoginLink, NewSession, Session, SessionToken
from qwenbox.client.usage import CallsAsked, UsageAsked
from qwenbox.gateway.tries import FREE_FAILURES, PENALTY_S
from qwenbox.terms.caller import CachePolicy
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret
from support.administration import KEY, Administration, administration

pytestmark = pytest.mark.anyio

NAME = "Ålice / 50 % & co?"


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Administration]:
    async with administration(f"sqlite+aiosqlite:///{tmp_path / 'box.db'}", is_testing=True) as opened:
        yield opened


async def test_accounts_and_money_from_making_to_booking(admin: Administration) -> None:
    made = await admin.client.create_account(NewAccount(name="alice", budget_micros=7))
    changed = await admin.client.change_account("alice", AccountChange(budget_micros=None, name="Alice B."))
    assert (made.id, None) == (changed.id, changed.budget_micros)
    assert (changed,) == await admin.client.accounts()
    await admin.client.set_password(made.id, Secret("a long password"))
    await admin.client.top_up("Alice B.", TopUp(amount_micros=10))
    balance = await admin.client.adjust(made.id, Adjustment(amount_micros=-3, note="typo"))
    assert 7 == balance.balance_micros == (await admin.client.balance(made.id)).balance_micros
    page = await admin.client.entries(made.id, Paging(limit=1))
    rest = await admin.client.entries(made.id, Paging(cursor=page.next_cursor or ""))
    assert [-3, 10] == [page.items[0].amount_micros, rest.items[0].amount_micros]


async def test_keys_from_making_to_revoking(admin: Administration) -> None:
    await admin.client.create_account(NewAccount(name="alice"))
    issued = await admin.client.create_key(NewKey(account="alice", name="ci", models=("m",), rpm=3))
    changed = await admin.client.change_key("ci", KeyChange(rpm=None, tpm=9))
    assert (issued.id, ("m",), None, 9) == (changed.id, changed.models, changed.rpm, changed.tpm)
    assert (changed,) == await admin.client.keys("alice")
    assert (await admin.client.revoke_key(issued.id)).revoked_at is not None


async def test_policies_of_a_key_are_set_and_taken_away(admin: Administration) -> None:
    await admin.client.create_account(NewAccount(name="alice"))
    await admin.client.create_key(NewKey(account="alice", name="bot", cache=CachePolicy.ALL, history_tokens=900, collapses_whitespace=True))
    changed = await admin.client.change_key("bot", KeyChange(history_tokens=None))
    assert (CachePolicy.ALL, None, True) == (changed.cache, changed.history_tokens, changed.collapses_whitespace)
    changed = await admin.client.change_key("bot", KeyChange(cache=CachePolicy.OFF, collapses_whitespace=False))
    assert (CachePolicy.OFF, None, False) == (changed.cache, changed.history_tokens, changed.collapses_whitespace)


async def test_usage_from_statement_to_refund(admin: Administration) -> None:
    account = await admin.client.create_account(NewAccount(name="alice"))
    call = await admin.used(account.id)
    assert [360] == [row.cost_micros for row in (await admin.client.usage(UsageAsked(by="account"))).rows]
    assert account.id in await admin.client.usage_csv(UsageAsked(by="account"))
    assert [call.id] == [listed.id for listed in (await admin.client.calls(CallsAsked(account="alice"))).items]
    assert 2 == len((await admin.client.receipt(call.id)).lines)
    assert 0 == (await admin.client.refund(call.id)).balance_micros
    assert (await admin.client.check_ledger()).is_good
    assert "CNY" == (await admin.client.prices()).currency


async def test_clock_is_told_and_moved(admin: Administration) -> None:
    assert 0.0 == (await admin.client.clock()).offset_s
    assert 60.0 == (await admin.client.advance_clock(60.0)).offset_s


async def test_lists_are_whole_when_they_are_longer_than_a_page(admin: Administration) -> None:
    for number in range(5):
        await admin.client.create_account(NewAccount(name=f"account {number}"))
    client = AdminClient(InProcess(admin.api.application), Secret(KEY), page_size=2)
    assert [f"account {number}" for number in range(5)] == [account.name for account in await client.accounts()]


async def test_names_with_any_characters_find_their_way(admin: Administration) -> None:
    await admin.client.create_account(NewAccount(name=NAME.replace("/", "")))
    assert NAME.replace("/", "") == (await admin.client.account(NAME.replace("/", ""))).name


async def test_errors_are_the_boxs_own_words(admin: Administration) -> None:
    with pytest.raises(ApiError) as refused:
        await admin.client.account("nobody")
    assert (ErrorKind.NOT_FOUND, "account") == (refused.value.kind, refused.value.param)
    assert "nobody" in refused.value.message
    stranger = AdminClient(InProcess(admin.api.application), Secret("wrong"))
    with pytest.raises(ApiError) as refused:
        await stranger.accounts()
    assert ErrorKind.UNAUTHENTICATED is refused.value.kind


async def test_nobody_answering_is_told_with_the_address() -> None:
    async with open_remote("http://127.0.0.1:9", Secret("key")) as client:
        with pytest.raises(ApiError) as refused:
            await client.accounts()
    assert "http://127.0.0.1:9" in refused.value.message


async def test_sign_in_from_link_to_logging_out(admin: Administration) -> None:
    link = await admin.client.login_link()
    session = await admin.client.log_in(NewSession(address="127.0.0.1", link=link.token))
    assert session == await admin.client.session(Secret(session.token))
    with pytest.raises(ApiError) as caught:
        await admin.client.log_in(NewSession(address="127.0.0.1", link=link.token))
    assert ErrorKind.UNAUTHENTICATED is caught.value.kind
    await admin.client.log_out(Secret(session.token))
    with pytest.raises(ApiError) as caught:
        await admin.client.session(Secret(session.token))
    assert ErrorKind.UNAUTHENTICATED is caught.value.kind


async def test_sign_in_with_a_password_that_is_changed_from_within(admin: Administration) -> None:
    await admin.client.create_account(NewAccount(name="ann", role="admin"))
    assert not (await admin.client.console_state()).has_password
    await admin.client.set_password("ann", Secret("correct horse"))
    assert (await admin.client.console_state()).has_password
    wanted = NewSession(address="127.0.0.1", account="ann", password="correct horse")
    own, other = await admin.client.log_in(wanted), await admin.client.log_in(wanted)
    assert ("ann", "ann") == (own.account, other.account)
    await admin.client.set_password("ann", Secret("battery staple"), Secret(own.token))
    await admin.client.session(Secret(own.token))
    with pytest.raises(ApiError) as caught:
        await admin.client.session(Secret(other.token))
    assert ErrorKind.UNAUTHENTICATED is caught.value.kind


async def test_sign_in_says_how_long_to_wait_when_there_were_too_many_wrong_tries(admin: Administration) -> None:
    wanted = NewSession(address="10.0.0.1", account="nobody", password="wrong wrong")
    kinds: list[ErrorKind] = []
    waits: list[float | None] = []
    for _ in range(FREE_FAILURES + 1):
        with pytest.raises(ApiError) as caught:
            await admin.client.log_in(wanted)
        kinds.append(caught.value.kind)
        waits.append(caught.value.retry_after_s)
    assert [ErrorKind.UNAUTHENTICATED] * FREE_FAILURES + [ErrorKind.RATE_LIMITED] == kinds
    assert 0 < (waits[-1] or 0) <= PENALTY_S


def test_bodies_of_sign_in_do_not_show_their_secrets() -> None:
    bodies = (
        LoginLink(token="hidden", expires_at=1),
        NewSession(address="here", link="hidden", account="ann", password="hidden"),
        Session(token="hidden", account="ann", expires_at=1),
        SessionToken(token="hidden"),
        NewPassword(password="hidden hidden", session="hidden"),
    )
    assert "hidden" not in repr(bodies)
    assert "account='ann'" in repr(bodies)
