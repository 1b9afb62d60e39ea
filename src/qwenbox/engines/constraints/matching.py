"""This is where patterns and limits on one text are checked against each other before an engine sees them."""

from collections import deque
from typing import TypeAlias

from qwenbox.engines.constraints.charsets import EVERYTHING, Spans, common
from qwenbox.engines.constraints.patterns import Anchor, Chars, Choice, Node, Repeat, Sequence, Unsupported

MAX_LOOK = 60_000
MAX_STATES = 6_000


def is_possible(nodes: tuple[Node, ...], least: int, most: int) -> bool:
    """Whether some text of `least` to `most` characters matches all of them. Raises Unsupported when that is too hard to say."""
    machines = [_Machine(node) for node in nodes]
    first: tuple[tuple[int, ...], int] = (tuple(0 for _ in machines), 0)
    seen: set[tuple[tuple[int, ...], int]] = {first}
    rows: deque[tuple[tuple[int, ...], int]] = deque([first])
    while rows:
        states, length = rows.popleft()
        if length >= least and all(machine.is_last(state) for machine, state in zip(machines, states, strict=True)):
            return True
        if length == most:
            continue
        for following in _joint_steps(machines, states):
            if (following, length + 1) not in seen:
                seen.add((following, length + 1))
                rows.append((following, length + 1))
        if len(seen) > MAX_LOOK:
            raise Unsupported("it is too complex together with the other limits on the same text")
    return False


_Ends: TypeAlias = tuple[bool, set[int], set[int]]  # may be empty, states it begins with, states it ends with


class _Machine:
    """A nondeterministic automaton without empty steps, states numbered; built from positions (Glushkov)."""

    def __init__(self, node: Node) -> None:
        self._spans: list[Spans] = [EVERYTHING]
        self._next: list[set[int]] = [set()]
        is_empty, first, last = self._add(node)
        self._next[0] = set(first)
        self._last = set(last) | ({0} if is_empty else set[int]())

    def is_last(self, state: int) -> bool:
        return state in self._last

    def steps(self, state: int) -> list[tuple[int, Spans]]:
        return [(following, self._spans[following]) for following in sorted(self._next[state])]

    def _add(self, node: Node) -> _Ends:
        match node:
            case Anchor():
                return True, set(), set()
            case Chars():
                if len(self._spans) > MAX_STATES:
                    raise Unsupported("it is too long")
                self._spans.append(node.spans)
                self._next.append(set())
                return False, {len(self._spans) - 1}, {len(self._spans) - 1}
            case Sequence():
                return self._chain(node.parts)
            case Repeat():
                return self._repeat(node)
            case Choice():
                ends = [self._add(option) for option in node.options]
                first = {state for end in ends for state in end[1]}
                return any(end[0] for end in ends), first, {state for end in ends for state in end[2]}

    def _chain(self, parts: tuple[Node, ...]) -> _Ends:
        is_empty = True
        first: set[int] = set()
        last: set[int] = set()
        for part in parts:
            inner_empty, inner_first, inner_last = self._add(part)
            self._join(last, inner_first)
            first |= inner_first if is_empty else set[int]()
            last = inner_last | (last if inner_empty else set[int]())
            is_empty = is_empty and inner_empty
        return is_empty, first, last

    def _repeat(self, node: Repeat) -> _Ends:
        """Copies in a row, filled from the first one, so that the number of steps stays linear."""
        most = node.least if node.most is None else node.most
        is_empty = node.least == 0
        first: set[int] = set()
        last: set[int] = set()
        before: set[int] = set()
        for position in range(most):
            inner_empty, inner_first, inner_last = self._add(node.inner)
            is_empty = is_empty or inner_empty
            first = first or inner_first
            self._join(before, inner_first)
            before = inner_last
            if position + 1 >= node.least or inner_empty:
                last |= inner_last
        return is_empty, first, last

    def _join(self, states: set[int], following: set[int]) -> None:
        for state in states:
            self._next[state] |= following


def _joint_steps(machines: list[_Machine], states: tuple[int, ...]) -> list[tuple[int, ...]]:
    partial: list[tuple[tuple[int, ...], Spans]] = [((), EVERYTHING)]
    for machine, state in zip(machines, states, strict=True):
        grown: list[tuple[tuple[int, ...], Spans]] = []
        for chosen, spans in partial:
            for following, allowed in machine.steps(state):
                both = common(spans, allowed)
                if both:
                    grown.append(((*chosen, following), both))
        partial = grown
    return [chosen for chosen, _ in partial]
