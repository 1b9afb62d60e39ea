"""This is where a range of numbers becomes a regular expression.

Texts are JSON numbers without exponent, without leading zeros and without "-0"; at most SIGNIFICANT digits, so that
reading them as a double never moves them across a bound.
"""

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import msgspec

SIGNIFICANT = 15
LARGEST = Decimal(10) ** 30
MULTIPLES = 512
PLACES = 6


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """lo, hi: None is unbounded. is_*_open: the bound itself is not allowed."""

    lo: Decimal | None = None
    hi: Decimal | None = None
    is_lo_open: bool = False
    is_hi_open: bool = False

    def allows(self, value: Decimal) -> bool:
        low = self.lo is None or value > self.lo or (value == self.lo and not self.is_lo_open)
        return low and (self.hi is None or value < self.hi or (value == self.hi and not self.is_hi_open))

    @property
    def is_empty(self) -> bool:
        if self.lo is None or self.hi is None:
            return False
        return self.lo > self.hi or (self.lo == self.hi and (self.is_lo_open or self.is_hi_open))


def number(bounds: Range, digits: int, places: int) -> str | None:
    """A number with at most `digits` digits before the point where nothing else bounds it, and `places` after it.

    None when no such number exists.
    """
    digits = min(digits, SIGNIFICANT - places)
    bounds = _sensible(bounds)
    if bounds.lo is None and bounds.hi is None:
        fraction = rf"(\.[0-9]{{1,{places}}})?" if places else ""
        return rf"-?(0|[1-9][0-9]{{0,{digits - 1}}}){fraction}" if places else rf"(0|-?[1-9][0-9]{{0,{digits - 1}}})"
    parts = [part for point in range(places + 1) for part in _scaled(bounds, digits, point)]
    return f"({'|'.join(parts)})" if parts else None


def multiples(bounds: Range, factor: Decimal, digits: int) -> str | None:
    """Multiples of `factor` in the range, those nearest to zero (or to the bound) first, as many as are sensible."""
    bounds = _sensible(bounds)
    _, figures, exponent = factor.normalize().as_tuple()
    if figures == (1,) and isinstance(exponent, int) and -PLACES <= exponent <= 0:
        return number(bounds, digits, -exponent)
    power = next((power for power in range(4) if factor >= 1 and (Decimal(10) ** power) % factor == 0), None)
    if power is not None and bounds.lo is None and bounds.hi is None:
        return _by_ending(int(factor), power, digits)
    found = [value for value in _multiples_near(bounds, factor) if bounds.allows(value)]
    return f"({'|'.join(_escaped(value) for value in found)})" if found else None


def _sensible(bounds: Range) -> Range:
    """Without bounds nobody comes near to; one that everything is beyond becomes impossible to meet."""
    lo, hi = bounds.lo, bounds.hi
    if (lo is not None and lo > LARGEST) or (hi is not None and hi < -LARGEST):
        return Range(lo=Decimal(1), hi=Decimal(0))
    lo = None if lo is None or lo < -LARGEST else lo
    hi = None if hi is None or hi > LARGEST else hi
    return Range(lo=lo, hi=hi, is_lo_open=bounds.is_lo_open, is_hi_open=bounds.is_hi_open)


def plain(value: Decimal) -> str:
    """A decimal as JSON writes it, without exponent."""
    text = format(value.normalize(), "f")
    return "0" if text in ("-0", "0") else text


def _multiples_near(bounds: Range, factor: Decimal) -> list[Decimal]:
    if bounds.lo is not None:
        start = (bounds.lo / factor).to_integral_value(ROUND_CEILING)
    elif bounds.hi is not None:
        start = (bounds.hi / factor).to_integral_value(ROUND_FLOOR) - MULTIPLES + 1
    else:
        start = Decimal(-MULTIPLES // 2)
    return [(start + step) * factor for step in range(MULTIPLES)]


def _by_ending(factor: int, power: int, digits: int) -> str:
    if power == 0:
        return rf"(0|-?[1-9][0-9]{{0,{digits - 1}}})"
    endings = "|".join(str(value).zfill(power) for value in range(0, 10**power, factor))
    longer = rf"[1-9][0-9]{{0,{max(digits - power - 1, 0)}}}({endings})"
    small = [str(value) for value in range(factor, 10**power, factor)]
    return f"(0|-?({'|'.join([*small, longer])}))"


def _scaled(bounds: Range, digits: int, point: int) -> list[str]:
    """Numbers with exactly `point` digits after the point, as whole numbers of its last place."""
    scale = Decimal(10) ** point
    most = 10 ** (digits + point)
    low = high = None
    if bounds.lo is not None:
        low = int((bounds.lo * scale).to_integral_value(ROUND_CEILING))
        low += 1 if bounds.is_lo_open and Decimal(low) == bounds.lo * scale else 0
    if bounds.hi is not None:
        high = int((bounds.hi * scale).to_integral_value(ROUND_FLOOR))
        high -= 1 if bounds.is_hi_open and Decimal(high) == bounds.hi * scale else 0
    if low is None:
        low = -most + 1 if high is None or high > -most else high - most
    if high is None:
        high = most - 1 if low < most else low + most
    parts = [f"-{part}" for part in _positive(max(1, -high), -low, point)]
    return parts + _positive(max(0, low), high, point)


def _positive(low: int, high: int, point: int) -> list[str]:
    parts: list[str] = []
    shortest = point + 1
    for length in range(max(len(str(low)), shortest), max(len(str(max(high, 0))), shortest) + 1):
        first = max(low, 0 if length == shortest else 10 ** (length - 1))
        last = min(high, 10**length - 1)
        if first > last:
            continue
        for piece in _span(str(first).zfill(length), str(last).zfill(length)):
            whole, fraction = piece[: length - point], piece[length - point :]
            parts.append("".join(whole) + (r"\." + "".join(fraction) if point else ""))
    return parts


def _span(low: str, high: str) -> list[list[str]]:
    """Digit strings between two of the same length, as sequences of digit classes."""
    if not low:
        return [[]]
    if low[0] == high[0]:
        return [[low[0], *rest] for rest in _span(low[1:], high[1:])]
    rest = len(low) - 1
    if set(low[1:]) <= {"0"} and set(high[1:]) <= {"9"}:
        return [[f"[{low[0]}-{high[0]}]", *["[0-9]"] * rest]]
    pieces = [[low[0], *piece] for piece in _span(low[1:], "9" * rest)]
    if int(high[0]) - int(low[0]) > 1:
        pieces.append([f"[{int(low[0]) + 1}-{int(high[0]) - 1}]", *["[0-9]"] * rest])
    return pieces + [[high[0], *piece] for piece in _span("0" * rest, high[1:])]


def _escaped(value: Decimal) -> str:
    return plain(value).replace(".", r"\.")
