"""Signing in to the console: links are good once, sessions end when they should, nothing that lets anybody in is kept."""

from typing import Any

import anyio
import pytest
from sqlalchemy import insert, text

from qwenbox.db import Database, open_database
from qwenbox.gateway.accounts import AccountChange, Accounts, NewAccount, Role
from qwenbox.gateway.sign_in import LINK_S, LINKS, MOST_SESSION_S, SESSIONS, Session, SignIn
from qwenbox.gateway.tries import FREE_FAILURES, PENALTY_S
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret
from support.clocks import StillClock

pytestmark = pytest.mark.anyio

HERE = "127.0.0.1"
PASSWORD = Secret("correct horse")
SESSION_S = 3_600.0

# A password costs 0.1 s of a core: what no statement decides is looked at with one database.
ON_ONE = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


class Box:
    """One process's view of a box."""

    def __init__(self, database: Database, clock: StillClock, key: str = "ak-1") -> None:
        self.database = database
        self.clock = clock
        self.accounts = Accounts(database, clock)
        self.sign_in = SignIn(database, self.accounts, clock, Secret(key), SESSION_S)

    async def ann(self, role: Role = Role.ADMIN) -> str:
        account = await self.accounts.create(NewAccount(name="ann", role=role))
        await self.accounts.set_password(account.id, PASSWORD)
        return account.id

    async def logged_in(self) -> Session:
        return await self.sign_in.log_in("ann", PASSWORD, HERE)


@pytest.fixture
def box(database: Database) -> Box:
    return Box(database, StillClock())


async def refused(kind: ErrorKind, work: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await work
    assert kind is caught.value.kind
    return caught.value


async def is_over(box: Box, session: Session) -> bool:
    try:
        await box.sign_in.check(session.token)
    except ApiError as error:
        assert ErrorKind.UNAUTHENTICATED is error.kind
        return True
    return False


async def test_a_link_lets_one_of_fifty_browsers_in_when_all_come_at_once(box: Box, url: str) -> None:
    link = await box.sign_in.link()
    sessions: list[Session] = []

    async with open_database(url) as second, anyio.create_task_group() as browsers:
        doors = [box.sign_in, Box(second, box.clock).sign_in]

        async def come(number: int) -> None:
            try:
                sessions.append(await doors[number % 2].redeem(link.token, f"10.0.0.{number}"))
            except ApiError as error:
                assert ErrorKind.UNAUTHENTICATED is error.kind

        for number in range(50):
            browsers.start_soon(come, number)
    assert 1 == len(sessions)
    assert "" == sessions[0].account
    assert not await is_over(box, sessions[0])


async def test_a_link_is_over_after_a_day(box: Box) -> None:
    late, early = await box.sign_in.link(), await box.sign_in.link()
    box.clock.advance(LINK_S - 1)
    await box.sign_in.redeem(early.token, HERE)
    box.clock.advance(1)
    await refused(ErrorKind.UNAUTHENTICATED, box.sign_in.redeem(late.token, HERE))


async def test_links_of_earlier_starts_are_over_when_another_start_makes_one(box: Box) -> None:
    before = await box.sign_in.link()
    first = await box.sign_in.first_link()
    asked = await box.sign_in.link()
    await refused(ErrorKind.UNAUTHENTICATED, box.sign_in.redeem(before.token, HERE))
    for link in (first, asked):
        await box.sign_in.redeem(link.token, HERE)


async def test_a_right_link_lets_in_whom_others_wrong_ones_have_throttled(box: Box) -> None:
    link = await box.sign_in.link()
    for _ in range(FREE_FAILURES):
        await refused(ErrorKind.UNAUTHENTICATED, box.sign_in.redeem(Secret("guess"), HERE))
    error = await refused(ErrorKind.RATE_LIMITED, box.sign_in.redeem(Secret("guess"), HERE))
    assert 0 < (error.retry_after_s or 0) <= PENALTY_S
    await box.sign_in.redeem(link.token, HERE)


async def test_a_password_begins_a_session_of_its_account(box: Box) -> None:
    await box.ann()
    session = await box.logged_in()
    assert ("ann", box.clock.now() + SESSION_S) == (session.account, session.expires_at)
    assert session == await box.sign_in.check(session.token)


@ON_ONE
async def test_a_member_is_no_admin(box: Box) -> None:
    await box.ann(Role.MEMBER)
    await refused(ErrorKind.FORBIDDEN, box.logged_in())
    await refused(ErrorKind.UNAUTHENTICATED, box.sign_in.log_in("ann", Secret("wrong"), HERE))
    assert [] == await box.database.read(SESSIONS.select())


@ON_ONE
async def test_guessing_is_slowed_down_by_name_and_by_address(box: Box) -> None:
    await box.ann()
    for number in range(FREE_FAILURES):
        await refused(ErrorKind.UNAUTHENTICATED, box.sign_in.log_in(f"name-{number}", Secret("wrong"), HERE))
    error = await refused(ErrorKind.RATE_LIMITED, box.sign_in.log_in("ann", PASSWORD, HERE))
    assert 0 < (error.retry_after_s or 0) <= PENALTY_S
    await box.sign_in.log_in("ann", PASSWORD, "10.0.0.1")
    box.clock.advance(PENALTY_S)
    await box.logged_in()
    await refused(ErrorKind.UNAUTHENTICATED, box.sign_in.log_in("ann", Secret("wrong"), HERE))


@ON_ONE
async def test_tries_sent_together_are_not_all_free(box: Box) -> None:
    kinds: list[ErrorKind] = []

    async def guess() -> None:
        try:
            await box.sign_in.log_in("ann", Secret("wrong"), HERE)
        except ApiError as error:
            kinds.append(error.kind)

    async with anyio.create_task_group() as guessers:
        for _ in range(FREE_FAILURES + 3):
            guessers.start_soon(guess)
    assert (FREE_FAILURES, 3) == (kinds.count(ErrorKind.UNAUTHENTICATED), kinds.count(ErrorKind.RATE_LIMITED))


@ON_ONE
async def test_a_session_lasts_while_it_is_used_and_a_week_at_most(box: Box) -> None:
    await box.ann()
    idle, busy = await box.logged_in(), await box.logged_in()
    begun_at = box.clock.now()
    box.clock.advance(SESSION_S - 1)
    await box.sign_in.check(busy.token)
    box.clock.advance(1)
    assert await is_over(box, idle)
    while (await box.sign_in.check(busy.token)).expires_at < begun_at + MOST_SESSION_S:
        box.clock.advance(SESSION_S / 2)
    box.clock.advance(begun_at + MOST_SESSION_S - box.clock.now() - 1)
    assert not await is_over(box, busy)
    box.clock.advance(1)
    assert await is_over(box, busy)


@ON_ONE
async def test_a_session_that_is_looked_at_often_is_written_seldom(box: Box) -> None:
    await box.ann()
    session = await box.logged_in()
    ends: set[object] = set()
    for _ in range(100):
        box.clock.advance(2)
        await box.sign_in.check(session.token)
        ends |= {row["expires_at"] for row in await box.database.read(SESSIONS.select())}
    assert 1 < len(ends) <= 7
    assert box.clock.now() + SESSION_S - SESSION_S / 100 <= (await box.sign_in.check(session.token)).expires_at


async def test_a_session_ends_everywhere_when_somebody_logs_out(box: Box, url: str) -> None:
    await box.ann()
    session, other = await box.logged_in(), await box.logged_in()
    async with open_database(url) as database:
        await Box(database, box.clock).sign_in.end(session.token)
    await box.sign_in.end(session.token)
    assert (True, False) == (await is_over(box, session), await is_over(box, other))


async def test_another_password_ends_the_accounts_sessions_but_the_one_it_was_set_from(box: Box) -> None:
    await box.ann()
    link = await box.sign_in.redeem((await box.sign_in.link()).token, HERE)
    old, own = await box.logged_in(), await box.logged_in()
    await box.sign_in.set_password("ann", Secret("battery staple"), own.token)
    assert (True, False, False) == (await is_over(box, old), await is_over(box, own), await is_over(box, link))
    await box.sign_in.set_password("ann", Secret("battery staples"))
    assert (True, False) == (await is_over(box, own), await is_over(box, link))


async def test_a_session_is_never_over_for_a_moment_while_it_changes_the_password(box: Box) -> None:
    await box.ann()
    own, looks = await box.logged_in(), 0
    is_changing = True

    async def look() -> None:
        nonlocal looks
        while is_changing:
            await box.sign_in.check(own.token)
            looks += 1

    async with anyio.create_task_group() as lookers:
        for _ in range(4):
            lookers.start_soon(look)
        for number in range(3):
            await box.sign_in.set_password("ann", Secret(f"battery staple {number}"), own.token)
        is_changing = False
    assert looks > 3


@ON_ONE
async def test_a_password_set_beside_the_box_ends_sessions_too(box: Box) -> None:
    await box.ann()
    session = await box.logged_in()
    await box.accounts.set_password("ann", Secret("battery staple"))
    assert await is_over(box, session)


@ON_ONE
async def test_a_session_of_another_account_is_not_kept_by_a_change_of_password(box: Box) -> None:
    await box.ann()
    await box.accounts.create(NewAccount(name="bob", role=Role.ADMIN))
    await box.accounts.set_password("bob", PASSWORD)
    bobs = await box.sign_in.log_in("bob", PASSWORD, HERE)
    await box.sign_in.set_password("ann", Secret("battery staple"), bobs.token)
    assert not await is_over(box, bobs)
    await box.sign_in.set_password("bob", Secret("battery staple"))
    assert await is_over(box, bobs)


async def test_a_session_ends_when_its_account_is_no_admin_any_more(box: Box) -> None:
    await box.ann()
    session = await box.logged_in()
    await box.accounts.update("ann", AccountChange(role=Role.MEMBER))
    assert await is_over(box, session)


@ON_ONE
async def test_a_session_shows_the_name_its_account_has_now(box: Box) -> None:
    await box.ann()
    session = await box.logged_in()
    await box.accounts.update("ann", AccountChange(name="Anna"))
    assert "Anna" == (await box.sign_in.check(session.token)).account


@ON_ONE
async def test_sessions_outlive_a_restart_and_those_of_links_end_with_another_admin_key(box: Box) -> None:
    await box.ann()
    by_link = await box.sign_in.redeem((await box.sign_in.link()).token, HERE)
    by_password = await box.logged_in()
    for key, expected in (("ak-1", (False, False)), ("ak-2", (True, False))):
        again = Box(box.database, box.clock, key)
        assert expected == (await is_over(again, by_link), await is_over(again, by_password))


@ON_ONE
async def test_nothing_that_lets_anybody_in_is_in_the_database_or_shown(box: Box) -> None:
    await box.ann()
    link = await box.sign_in.link()
    session = await box.sign_in.redeem((await box.sign_in.link()).token, HERE)
    rows = [*await box.database.read(LINKS.select()), *await box.database.read(SESSIONS.select())]
    said = f"{rows} {link} {session}"
    assert 2 == len(rows)
    assert not [secret for secret in (link.token, session.token, Secret("ak-1")) if secret.reveal() in said]
    # What is stored is no token either.
    for row in rows:
        stolen = Session(token=Secret(str(row["token_hash"])), account="", expires_at=0)
        assert await is_over(box, stolen)
        await refused(ErrorKind.UNAUTHENTICATED, box.sign_in.redeem(stolen.token, HERE))


async def test_what_is_over_is_swept_away_by_what_begins(box: Box) -> None:
    await box.ann()
    await box.sign_in.link()
    await box.logged_in()
    box.clock.advance(LINK_S)
    await box.sign_in.link()
    await box.logged_in()
    for table in (LINKS, SESSIONS):
        assert 1 == len(await box.database.read(table.select()))


async def test_state_tells_whether_an_admin_has_a_password(box: Box) -> None:
    assert not await box.sign_in.has_password()
    await box.ann(Role.MEMBER)
    assert not await box.sign_in.has_password()
    await box.accounts.update("ann", AccountChange(role=Role.ADMIN))
    assert await box.sign_in.has_password()


@pytest.mark.parametrize("token", ["", "x" * 200, "中文", "\ud800", "a\x00b", "' OR 1=1 --"])
async def test_a_token_that_is_none_is_refused_whatever_it_is(box: Box, token: str) -> None:
    await box.database.write(insert(LINKS).values(token_hash="0" * 64, created_at=0, expires_at=box.clock.now() + 1))
    assert await is_over(box, Session(token=Secret(token), account="", expires_at=0))
    await refused(ErrorKind.UNAUTHENTICATED, box.sign_in.redeem(Secret(token), HERE))
    await box.sign_in.end(Secret(token))
    assert [{"n": 1}] == await box.database.read(text("SELECT count(*) AS n FROM console_links"))
