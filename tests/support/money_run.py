"""One account's money in the hands of real processes, and what must be so after everything they are told to do or suffer.

What the counters admit, refuse and let wait is held against `support.money_model` step by step.
"""

import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import NoReturn, TypeVar

import msgspec
from hypothesis.errors import UnsatisfiedAssumption
from sqlalchemy import select

from qwenbox.clock import SystemClock
from qwenbox.gateway.accounts import Accounts
from qwenbox.gateway.counters.base import Worst
from qwenbox.gateway.journal.base import UsageRow
from qwenbox.gateway.journal.tables import LEDGER_ENTRIES, PURSES, USAGE
from qwenbox.terms.caller import Caller
from support.bookings import usage
from support.counting_process import Answer, Commit, GiveUp, Learn, Look, Move, Reserve, Settle, TopUp
from support.money_model import UNIT, Asked, Call, Model, Outcome, State, What, cost_of
from support.money_window import Window
from support.money_world import World
from support.nursery import PATIENCE_S, Process

T = TypeVar("T")

CONCURRENCY = 6
# Of a whole number, a fraction and a fraction of micro-units per token: input, output.
PRICES = [(UNIT, UNIT), (400_000, 1_300_001), (1_250_000, 333_333)]
# The account's time zone, which has had one offset for thirty years.
TIME_ZONE, ITS_ZONE = "Asia/Shanghai", timezone(timedelta(hours=8))


class Disturbed(UnsatisfiedAssumption):
    """The machine was so busy that a living process was taken for dead; nothing can be said of this run."""


class Run:
    """is_up: whether the shared store is. has_shared_out: processes granted their shares of money without it.

    rows: of every call that was booked. paid: payments by reference. ended: calls that were settled, and by which process.
    trace: what happened, in words.
    """

    def __init__(self, world: World, caller: Caller) -> None:
        self.world = world
        self.caller = self._opened(caller)
        self.model = Model(CONCURRENCY, len(world.processes), is_shared=world.store is not None)
        self.model.now_s = world.offset_s
        self.window = Window(is_lossy=world.store is None or not world.store.is_kept)
        self.is_up, self.has_shared_out = True, False
        self.rows: dict[str, UsageRow] = {}
        self.paid: dict[str, int] = {}
        self.ended: list[tuple[Process, str]] = []
        self.trace: list[str] = []
        self.say(caller)

    def _opened(self, caller: Caller) -> Caller:
        accounts = Accounts(self.world.database, SystemClock())
        account = self.world.portal.call(accounts.named, uuid.uuid4().hex)
        return msgspec.structs.replace(caller, account_id=account.id, key_id=f"key-{uuid.uuid4().hex}", time_zone=TIME_ZONE)

    # What clients do.

    def asked(self, process: int, tokens: tuple[int, int], price: int, choices: int = 1) -> Asked:
        """tokens: input, and output of each choice."""
        input_price, output_price = one_of(PRICES, price)
        worst = Worst(
            input_tokens=tokens[0],
            output_tokens=tokens[1] * choices,
            input_scaled=tokens[0] * input_price,
            output_price=output_price,
            choices=choices,
        )
        return Asked(f"call-{uuid.uuid4().hex}", process % len(self.world.processes), self.purses(), worst)

    def reserve(self, asked: Asked) -> None:
        model = self.model
        if len(asked.purses) > 1 and model.local[asked.process]:
            # Those who wait behind others of their process arrive in the line of all when the one before them goes to another purse's
            # line. Two processes may do that in one moment; who then comes first is nobody's promise.
            asked.process = (asked.process + 1) % len(self.world.processes)
            if model.local[asked.process]:
                return self.give_up(0)
        if model.is_vague and Outcome(What.WAITS) in self.right(asked):
            self.learn()
        model.fetch(asked)
        right = self.right(asked)
        self.send(asked)
        answer = self.process(asked).answer(asked.number)
        self.say("reserve", asked, answer)
        if not self.is_up:
            return self.take_alone(asked, answer)
        self.expect(self.outcome(answer) in right, answer, right)
        self.world.figures["waited"] += answer.is_waiting
        self.take(asked, answer)
        self.drain()

    def give_up(self, pick: int) -> None:
        asked = one_of(self.model.waiting, pick)
        self.process(asked).do(GiveUp(call=asked.id))
        answer = self.process(asked).answer(asked.number)
        self.say("gives up", asked.id, answer)
        self.expect(answer.error == "given_up", answer)
        self.model.leave(asked)
        self.drain()

    def end(self, call: Call, share: int, *, is_owed: bool = False, is_last: bool = True) -> None:
        """share: as `commit_of`. is_last: it is settled, too."""
        commit = self.commit_of(call, share, is_owed=is_owed, is_last=is_last)
        self.book(call.asked.process, commit)
        self.booked(call, commit.row)
        if is_last:
            self.settled(call)
        self.drain()

    def settle(self, call: Call) -> None:
        """After its commit; without one, that is a release."""
        self.process(call.asked).do(settle_of(call))
        self.settled(call)

    def tell_again(self, pick: int, process: int) -> None:
        """The end of a call is booked a second time, that of one is settled a second time."""
        booked = [row for row in self.rows.values() if row.id not in self.model.open]
        if booked:
            self.book(process, Commit(row=one_of(booked, pick), caller=self.caller))
        if self.ended and self.is_up:
            owner, call = one_of(self.ended, pick)
            owner.do(Settle(call=call, tokens=1))
        self.drain()

    def payment(self, micros: int, *, is_told: bool = True) -> TopUp:
        return TopUp(account=self.caller.account_id, micros=micros, reference=uuid.uuid4().hex, is_told=is_told)

    def pay(self, process: int, payment: TopUp) -> None:
        self.book(process, payment)
        self.say("payment", payment)
        states = self.paid_in(payment)
        if payment.is_told:
            self.model.learn(states)
        self.drain()

    def paid_in(self, payment: TopUp) -> dict[str, State]:
        """The database has it; the purses as it leaves them."""
        self.paid[payment.reference] = payment.micros
        return self.model.change({f"balance/{payment.account}": payment.micros})

    def learn(self) -> None:
        for process in self.world.processes:
            process.do(Learn(purses=tuple(self.names())))
        self.model.learn_all(self.names())
        self.drain()

    def move(self, seconds_s: float) -> None:
        self.world.offset_s += seconds_s
        self.model.now_s = self.world.offset_s
        for process in self.world.processes:
            process.do(Move(offset_s=self.world.offset_s))

    # What must be so.

    def check(self) -> None:
        """After every step: purses are what the model's are, and nothing is overdrawn."""
        if self.model.is_mourning and self.is_up and not self.model.waiting and self.looked() is None:
            self._buried()
        truth = {name: state.amount for name, state in self.model.truth.items()}
        rows = self.world.read(select(PURSES).where(PURSES.c.id.in_(list(truth))))
        self.expect(truth == {row["id"]: row["amount_micros"] for row in rows}, truth, rows)
        if self.has_shared_out:
            return  # of what each process heard last, so what others used after that may be too much
        if self.caller.is_prepaid:
            self.expect(truth.get(f"balance/{self.caller.account_id}", 0) >= 0, truth)
        for owner, budget in self.budgets():
            spent = [amount for name, amount in truth.items() if name.startswith(f"spent/{owner}/")]
            self.expect(all(amount + budget >= 0 for amount in spent), truth, budget)

    def close(self) -> None:
        """Every call ends, then nothing is held any more, and the books tell what happened."""
        while self.model.waiting:
            self.give_up(0)
        for number, call in enumerate(list(self.model.open.values())):
            if call.cost is None and number % 2:
                self.end(call, 10)
            else:
                self.settle(call)
        self._nothing_is_held()
        self._books_are_right()

    def abandon(self) -> None:
        """Nobody knows what the processes are about: others take their place."""
        if not self.is_up:
            self.world.restart_store()
        numbers = range(len(self.world.processes))
        self.world.kill(*numbers)
        self.world.replace(*numbers)

    def _nothing_is_held(self) -> None:
        """One call gets all there is, once everything that dead processes held was given back."""
        self.bury()
        self.windows_are_right()
        self.learn()
        if not self.purses():
            return
        settled = min(self.model.truth[name].amount + more if name in self.model.truth else more for name, more in self.purses().items())
        self.reserve(self.asked(0, (1, max(1, settled - 1)), 0))
        held = [call.held for call in self.model.open.values()]
        self.expect(held == ([settled] if settled > 1 else []), held, settled)
        for call in list(self.model.open.values()):
            self.settle(call)

    def _books_are_right(self) -> None:
        """Each call that was booked has its row and its two entries, once; nothing else is there."""
        account, entry = self.caller.account_id, LEDGER_ENTRIES.c
        rows = self.world.read(select(USAGE).where(USAGE.c.account_id == account))
        self.expect({row.id: row.cost_micros for row in self.rows.values()} == {row["id"]: row["cost_micros"] for row in rows}, rows)
        expected = {f"top_up/{reference}": micros for reference, micros in self.paid.items()}
        expected |= {row.id: -row.cost_micros for row in self.rows.values() if row.cost_micros}
        entries = self.world.read(select(LEDGER_ENTRIES).where(entry.transaction_id.in_([*expected, *self.rows])))
        self.expect(sum(int(str(each["amount_micros"])) for each in entries) == 0, entries)
        own = self.world.read(select(LEDGER_ENTRIES).where(entry.ledger_account == f"customer/{account}"))
        found = sorted((each["transaction_id"], each["amount_micros"]) for each in own)
        self.expect(sorted(expected.items()) == found, expected, found)
        balance = self.model.truth.get(f"balance/{account}")
        self.expect(sum(expected.values()) == (balance.amount if balance else 0), expected, balance)

    # What the counters say.

    def send(self, asked: Asked) -> None:
        self.world.figures["calls"] += 1
        window = f"{self.caller.account_id}/m"
        deed = Reserve(call=asked.id, caller=self.caller, worst=asked.worst, window=window, concurrency=CONCURRENCY)
        asked.number = self.process(asked).send(deed)

    def right(self, asked: Asked) -> set[Outcome]:
        if not self.is_up:
            return set()
        if self.model.is_sent_to_line(asked):
            return {Outcome(What.WAITS)}
        return self.model.outcomes(asked, is_behind=bool(self.model.line))

    def outcome(self, answer: Answer) -> Outcome:
        if answer.is_waiting:
            return Outcome(What.WAITS)
        self.expect(answer.error in list(What), answer)
        return Outcome(What(answer.error), answer.lease.output_tokens if answer.lease else 0)

    def take_alone(self, asked: Asked, answer: Answer) -> None:
        """What a process said without the store."""
        if answer.lease is None or not self.world.is_open:
            self.expect(answer.error in ("overloaded", "rate_limited" if self.world.is_open else ""), answer)
            self.world.figures["refused without the store"] += 1
            return
        self.has_shared_out = True
        call = self.model.admit(asked, answer.lease.output_tokens, answer.lease.day)
        self.expect(answer.lease.held_micros == call.held, answer, call)
        self.window.admit(call, self.world.offset_s, is_alone=True)
        self.world.figures["admitted without the store"] += 1

    def take(self, asked: Asked, answer: Answer) -> None:
        """What the counters said is so."""
        what = self.outcome(answer).what
        self.model.was_asked(asked, what)
        if what is What.WAITS:
            self.model.join(asked)
        elif answer.lease is not None:
            call = self.model.admit(asked, answer.lease.output_tokens, answer.lease.day)
            self.expect(answer.lease.held_micros == call.held, answer, call)
            self.window.admit(call, self.world.offset_s, is_alone=False)
            self.world.figures["admitted"] += 1
        else:
            self.world.figures[what.value] += 1

    def drain(self) -> None:
        """Everybody who waits and need not any longer is told so; nobody else is told anything."""
        if not self.is_up:
            return
        if self.model.waiting:
            self.bury()
        while sealed := self.model.sealed():
            asked, outcome = sealed
            answer = self.process(asked).answer(asked.number)
            self.say("waits no more", asked.id, answer)
            self.expect(self.outcome(answer) == outcome, answer, outcome)
            self.model.leave(asked)
            self.take(asked, answer)
        for asked in self.model.waiting:
            answer = self.process(asked).answered(asked.number)
            self.expect(answer is None, asked, answer)

    def bury(self) -> None:
        """Wait until what dead processes held has been given back. Who waits may be told something at any moment of it."""
        if not self.model.is_mourning:
            return
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            for asked in self.model.waiting:
                if answer := self.process(asked).answered(asked.number):
                    self._take_early(asked, answer)
            if (seen := self.looked()) is None:
                break
            self.expect(time.monotonic() < deadline_s, seen, self.model.open.keys())
            time.sleep(0.02)
        self._buried()

    def looked(self) -> Answer | None:
        """What others see of the dead; None once nothing is left of them."""
        seen = self.world.processes[0].do(Look(window=f"{self.caller.account_id}/m"))
        return None if (seen.open, seen.owners) == (len(self.model.open), len(self.world.processes)) else seen

    def windows_are_right(self) -> None:
        """What dead processes held before the store was started is given back a while after it."""
        if self.world.store is None:
            return
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            (least, most), (fewest, much) = wanted = self.window.bounds(self.model.open, self.world.offset_s)
            seen = self.world.processes[0].do(Look(window=f"{self.caller.account_id}/m"))
            if least <= seen.requests <= most and fewest <= seen.tokens <= much:
                break
            self.expect(time.monotonic() < deadline_s, seen, wanted)
            time.sleep(0.02)
        self.world.figures["windows compared"] += 1

    def _buried(self) -> None:
        self.say("the dead are buried")
        self.model.bury()

    def _take_early(self, asked: Asked, answer: Answer) -> None:
        model = self.model
        right = model.outcomes(asked) | model.outcomes(asked, is_behind=True)
        if len(model.open) + len(model.limbo) + len(model.waiting) > CONCURRENCY:
            right.add(Outcome(What.RATE_LIMITED))
        self.say("waits no more", asked.id, answer)
        self.expect(self.outcome(answer) in right, answer, right)
        model.leave(asked)
        self.take(asked, answer)

    # Ends.

    def commit_of(self, call: Call, share: int, *, is_owed: bool = False, is_last: bool = True) -> Commit:
        """share: tenths of the answer that were used; 0: the call failed and costs nothing."""
        worst, output_tokens = call.asked.worst, call.output_tokens * share // 10
        cost = cost_of(worst, output_tokens) if share else 0
        row = msgspec.structs.replace(
            usage(call.asked.id, cost, account=self.caller.account_id),
            key_id=self.caller.key_id,
            day=call.day,
            input_tokens=worst.input_tokens,
            output_tokens=output_tokens,
        )
        return Commit(row=row, caller=self.caller, is_owed=is_owed, is_last=is_last)

    def book(self, process: int, deed: Commit | TopUp) -> None:
        number = process % len(self.world.processes)
        self.world.processes[number].do(deed)
        self.world.has_booked(number)

    def booked(self, call: Call, row: UsageRow) -> None:
        self.say("booked", row.id, row.cost_micros)
        call.cost, call.used = row.cost_micros, (row.input_tokens, row.output_tokens)
        self.rows[row.id] = row
        if row.cost_micros:
            month = call.day[:7]
            names = (f"balance/{row.account_id}", f"spent/{row.account_id}/{month}", f"spent/{row.key_id}/{month}")
            call.states = self.model.change(dict.fromkeys(names, -row.cost_micros))

    def settled(self, call: Call) -> None:
        self.say("settled", call.asked.id)
        del self.model.open[call.asked.id]
        self.window.end(call, is_up=self.is_up)
        self.model.learn(call.states)
        self.ended.append((self.process(call.asked), call.asked.id))
        self.drain()

    # Questions.

    @property
    def is_exact(self) -> bool:
        """Whether the model knows what the counters know; while it does not, they are told of every change."""
        return self.model.is_exact

    @property
    def unbooked(self) -> list[Call]:
        return [call for call in self.model.open.values() if call.cost is None]

    def budgets(self) -> list[tuple[str, int]]:
        both = ((self.caller.account_id, self.caller.account_budget_micros), (self.caller.key_id, self.caller.key_budget_micros))
        return [(owner, budget) for owner, budget in both if budget is not None]

    def purses(self) -> dict[str, int]:
        """Those that count now, by arithmetic of our own."""
        month = (datetime.now(UTC) + timedelta(seconds=self.world.offset_s)).astimezone(ITS_ZONE).strftime("%Y-%m")
        balance = {f"balance/{self.caller.account_id}": 0} if self.caller.is_prepaid else {}
        return balance | {f"spent/{owner}/{month}": budget for owner, budget in self.budgets()}

    def names(self) -> list[str]:
        return list({*self.model.truth, *self.model.known, *self.purses()})

    def process(self, asked: Asked) -> Process:
        return self.world.processes[asked.process]

    def say(self, *what: object) -> None:
        self.trace.append(" ".join(map(str, what)))

    def expect(self, is_right: bool, *what: object) -> None:
        if not is_right:
            self._fail(*what)

    def _fail(self, *what: object) -> NoReturn:
        if self.is_up and self.world.store is not None and self.world.is_disturbed():
            self.world.figures["runs without a verdict"] += 1
            raise Disturbed("\n".join(map(str, what)))
        raise AssertionError("\n".join(map(str, what)))


def settle_of(call: Call) -> Settle:
    return Settle(call=call.asked.id, tokens=0 if call.cost is None else sum(call.used))


def one_of(some: Sequence[T], pick: int) -> T:
    return some[pick % len(some)]
