"""This is where a window remembers which moments it has promised to callers it refused, so that nobody is told a moment of somebody else's.

Nobody says that he comes back, so a promise is known by its time alone: whoever comes first at or after its moment has it.
"""

from bisect import insort
from collections import deque
from collections.abc import Iterator

# A promise nobody came for lapses: clients that read only `Retry-After` wait up to a second longer than they were told.
GRACE_S = 2.0
# The DashScope SDK comes back after 8 s, however long it was told to wait; up to so much later it is still taken for the one who was told.
IMPATIENT_S = 8.0
_IMPATIENT_GRACE_S = 0.1
# How many whole limits are promised at most, and how many requests where those are not limited.
_LIMITS = 4
_MOST = 1_000


class Promise:
    """at: the moment promised. made_at: the moment of the refusal. tokens: what the call will need."""

    __slots__ = ("at", "is_over", "made_at", "tokens")

    def __init__(self, at: float, made_at: float, tokens: int) -> None:
        self.at = at
        self.made_at = made_at
        self.tokens = tokens
        self.is_over = False


class Promises:
    """Those of one window, in order of their moments. tokens: of all together."""

    __slots__ = ("_far", "_line", "tokens")

    def __init__(self) -> None:
        self._line: deque[Promise] = deque()
        self._far: deque[Promise] = deque()
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._line)

    def __getitem__(self, index: int) -> Promise:
        return self._line[index]

    def __iter__(self) -> Iterator[Promise]:
        return iter(self._line)

    def lapse(self, now: float) -> None:
        """Forget what nobody came for."""
        while self._line and now - self._line[0].at > GRACE_S:
            self._over(self._line[0])

    def claim(self, now: float) -> Promise | None:
        """The promise that whoever comes now has kept to, or keeps to as well as its client can; it is over."""
        if self._line and self._line[0].at <= now:
            return self._over(self._line[0])
        far = self._far
        while far and (far[0].is_over or now - far[0].made_at > IMPATIENT_S + _IMPATIENT_GRACE_S):
            far.popleft()
        if far and now - far[0].made_at >= IMPATIENT_S:
            return self._over(far.popleft())
        return None

    def make(self, promise: Promise, requests: int | None, tokens: int | None) -> None:
        """Keep a promise, in a window with these limits. Past a few whole limits nothing more is kept: clients who do not wait at all
        would push everybody's moment out without end."""
        most = _MOST if requests is None else _LIMITS * requests
        if len(self._line) >= most or (tokens is not None and self.tokens + promise.tokens > _LIMITS * tokens):
            return
        insort(self._line, promise, key=_at)
        self.tokens += promise.tokens
        if promise.at - promise.made_at > IMPATIENT_S:
            self._far.append(promise)

    def _over(self, promise: Promise) -> Promise:
        promise.is_over = True
        self.tokens -= promise.tokens
        if self._line[0] is promise:
            self._line.popleft()
        else:
            self._line.remove(promise)
        return promise


def _at(promise: Promise) -> float:
    return promise.at
