"""This is where a failure is judged: whose it is, whether another attempt may mend it, and after what wait."""

from collections.abc import Callable
from enum import Enum

import msgspec

from qwenbox.terms.errors import ApiError, ErrorKind


class RetryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[retries]`, of deployments that are somebody else's server.

    attempts: how often one deployment is asked for one call, the first included; 1 switches retries off.
    base_s, longest_s: before attempt n + 1 a random wait of at most base_s × 2^(n - 1), never more than longest_s (full jitter).
    heeded_s: the longest Retry-After that is waited for; a longer one goes to the caller.
    budget_share, budget_floor_per_s: retries of a deployment are at most this share of its calls, plus so many a second.
    """

    attempts: int = 4
    base_s: float = 0.25
    longest_s: float = 8.0
    heeded_s: float = 20.0
    budget_share: float = 0.2
    budget_floor_per_s: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.attempts <= 100:
            raise ValueError("attempts must be 1 to 100")
        if min(self.base_s, self.longest_s, self.heeded_s, self.budget_share, self.budget_floor_per_s) < 0:
            raise ValueError("retries are counted in seconds and shares of at least 0")


class Verdict(Enum):
    FINAL = "final"  # the request's own fault, or nobody may try again
    ELSEWHERE = "elsewhere"  # the box's own trouble with this deployment: asking it again would not help
    AGAIN = "again"  # may pass


_VERDICTS = {
    ErrorKind.RATE_LIMITED: Verdict.AGAIN,
    ErrorKind.OVERLOADED: Verdict.AGAIN,
    ErrorKind.ENGINE_FAILED: Verdict.AGAIN,
    ErrorKind.TIMEOUT: Verdict.AGAIN,
    ErrorKind.QUOTA_EXHAUSTED: Verdict.ELSEWHERE,
    ErrorKind.OUT_OF_FUNDS: Verdict.ELSEWHERE,
    ErrorKind.UNAUTHENTICATED: Verdict.ELSEWHERE,
    ErrorKind.FORBIDDEN: Verdict.ELSEWHERE,
    ErrorKind.MODEL_NOT_FOUND: Verdict.ELSEWHERE,
    ErrorKind.WRONG_ENDPOINT: Verdict.ELSEWHERE,
}
_REFUSED_ACCOUNT = frozenset({ErrorKind.OUT_OF_FUNDS, ErrorKind.UNAUTHENTICATED, ErrorKind.FORBIDDEN})


def verdict(error: ApiError) -> Verdict:
    """What another attempt could do about an engine's error."""
    return Verdict.FINAL if error.is_final else _VERDICTS.get(error.kind, Verdict.FINAL)


def shown(error: ApiError) -> ApiError:
    """The error as the caller may see it: keys, money and quotas at an upstream are the box's own, not his."""
    if error.is_final:
        return error
    if error.kind in _REFUSED_ACCOUNT:
        return ApiError(ErrorKind.ENGINE_FAILED, error.message or "The model's server does not accept this box's account there.")
    if error.kind is ErrorKind.QUOTA_EXHAUSTED:
        text = "The model's server has no quota left for this box. Please try again later."
        return ApiError(ErrorKind.OVERLOADED, text, retry_after_s=error.retry_after_s)
    return error


class Backoff:
    """How long to wait before a deployment is asked again. draw: a number from 0 up to 1."""

    def __init__(self, config: RetryConfig, draw: Callable[[], float]) -> None:
        self._config = config
        self._draw = draw

    def wait_s(self, asked: int, retry_after_s: float | None) -> float | None:
        """After `asked` attempts. None: the deployment wants to be left alone for longer than a caller is kept waiting.

        What the deployment asked for is waited in full, and a little more, so that not everybody comes back in the same moment.
        """
        config = self._config
        if retry_after_s is not None:
            return None if retry_after_s > config.heeded_s else retry_after_s + self._draw() * min(config.base_s, config.longest_s)
        return self._draw() * min(config.base_s * 2.0 ** (asked - 1), config.longest_s)
