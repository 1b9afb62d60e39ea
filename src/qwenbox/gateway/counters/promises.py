"""This is where a window remembers which moments it has promised to callers it refused, so that nobody is told a moment of somebody else's.

A caller who comes back is known by the mark of its call, which is the same in every try. Where there is no mark, whoever comes first at
or after a promise's moment has it.
"""

from bisect import insort
from collections import deque
from collections.abc import Iterator

# A place is kept free for whom it was promised from a little before the moment, when it may be free already, until so long after it.
EARLY_S = 0.1
HOLD_S = 0.25
# A promise nobody came for lapses: clients that read only `Retry-After` wait up to a second longer than they were told.
GRACE_S = 2.0
# The DashScope SDK comes back after 8 s, however long it was told to wait; it is known by coming just then.
IMPATIENT_S = 8.0
_IMPATIENT_GRACE_S = 0.1
# How many whole limits are promised at most, and how many requests where those are not limited.
LIMITS = 4
_MOST = 1_000


class Promise:
    """at: the moment promised. made_at: the moment of the refusal. tokens: what the call will need. mark: Ask.mark."""

    __slots__ = ("at", "is_over", "made_at", "mark", "tokens")

    def __init__(self, at: float, made_at: float, tokens: int, mark: int) -> None:
        self.at = at
        self.made_at = made_at
        self.tokens = tokens
        self.mark = mark
        self.is_over = False


class Promises:
    """Those of one window, in order of their moments. tokens: of all together."""

    __slots__ = ("_far", "_line", "_marked", "tokens")

    def __init__(self) -> None:
        self._line: deque[Promise] = deque()
        self._far: deque[Promise] = deque()
        self._marked: dict[int, list[Promise]] = {}
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
            self.end(self._line[0])

    def own(self, now: float, mark: int) -> Promise | None:
        """The promise of whoever comes now, at its moment or as late as its client can wait; None if this is a newcomer."""
        if mark:
            # Other callers may send the very same call, so one that comes early is taken for a retry only when a client would come.
            return next(
                (one for one in self._marked.get(mark, ()) if one.at <= now or 0 <= now - one.made_at - IMPATIENT_S <= HOLD_S), None
            )
        if self._line and self._line[0].at <= now:
            return self._line[0]
        far = self._far
        while far and (far[0].is_over or now - far[0].made_at > IMPATIENT_S + _IMPATIENT_GRACE_S):
            far.popleft()
        return far[0] if far and now - far[0].made_at >= IMPATIENT_S else None

    def kept(self, now: float) -> tuple[int, int]:
        """Requests and tokens that a newcomer must leave to those who are about to come."""
        requests = tokens = 0
        for one in self._line:
            if one.at > now + EARLY_S:
                break
            if one.mark and now - one.at <= HOLD_S:
                requests += 1
                tokens += one.tokens
        return requests, tokens

    def claim(self, now: float, mark: int) -> Promise | None:
        """As `own`; the promise is over."""
        one = self.own(now, mark)
        if one is not None:
            self.end(one)
        elif self._line and now - self._line[0].at > HOLD_S:
            # Somebody else has the place of one who is late.
            self.end(self._line[0])
        return one

    def make(self, promise: Promise, requests: int | None, tokens: int | None) -> None:
        """Keep a promise, in a window with these limits. Past a few whole limits nothing more is kept: clients who do not wait at all
        would push everybody's moment out without end."""
        most = _MOST if requests is None else LIMITS * requests
        if len(self._line) >= most or (tokens is not None and self.tokens + promise.tokens > LIMITS * tokens):
            return
        insort(self._line, promise, key=_at)
        self.tokens += promise.tokens
        if promise.mark:
            insort(self._marked.setdefault(promise.mark, []), promise, key=_at)
        elif promise.at - promise.made_at > IMPATIENT_S:
            self._far.append(promise)

    def end(self, promise: Promise) -> None:
        promise.is_over = True
        self.tokens -= promise.tokens
        if self._line[0] is promise:
            self._line.popleft()
        else:
            self._line.remove(promise)
        if promise.mark:
            same = self._marked[promise.mark]
            same.remove(promise)
            if not same:
                del self._marked[promise.mark]


def _at(promise: Promise) -> float:
    return promise.at
