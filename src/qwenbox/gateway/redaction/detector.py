"""This is where all that may be found in a text comes together: every finder in turn, the surest first, nothing found twice.

Imports the libraries with the world's telephone and account numbers: only for a box that redacts.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable

from qwenbox.gateway.redaction import patterns
from qwenbox.gateway.redaction.config import Kind, RedactionConfig
from qwenbox.gateway.redaction.contacts import emails, ips
from qwenbox.gateway.redaction.credentials import api_keys
from qwenbox.gateway.redaction.documents import ibans, passports
from qwenbox.gateway.redaction.found import Finder, Found
from qwenbox.gateway.redaction.normal import normal
from qwenbox.gateway.redaction.numbers import finder as numbers

_SURE: tuple[tuple[Kind, Finder], ...] = (
    (Kind.API_KEY, api_keys),
    (Kind.EMAIL, emails),
    (Kind.IBAN, ibans),
    (Kind.IP, ips),
    (Kind.PASSPORT, passports),
)
_NUMBERS = frozenset({Kind.PHONE, Kind.RESIDENT_ID, Kind.BANK_CARD})


def detector(config: RedactionConfig) -> Callable[[str], list[Found]]:
    """A function from a text to what is in it, in its order, none overlapping. Raises patterns.BadPattern."""
    finders = [patterns.finder(name, pattern) for name, pattern in config.patterns.items()]
    finders += [finder for kind, finder in _SURE if kind in config.kinds]
    if counted := config.kinds & _NUMBERS:
        finders.append(numbers(counted))

    def find(text: str) -> list[Found]:
        seen = normal(text)
        found: list[Found] = []
        for finder in finders:
            found = _joined(found, finder(seen))
        return found

    return find


def _joined(sure: list[Found], more: Iterable[Found]) -> list[Found]:
    """Both by their places; of two that overlap the one that was there before, and of the new ones the first."""
    fresh = sorted(more, key=_place)
    if not fresh:
        return sure
    starts = [found.start for found in sure]
    kept: list[Found] = []
    for found in fresh:
        after = bisect_left(starts, found.end)
        is_free = after == 0 or sure[after - 1].end <= found.start
        if is_free and (not kept or kept[-1].end <= found.start):
            kept.append(found)
    return sorted([*sure, *kept], key=_place)


def _place(found: Found) -> int:
    return found.start
