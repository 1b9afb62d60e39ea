"""Whatever two processes do with one account's money, and whenever one of them is killed: nothing is lost, billed twice or overdrawn.

A state machine orders real processes about, on a real PostgreSQL and a real Valkey; `support.money_run` tells what must be so after every
step. The same with one process that keeps its books in SQLite and counts in memory.
"""

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from qwenbox.gateway.audit import complaints
from qwenbox.terms.caller import Caller
from support import valkey
from support.bookings import faults
from support.counting_process import Start
from support.money_mishaps import RiskyRun
from support.money_model import Outcome, What
from support.money_run import Disturbed, one_of
from support.money_world import World, world_of
from support.nursery import Nursery, nursery
from support.postgres import Server as PostgresServer

PICK = st.integers(0, 11)
BUDGET = st.none() | st.integers(20, 400)
SHARE = st.sampled_from([0, 1, 3, 3, 10, 10])


class MoneyMachine(RuleBasedStateMachine):
    """What is drawn must not depend on what real processes did, so a rule that finds nothing to act on asks for another call instead.

    crash_step, outage_step: crashes and outages happen after these.
    """

    run: RiskyRun

    def __init__(self, world: World, steps: int) -> None:
        super().__init__()
        self.world = world
        self.length = steps
        self.steps = 0
        self.crash_step = self.outage_step = 0
        self.has_died = self.is_down = False

    @initialize(is_prepaid=st.booleans(), paid=st.integers(0, 500), budgets=st.tuples(BUDGET, BUDGET), outage=st.integers(0, 10))
    def open_account(self, is_prepaid: bool, paid: int, budgets: tuple[int | None, int | None], outage: int) -> None:
        account, key = budgets
        caller = Caller(account_id="", key_id="", is_prepaid=is_prepaid, account_budget_micros=account, key_budget_micros=key)
        self.run = RiskyRun(self.world, caller)
        self.outage_step = self.length * outage // 8
        if paid:
            self.run.pay(0, self.run.payment(paid))

    # What clients do.

    @rule(process=PICK, tokens=st.tuples(st.integers(1, 9), st.integers(1, 20)), choices=st.sampled_from([1, 1, 3]), price=PICK)
    def reserve_little(self, process: int, tokens: tuple[int, int], choices: int, price: int) -> None:
        self.run.reserve(self.run.asked(process, tokens, price, choices))

    @rule(process=PICK, tokens=st.tuples(st.integers(1, 20), st.integers(20, 80)), choices=st.sampled_from([1, 1, 2]), price=PICK)
    def reserve_some(self, process: int, tokens: tuple[int, int], choices: int, price: int) -> None:
        self.run.reserve(self.run.asked(process, tokens, price, choices))

    @rule(process=PICK, tokens=st.tuples(st.integers(1, 20), st.integers(100, 400)), price=PICK)
    def reserve_much(self, process: int, tokens: tuple[int, int], price: int) -> None:
        self.run.reserve(self.run.asked(process, tokens, price))

    @rule(pick=PICK, share=SHARE, is_owed=st.booleans())
    def end(self, pick: int, share: int, is_owed: bool) -> None:
        if self.run.unbooked:
            self.run.end(one_of(self.run.unbooked, pick), share, is_owed=is_owed)
        else:
            self.reserve_instead(pick)

    @rule(pick=PICK)
    def use_all(self, pick: int) -> None:
        """As often as `end`, so that about as many calls end as begin."""
        self.end(pick, 10, False)

    @rule(pick=PICK, share=SHARE, is_owed=st.booleans())
    def commit(self, pick: int, share: int, is_owed: bool) -> None:
        if self.run.unbooked and self.run.is_exact:
            self.run.end(one_of(self.run.unbooked, pick), share, is_owed=is_owed, is_last=False)
        else:
            self.reserve_instead(pick)

    @rule(pick=PICK)
    def settle(self, pick: int) -> None:
        """A call that was booked, or a release."""
        calls = list(self.run.model.open.values())
        if calls:
            self.run.settle(one_of(calls, pick))
        else:
            self.reserve_instead(pick)

    @rule(pick=PICK, process=PICK)
    def tell_again(self, pick: int, process: int) -> None:
        self.run.tell_again(pick, process)

    @rule(pick=PICK)
    def give_up(self, pick: int) -> None:
        if self.run.model.waiting:
            self.run.give_up(pick)
        else:
            self.reserve_instead(pick)

    @rule(process=PICK, micros=st.integers(1, 150), is_told=st.booleans())
    def pay(self, process: int, micros: int, is_told: bool) -> None:
        self.run.pay(process, self.run.payment(micros, is_told=is_told or not self.run.is_exact))

    @rule(hours=st.sampled_from([None, 0.01, 2, 24 * 20]), pick=PICK)
    def time_passes(self, hours: float | None, pick: int) -> None:
        """None: long enough for the counters to learn what others did to purses."""
        if hours is None:
            self.run.learn()
        elif self.run.model.waiting:
            # They would wait for another month's money than whoever comes next.
            self.reserve_instead(pick)
        else:
            self.run.move(hours * 3_600)

    def reserve_instead(self, pick: int) -> None:
        self.run.reserve(self.run.asked(pick, (1 + pick, 10 + 20 * pick), pick))

    # What goes wrong.

    @precondition(lambda self: self.steps > self.crash_step)
    @rule(which=st.sampled_from([(0,), (1,), (0, 1)]), gap=PICK)
    def kill(self, which: tuple[int, ...], gap: int) -> None:
        self.crash_step = self.steps + gap
        self.run.kill_idle(*{number % len(self.world.processes) for number in which})

    @precondition(lambda self: self.steps > self.crash_step)
    @rule(process=PICK, pick=PICK, busy=st.sampled_from(["asking", "booking", "ending", "settling", "paying"]), delay_ms=PICK)
    def kill_busy(self, process: int, pick: int, busy: str, delay_ms: int) -> None:
        self.crash_step = self.steps + pick
        run, delay_s = self.run, delay_ms / 4_000
        calls = list(run.model.open.values())
        if busy in ("booking", "ending") and run.unbooked:
            run.kill_booking(run.commit_of(one_of(run.unbooked, pick), 3, is_last=busy == "ending"), delay_s)
        elif busy == "settling" and calls:
            run.kill_settling(one_of(calls, pick), delay_s)
        elif busy == "paying":
            run.kill_paying(process, run.payment(1 + 10 * pick), delay_s)
        else:
            run.kill_asking(run.asked(process, (1 + pick, 10 + 20 * pick), pick), delay_s)

    @precondition(lambda self: self.world.store and not self.has_died and self.steps > self.outage_step)
    @rule(pick=PICK, busy=st.sampled_from(["", "asking", "settling"]))
    def store_dies(self, pick: int, busy: str) -> None:
        self.has_died = self.is_down = True
        self.break_while(busy, pick, self.run.store_dies)

    @precondition(lambda self: self.is_down)
    @rule(is_told=st.booleans())
    def store_returns(self, is_told: bool) -> None:
        self.is_down = False
        self.run.store_returns()
        if is_told:
            self.run.learn()

    @precondition(lambda self: self.world.store and self.steps > self.outage_step / 2)
    @rule(pick=PICK, busy=st.sampled_from(["", "asking", "settling", "booking"]))
    def connections_break(self, pick: int, busy: str) -> None:
        """The journals' find out when they book next."""
        if busy == "booking":
            self.run.cut_database()
        elif self.is_down or self.run.model.waiting:
            self.reserve_instead(pick)
        else:
            self.run.model.is_vague = True  # as soon as one joins again
            self.break_while(busy, pick, self.run.cut_store)
            self.world.join_again()
            self.run.model.read_again()
            self.run.window.joined()
            self.run.drain()

    def break_while(self, busy: str, pick: int, breaks) -> None:
        run = self.run
        calls = list(run.model.open.values())
        fresh = run.asked(pick, (1 + pick, 10), pick)
        if run.model.waiting:
            breaks()
        elif busy == "settling" and calls:
            run.settle_while(one_of(calls, pick), breaks, is_late=pick % 2 == 1)
        elif busy == "asking" and Outcome(What.WAITS) not in run.right(fresh):
            run.ask_while(fresh, breaks, is_late=pick % 2 == 1)
        else:
            breaks()

    # What must be so.

    @invariant()
    def everything_adds_up(self) -> None:
        self.steps += 1
        self.world.figures["steps"] += 1
        self.run.check()

    def teardown(self) -> None:
        error = sys.exc_info()[1]
        try:
            if error is None:
                if self.is_down:
                    self.run.store_returns()
                self.run.close()
                self.world.figures["runs"] += self.steps > self.length
        except BaseException as found:
            error = found
            raise
        finally:
            if error is not None and hasattr(self, "run"):
                if isinstance(error, (AssertionError, Disturbed)):
                    print(f"{type(error).__name__}: {error}")
                    print(*self.run.trace, sep="\n")
                self.run.abandon()


@pytest.fixture(scope="module")
def forking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with nursery(tmp_path_factory.mktemp("nursery") / "log") as running:
        yield running


def prove(world: World, what: str, runs: int, steps: int, *, is_full: bool) -> None:
    spare = runs // 20 + 1  # for those that a busy machine spoils
    run_state_machine_as_test(
        lambda: MoneyMachine(world, steps),
        settings=settings(
            max_examples=runs + spare,
            stateful_step_count=steps + 1,  # opening the account is one
            deadline=None,
            database=None,
            # Full counts draw every run anew, to its last step. One that fails tells what happened; the same draws again would meet
            # their deaths at other moments.
            phases=(Phase.generate,),
            backend="hypothesis-urandom" if is_full else "hypothesis",
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"\n{what}, runs of {steps} steps: " + ", ".join(f"{many} {name}" for name, many in sorted(world.figures.items())))
    assert [] == world.portal.call(faults, world.database)
    assert [] == world.portal.call(complaints, world.database)
    assert world.figures["runs"] >= runs
    assert world.figures["runs without a verdict"] <= spare


@pytest.mark.timeout(3_600)
def test_money_is_exact_whatever_two_processes_do_and_whenever_they_die(
    forking: Nursery, postgres: PostgresServer, tmp_path: Path, is_full: bool
) -> None:
    with valkey.serve(tmp_path / "valkey") as store:
        start = Start(database_url=postgres.new_database(), valkey_url=f"unix://{store.socket}", prefix=uuid.uuid4().hex)
        with world_of(start, forking, store) as world:
            prove(world, "two processes, PostgreSQL and Valkey", *((200, 50) if is_full else (8, 30)), is_full=is_full)


def test_settlement_of_a_dying_process_tells_how_its_commit_left_the_purse_and_not_what_came_after(
    forking: Nursery, postgres: PostgresServer, tmp_path: Path
) -> None:
    with valkey.serve(tmp_path / "valkey") as store:
        start = Start(database_url=postgres.new_database(), valkey_url=f"unix://{store.socket}", prefix=uuid.uuid4().hex)
        with world_of(start, forking, store) as world:
            run = RiskyRun(world, Caller(account_id="", key_id="", is_prepaid=True))
            run.pay(0, run.payment(100))
            run.bury()
            run.reserve(run.asked(0, (1, 30), 0))
            (call,) = run.unbooked
            run.reserve(run.asked(1, (10, 190), 0))
            assert run.model.waiting
            run.end(call, 3, is_last=False)
            run.pay(0, run.payment(58, is_told=False))
            run.kill_settling(call, 0.5)
            (granted,) = run.unbooked
            assert (80, 90) == (granted.output_tokens, granted.held)
            run.close()


@pytest.mark.timeout(3_600)
def test_money_is_exact_again_whatever_processes_admitted_alone_and_whoever_died_of_them(
    forking: Nursery, postgres: PostgresServer, tmp_path: Path, is_full: bool
) -> None:
    """Outages are open, and the store comes back with what is on its disk."""
    with valkey.serve(tmp_path / "valkey", is_kept=True) as store:
        url = f"unix://{store.socket}"
        start = Start(database_url=postgres.new_database(), valkey_url=url, prefix=uuid.uuid4().hex, on_outage="open")
        with world_of(start, forking, store) as world:
            prove(world, "two processes, open outages, a store with a disk", *((100, 50) if is_full else (12, 30)), is_full=is_full)


@pytest.mark.timeout(3_600)
def test_money_is_exact_whatever_one_process_does_and_whenever_it_dies(forking: Nursery, tmp_path: Path, is_full: bool) -> None:
    start = Start(database_url=f"sqlite:///{tmp_path / 'books.db'}")
    with world_of(start, forking, None) as world:
        prove(world, "one process, SQLite and memory", *((100, 50) if is_full else (10, 30)), is_full=is_full)
