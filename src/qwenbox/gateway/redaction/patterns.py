"""This is where a user's own patterns are made safe: compiled at the start, tried on what makes bad ones explode, bounded in time.

The engine is `regex`, not `re`: it backtracks as `re` does, but can be told to stop.
"""

from collections.abc import Iterator

import regex

from qwenbox.gateway.redaction.found import Finder, Found
from qwenbox.terms.errors import ApiError, ErrorKind

# CPU seconds. A pattern that needs longer for a row of equal signs is refused at the start, one that needs longer for a text refuses it.
TRIAL_S = 0.2
SEARCH_S = 1.0

_ROW = 48
_MOST_SEEDS = 24
_ORDINARY = ("a", "A", "0", " ", "-", "_", ".", "@", ",", "/", "中", "ab", "a0", "0-", "a.", "a ")


class BadPattern(Exception):
    """A pattern that cannot be used; the message names it and says why."""


def finder(name: str, pattern: str) -> Finder:
    """Raises BadPattern for what does not compile, matches nothing at all (an empty text), or takes for ever on a short text."""
    try:
        compiled = regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError) as error:
        raise BadPattern(f"the pattern {name!r} is no regular expression: {error}") from error
    if compiled.fullmatch("") is not None:
        raise BadPattern(f"the pattern {name!r} matches an empty text, so it would match everywhere")
    _try(name, pattern, compiled)

    def find(text: str) -> Iterator[Found]:
        try:
            for match in compiled.finditer(text, timeout=SEARCH_S, concurrent=False):
                if match.end() > match.start():
                    yield Found(name, match.start(), match.end(), match.group())
        except TimeoutError as error:
            # Rather no answer than one for which the text left unread.
            raise ApiError(ErrorKind.INTERNAL, f"The redaction pattern {name!r} takes too long for this text; simplify it.") from error

    return find


def _try(name: str, pattern: str, compiled: "regex.Pattern[str]") -> None:
    """Rows of equal signs, of those the pattern names, with an end that does not fit, are where backtracking explodes."""
    own = dict.fromkeys(sign for sign in pattern if sign.isalnum() or sign in " -_.@:/")
    for seed in [*_ORDINARY, *own][: len(_ORDINARY) + _MOST_SEEDS]:
        # The last holds all that the pattern asks for, so that the engine cannot see beforehand that nothing fits.
        for end in ("", "!", f"!{pattern}"):
            try:
                compiled.search(seed * _ROW + end, timeout=TRIAL_S)
            except TimeoutError as error:
                raise BadPattern(f"the pattern {name!r} takes for ever on short texts (a repeat inside a repeat?)") from error
