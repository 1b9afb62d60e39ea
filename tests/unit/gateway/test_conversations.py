"""Stored responses: whose they are, how they chain, when they end."""

import msgspec
import pytest

from qwenbox.db import Database
from qwenbox.gateway.conversations import STORED_RESPONSES, Conversations, ConversationsConfig
from qwenbox.terms.conversation import StoredResponse
from qwenbox.terms.errors import ApiError, ErrorKind
from support.clocks import StillClock

pytestmark = pytest.mark.anyio

DAY_S = 86_400.0


class Talk:
    """One account's chain of turns."""

    def __init__(self, conversations: Conversations, account_id: str = "a") -> None:
        self.conversations = conversations
        self.account_id = account_id
        self.last: str | None = None
        self._count = 0

    async def say(self, size_bytes: int = 10) -> str:
        history = None if self.last is None else await self.conversations.history(self.account_id, self.last)
        self._count += 1
        response = StoredResponse(
            id=f"resp_{self.account_id}_{self._count}",
            account_id=self.account_id,
            previous_id=self.last,
            input=f"asked {self._count}".encode().ljust(size_bytes),
            response=b"answered",
        )
        await self.conversations.keep(response, history)
        self.last = response.id
        return response.id


async def refused(conversations: Conversations, account_id: str, response_id: str) -> str:
    with pytest.raises(ApiError) as caught:
        await conversations.history(account_id, response_id)
    assert (ErrorKind.INVALID_REQUEST, "previous_response_id") == (caught.value.kind, caught.value.param)
    return caught.value.message


async def count(database: Database) -> int:
    return len(await database.read(STORED_RESPONSES.select()))


def opened(database: Database, clock: StillClock | None = None, **config: object) -> Conversations:
    return Conversations(database, msgspec.convert(config, ConversationsConfig), clock or StillClock())


async def test_history_holds_all_turns_oldest_first(database: Database) -> None:
    conversations = opened(database)
    talk = Talk(conversations)
    for _ in range(4):
        last = await talk.say()

    history = await conversations.history("a", last)

    assert [b"asked 1", b"asked 2", b"asked 3", b"asked 4"] == [asked.strip() for asked, _ in history.turns]
    assert ("resp_a_1", 4 * (10 + len(b"answered"))) == (history.root_id, history.chain_bytes)


async def test_two_may_go_on_from_the_same_turn(database: Database) -> None:
    conversations = opened(database)
    talk = Talk(conversations)
    first = await talk.say()
    one = await talk.say()
    talk.last = first
    other = await talk.say()

    assert [b"asked 1", b"asked 2"] == [asked.strip() for asked, _ in (await conversations.history("a", one)).turns]
    assert [b"asked 1", b"asked 3"] == [asked.strip() for asked, _ in (await conversations.history("a", other)).turns]


@pytest.mark.parametrize("response_id", ["resp_a_1", "resp_nobody", "", "\x00", "好", "x" * 500, "' OR 1=1 --"])
async def test_what_is_not_the_accounts_own_is_not_found(database: Database, response_id: str) -> None:
    conversations = opened(database)
    await Talk(conversations).say()

    assert "not found" in await refused(conversations, "b", response_id)
    for work in (conversations.get, conversations.delete):
        with pytest.raises(ApiError) as caught:
            await work("b", response_id)
        assert ErrorKind.NOT_FOUND is caught.value.kind
    assert 1 == await count(database)


async def test_response_ends_after_its_days_and_is_swept(database: Database) -> None:
    clock = StillClock()
    conversations = opened(database, clock)
    only = await Talk(conversations).say()
    clock.advance(7 * DAY_S - 1)
    await conversations.sweep()
    assert only == (await conversations.get("a", only)).id
    clock.advance(2)

    assert "not found" in await refused(conversations, "a", only)
    with pytest.raises(ApiError):
        await conversations.get("a", only)
    assert 1 == await count(database)
    await conversations.sweep()
    assert 0 == await count(database)


async def test_chain_lives_as_long_as_its_last_turn(database: Database) -> None:
    clock = StillClock()
    conversations = opened(database, clock)
    talk = Talk(conversations)
    for _ in range(5):
        await talk.say()
        clock.advance(6 * DAY_S)
        await conversations.sweep()

    assert 5 == len((await conversations.history("a", talk.last or "")).turns)


async def test_chain_that_is_at_its_longest_is_refused(database: Database) -> None:
    by_turns, by_bytes = Talk(opened(database, max_turns=3), "a"), Talk(opened(database, max_bytes=1_000), "b")
    for _ in range(3):
        await by_turns.say()
    await by_bytes.say(2_000)

    assert "at its longest (3 turns" in await refused(by_turns.conversations, "a", by_turns.last or "")
    assert "at its longest (1 turns, 2008 bytes" in await refused(by_bytes.conversations, "b", by_bytes.last or "")


async def test_oldest_of_an_account_go_when_it_stores_too_much(database: Database) -> None:
    clock = StillClock()
    conversations = opened(database, clock, account_bytes=10_000)
    talk, other = Talk(conversations, "a"), Talk(conversations, "b")
    await other.say(5_000)
    for _ in range(5):
        await talk.say(3_000)
        clock.advance(1)
    await conversations.sweep()

    assert 3 + 1 == await count(database)
    assert talk.last == (await conversations.get("a", talk.last or "")).id
    assert "deleted" in await refused(conversations, "a", talk.last or "")


async def test_whether_a_response_is_kept_is_the_callers_and_the_boxs(database: Database) -> None:
    keeping, forgetful = opened(database), opened(database, enabled=False)

    assert (True, True, False) == (keeping.keeps(None), keeping.keeps(True), keeping.keeps(False))
    assert (False, False) == (forgetful.keeps(None), forgetful.keeps(False))
    with pytest.raises(ApiError, match="stores no responses"):
        forgetful.keeps(True)
    assert "stores no responses" in await refused(forgetful, "a", "resp_a_1")
