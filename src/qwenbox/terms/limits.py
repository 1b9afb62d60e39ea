"""This is where limits are said: what may be used in a window, and what is left of it."""

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be used per account (or key) and model. None: no limit; a limit is 1 or more.

    rpm, tpm: requests, and tokens (input + output), in any window; the window is 60 s unless `[limits] window_s` says otherwise.
    concurrency: calls open at once.
    """

    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None

    def __post_init__(self) -> None:
        for name, limit in (("rpm", self.rpm), ("tpm", self.tpm), ("concurrency", self.concurrency)):
            if limit is not None and limit < 1:
                raise ValueError(f"{name} must be 1 or more; leave it out for no limit")

    def __bool__(self) -> bool:
        return self.rpm is not None or self.tpm is not None or self.concurrency is not None


class LimitState(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of the tightest window, for `x-ratelimit-*`. None where nothing limits.

    *_reset_s: seconds until the window is as good as empty, if nothing more comes.
    """

    requests_limit: int | None = None
    requests_left: int | None = None
    requests_reset_s: float = 0.0
    tokens_limit: int | None = None
    tokens_left: int | None = None
    tokens_reset_s: float = 0.0
