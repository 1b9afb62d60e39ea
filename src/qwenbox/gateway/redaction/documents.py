"""This is where papers and accounts are recognised: IBAN, passports and travel permits."""

import re
from collections.abc import Iterator

from stdnum import iban
from stdnum.exceptions import ValidationError

from qwenbox.gateway.redaction.config import Kind
from qwenbox.gateway.redaction.found import Found
from qwenbox.gateway.redaction.normal import UNSEEN

_IBAN = re.compile(rf"(?<![0-9A-Za-z])[A-Za-z]{{2}}[0-9]{{2}}(?:[ \-\r\n{UNSEEN}]{{0,2}}[0-9A-Za-z]){{11,30}}")
_SIGN = re.compile(r"[0-9A-Za-z]")
_FEWEST = 15

# China: E, G and the older forms; letters I and O are not used. Hong Kong and Macau permits: C and 8, of residents of those: H or M.
_CHINESE = (
    r"(?:E[A-HJ-NP-Z][0-9]{7}|[EGDSPH][0-9]{8}|[DSP]E?[0-9]{7}|1[45][0-9]{7}|[CW][A-HJ-NP-Z]?[0-9]{7,8}|[HM][0-9]{8,10}|K[JB]?[0-9]{7,8})"
)
_FOREIGN = r"(?:[A-Z]{1,2}[0-9]{6,8}|[0-9]{9}|[0-9]{2}[A-Z]{2}[0-9]{5}|[A-Z][0-9]{2}[A-Z0-9]{6})"
_PASSPORT = re.compile(rf"(?:{_CHINESE}|{_FOREIGN})", re.IGNORECASE)
_CANDIDATE = re.compile(
    rf"(?<![0-9A-Za-z])(?=[A-Za-z0-9 \-]*[0-9])[A-Za-z]{{0,2}}(?:[ \-\r\n{UNSEEN}]{{0,2}}[0-9A-Z]){{6,10}}(?![0-9A-Za-z])"
)
_PAPER = re.compile(r"护照|通行证|旅行证|\bpassport", re.IGNORECASE)
_NEAR = 28
_LONGEST = 32
_SEPARATORS = re.compile(rf"[ \-\r\n{UNSEEN}]")


def ibans(text: str) -> Iterator[Found]:
    """Those whose country, length and check digits agree."""
    for match in _IBAN.finditer(text):
        signs = [sign.start() for sign in _SIGN.finditer(text, match.start(), match.end())]
        compact = "".join(text[place] for place in signs).upper()
        # The length is the country's, and a word may follow: the longest that holds.
        for length in range(len(compact), _FEWEST - 1, -1):
            end = signs[length - 1] + 1
            if text[end : end + 1].isascii() and text[end : end + 1].isalnum():
                continue
            if _is_iban(compact[:length]):
                yield Found(Kind.IBAN, match.start(), end, compact[:length])
                break


def passports(text: str) -> Iterator[Found]:
    """Without a check digit, so only beside a word that says what they are."""
    for word in _PAPER.finditer(text):
        yield from _beside(text, word.end(), min(len(text), word.end() + _NEAR), word.end())
        yield from _beside(text, max(0, word.start() - _NEAR // 2), word.start(), word.start())


def _beside(text: str, start: int, end: int, word: int) -> Iterator[Found]:
    for match in _CANDIDATE.finditer(text, start, min(len(text), end + _LONGEST) if start == word else end):
        if match.start() >= end:
            return
        value = _SEPARATORS.sub("", match[0]).upper()
        if _PASSPORT.fullmatch(value):
            yield Found(Kind.PASSPORT, match.start(), match.end(), value)


def _is_iban(compact: str) -> bool:
    try:
        iban.validate(compact, check_country=False)
    except ValidationError:
        return False
    return True
