"""What one account's window must hold: its admitted calls, open or over, with the tokens that the books or their leases say."""

from typing import NamedTuple

from support.money_model import Call

WINDOW_S = 3_600.0


class Bounds(NamedTuple):
    """At least and at most."""

    requests: tuple[int, int]
    tokens: tuple[int, int]


class Window:
    """is_lossy: a store that starts anew remembers nothing.

    Calls of dead processes are here as they are once they were given back: with their row's tokens, or with none. maybe: requests of which
    nobody knows whether they were admitted; they use nothing.
    """

    def __init__(self, *, is_lossy: bool) -> None:
        self._is_lossy = is_lossy
        self._calls: dict[str, tuple[Call, float]] = {}
        # Since the store is gone: admitted without it, ended without it.
        self._alone: set[str] = set()
        self._ended: set[str] = set()
        self.maybe = 0

    def admit(self, call: Call, at_s: float, *, is_alone: bool) -> None:
        self._calls[call.asked.id] = (call, at_s)
        if is_alone:
            self._alone.add(call.asked.id)

    def end(self, call: Call, *, is_up: bool) -> None:
        if not is_up:
            self._ended.add(call.asked.id)

    def doubt(self, call: Call) -> None:
        """Whether the store has heard of its end before it was gone, nobody knows."""
        if call.cost is None and self._is_lossy:
            del self._calls[call.asked.id]
            self.maybe += 1

    def lose(self, process: int) -> None:
        """What only the dead process knew is forgotten."""
        for name in [name for name in self._alone | self._ended if name in self._calls and self._calls[name][0].asked.process == process]:
            self._ended.discard(name)
            if name in self._alone and self._calls[name][0].cost is None:
                del self._calls[name]

    def store_returns(self, open_calls: dict[str, Call]) -> None:
        for name, (call, _) in list(self._calls.items()):
            if self._is_lossy and call.cost is None and name not in open_calls and name not in self._ended:
                del self._calls[name]
        self.joined()

    def joined(self) -> None:
        """The store knows what everybody knows."""
        self._alone, self._ended = set(), set()

    def bounds(self, open_calls: dict[str, Call], now_s: float) -> Bounds:
        """Of a call that has a row and is open, either its row or its lease counts."""
        least = most = many = 0
        for name, (call, at_s) in self._calls.items():
            if now_s - at_s > WINDOW_S:
                continue
            many += 1
            worst = call.asked.worst.input_tokens + call.output_tokens
            used = sum(call.used)
            least += worst if name in open_calls and call.cost is None else used
            most += worst if name in open_calls else used
        return Bounds((many, many + self.maybe), (least, most))
