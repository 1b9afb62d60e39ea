"""The obvious way to keep purses, what open calls hold, and who waits: all of it in plain sight, one step after the other.

Counters of one or two processes are held against it. Where something happens at a moment of its own (what a dead process held is given
back), it says every outcome that is right.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain, combinations
from math import inf
from typing import NamedTuple

from qwenbox.gateway.counters.base import Worst
from qwenbox.gateway.counters.money import IDLE_S

UNIT = 1_000_000


class What(StrEnum):
    """Values are the errors of the wire between test and process, where there is one."""

    ADMITTED = ""
    WAITS = "waits"
    OUT_OF_FUNDS = "out_of_funds"
    RATE_LIMITED = "rate_limited"


class Outcome(NamedTuple):
    what: What
    output_tokens: int = 0


class State(NamedTuple):
    """version: grows with every change."""

    amount: int = 0
    version: int = 0


@dataclass(eq=False)
class Asked:
    """A call that has been asked for. purses: allowance by purse. number: of the order, whose answer tells the end."""

    id: str
    process: int
    purses: dict[str, int]
    worst: Worst
    number: int = 0


@dataclass(eq=False)
class Call:
    """An admitted call. cost: of its row; None before it has one. states: as its commit left the purses.

    is_settling: its process died while it settled it.
    """

    asked: Asked
    output_tokens: int
    held: int
    day: str
    cost: int | None = None
    used: tuple[int, int] = (0, 0)
    states: dict[str, State] = field(default_factory=dict)
    is_settling: bool = False


def cost_of(worst: Worst, output_tokens: int) -> int:
    return -(-(worst.input_scaled + output_tokens * worst.output_price) // UNIT)


class Model:
    """One account.

    truth: purses as the database has them. known: as the counters have them; what is missing they would read from the database.
    is_vague: the counters may know less than `known` and read it from the database; while that is so they are told of every change.
    is_mourning: a process has died, and the others have not noticed yet; when they do, all purses are read again.
    open: calls of living processes. limbo: calls of dead ones, given back sooner
    or later. is_line_blocked: so may be the line in which a dead process's calls stood.
    line: who waits, in the order in which they will be served. local: who waits in each process; of these the first stands in the line
    of all, the others only when they become the first (in memory everybody is in the line).
    now_s: how far the test clock is ahead. Next to that no time passes.
    """

    def __init__(self, concurrency: int, processes: int, *, is_shared: bool) -> None:
        self.concurrency = concurrency
        self.is_shared = is_shared
        self.truth: dict[str, State] = {}
        self.known: dict[str, State] = {}
        self.is_vague = False
        self.is_mourning = is_shared  # for processes of the test before
        self.open: dict[str, Call] = {}
        self.limbo: dict[str, Call] = {}
        self.is_line_blocked = False
        self.line: list[Asked] = []
        self.local: list[list[Asked]] = [[] for _ in range(processes)]
        self.now_s = 0.0
        self._used_at: dict[str, float] = {}
        self._swept_at = -inf

    # Money.

    def change(self, changes: dict[str, int]) -> dict[str, State]:
        """The database writes a booking; the purses as it leaves them."""
        for name, change in changes.items():
            amount, version = self.truth.get(name, State())
            self.truth[name] = State(amount + change, version + 1)
        return {name: self.truth[name] for name in changes}

    def learn(self, states: dict[str, State]) -> None:
        _learn(self.known, states)

    def learn_all(self, names: Collection[str]) -> None:
        self.learn({name: self.truth.get(name, State()) for name in names})

    def read_again(self) -> None:
        """The store keeps no purse over this; each is read when it is asked for."""
        self.known = dict(self.truth)
        self.is_vague = True

    # Admission.

    @property
    def is_exact(self) -> bool:
        """Whether it knows what the counters know."""
        return not (self.limbo or self.is_vague or self.is_mourning)

    def outcomes(self, asked: Asked, *, is_behind: bool = False) -> set[Outcome]:
        """Every outcome of a try that is right now."""
        behinds = {is_behind, True} if self.is_line_blocked else {is_behind}
        return {
            self._attempt(asked, known, [*self.open.values(), *held], is_behind=behind)
            for held in _subsets(self.limbo.values())
            for known in self._knowns(held)
            for behind in behinds
        }

    def _knowns(self, held: Collection[Call]) -> list[dict[str, State]]:
        """What the counters may know. held: by dead processes, still. Who died settling a call may have said how it left the purses."""
        if self.is_exact:
            return [self.known]
        told = dict(self.known)
        for call in self.limbo.values():
            if call.is_settling and call not in held:
                _learn(told, call.states)
        return [self.known, told, self.truth]

    def _attempt(self, asked: Asked, known: dict[str, State], open_calls: list[Call], *, is_behind: bool) -> Outcome:
        if len(open_calls) >= self.concurrency:
            return Outcome(What.RATE_LIMITED)
        worst, output_tokens = asked.worst, asked.worst.output_tokens
        most = cost_of(worst, output_tokens)
        settled: dict[str, int] = {}
        held = dict.fromkeys(asked.purses, 0)
        for name, allowance in asked.purses.items():
            settled[name] = known.get(name, self.truth.get(name, State())).amount + allowance
            held[name] = sum(call.held for call in open_calls if name in call.asked.purses)
        if (asked.purses and is_behind) or any(settled[name] - held[name] < most for name in asked.purses):
            if any(settled[name] < cost_of(worst, worst.choices) for name in asked.purses):
                return Outcome(What.OUT_OF_FUNDS)
            for name in asked.purses:
                if held[name] == 0 and settled[name] < most:
                    payable = (settled[name] * UNIT - worst.input_scaled) // worst.output_price
                    output_tokens = min(output_tokens, payable - payable % worst.choices)
            cost = cost_of(worst, output_tokens)
            if is_behind or any(settled[name] - held[name] < cost for name in asked.purses):
                return Outcome(What.WAITS)
        return Outcome(What.ADMITTED, output_tokens)

    def fetch(self, asked: Asked) -> None:
        """Purses are read before anything else, in memory; then those that nobody has used for long are forgotten."""
        if self.is_shared or self.known.keys() >= asked.purses.keys():
            return
        if self.now_s - self._swept_at >= IDLE_S:
            self._swept_at = self.now_s
            used = {name for call in self.open.values() for name in call.asked.purses} | {name for one in self.line for name in one.purses}
            for name in self.known.keys() - used:
                if self.now_s - self._used_at[name] > IDLE_S:
                    del self.known[name]
        for name in asked.purses.keys() - self.known.keys():
            self.known[name], self._used_at[name] = self.truth.get(name, State()), self.now_s

    def was_asked(self, asked: Asked, what: What) -> None:
        """Purses are read when money comes into play, in the store."""
        if self.is_shared and what is not What.RATE_LIMITED:
            for name in asked.purses:
                self.known.setdefault(name, self.truth.get(name, State()))
            if self.is_vague and asked.purses:
                self.known = {name: self.known[name] for name in asked.purses}
                self.is_vague = False

    def admit(self, asked: Asked, output_tokens: int, day: str) -> Call:
        held = cost_of(asked.worst, output_tokens) if asked.purses else 0
        self._used_at |= dict.fromkeys(asked.purses, self.now_s)
        call = self.open[asked.id] = Call(asked, output_tokens, held, day)
        return call

    # Waiting.

    def is_sent_to_line(self, asked: Asked) -> bool:
        """Whether it stands behind others of its process without being tried."""
        return self.is_shared and bool(self.local[asked.process])

    def join(self, asked: Asked) -> None:
        local = self.local[asked.process]
        if not self.is_shared or not local:
            self.line.append(asked)
        local.append(asked)

    def leave(self, asked: Asked) -> None:
        local = self.local[asked.process]
        was_first = local[0] is asked
        local.remove(asked)
        if asked in self.line:
            self.line.remove(asked)
        if self.is_shared and was_first and local:
            self.line.append(local[0])

    def sealed(self) -> tuple[Asked, Outcome] | None:
        """One who waits and must be told something now."""
        for asked in self.line if self.is_shared else self.line[:1]:
            (outcome,) = self.outcomes(asked, is_behind=self.line[0] is not asked)
            if outcome.what is not What.WAITS:
                return asked, outcome
        return None

    @property
    def waiting(self) -> list[Asked]:
        return list(chain(*self.local))

    # Deaths.

    def lose(self, process: int) -> None:
        """A process is dead: what it held stays held until somebody notices; in memory it is gone with it."""
        lost = {call.asked.id: call for call in self.open.values() if call.asked.process == process}
        for name in lost:
            del self.open[name]
        if self.local[process]:
            self.is_line_blocked = self.is_shared
        self.line = [asked for asked in self.line if asked.process != process]
        self.local[process] = []
        if self.is_shared:
            self.is_mourning = True
            self.limbo |= lost
        else:
            self.known, self._used_at, self._swept_at = {}, {}, -inf

    def bury(self) -> None:
        """Everything that dead processes held has been given back, and their purses were read again."""
        self.limbo = {}
        self.is_line_blocked = self.is_mourning = False
        self.read_again()

    def forget(self) -> None:
        """The store has lost everything; living processes say their open calls again."""
        self.limbo = {}
        self.is_line_blocked = False
        self.read_again()


def _learn(known: dict[str, State], states: dict[str, State]) -> None:
    for name, state in states.items():
        # Counters keep only what somebody has asked for.
        old = known.get(name)
        if old is not None and state.version > old.version:
            known[name] = state


def _subsets(calls: Collection[Call]) -> Iterator[tuple[Call, ...]]:
    return chain.from_iterable(combinations(calls, many) for many in range(len(calls) + 1))
