"""This is where telephone numbers are recognised: mainland mobiles and landlines, international ones, others beside a telling word."""

import re
from collections.abc import Iterator

import phonenumbers

from qwenbox.gateway.redaction.chains import Chain, is_alnum

_MOBILE_SHAPES = frozenset({(11,), (3, 4, 4), (3, 8), (7, 4), (4, 4, 3), (3, 3, 5), (5, 6), (4, 3, 4), (3, 2, 6), (3, 4, 2, 2)})
_NORTH_AMERICAN = (3, 3, 4)
_MOST_INTERNATIONAL = 15
# Where a number without a country is looked up when a word before it says that it is one, by its digits.
_REGIONS: dict[int, tuple[str, ...]] = {
    8: ("HK", "SG", "MO"),
    9: ("TW", "FR"),
    10: ("US", "CN", "FR", "JP", "IN", "AU", "TW"),
    11: ("CN", "GB", "JP", "KR", "DE"),
    12: ("CN", "DE"),
}
_WORD = re.compile(
    r"(?:电话|手机|致电|拨打|联系|热线|传真|座机|号码|短信|来电|\b(?:phone|tel|telephone|mobile|cell|call|fax|whatsapp|sms|dial|contact|text|ring|reach)\b)[^0-9\n]{0,14}$",
    re.IGNORECASE,
)
_GLUED_WORD = re.compile(r"(?:tel|phone|mobile|mob|fax|cell)$", re.IGNORECASE)
# Three groups with points are too like a version or a decimal for chains; these shapes alone are telephone numbers.
POINTED = re.compile(
    r"(?<![0-9A-Za-z.])(?:1[3-9][0-9]\.[0-9]{4}\.[0-9]{4}|\(?[2-9][0-9]{2}\)?\.[2-9][0-9]{2}\.[0-9]{4})(?![0-9A-Za-z]|\.[0-9])"
)


def phone(chain: Chain, first: int) -> tuple[int, int, str] | None:
    """(where it starts, its last group, its number with the country) of a telephone number that begins with this group."""
    text, start = chain.text, chain.groups[first][0]
    before = text[max(0, start - 2) : start]
    if before.endswith("+"):
        return _international(chain, first)
    head = text[start : chain.groups[first][1]]
    if head.startswith("00") and (hit := _international(chain, first, trunk=2)):
        return hit
    hit = _mobile(chain, first) or _local(chain, first)
    return None if hit is None or chain.is_labelled(first, hit[1]) else hit


def pointed(text: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, number with the country) of those written with points."""
    for match in POINTED.finditer(text):
        region = "CN" if match[0][0] == "1" else "US"
        if number := _valid(match[0], region):
            yield match.start(), match.end(), number


def _international(chain: Chain, first: int, trunk: int = 0) -> tuple[int, int, str] | None:
    start = chain.groups[first][0]
    begins = start if trunk else start - 1
    if begins and is_alnum(chain.text[begins - 1]):
        return None
    for last, total in chain.windows(first):
        if total - trunk > _MOST_INTERNATIONAL or not chain.has_plain_end(last) or (trunk and chain.goes_on(first, last)):
            continue
        if number := _valid("+" + chain.digits(first, last)[trunk:], None):
            return _opened(chain, begins, last), last, number
    return None


def _mobile(chain: Chain, first: int) -> tuple[int, int, str] | None:
    """A mainland mobile, 86 before it or not."""
    if chain.text[chain.groups[first][0]] not in "18":
        return None
    for last, total in chain.windows(first):
        digits = chain.digits(first, last) if total in (11, 13) else ""
        lengths = chain.lengths(first, last)
        if digits[:2] == "86" and total == 13:
            digits = digits[2:]
            lengths = lengths[1:] if lengths[0] == 2 else (lengths[0] - 2, *lengths[1:])
        if len(digits) != 11 or digits[0] != "1" or digits[1] < "3":
            continue
        if not (lengths in _MOBILE_SHAPES or set(lengths) == {1}) or not _is_bounded(chain, first, last):
            continue
        if lengths == (4, 4, 3) and first and chain.lengths(first - 1, first - 1) == (4,):
            continue  # the end of a card in fours
        # A word beside it outweighs tables that do not know the newest ranges yet.
        if number := _valid(digits, "CN") or (_is_told(chain, first) and f"+86{digits}"):
            return _opened(chain, chain.groups[first][0], last), last, number
    return None


def _local(chain: Chain, first: int) -> tuple[int, int, str] | None:
    start = chain.groups[first][0]
    is_told = _is_told(chain, first)
    if not is_told and not _may_be_local(chain, first):
        return None
    for last, total in chain.windows(first):
        lengths = chain.lengths(first, last)
        if total > 13 or (len(lengths) == 1 and not is_told) or not _is_bounded(chain, first, last):
            continue
        digits = chain.digits(first, last)
        regions = _REGIONS.get(total, ()) if is_told else _regions_by_shape(chain, first, lengths, digits)
        for region in regions:
            if number := _valid(digits, region):
                return _opened(chain, start, last), last, number
    return None


def _regions_by_shape(chain: Chain, first: int, lengths: tuple[int, ...], digits: str) -> tuple[str, ...]:
    area, *rest = lengths
    if chain.is_in_account(first) or (first and chain.lengths(first - 1, first - 1) == (4,) == (area,)):
        return ()  # fours are a card or an account
    gap = chain.gap(first)
    if digits[0] == "0" and area in (3, 4) and tuple(rest) in ((7,), (8,), (4, 4), (3, 4), (4, 3)):
        return ("CN",)
    if lengths == _NORTH_AMERICAN and ("-" in gap or ")" in gap):
        return ("US",)
    if digits[:3] in ("400", "800") and gap == "-" and (4 in rest and sum(rest) == 7):
        return ("CN",)
    return ()


def _may_be_local(chain: Chain, first: int) -> bool:
    """Whether the first group is an area's, written apart from the rest."""
    length = chain.groups[first][1] - chain.groups[first][0]
    if first + 1 == len(chain.groups) or not 3 <= length <= 4:
        return False
    return chain.text[chain.groups[first][0]] == "0" or (length == 3 and chain.gap(first) != " ")


def _is_bounded(chain: Chain, first: int, last: int) -> bool:
    if chain.is_apart(first, last):
        return True
    start = chain.groups[first][0]
    return first == last and _GLUED_WORD.search(chain.text, max(0, start - 8), start) is not None and chain.has_plain_end(last)


def _is_told(chain: Chain, first: int) -> bool:
    start = chain.groups[first][0]
    return first == 0 and _WORD.search(chain.text, max(0, start - 32), start) is not None


def _opened(chain: Chain, start: int, last: int) -> int:
    """The start with the bracket that the number itself closes."""
    inside = chain.text[start : chain.groups[last][1]]
    if inside.count(")") > inside.count("(") and start and chain.text[start - 1] == "(":
        return start - 1
    return start


def _valid(digits: str, region: str | None) -> str:
    """The number as +86…, "" when no telephone has it."""
    try:
        number = phonenumbers.parse(digits, region)
    except phonenumbers.NumberParseException:
        return ""
    if not phonenumbers.is_valid_number(number):
        return ""
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
