"""Counters in Valkey after an outage: what was admitted or billed meanwhile counts as the database says, whoever died before he could tell.

A store may come back with nothing, with what was on its disk, or as if it had only been out of reach.
"""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest

from qwenbox.clock import SystemClock, TestClock
from qwenbox.gateway.counters.base import CountersConfig, Lease, LiveWindow, PurseState, Used
from qwenbox.gateway.counters.members import Books, Past
from qwenbox.terms.errors import ApiError, ErrorKind
from support import valkey
from support.asks import Bank, ask, balance, window
from support.shared_counters import NO_BOOKS, QUICK, Node, SkewedClock, lose, node, refusal, setting, until, until_admitted

pytestmark = pytest.mark.anyio

# A silent store is noticed quickly; nobody is taken for dead.
OPEN = {"on_outage": "open", "command_s": 0.6, "connect_s": 0.6, "beat_s": 0.05}

LIMIT = window("a", requests=50, tokens=10_000, concurrency=20)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[valkey.Server]:
    with valkey.serve(tmp_path / "valkey") as running:
        yield running


@pytest.fixture
def kept_server(tmp_path: Path) -> Iterator[valkey.Server]:
    with valkey.serve(tmp_path / "valkey", is_kept=True) as running:
        yield running


@asynccontextmanager
async def out_of_reach(server: valkey.Server, *nodes: Node) -> AsyncGenerator[None]:
    """It remembers everything afterwards."""
    with server.frozen():
        await _until_down(*nodes)
        yield


@asynccontextmanager
async def restarted(server: valkey.Server, *nodes: Node) -> AsyncGenerator[None]:
    server.kill()
    await _until_down(*nodes)
    yield
    server.start()


Outage = Callable[..., AbstractAsyncContextManager[None]]


async def _until_down(*nodes: Node) -> None:
    with anyio.fail_after(60):
        for one in nodes:
            await one.store.wait_down()


class Database:
    """Purses and usage rows, as the journal leaves them."""

    def __init__(self, **amounts: int) -> None:
        self.bank = Bank(**amounts)
        self.rows: list[Past] = []

    @property
    def books(self) -> Books:
        return Books(load=self.bank.load, settled=self._settled, recent=self._recent)

    def commit(self, lease: Lease, tokens: int) -> Used:
        self.rows.append(Past(id=lease.ask.id, at=lease.at, tokens=tokens, windows=tuple(one.id for one in lease.ask.windows)))
        return self.bank.charge(lease, tokens)

    async def _settled(self, ids: tuple[str, ...]) -> dict[str, int]:
        return {row.id: row.tokens for row in self.rows if row.id in ids}

    async def _recent(self, since: float) -> list[Past]:
        return [row for row in self.rows if row.at >= since]


async def shown(one: Node, name: str = "a") -> tuple[int, int, int]:
    """Requests, tokens and open calls of a window, once this process has joined again."""
    with anyio.fail_after(60):
        while not await one.counters._member.joins():  # noqa: ASYNC110 (nothing of the product tells it)
            await anyio.sleep(0.01)
    live = {each.id: each for each in await one.counters.snapshot()}.get(name, LiveWindow(id=name, requests=0, tokens=0, open=0))
    return live.requests, live.tokens, live.open


async def until_shown(one: Node, expected: tuple[int, int, int]) -> None:
    """What a dead process held is given back some time after its death."""
    seen: set[tuple[int, int, int]] = set()
    with anyio.move_on_after(60):
        while (now := await shown(one)) != expected:
            seen.add(now)
            await anyio.sleep(0.02)
        return
    raise AssertionError(f"expected {expected}, seen {seen}")


# Who was alone and died.


@pytest.mark.parametrize(("outage", "is_kept"), [(out_of_reach, False), (restarted, False), (restarted, True)])
async def test_what_a_dead_process_admitted_alone_counts_as_its_rows_say(tmp_path: Path, outage: Outage, is_kept: bool) -> None:
    database = Database(**{"acc-1": 100})
    with valkey.serve(tmp_path / "valkey", is_kept=is_kept) as server:
        shared = setting(server.url, CountersConfig(wait_s=0.1), **OPEN | {"dead_s": 3.0})
        async with node(shared, database.books) as survivor:
            async with node(shared, database.books) as victim:
                # The purse is known to the store, and the survivor will have no news of it.
                for each in (survivor, victim):
                    await each.counters.settle(await each.counters.reserve(ask(LIMIT, balance())), Used(tokens=2))
                before = await victim.counters.reserve(ask(LIMIT, balance(), tokens=(1, 9)))
                unbilled = await victim.counters.reserve(ask(LIMIT, balance(), tokens=(1, 6)))
                await until(lambda: victim.counters.owners == 2)
                gone = outage(server, survivor, victim)
                await gone.__aenter__()
                alone = [await victim.counters.reserve(ask(LIMIT, balance(), tokens=(1, 19))) for _ in range(2)]
                await victim.counters.settle(alone[0], database.commit(alone[0], 15))
                database.commit(alone[1], 14)
                database.commit(before, 6)
                victim.crash()
            await gone.__aexit__(None, None, None)
            requests, tokens, _ = await shown(survivor)
            known = 0 if outage is restarted and not is_kept else 1
            assert requests >= 2 * known + 3
            assert tokens >= 4 * known + 15 + 14 + 6
            # At once: no more than what is there.
            with suppress(ApiError):
                lease = await survivor.counters.reserve(ask(balance(), tokens=(1, 99)))
                assert lease.held_micros <= 65
                await survivor.counters.settle(lease, Used(tokens=0))
            assert unbilled.held_micros == 7
            # In the end: what the books say, to the token.
            await until_shown(survivor, (2 * known + 3 + known, 4 * known + 15 + 14 + 6, 0))
            assert 65 == (await until_admitted(survivor.counters, balance(), tokens=(1, 64))).held_micros


async def test_rows_of_the_last_window_are_told_by_another_when_their_teller_dies(server: valkey.Server) -> None:
    database = Database(**{"acc-1": 100})
    is_asked = anyio.Event()

    async def never(since: float) -> list[Past]:
        is_asked.set()
        await anyio.sleep_forever()
        return []

    shared = setting(server.url, **QUICK)
    database.rows.append(Past(id="past", at=(await _now(server)) - 1.0, tokens=77, windows=("a",)))
    async with node(shared, database.books._replace(recent=never)) as teller:
        await is_asked.wait()
        teller.crash()
    async with node(shared, database.books) as other:
        assert (1, 77, 0) == await shown(other)


async def test_rows_of_the_last_window_are_told_again_when_the_database_was_away(server: valkey.Server) -> None:
    tries = 0

    async def flaky(since: float) -> list[Past]:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ApiError(ErrorKind.OVERLOADED, "The database is away.")
        return [Past(id="past", at=since + 1.0, tokens=77, windows=("a",))]

    async with node(setting(server.url), NO_BOOKS._replace(recent=flaky)) as one:
        assert (1, 77, 0) == await shown(one)


# Who was alone and lives.


async def test_first_call_of_an_outage_is_admitted_alone_however_soon_it_comes(server: valkey.Server) -> None:
    """Before anything else of its process has heard that the store is gone."""
    async with node(setting(server.url, **OPEN)) as one:
        await one.counters.settle(await one.counters.reserve(ask(LIMIT)), Used(tokens=2))
        wire = one.store._wire
        assert wire is not None
        one.store._lose(wire, "somebody pulled the cable")
        lease = await one.counters.reserve(ask(LIMIT))
        wire.hang_up()
        assert lease.limits is not None
        assert 48 == lease.limits.requests_left


async def test_call_asked_in_the_last_moment_keeps_what_it_holds_when_it_is_admitted_alone(server: valkey.Server) -> None:
    """The store has run its script and could not say so."""
    database = Database(**{"acc-1": 200})
    async with node(setting(server.url, CountersConfig(wait_s=0.1), **OPEN | {"dead_s": 5.0}), database.books) as one:
        await one.counters.settle(await one.counters.reserve(ask(LIMIT, balance())), Used(tokens=2))
        with server.frozen():
            lease = await one.counters.reserve(ask(LIMIT, balance(), tokens=(10, 90)))
        assert (2, 102, 1) == await shown(one)
        assert (await refusal(one.counters, balance(), tokens=(1, 109))).kind is ErrorKind.OVERLOADED
        await one.counters.settle(lease, database.commit(lease, 30))
        assert (2, 32, 0) == await shown(one)
        assert 170 == (await one.counters.reserve(ask(balance(), tokens=(1, 169)))).held_micros


async def test_call_admitted_alone_is_known_when_the_store_came_back_meanwhile(server: valkey.Server) -> None:
    """It waited for the database, and everybody had joined by then."""
    bank, is_read = Bank(**{"acc-1": 100, "acc-2": 100}), anyio.Event()

    async def load(ids: tuple[str, ...]) -> tuple[PurseState, ...]:
        if "balance/acc-2" in ids:
            await is_read.wait()
        return await bank.load(ids)

    async with node(setting(server.url, **OPEN), NO_BOOKS._replace(load=load)) as one, anyio.create_task_group() as tasks:
        await one.counters.settle(await one.counters.reserve(ask(LIMIT, balance())), Used(tokens=2))
        assert (1, 2, 0) == await shown(one)
        await lose(server, one)
        leases: list[Lease] = []

        async def reserve() -> None:
            leases.append(await one.counters.reserve(ask(LIMIT, balance("acc-2"), tokens=(1, 9))))

        tasks.start_soon(reserve)
        await anyio.wait_all_tasks_blocked()
        server.start()
        await shown(one)
        is_read.set()
        await until(lambda: bool(leases))
        assert (1, 10, 1) == await shown(one)


async def test_call_admitted_alone_is_known_when_it_came_while_its_process_joined(server: valkey.Server) -> None:
    is_slow, is_asked, is_read = False, anyio.Event(), anyio.Event()

    async def recent(since: float) -> list[Past]:
        if is_slow:
            is_asked.set()
            await is_read.wait()
        return []

    async with node(setting(server.url, **OPEN), NO_BOOKS._replace(recent=recent)) as one:
        await one.counters.reserve(ask(LIMIT))
        is_slow = True
        await lose(server, one)
        server.start()
        await is_asked.wait()
        # It waits for the store as long as for a command, and is admitted alone then.
        await one.counters.reserve(ask(LIMIT))
        is_read.set()
        assert (2, 4, 2) == await shown(one)


async def test_calls_admitted_alone_are_timed_by_the_stores_clock_when_their_own_is_wrong(server: valkey.Server) -> None:
    async with node(setting(server.url, **OPEN), clock=SkewedClock(-5.0)) as one:
        before = await one.counters.reserve(ask(LIMIT))
        await lose(server, one)
        alone = await one.counters.reserve(ask(LIMIT))
        assert alone.at >= before.at
        assert alone.at == pytest.approx(before.at, abs=2.5)


async def test_open_call_leaves_its_window_when_the_test_clock_was_moved_before_it_is_said_again(server: valkey.Server) -> None:
    clock = TestClock(SystemClock())
    async with node(setting(server.url), clock=clock) as one:
        await one.counters.reserve(ask(LIMIT))
        clock.reach(3_600.0)
        await lose(server, one)
        server.start()
        assert (0, 0, 1) == await shown(one)


async def test_share_is_granted_once_when_the_store_goes_away_again_at_once(server: valkey.Server) -> None:
    database = Database(**{"acc-1": 100})
    limit = window("a", requests=6, tokens=10_000)
    async with node(setting(server.url, **OPEN), database.books) as one:
        await one.counters.settle(await one.counters.reserve(ask(limit, balance())), Used(tokens=2))
        await lose(server, one)
        for _ in range(4):
            await one.counters.reserve(ask(limit, balance(), tokens=(1, 19)))
        server.start()
        await shown(one)
        await lose(server, one)
        assert 98 - 4 * 20 == (await one.counters.reserve(ask(limit, balance(), tokens=(1, 29)))).held_micros
        assert (await refusal(one.counters, limit)).kind is ErrorKind.RATE_LIMITED


async def test_open_calls_of_before_an_outage_keep_their_places_in_it(server: valkey.Server) -> None:
    limit = window("a", concurrency=6)
    shared = setting(server.url, **OPEN | {"dead_s": 5.0})
    async with node(shared) as one, node(shared) as other:
        await until(lambda: (one.counters.owners, other.counters.owners) == (2, 2))
        for _ in range(3):
            await other.counters.reserve(ask(limit))
        first = await one.counters.reserve(ask(limit))
        await lose(server, one, other)
        # Of what was left each has a part: one of 3 or 2, the other of 2 or 1.
        alone = {}
        for each in (one, other):
            alone[each] = 0
            with suppress(ApiError):
                while alone[each] < 10:
                    await each.counters.reserve(ask(limit))
                    alone[each] += 1
        assert alone[one] >= 1 <= alone[other]
        assert 4 + sum(alone.values()) in (6, 7)
        await one.counters.settle(first, Used(tokens=2))
        await one.counters.reserve(ask(limit))
        with pytest.raises(ApiError):
            await one.counters.reserve(ask(limit))


# What is on a store's disk.


async def test_entries_are_corrected_when_the_store_comes_back_with_old_ones(kept_server: valkey.Server) -> None:
    database = Database(**{"acc-1": 500})
    shared = setting(kept_server.url, **QUICK | {"dead_s": 3.0, "command_s": 0.6, "connect_s": 0.6})
    async with node(shared, database.books) as one:
        async with node(shared, database.books) as victim:
            settled = await one.counters.reserve(ask(LIMIT, balance(), tokens=(1, 99)))
            still_open = await one.counters.reserve(ask(LIMIT, balance(), tokens=(1, 49)))
            billed = await victim.counters.reserve(ask(LIMIT, balance(), tokens=(1, 99)))
            await victim.counters.reserve(ask(LIMIT, balance(), tokens=(1, 99)))
            with kept_server.frozen():
                # The store does what it was sent, and is lost before anybody hears of it.
                assert (await refusal(one.counters, LIMIT, tokens=(1, 999))).kind is ErrorKind.OVERLOADED
            await lose(kept_server, one, victim)
            await one.counters.settle(settled, database.commit(settled, 7))
            database.commit(billed, 8)
            victim.crash()
        kept_server.start()
        await until_shown(one, (4, 50 + 7 + 8, 1))
        await one.counters.settle(still_open, database.commit(still_open, 9))
        assert (4, 7 + 8 + 9, 0) == await shown(one)
        assert 500 - 24 == (await until_admitted(one.counters, balance(), tokens=(1, 499))).held_micros


async def test_news_of_a_purse_count_when_it_is_being_read(server: valkey.Server) -> None:
    """What the database said before is older than what it says now, whoever is heard first."""
    bank, is_read, goes_on = Bank(**{"acc-1": 100}), anyio.Event(), anyio.Event()

    async def load(ids: tuple[str, ...]) -> tuple[PurseState, ...]:
        states = await bank.load(ids)
        is_read.set()
        await goes_on.wait()
        return states

    async with node(setting(server.url), NO_BOOKS._replace(load=load)) as one, anyio.create_task_group() as tasks:
        leases: list[Lease] = []

        async def reserve() -> None:
            leases.append(await one.counters.reserve(ask(balance(), tokens=(1, 99))))

        tasks.start_soon(reserve)
        await is_read.wait()
        one.counters.learn((bank.change("acc-1", -90),))
        goes_on.set()
        await until(lambda: bool(leases))
        assert 10 == leases[0].held_micros


async def test_process_that_was_taken_for_dead_counts_in_full_again(server: valkey.Server) -> None:
    shared = setting(server.url, **QUICK)
    frozen = setting(server.url, beat_s=1_000.0, dead_s=0.3, prefix=shared.valkey.prefix)
    async with node(frozen) as sleeper, node(shared) as other:
        lease = await sleeper.counters.reserve(ask(LIMIT, tokens=(10, 80)))
        await until_shown(other, (1, 0, 0))
        await sleeper.counters.reserve(ask(LIMIT, tokens=(1, 1)))
        assert (2, 92, 2) == await shown(other)
        await sleeper.counters.settle(lease, Used(tokens=20))
        assert (2, 22, 1) == await shown(sleeper)


# Lines for money.


async def test_line_for_money_moves_on_when_who_stood_in_it_was_refused_during_an_outage(server: valkey.Server) -> None:
    database = Database(**{"acc-1": 100})
    shared = setting(server.url, CountersConfig(wait_s=1.0), command_s=0.6, connect_s=0.6, beat_s=0.05, dead_s=60.0)
    async with node(shared, database.books) as one, node(shared, database.books) as other, anyio.create_task_group() as tasks:
        first = await one.counters.reserve(ask(balance(), tokens=(10, 90)))
        errors: list[ApiError] = []

        async def wait() -> None:
            errors.append(await refusal(other.counters, balance(), tokens=(10, 40)))

        tasks.start_soon(wait)
        await until(lambda: bool(other.counters._turns))
        wire = other.store._wire
        assert wire is not None
        await until(lambda: not wire._pending)
        # Between two questions: the store hears no more of it.
        with server.frozen():
            wire.hang_up()
            await until(lambda: bool(errors))
        await shown(other)
        await one.counters.settle(first, Used(tokens=0))
        assert 100 == (await until_admitted(one.counters, balance(), tokens=(10, 90))).held_micros


async def _now(server: valkey.Server) -> float:
    async with node(setting(server.url)) as one:
        return (await one.counters.reserve(ask(LIMIT))).at
