"""This is where people's amounts, times and spans become numbers, and back: money in units, never a float; times in a time zone."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from zoneinfo import ZoneInfo

import typer

# What takes a restriction away.
NONE = "none"

_MICROS = 1_000_000
_MOST_UNITS = Decimal(10**9)
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)?", re.ASCII)
_NUMBER = re.compile(r"(\d{1,12})([kM])?", re.ASCII)
_TIMES = {"": 1, "k": 1_000, "M": 1_000_000}
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def micros(text: str) -> int:
    """ "12.50" units of the currency → 12_500_000. Raises typer.BadParameter for more than six decimals or no number."""
    try:
        units = Decimal(text.replace("_", ""))
    except InvalidOperation as error:
        raise typer.BadParameter(f"{text!r} is no amount; write units, e.g. 12.50") from error
    if not units.is_finite() or abs(units) > _MOST_UNITS:
        raise typer.BadParameter(f"{text!r} is no amount between -{_MOST_UNITS} and {_MOST_UNITS}")
    # Decimal would round a very long number before it is looked at.
    scaled = Fraction(units) * _MICROS
    if scaled.denominator != 1:
        raise typer.BadParameter(f"{text!r} has more than six decimals")
    return scaled.numerator


def units(amount_micros: int) -> str:
    """12_500_000 → "12.50"; at least two decimals, as many as it needs, up to six."""
    sign, whole = ("-" if amount_micros < 0 else ""), abs(amount_micros)
    decimals = f"{whole % 1_000_000:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole // 1_000_000:,}.{decimals}"


def seconds(text: str) -> float:
    """ "60s", "1.5h", "30d" → seconds; a bare number is seconds. Raises typer.BadParameter."""
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no span of time; write e.g. 60s, 90m, 12h, 30d")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def moment(text: str, now: datetime | None = None) -> float:
    """When something ends: a span from now ("30d"), or a date with or without a time ("2026-12-31", "2026-12-31T18:00+08:00").

    A date without an offset is UTC. Seconds since the epoch. Raises typer.BadParameter.
    """
    now = now or datetime.now(UTC)
    if _SPAN.fullmatch(text.strip()):
        try:
            return (now + timedelta(seconds=seconds(text))).timestamp()
        except OverflowError as error:
            raise typer.BadParameter(f"{text!r} is too far away") from error
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no moment; write a span (30d) or a date (2026-12-31)") from error
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def shown(at: float, time_zone: str = "UTC") -> str:
    """A moment as people of that time zone write it, to the minute."""
    return datetime.fromtimestamp(at, ZoneInfo(time_zone)).strftime("%Y-%m-%d %H:%M")


def number(text: str) -> int:
    """ "100k", "1M" or plain digits. Raises typer.BadParameter for anything else, and for 0."""
    match = _NUMBER.fullmatch(text.strip().replace("_", ""))
    if match is None or int(match[1]) == 0:
        raise typer.BadParameter(f"{text!r} is no number above 0; write e.g. 60, 100k, 1M")
    return int(match[1]) * _TIMES[match[2] or ""]
