"""This is where an account's own days and months are told: statements and budgets turn at its midnight, not at ours."""

from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import msgspec

# Every time zone's offset is a multiple of it, so a day can turn only at its multiples.
_GRAIN_S = 900


def day(time_zone: str, at: float) -> str:
    """ "YYYY-MM-DD" of the moment `at` (seconds since the epoch) in an IANA time zone."""
    return _day(time_zone, int(at // _GRAIN_S))


def month(time_zone: str, at: float) -> str:
    """ "YYYY-MM", as `day`."""
    return day(time_zone, at)[:7]


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """From `start_at` up to, not including, `end_at`; seconds since the epoch."""

    start_at: float
    end_at: float


def month_span(time_zone: str, at: float) -> Span:
    """The calendar month around `at`."""
    first = datetime.fromtimestamp(at, ZoneInfo(time_zone)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = (first + timedelta(days=32)).replace(day=1)
    return Span(start_at=first.timestamp(), end_at=following.timestamp())


@lru_cache(maxsize=1024)
def _day(time_zone: str, grain: int) -> str:
    return datetime.fromtimestamp(grain * _GRAIN_S, ZoneInfo(time_zone)).strftime("%Y-%m-%d")
