"""This is where digits are recognised: resident identity cards, bank cards, telephone numbers; whichever fits first."""

import datetime
import re
from collections.abc import Iterator

from stdnum import luhn
from stdnum.cn import ric

from qwenbox.gateway.redaction.chains import Chain, chains
from qwenbox.gateway.redaction.config import Kind
from qwenbox.gateway.redaction.found import Finder, Found
from qwenbox.gateway.redaction.phones import phone, pointed

# GB/T 2260, first two digits; 81 to 83 are the residence permits of Hong Kong, Macau and Taiwan, 9 the permanent residence card.
# Prefectures and counties of old cards as GB/T 2260 counts them, sparsely: no table knows all that were ever renamed.
_OLD_PLACE = re.compile(r"[1-6][0-7](?:0[1-9]|1[0-9]|2[0-9]|3[1-4]|4[0-3]|5[1-4]|90)(?:0[1-9]|[12][0-9]|3[0-5]|8[1-9])")
_MOST_ID_GROUPS = 5
_OLD_SHAPES = frozenset({(15,), (6, 6, 3), (6, 9)})
_PROVINCE = re.compile(r"1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3]|91")

# Issuers' first digits and the lengths their cards have (ISO/IEC 7812; UnionPay and the old cards of Chinese banks from the banks' lists).
_CARDS: tuple[tuple[re.Pattern[str], frozenset[int]], ...] = (
    (re.compile("62"), frozenset({16, 17, 18, 19})),
    (re.compile("4"), frozenset({16})),
    (re.compile("5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), frozenset({16})),
    (re.compile("3[47]"), frozenset({15})),
    (re.compile("35(?:2[89]|[3-8])"), frozenset({16})),
    (re.compile("30[0-5]|36|3[89]"), frozenset({14})),
    (re.compile("6011|64[4-9]|65"), frozenset({16})),
    (re.compile("220[0-4]|9792"), frozenset({16})),
    (re.compile("5018|5020|5038|5893|6304|6759|676[1-3]"), frozenset({16})),
    (re.compile("43674[25]|9558|9559|9400|9843"), frozenset({16, 19})),
    (re.compile("601428|405512"), frozenset({17})),
)
_CARD_SHAPES = frozenset(
    tuple(map(int, shape))
    for shape in ("4444", "44441", "44442", "44443", "465", "464", "88", "4443", "646", "6463", "6444", "64441", "64442", "64443")
) | {(6, 10), (6, 11), (6, 12), (6, 13)}


def finder(kinds: frozenset[Kind]) -> Finder:
    """Finds those of RESIDENT_ID, BANK_CARD and PHONE that are among `kinds`."""

    def find(text: str) -> Iterator[Found]:
        for chain in chains(text):
            first = 0
            while first < len(chain.groups):
                hit = _at(chain, first, kinds)
                if hit is None:
                    first += 1
                    continue
                found, last = hit
                yield found
                first = last + 1
        if Kind.PHONE in kinds:
            for start, end, number in pointed(text):
                yield Found(Kind.PHONE, start, end, number)

    return find


def _at(chain: Chain, first: int, kinds: frozenset[Kind]) -> tuple[Found, int] | None:
    for last, total in chain.windows(first):
        if Kind.RESIDENT_ID in kinds and 15 <= total <= 18 and (found := _resident_id(chain, first, last, total)):
            return found, last
        if Kind.BANK_CARD in kinds and 14 <= total <= 19 and _is_card(chain, first, last, total):
            start, end = chain.groups[first][0], chain.groups[last][1]
            return Found(Kind.BANK_CARD, start, end, chain.digits(first, last)), last
    if Kind.PHONE in kinds and (hit := phone(chain, first)):
        start, last, number = hit
        return Found(Kind.PHONE, start, chain.groups[last][1], number), last
    return None


def _resident_id(chain: Chain, first: int, last: int, total: int) -> Found | None:
    if last - first > _MOST_ID_GROUPS and total != last - first + 1:
        return None
    start, end = chain.groups[first][0], chain.groups[last][1]
    digits = chain.digits(first, last)
    if _PROVINCE.match(digits) is None:
        return None
    text = chain.text
    if total == 17 and text[end : end + 1] in ("x", "X"):
        digits, end = digits + "X", end + 1
        if text[end : end + 1].isascii() and text[end : end + 1].isalnum():
            return None
    elif not chain.is_apart(first, last):
        return None
    if len(digits) == 18 and _is_date(digits[6:14]) and ric.calc_check_digit(digits) == digits[17]:
        return Found(Kind.RESIDENT_ID, start, end, digits)
    if (
        total == 15
        and chain.lengths(first, last) in _OLD_SHAPES
        and _is_old_id(digits)
        and not chain.is_piece(first, last)
        and not chain.is_labelled(first, last)
    ):
        return Found(Kind.RESIDENT_ID, start, end, digits)
    return None


def _is_old_id(digits: str) -> bool:
    """Cards before 1999: two digits of the year and no check digit, so the place must have the form of one."""
    return _OLD_PLACE.match(digits) is not None and _is_date(f"19{digits[6:12]}")


def _is_date(digits: str) -> bool:
    try:
        born = datetime.date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return False
    return 1880 <= born.year <= datetime.datetime.now(datetime.UTC).year


def _is_card(chain: Chain, first: int, last: int, total: int) -> bool:
    lengths = chain.lengths(first, last)
    if not (first == last or lengths in _CARD_SHAPES or set(lengths) == {1}) or not chain.is_apart(first, last):
        return False
    digits = chain.digits(first, last)
    if len(set(digits)) < 3 or not any(total in sizes and issuer.match(digits) for issuer, sizes in _CARDS):
        return False
    return luhn.is_valid(digits) and not chain.is_piece(first, last) and not chain.is_labelled(first, last)
