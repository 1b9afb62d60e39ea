"""This is where a request's headers become wishes about the box: cache, patience, who answered, which fault to provoke."""

import math
from collections.abc import Mapping
from functools import lru_cache

from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.wishes import NO_WISHES, CacheWish, Patience, Wishes

CACHE = "cache-control"
TIMEOUT = "x-qwenbox-timeout"
SHOW = "x-qwenbox-show"
PROVOKE = "x-qwenbox-provoke"
# Of the service itself (wire reference 1.3, 3.4); its SDKs send it when they have uploaded something.
RESOLVE = "x-dashscope-ossresourceresolve"

# The longest header read; longer ones are nobody's honest wish.
_MOST = 1_000
_TIMEOUTS = {"connect": "connect_s", "first_token": "first_token_s", "between_tokens": "between_tokens_s", "total": "total_s"}
_FORM = f"{TIMEOUT} should read like `first_token=5, total=60`: seconds above 0 for {', '.join(_TIMEOUTS)}."


def wishes(headers: Mapping[str, str]) -> Wishes:
    """headers: names in lower case. Raises ApiError(INVALID_REQUEST) for a timeout that makes no sense.

    What `Cache-Control` and `X-Qwenbox-Show` do not know is ignored, as RFC 9111 has it.
    """
    if not (CACHE in headers or TIMEOUT in headers or SHOW in headers or PROVOKE in headers or RESOLVE in headers):
        return NO_WISHES
    return Wishes(
        cache=_cache(headers.get(CACHE, "")[:_MOST]),
        patience=_patience(headers.get(TIMEOUT, "")[:_MOST]),
        shows_deployment="deployment" in [name.strip().lower() for name in headers.get(SHOW, "").split(",")],
        provoke=headers.get(PROVOKE, "").strip()[:_MOST],
        resolves_uploads=headers.get(RESOLVE, "").strip().lower() == "enable",
    )


@lru_cache(maxsize=256)
def _cache(value: str) -> CacheWish:
    names = {name.strip().lower(): argument.strip().strip('"') for name, _, argument in (part.partition("=") for part in value.split(","))}
    max_age = names.get("max-age", "")
    return CacheWish(
        may_read="no-cache" not in names and "no-store" not in names,
        may_store="no-store" not in names,
        max_age_s=float(max_age) if max_age.isascii() and max_age.isdigit() else None,
        only_if_cached="only-if-cached" in names,
    )


@lru_cache(maxsize=256)
def _patience(value: str) -> Patience:
    seconds: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in value.split(","))):
        name, _, number = part.partition("=")
        field = _TIMEOUTS.get(name.strip().lower().replace("-", "_"))
        if field is None:
            raise _wrong()
        seconds[field] = _seconds(number)
    return Patience(**seconds)


def _seconds(number: str) -> float:
    try:
        seconds = float(number.strip().removesuffix("s"))
    except ValueError:
        raise _wrong() from None
    if not (math.isfinite(seconds) and seconds > 0):
        raise _wrong()
    return seconds


def _wrong() -> ApiError:
    return ApiError(ErrorKind.INVALID_REQUEST, _FORM, param=TIMEOUT)
