"""This is where wrong passwords are counted, so that guessing takes too long; each process counts for itself."""

from collections import OrderedDict
from typing import TypeAlias

from qwenbox.clock import Clock
from qwenbox.terms.errors import ApiError, ErrorKind

# After this many wrong tries of one guesser, each further one waits; a right one clears the count.
FREE_FAILURES = 5
PENALTY_S = 30.0

# Names are whatever a guesser makes up: only the newest are remembered.
_MOST_REMEMBERED = 10_000

# A name and where the request comes from; "" stands for any name.
Guesser: TypeAlias = tuple[str, str]


class Tries:
    """Wrong tries of late, by who made them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: OrderedDict[Guesser, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._known)

    def enter(self, *guessers: Guesser) -> None:
        """One try more of each, unless one has to wait; called before the slow part, so that tries sent together are not all free.

        Raises ApiError(RATE_LIMITED) while the last ones are too fresh; such a try counts for nobody.
        """
        now_s = self._clock.monotonic()
        wait_s = max(self._wait_s(who, now_s) for who in guessers)
        if wait_s > 0:
            raise ApiError(ErrorKind.RATE_LIMITED, "Too many wrong passwords. Please wait before the next try.", retry_after_s=wait_s)
        for who in guessers:
            self._known[who] = (self._known.get(who, (0, 0.0))[0] + 1, now_s)
            self._known.move_to_end(who)
        while len(self._known) > _MOST_REMEMBERED:
            self._known.popitem(last=False)

    def clear(self, *guessers: Guesser) -> None:
        """They were right."""
        for who in guessers:
            self._known.pop(who, None)

    def _wait_s(self, who: Guesser, now_s: float) -> float:
        count, last_at_s = self._known.get(who, (0, 0.0))
        return PENALTY_S - (now_s - last_at_s) if count >= FREE_FAILURES else 0.0
