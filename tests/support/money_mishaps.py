"""What goes wrong while money moves: processes die at any moment of their work, the store is lost, connections break."""

import time
from collections.abc import Callable

from sqlalchemy import select

from qwenbox.gateway.journal.tables import LEDGER_ENTRIES, USAGE
from support.counting_process import Commit, TopUp
from support.money_model import Asked, Call, What
from support.money_run import Run, settle_of
from support.nursery import Process


class RiskyRun(Run):
    """A run in which things go wrong, and what may and may not have happened by then."""

    def kill_idle(self, *numbers: int) -> None:
        self.say("kill -9", numbers)
        self.lose(self.world.kill(*numbers), *numbers)

    def kill_asking(self, asked: Asked, delay_s: float) -> None:
        """kill -9 of a process that is asked, which may have had its answer or not."""
        right = self.right(asked)
        granted = [outcome.output_tokens for outcome in right if outcome.what is What.ADMITTED]
        if not self.is_up or len(granted) > 1:
            return self.kill_idle(asked.process)
        self.send(asked)
        (dead,) = self._killed(asked.process, delay_s)
        answer = dead.answered(asked.number)
        self.say("it was asked", asked, answer)
        if answer is not None:
            self.expect(self.outcome(answer) in right, answer, right)
        # Whether the call was admitted or waits, nobody can tell; it is all given back in the end.
        for output_tokens in granted:
            self.model.admit(asked, output_tokens, "")
            self.window.maybe += 1
        self.model.is_line_blocked = self.world.store is not None
        self.lose([dead], asked.process)

    def kill_booking(self, commit: Commit, delay_s: float) -> None:
        """kill -9 of a process while it books the end of a call; if it said that it had, it has."""
        call = self.model.open[commit.row.id]
        order = self.process(call.asked).send(commit)
        (dead,) = self._killed(call.asked.process, delay_s)
        is_booked = bool(self.world.read(select(USAGE.c.id).where(USAGE.c.id == commit.row.id)))
        self.say("it was booking", commit, is_booked)
        self.world.figures["commits kept by a kill" if is_booked else "commits lost by a kill"] += 1
        self.expect(is_booked or dead.answered(order) is None, commit)
        if is_booked:
            self.booked(call, commit.row)
        call.is_settling = commit.is_last
        self.lose([dead], call.asked.process)

    def kill_settling(self, call: Call, delay_s: float) -> None:
        self.process(call.asked).send(settle_of(call))
        self.say("settling", call.asked.id)
        call.is_settling = True
        self.lose(self._killed(call.asked.process, delay_s), call.asked.process)

    def kill_paying(self, process: int, payment: TopUp, delay_s: float) -> None:
        """Whoever paid asks the other process again, and is heard once."""
        number = process % len(self.world.processes)
        self.world.processes[number].send(payment)
        dead = self._killed(number, delay_s)
        entry = LEDGER_ENTRIES.c.transaction_id
        is_paid = bool(self.world.read(select(entry).where(entry == f"top_up/{payment.reference}")))
        self.say("it was paying", payment, is_paid)
        if is_paid:
            self.paid_in(payment)
        # Who waits may be told something before the payment is asked for again.
        self.lose(dead, number)
        if is_paid:
            self.book(process + 1, payment)
        else:
            self.pay(process + 1, payment)

    def _killed(self, number: int, delay_s: float) -> list[Process]:
        time.sleep(delay_s)
        self.say("kill -9", number)
        return self.world.kill(number)

    def lose(self, dead: list[Process], *numbers: int) -> None:
        self._replace(dead, *numbers)
        self.drain()

    def _replace(self, dead: list[Process], *numbers: int) -> None:
        for number in numbers:
            self.window.maybe += len(self.model.local[number])
            self.window.lose(number)
            self.model.lose(number)
        self.ended = [(owner, call) for owner, call in self.ended if owner not in dead]
        self.world.replace(*numbers, is_up=self.is_up)

    def store_dies(self) -> None:
        assert self.world.store is not None
        self.say("the store dies")
        self.world.figures["stores killed"] += 1
        self.is_up = False
        self.ended = []
        self.world.store.kill()
        while self.model.waiting:
            asked = self.model.line[0]
            answer = self.process(asked).answer(asked.number)
            self.model.leave(asked)
            self.take_alone(asked, answer)

    def store_returns(self) -> None:
        assert self.world.store is not None
        self.say("the store is back, as it was" if self.world.store.is_kept else "the store is back, empty")
        self.world.restart_store()
        self.world.join_again()
        self.is_up = True
        self.ended = []
        self.window.store_returns(self.model.open)
        self.model.forget()
        self.bury()
        self.windows_are_right()

    def cut_store(self) -> None:
        self.say("the store is cut off")
        self.world.figures["stores cut off"] += 1
        self.world.cut_store()

    def cut_database(self) -> None:
        self.say("the database is cut off")
        self.world.figures["databases cut off"] += 1
        self.world.cut_database()

    def ask_while(self, asked: Asked, breaks: Callable[[], None], *, is_late: bool) -> None:
        """It is admitted, or told that the store is away; then it was not. is_late: it is asked after the break, not before."""
        right = self.right(asked)
        in_turn((lambda: self.send(asked), breaks), is_late=is_late)
        answer = self.process(asked).answer(asked.number)
        self.say("asked meanwhile", asked, answer)
        if answer.error == "overloaded":
            return
        if answer.lease is not None and self.world.is_open and self.outcome(answer) not in right:
            return self.take_alone(asked, answer)
        self.expect(self.outcome(answer) in right, answer, right)
        self.take(asked, answer)

    def settle_while(self, call: Call, breaks: Callable[[], None], *, is_late: bool) -> None:
        process, numbers = self.process(call.asked), list[int]()
        in_turn((lambda: numbers.append(process.send(settle_of(call))), breaks), is_late=is_late)
        self.expect(process.answer(numbers[0]).error == "", call)
        self.window.doubt(call)
        self.settled(call)


def in_turn(two: tuple[Callable[[], None], Callable[[], None]], *, is_late: bool) -> None:
    """is_late: the second comes first."""
    for one in reversed(two) if is_late else two:
        one()
