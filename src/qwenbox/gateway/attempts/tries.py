"""This is where one call's attempts are planned: who is asked next, after what wait, and when it is enough. It does no I/O."""

from collections.abc import Sequence

import msgspec

from qwenbox.gateway.attempts.policy import Verdict, verdict
from qwenbox.gateway.attempts.standing import Standing, Standings
from qwenbox.terms.errors import ApiError, ErrorKind


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Ask this deployment, after `wait_s`. is_spillable: its queue may send the call on, since somebody else is left to ask."""

    standing: Standing
    wait_s: float
    is_spillable: bool


class _Candidate:
    """asked: how often. ready_at_s: when it may be asked again, of the clock's monotonic. is_out: it cannot help this call.
    has_spilled: its queue was too long, so the others come first."""

    __slots__ = ("asked", "has_spilled", "is_out", "ready_at_s", "standing")

    def __init__(self, standing: Standing) -> None:
        self.standing = standing
        self.asked = 0
        self.ready_at_s = 0.0
        self.is_out = False
        self.has_spilled = False


class Tries:
    """`next` says whom to ask; `begin` it, then say `failed` or `spilled` of it; an answer ends it.

    is_loyal: the first deployment is preferred, so that a failure that may pass is tried there again before others are. What asks to be
    left alone for a while (Retry-After) is not waited for as long as somebody else is left. asked: how often engines were.
    """

    def __init__(self, standings: Standings, order: Sequence[Standing], *, is_loyal: bool) -> None:
        self._standings = standings
        self._candidates = [_Candidate(standing) for standing in order]
        self._is_loyal = is_loyal
        self._current = self._candidates[0]
        self._is_hopeful = False
        self._failure: ApiError | None = None
        self.asked = 0

    def next(self) -> Step:
        """Raises ApiError when there is nobody left to ask: the last failure, or OVERLOADED where none was asked at all."""
        candidate = self._next()
        if candidate is None:
            raise self.failure
        self._current = candidate
        wait_s = max(candidate.ready_at_s - self._standings.clock.monotonic(), 0.0) if candidate.asked else 0.0
        is_spillable = any(other is not candidate and _is_fresh(other) for other in self._candidates)
        return Step(standing=candidate.standing, wait_s=wait_s, is_spillable=is_spillable and not candidate.has_spilled)

    @property
    def failure(self) -> ApiError:
        """What to tell the caller if nothing more is tried."""
        return self._failure or self._left_alone()

    def begin(self) -> bool:
        """The step's wait is over. False: its breaker has opened meanwhile, so ask for the next step."""
        candidate = self._current
        if not candidate.standing.breaker.enter():
            return False
        if not candidate.asked:
            candidate.standing.budget.earn()
        candidate.asked += 1
        self.asked += 1
        return True

    def begun(self) -> None:
        """The first of the order was asked before anything was planned."""
        self._current.asked = self.asked = 1

    def failed(self, error: ApiError) -> None:
        """Of the one asked last. Raises the error where no other attempt may follow."""
        judged = verdict(error)
        if judged is Verdict.FINAL:
            raise error
        self._failure = error
        candidate = self._current
        wait_s = self._standings.backoff.wait_s(candidate.asked, error.retry_after_s)
        if judged is Verdict.ELSEWHERE or wait_s is None or candidate.asked >= candidate.standing.attempts:
            candidate.is_out = True
            return
        candidate.ready_at_s = self._standings.clock.monotonic() + wait_s
        self._is_hopeful = error.retry_after_s is None

    def spilled(self, error: ApiError) -> None:
        """The one asked last never took the call: its queue was too long. It is asked once more if nobody else can answer."""
        if verdict(error) is Verdict.FINAL:
            raise error
        self._failure = error
        candidate = self._current
        candidate.asked -= 1
        self.asked -= 1
        self._is_hopeful = False
        candidate.is_out = candidate.has_spilled or candidate.asked > 0
        candidate.has_spilled = True

    def _next(self) -> _Candidate | None:
        current = self._current
        if self._is_loyal and self._is_hopeful and _may_again(current) and current.standing.budget.take():
            return current
        for candidate in self._candidates:
            if _is_fresh(candidate):
                return candidate
        for candidate in self._candidates:
            if candidate.has_spilled and not candidate.is_out:
                return candidate
        for candidate in sorted(filter(_may_again, self._candidates), key=lambda candidate: candidate.ready_at_s):
            if candidate.standing.budget.take():
                return candidate
        return None

    def _left_alone(self) -> ApiError:
        wait_s = min(candidate.standing.breaker.open_for_s for candidate in self._candidates)
        text = "The model's server keeps failing, so it is left alone for a moment. Please try again later."
        return ApiError(ErrorKind.OVERLOADED, text, retry_after_s=max(wait_s, 1.0))


def _is_fresh(candidate: _Candidate) -> bool:
    return not (candidate.asked or candidate.is_out or candidate.has_spilled) and candidate.standing.breaker.lets_in


def _may_again(candidate: _Candidate) -> bool:
    return candidate.asked > 0 and not candidate.is_out and candidate.standing.breaker.lets_in
