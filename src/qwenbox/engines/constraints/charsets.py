"""This is where sets of characters are spans of code points: what an escape matches, unions, differences, overlaps."""

from typing import TypeAlias

Span: TypeAlias = tuple[int, int]
Spans: TypeAlias = tuple[Span, ...]

PRINTABLE: Spans = ((0x20, 0x7E), (0xA1, 0x1FFF), (0x2030, 0xD7FF))
DIGIT: Spans = ((0x30, 0x39),)
WORD: Spans = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
LETTER: Spans = ((0x41, 0x5A), (0x61, 0x7A), (0x4E00, 0x9FFF))
SPACE: Spans = ((0x20, 0x20),)
NOT_ASCII: Spans = ((0x80, 0x10FFFF),)
EVERYTHING: Spans = ((0, 0x10FFFF),)
# What each escape surely matches, and what it may match by any reading (the complement must leave that out).
ESCAPES: dict[str, tuple[Spans, Spans]] = {
    "d": (DIGIT, DIGIT + NOT_ASCII),
    "w": (WORD, WORD + NOT_ASCII),
    "s": (SPACE, ((0, 0x20), *NOT_ASCII)),
}
PROPERTIES: dict[str, Spans] = {
    "L": LETTER,
    "Letter": LETTER,
    "Lu": ((0x41, 0x5A),),
    "Ll": ((0x61, 0x7A),),
    "N": DIGIT,
    "Nd": DIGIT,
}


def merged(spans: Spans) -> Spans:
    out: list[Span] = []
    for first, last in sorted(spans):
        if out and first <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(out[-1][1], last))
        else:
            out.append((first, last))
    return tuple(out)


def less(spans: Spans, taken: Spans) -> Spans:
    out: list[Span] = []
    for first, last in spans:
        for low, high in merged(taken):
            if high < first or low > last:
                continue
            if low > first:
                out.append((first, low - 1))
            first = max(first, high + 1)
        if first <= last:
            out.append((first, last))
    return tuple(out)


def is_meeting(left: Spans, right: Spans) -> bool:
    return any(first <= high and low <= last for first, last in left for low, high in right)


def common(left: Spans, right: Spans) -> Spans:
    return tuple((max(first, low), min(last, high)) for first, last in left for low, high in right if first <= high and low <= last)
