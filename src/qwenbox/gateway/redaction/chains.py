"""This is where digits are read as people write them: in groups, with spaces, dashes, brackets or a line's end between them."""

import re
from collections.abc import Iterator

from qwenbox.gateway.redaction.normal import UNSEEN

_CHAIN = re.compile(rf"[0-9]+(?:[ \t\-(){UNSEEN}\r\n]{{1,5}}[0-9]+)*")
_GROUP = re.compile(r"[0-9]+")

MOST_DIGITS = 19
_FEWEST_DIGITS = 7
_MOST_GROUPS = 8

_MONEY_BEFORE = re.compile(r"[¥$€£￥][ ]?$|(?:RMB|CNY|USD|EUR|金额|价格|合计)[ :为是]{0,3}$", re.IGNORECASE)
_MEASURE_AFTER = re.compile(r"[ ]?(?:元|万元|亿|美元|%|字节|毫秒|bytes\b|ms\b|[kKmMgG]B\b)")
_LABEL = re.compile(
    r"(?:订单|单号|流水|编号|运单|批号|批次|版本|序列|条码|时间戳|工单|发票|期号|商品号"
    r"|\b(?:order|invoice|tracking|serial|reference|ref|ticket|batch|sku|isbn|issn|ean|upc|version|timestamp|build|part|shipment|parcel))"
    r"(?:[ ]?(?:号码|编号|号|码|nos?\b|numbers?\b|id\b|code\b|[#.:=是为]|[ ]))*$",
    re.IGNORECASE,
)
_GLUED = re.compile(r"(?:[0-9A-Za-z]*[0-9][A-Za-z]*|\b[A-Z]{1,5})[-_/#]$")
_TELLING = re.compile(r"\b(?:tel|mob|ph|fax|cell|phone|id|card|no|hp)[-_/#]$", re.IGNORECASE)


class Chain:
    """Groups of digits in a row. A window i…j of it, both inside, may be one number."""

    __slots__ = ("groups", "text")

    def __init__(self, text: str, groups: list[tuple[int, int]]) -> None:
        self.text = text
        self.groups = groups

    def lengths(self, first: int, last: int) -> tuple[int, ...]:
        """Digits of each group of the window."""
        return tuple(end - start for start, end in self.groups[first : last + 1])

    def digits(self, first: int, last: int) -> str:
        return "".join(self.text[start:end] for start, end in self.groups[first : last + 1])

    def gap(self, index: int) -> str:
        """What stands between a group and the next one."""
        return self.text[self.groups[index][1] : self.groups[index + 1][0]]

    def windows(self, first: int) -> Iterator[tuple[int, int]]:
        """(last, number of digits) of each window from here that could be a number, longest first."""
        found: list[tuple[int, int]] = []
        if first and self._is_single(first) and self._is_single(first - 1):
            return iter(found)
        total = 0
        # Digits each by itself are one number only as a whole row.
        is_spaced = not (first and self._is_single(first - 1))
        for last in range(first, len(self.groups)):
            start, end = self.groups[last]
            if last > first and self.gap(last - 1).count("\n") > 1:
                break
            total += end - start
            is_spaced = is_spaced and self._is_single(last)
            if total > MOST_DIGITS or (last - first >= _MOST_GROUPS and not is_spaced):
                break
            if total >= _FEWEST_DIGITS:
                found.append((last, total))
        return reversed(found)

    def is_apart(self, first: int, last: int) -> bool:
        """Whether the window's ends are a number's: no letter, no decimal point, no further group of the same cut beside it."""
        start = self.groups[first][0]
        before = self.text[max(0, start - 2) : start]
        if before and (is_alnum(before[-1]) or (before[-1] == "." and before[0].isdigit())):
            return False
        return self.has_plain_end(last) and (first == last or not self.goes_on(first, last))

    def is_in_account(self, first: int) -> bool:
        """Whether the group goes on what begins with letters (DE17 5381…)."""
        start = self.groups[0][0]
        return bool(first) and start > 1 and self.text[start - 2 : start].isalpha() and is_alnum(self.text[start - 1])

    def is_piece(self, first: int, last: int) -> bool:
        """Whether several groups are rather a piece of a longer number: of such an account, of a card with an end."""
        if self.is_in_account(first):
            return True
        if first == last or last + 1 == len(self.groups):
            return False
        end = self.groups[last + 1][1]
        is_date = self.text[end : end + 1] == "/"
        return not is_date and len(self.digits(first, last + 1)) <= MOST_DIGITS

    def has_plain_end(self, last: int) -> bool:
        """Whether neither a letter nor a decimal point with digits follows the group."""
        end = self.groups[last][1]
        after = self.text[end : end + 2]
        return not after or not (is_alnum(after[0]) or (after[0] == "." and after[1:].isdigit()))

    def goes_on(self, first: int, last: int) -> bool:
        """Whether a further group of the same length follows or precedes behind the same sign, as in a longer number."""
        if last + 1 < len(self.groups) and self._length(last + 1) == self._length(last) and self.gap(last) == self.gap(last - 1):
            return True
        return first > 0 and self._length(first - 1) == self._length(first) and self.gap(first - 1) == self.gap(first)

    def _length(self, index: int) -> int:
        start, end = self.groups[index]
        return end - start

    def _is_single(self, index: int) -> bool:
        return self._length(index) == 1

    def is_labelled(self, first: int, last: int) -> bool:
        """Whether the text says that the window is something else: an order's number, an amount, a part of a longer code."""
        start, end = self.groups[first][0], self.groups[last][1]
        before = self.text[max(0, start - 24) : start]
        # A word ends a chain, so it can only stand before the first group.
        if first == 0 and (_LABEL.search(before) or _MONEY_BEFORE.search(before)):
            return True
        if _MEASURE_AFTER.match(self.text, end):
            return True
        return before[-1:] in ("-", "_", "/", "#") and _GLUED.search(before) is not None and _TELLING.search(before) is None


def chains(text: str) -> Iterator[Chain]:
    """All rows of digit groups that are long enough to hold a number."""
    for match in _CHAIN.finditer(text):
        if match.end() - match.start() >= _FEWEST_DIGITS:
            yield Chain(text, [group.span() for group in _GROUP.finditer(text, match.start(), match.end())])


def is_alnum(sign: str) -> bool:
    """A letter or digit of English: Chinese stands beside a number without a space."""
    return sign.isascii() and sign.isalnum()
