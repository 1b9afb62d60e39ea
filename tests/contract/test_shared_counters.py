"""Counters in Valkey where they differ from those in memory: several processes, their deaths, the store's outages, clocks that disagree."""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import msgspec
import pytest

from qwenbox.clock import SystemClock, TestClock
from qwenbox.gateway.counters.base import CountersConfig, Lease, Used
from qwenbox.gateway.counters.members import Books, Past
from qwenbox.terms.errors import ApiError, ErrorKind
from support import valkey
from support.asks import Bank, ask, balance, window
from support.shared_counters import (
    NO_BOOKS,
    QUICK,
    Node,
    SkewedClock,
    lose,
    node,
    refusal,
    setting,
    settled_by,
    until,
    until_admitted,
    until_free,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def server(tmp_path: Path) -> Iterator[valkey.Server]:
    with valkey.serve(tmp_path / "valkey") as running:
        yield running


@pytest.fixture
def kept_server(tmp_path: Path) -> Iterator[valkey.Server]:
    with valkey.serve(tmp_path / "valkey", is_kept=True) as running:
        yield running


# Several processes.


async def test_nodes_share_windows_and_money_when_their_clocks_disagree() -> None:
    bank = Bank(**{"acc-1": 100})
    shared = setting(valkey.common().url, CountersConfig(wait_s=0.1))
    limit = window(requests=4, tokens=1_000)
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(node(shared, settled_by(bank), SkewedClock(skew_s))) for skew_s in (0.0, 5.0)]
        leases = [await nodes[n % 2].counters.reserve(ask(limit, balance(), tokens=(5, 5))) for n in range(4)]
        assert [3, 2, 1, 0] == [lease.limits.requests_left for lease in leases if lease.limits]
        assert leases == sorted(leases, key=lambda lease: lease.at)
        told = [(await refusal(one.counters, limit)).retry_after_s or 0 for one in nodes]
        assert told == [pytest.approx(60, abs=2), pytest.approx(60, abs=2)]
        assert 60 == (await nodes[1].counters.reserve(ask(balance(), tokens=(5, 55)))).held_micros
        assert (await refusal(nodes[0].counters, balance(), tokens=(1, 0))).kind is ErrorKind.OVERLOADED


async def test_told_waits_are_different_moments_whichever_node_tells_them() -> None:
    shared = setting(valkey.common().url)
    async with node(shared, NO_BOOKS, SkewedClock(5.0)) as one, node(shared, NO_BOOKS, SkewedClock(0.0)) as other:
        await one.counters.reserve(ask(window(requests=1)))
        first = (await refusal(one.counters, window(requests=1))).retry_after_s
        second = (await refusal(other.counters, window(requests=1))).retry_after_s
        assert first == pytest.approx(60, abs=1)
        assert second == pytest.approx(120, abs=2)


async def test_waiting_call_is_admitted_when_another_process_settles() -> None:
    bank = Bank(**{"acc-1": 100})
    shared = setting(valkey.common().url)
    async with node(shared, settled_by(bank)) as one, node(shared, settled_by(bank)) as other, anyio.create_task_group() as tasks:
        first = await one.counters.reserve(ask(balance(), tokens=(10, 90)))
        leases: list[Lease] = []

        async def wait() -> None:
            leases.append(await other.counters.reserve(ask(balance(), tokens=(10, 40))))

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        await one.counters.settle(first, bank.charge(first, 20))
        await until(lambda: bool(leases))
        assert 50 == leases[0].held_micros


async def test_snapshot_shows_what_every_process_uses() -> None:
    shared = setting(valkey.common().url)
    async with node(shared) as one, node(shared) as other:
        lease = await one.counters.reserve(ask(window("a", requests=5), tokens=(3, 4)))
        await other.counters.reserve(ask(window("a", requests=5), window("b", tokens=50), tokens=(1, 1)))
        await one.counters.settle(lease, Used(tokens=5))
        shown = {live.id: (live.requests, live.tokens, live.open) for live in await one.counters.snapshot()}
        assert {"a": (2, 7, 1), "b": (1, 2, 1)} == shown
        for live in await one.counters.snapshot():
            assert 0 < live.frees_in_s <= live.empty_in_s <= shared.counters.window_s


# Deaths.


async def test_calls_of_a_dead_process_are_given_back_once_with_what_their_rows_say() -> None:
    bank = Bank(**{"acc-1": 200})
    rows: dict[str, int] = {}
    asked: list[tuple[str, ...]] = []

    async def settled(ids: tuple[str, ...]) -> dict[str, int]:
        asked.append(ids)
        return {call_id: tokens for call_id, tokens in rows.items() if call_id in ids}

    books = Books(load=bank.load, settled=settled)
    shared = setting(valkey.common().url, CountersConfig(wait_s=0.1), **QUICK)
    limit = window(tokens=1_000, concurrency=2)
    async with node(shared, books) as survivor, node(shared, books) as other:
        async with node(shared, books) as victim:
            billed = await victim.counters.reserve(ask(limit, balance(), tokens=(10, 90)))
            other_id = (await victim.counters.reserve(ask(limit, balance(), tokens=(10, 90)))).ask.id
            assert (await refusal(other.counters, limit)).kind is ErrorKind.RATE_LIMITED
            # Its row was committed, and then it was killed before it could settle.
            rows[billed.ask.id] = 30
            bank.change("acc-1", -30)
            victim.crash()
        last = await until_free(survivor.counters, limit, balance(), tokens=(10, 160))
        assert 170 == last.held_micros
        assert last.limits is not None
        assert 1_000 - 30 - 170 == last.limits.tokens_left
        assert {billed.ask.id, other_id} == {call_id for ids in asked for call_id in ids}
        await other.counters.reserve(ask(limit, tokens=(1, 1)))
        assert (await refusal(survivor.counters, limit)).kind is ErrorKind.RATE_LIMITED


async def test_process_that_was_taken_for_dead_says_its_calls_again(server: valkey.Server) -> None:
    """A process that was frozen for long: its money is given back, and held again when it returns."""
    bank = Bank(**{"acc-1": 100})
    shared = setting(server.url, CountersConfig(wait_s=0.1), **QUICK)
    frozen = msgspec.structs.replace(shared, valkey=msgspec.structs.replace(shared.valkey, beat_s=1_000.0))
    async with node(frozen, settled_by(bank)) as sleeper, node(shared, settled_by(bank)) as other:
        lease = await sleeper.counters.reserve(ask(balance(), window(concurrency=1), tokens=(10, 80)))
        small = await until_free(other.counters, balance(), window(concurrency=1), tokens=(10, 60))
        await other.counters.settle(small, Used(tokens=0))
        # The sleeper finds that it was expelled when it asks again.
        await sleeper.counters.reserve(ask(balance(), tokens=(1, 1)))
        assert (await refusal(other.counters, balance(), tokens=(10, 60))).kind is ErrorKind.OVERLOADED
        await sleeper.counters.settle(lease, bank.charge(lease, 20))
        assert 70 == (await until_free(other.counters, balance(), window(concurrency=1), tokens=(10, 60))).held_micros


# Outages.


async def test_calls_are_refused_at_once_while_the_store_is_away_and_admitted_again_after_it(server: valkey.Server) -> None:
    bank = Bank(**{"acc-1": 100})
    async with node(setting(server.url, CountersConfig(wait_s=0.1)), settled_by(bank)) as one:
        lease = await one.counters.reserve(ask(balance(), window(requests=5, concurrency=1)))
        await lose(server, one)
        error = await refusal(one.counters, balance())
        assert ErrorKind.OVERLOADED is error.kind
        assert error.retry_after_s
        await one.counters.settle(lease, bank.charge(lease, 2))
        server.start()
        again = await until_admitted(one.counters, balance(), window(requests=5, concurrency=1), tokens=(10, 88))
        assert 98 == again.held_micros
        await one.counters.settle(lease, Used(tokens=2))
        assert (await refusal(one.counters, balance(), tokens=(1, 0))).kind is ErrorKind.OVERLOADED


@pytest.mark.parametrize("is_kept", [False, True])
async def test_open_calls_keep_what_they_hold_when_the_store_starts_anew(tmp_path: Path, is_kept: bool) -> None:
    """Whether it lost everything or came back with what was on its disk."""
    bank = Bank(**{"acc-1": 100})
    with valkey.serve(tmp_path / "valkey", is_kept=is_kept) as server:
        shared = setting(server.url, CountersConfig(wait_s=0.1), warm_s=0.7, **QUICK | {"dead_s": 5.0})
        async with node(shared, settled_by(bank)) as one, node(shared, settled_by(bank)) as other:
            limit = window(requests=10, tokens=500, concurrency=2)
            lease = await one.counters.reserve(ask(balance(), limit, tokens=(10, 80)))
            done = await other.counters.reserve(ask(balance(), limit, tokens=(1, 4)))
            await lose(server, one, other)
            await other.counters.settle(done, bank.charge(done, 5))
            server.start()
            probe = await until_admitted(other.counters, balance(), limit, tokens=(1, 4))
            assert probe.limits is not None
            assert (7, 500 - 90 - 5 - 5) == (probe.limits.requests_left, probe.limits.tokens_left)
            assert (await refusal(other.counters, limit)).kind is ErrorKind.RATE_LIMITED
            assert (await refusal(other.counters, balance(), tokens=(1, 5))).kind is ErrorKind.OVERLOADED
            await one.counters.settle(lease, bank.charge(lease, 10))
            await one.counters.settle(lease, bank.charge(lease, 0))
            assert 80 == (await other.counters.reserve(ask(balance(), tokens=(10, 70)))).held_micros


async def test_purses_are_read_again_when_the_store_comes_back_with_old_ones(kept_server: valkey.Server) -> None:
    bank = Bank(**{"acc-1": 100})
    async with node(setting(kept_server.url), settled_by(bank)) as one:
        await one.counters.settle(await one.counters.reserve(ask(balance())), Used(tokens=0))
        await lose(kept_server, one)
        bank.change("acc-1", -95)
        kept_server.start()
        assert 5 == (await until_admitted(one.counters, balance(), tokens=(1, 50))).held_micros


async def test_what_a_dead_process_billed_is_not_hidden_when_the_store_lost_everything(server: valkey.Server) -> None:
    """The survivor's own last bill is older, and the only one it has to tell."""
    bank = Bank(**{"acc-1": 100})
    async with node(setting(server.url), settled_by(bank)) as one:
        async with node(setting(server.url), settled_by(bank)) as victim:
            lease = await one.counters.reserve(ask(balance(), tokens=(1, 9)))
            its = await victim.counters.reserve(ask(balance(), tokens=(1, 59)))
            await lose(server, one, victim)
            await one.counters.settle(lease, bank.charge(lease, 10))
            bank.charge(its, 60)
            victim.crash()
        server.start()
        assert 30 == (await until_admitted(one.counters, balance(), tokens=(1, 98))).held_micros


async def test_calls_of_the_last_window_still_count_when_the_store_lost_everything(server: valkey.Server) -> None:
    rows: list[Past] = []

    async def recent(since: float) -> list[Past]:
        return [row for row in rows if row.at >= since]

    limit = window("a", requests=9, tokens=1_000)
    async with node(setting(server.url, warm_s=0.5), NO_BOOKS._replace(recent=recent)) as one:
        for _ in range(3):
            lease = await one.counters.reserve(ask(limit, tokens=(10, 10)))
            await one.counters.settle(lease, Used(tokens=5))
            rows.append(Past(id=lease.ask.id, at=lease.at, tokens=5, windows=("a",)))
        rows.append(Past(id="old", at=lease.at - 61, tokens=500, windows=("a",)))
        still_open = await one.counters.reserve(ask(limit, tokens=(10, 10)))
        await lose(server, one)
        server.start()
        lease = await until_admitted(one.counters, limit, tokens=(1, 1))
        assert lease.limits is not None
        assert (4, 1_000 - 15 - 20 - 2) == (lease.limits.requests_left, lease.limits.tokens_left)
        assert (await refusal(one.counters, limit, tokens=(990, 1))).retry_after_s == pytest.approx(60, abs=10)
        await one.counters.settle(still_open, Used(tokens=0))


async def test_silent_store_is_an_outage_and_what_it_did_meanwhile_is_undone(server: valkey.Server) -> None:
    shared = setting(server.url, command_s=1.0, connect_s=1.0)
    async with node(shared) as one:
        await one.counters.reserve(ask(window(requests=3)))
        with server.frozen():
            assert (await refusal(one.counters, window(requests=3))).kind is ErrorKind.OVERLOADED
        lease = await until_admitted(one.counters, window(requests=3))
        assert lease.limits is not None
        assert 1 == lease.limits.requests_left


async def test_each_process_admits_its_share_of_what_was_left_when_outages_are_open(server: valkey.Server) -> None:
    bank = Bank(**{"acc-1": 100})
    shared = setting(server.url, CountersConfig(wait_s=0.1), on_outage="open", **QUICK | {"dead_s": 5.0})
    limit = window(requests=9, tokens=10_000)
    async with node(shared, settled_by(bank)) as one, node(shared, settled_by(bank)) as other:
        for each in (one, other) * 2:
            await each.counters.settle(await each.counters.reserve(ask(limit, balance(), tokens=(1, 1))), Used(tokens=2))
        await until(lambda: (one.counters.owners, other.counters.owners) == (2, 2))
        # Both know what is left by their last calls: 6 and 5 of 9 requests, all the money.
        await lose(server, one, other)
        counts: list[int] = []
        leases: list[tuple[Node, Lease]] = []
        for each in (one, other):
            for n in range(10):
                try:
                    leases.append((each, await each.counters.reserve(ask(limit, balance(), tokens=(1, 9)))))
                except ApiError as error:
                    assert ErrorKind.RATE_LIMITED is error.kind
                    counts.append(n)
                    break
        assert 3 == counts[0]
        assert 5 <= sum(counts) <= 6
        assert (await refusal(one.counters, balance(), tokens=(1, 30))).kind is ErrorKind.OVERLOADED
        server.start()
        for each in (one, other):
            with anyio.fail_after(60):
                await each.store.wait_up()
        for each, lease in leases:
            await each.counters.settle(lease, bank.charge(lease, 10))
        last = await until_admitted(one.counters, balance(), tokens=(1, 99 - 10 * len(leases)))
        assert 100 - 10 * len(leases) == last.held_micros


async def test_calls_admitted_alone_count_for_everybody_when_the_store_is_back(server: valkey.Server) -> None:
    shared = setting(server.url, on_outage="open", warm_s=0.5)
    async with node(shared) as one:
        await one.counters.reserve(ask(window(requests=5)))
        await lose(server, one)
        alone = [await one.counters.reserve(ask(window(requests=5))) for _ in range(2)]
        await one.counters.settle(alone[0], Used(tokens=1))
        server.start()
        with anyio.fail_after(60):
            await one.store.wait_up()
        lease = await until_admitted(one.counters, window(requests=5))
        assert lease.limits is not None
        assert 1 == lease.limits.requests_left


async def test_open_outage_closes_when_its_time_is_over(server: valkey.Server) -> None:
    async with node(setting(server.url, on_outage="open", open_for_s=0.2)) as one:
        await one.counters.reserve(ask(window(requests=100)))
        await lose(server, one)
        await one.counters.reserve(ask(window(requests=100)))
        with anyio.fail_after(60):
            while True:
                try:
                    await one.counters.reserve(ask(window(requests=100)))
                except ApiError as error:
                    assert ErrorKind.OVERLOADED is error.kind
                    break
                await anyio.sleep(0.02)


async def test_nothing_is_admitted_alone_when_the_store_was_never_heard(tmp_path: Path) -> None:
    with valkey.serve(tmp_path / "valkey") as server:
        server.kill()
        async with node(setting(server.url, on_outage="open")) as one:
            assert (await refusal(one.counters, window(requests=5))).kind is ErrorKind.OVERLOADED


async def test_reserve_needs_no_store_when_nothing_limits_the_call(server: valkey.Server) -> None:
    async with node(setting(server.url)) as one:
        await lose(server, one)
        assert 7 == (await one.counters.reserve(ask(tokens=(1, 7)))).output_tokens


async def test_purse_is_read_for_all_when_many_need_it_at_the_same_time() -> None:
    bank = Bank(**{"acc-1": 1_000})
    async with node(setting(valkey.common().url), settled_by(bank)) as one, anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(one.counters.reserve, ask(balance()))
    assert len(bank.reads) < 5


async def test_windows_pass_when_the_test_clock_is_moved_and_owners_live_on() -> None:
    clock = TestClock(SystemClock())
    async with node(setting(valkey.common().url), clock=clock) as one:
        await one.counters.reserve(ask(window(requests=1, concurrency=2)))
        clock.reach(61.0)
        await one.counters.reserve(ask(window(requests=1, concurrency=2)))
        clock.reach(1_000.0)
        assert (await refusal(one.counters, window(requests=1, concurrency=2))).kind is ErrorKind.RATE_LIMITED
