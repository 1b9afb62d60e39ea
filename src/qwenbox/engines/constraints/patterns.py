r"""This is where a pattern of a JSON Schema becomes a bounded regular expression over JSON text.

Whatever the result matches also matches the pattern, by the reading of ECMAScript, Python and Rust alike: `\d` is ASCII,
`.` is a printable character, and what repeats without end repeats a bounded number of times. Lookaround, back references,
word boundaries and flags cannot be kept and raise Unsupported.
"""

from typing import TypeAlias

import msgspec

from qwenbox.engines.constraints.charsets import (
    ESCAPES,
    EVERYTHING,
    NOT_ASCII,
    PRINTABLE,
    PROPERTIES,
    WORD,
    Spans,
    is_meeting,
    less,
    merged,
)

MARGIN = 24

CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "0": "\0"}
SHORT = {0x22: '\\\\"', 0x5C: "\\\\\\\\", 0x08: "\\\\b", 0x09: "\\\\t", 0x0A: "\\\\n", 0x0C: "\\\\f", 0x0D: "\\\\r"}
PLAIN_CHAR = r'[^"\\\x00-\x1f\x7f-\x9f\x{2028}\x{2029}]'
CHAR = rf'(\\["\\nt]|{PLAIN_CHAR})'
ANY_CHAR = rf'(\\["\\bfnrt]|{PLAIN_CHAR})'


class Unsupported(ValueError):
    """A part of a pattern we cannot keep exactly."""


class Chars(msgspec.Struct, frozen=True, tag=True):
    spans: Spans


class Sequence(msgspec.Struct, frozen=True, tag=True):
    parts: tuple["Node", ...]


class Choice(msgspec.Struct, frozen=True, tag=True):
    options: tuple["Node", ...]


class Repeat(msgspec.Struct, frozen=True, tag=True):
    inner: "Node"
    least: int
    most: int | None


class Anchor(msgspec.Struct, frozen=True, tag=True):
    is_start: bool


Node: TypeAlias = Chars | Sequence | Choice | Repeat | Anchor


def parse(pattern: str) -> Node:
    """A pattern as what a whole text must be: unanchored sides are filled up. Raises Unsupported."""
    return _anchored(_Parser(pattern).parse(), is_start=True, is_end=True)


def bounded(node: Node, slack: int) -> Node:
    """The same with at most `slack` repeats beyond the least, wherever it repeats."""
    match node:
        case Repeat():
            most = node.least + slack if node.most is None else min(node.most, node.least + slack)
            return Repeat(bounded(node.inner, max(slack // 4, 4)), node.least, most)
        case Sequence():
            return Sequence(tuple(bounded(part, slack) for part in node.parts))
        case Choice():
            return Choice(tuple(bounded(option, slack) for option in node.options))
        case _:
            return node


def shortest(node: Node) -> int:
    """Characters of the shortest text it matches."""
    match node:
        case Chars():
            return 1
        case Sequence():
            return sum(shortest(part) for part in node.parts)
        case Choice():
            return min(shortest(option) for option in node.options)
        case Repeat():
            return shortest(node.inner) * node.least
        case Anchor():
            return 0


def written(node: Node) -> str:
    """As a regular expression over the inside of a JSON string (LLGuidance's syntax, which is Rust's)."""
    match node:
        case Chars():
            return _class(node.spans)
        case Sequence():
            return "".join(written(part) for part in node.parts)
        case Choice():
            return f"({'|'.join(written(option) for option in node.options)})"
        case Repeat():
            return f"({written(node.inner)}){{{node.least},{node.most}}}"
        case Anchor():
            return ""


class _Parser:
    """Recursive descent over ECMAScript's syntax."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def parse(self) -> Node:
        node = self._choice()
        if self._at < len(self._text):
            raise Unsupported(f'"{self._text[self._at]}" stands alone')
        return node

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        char = self._peek()
        if not char:
            raise Unsupported("it ends too early")
        self._at += 1
        return char

    def _choice(self) -> Node:
        options = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            options.append(self._sequence())
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._repeat(self._atom()))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _repeat(self, inner: Node) -> Node:
        counts = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        char = self._peek()
        if char in counts and char:
            self._at += 1
            least, most = counts[char]
        elif char == "{":
            least, most = self._counts()
        else:
            return inner
        if self._peek() == "?":  # lazy or greedy: the same texts match
            self._at += 1
        if isinstance(inner, Anchor):
            raise Unsupported("an anchor is repeated")
        return self._repeat(Repeat(inner, least, most))

    def _counts(self) -> tuple[int, int | None]:
        end = self._text.find("}", self._at)
        low, comma, high = self._text[self._at + 1 : end].partition(",")
        if end < 0 or not low.isdigit() or (high and not high.isdigit()) or len(low) > 4 or len(high) > 9:
            raise Unsupported("a count in braces is not understood")
        self._at = end + 1
        least = int(low)
        return least, (int(high) if high else None) if comma else least

    def _atom(self) -> Node:
        char = self._take()
        if char == "(":
            return self._group()
        if char == "[":
            return Chars(self._set())
        if char == ".":
            return Chars(PRINTABLE)
        if char in "^$":
            return Anchor(char == "^")
        if char == "\\":
            return Chars(self._escape()[0])
        if char in "*+?{":
            raise Unsupported(f'"{char}" repeats nothing')
        return Chars(((ord(char), ord(char)),))

    def _group(self) -> Node:
        if self._peek() == "?":
            if self._text[self._at : self._at + 2] != "?:":
                raise Unsupported("lookaround, names and flags of groups are not kept")
            self._at += 2
        node = self._choice()
        if self._take() != ")":
            raise Unsupported("a group is not closed")
        return node

    def _set(self) -> Spans:
        is_negated = self._peek() == "^"
        if is_negated:
            self._at += 1
        surely: Spans = ()
        maybe: Spans = ()
        while self._peek() != "]":
            low = self._member()
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                high = self._member()
                low = _between(low, high)
            surely, maybe = surely + low[0], maybe + low[1]
        self._at += 1
        spans = less(PRINTABLE, maybe) if is_negated else merged(surely)
        if not spans:
            raise Unsupported("a class of characters is empty")
        return spans

    def _member(self) -> tuple[Spans, Spans]:
        char = self._take()
        if char == "\\":
            if self._peek() == "b":
                self._at += 1
                return ((8, 8),), ((8, 8),)
            return self._escape()
        if char == "[" or (char == "&" and self._peek() == "&"):
            raise Unsupported('"[" and "&&" inside a class are read differently by different engines')
        return ((ord(char), ord(char)),), ((ord(char), ord(char)),)

    def _escape(self) -> tuple[Spans, Spans]:
        char = self._take()
        if char in ESCAPES:
            return ESCAPES[char]
        if char.lower() in ESCAPES:
            left = less(((0x20, 0x7E),), ESCAPES[char.lower()][1])
            return left, less(EVERYTHING, ESCAPES[char.lower()][0])
        if char == "p":
            return self._property()
        if char in ("x", "u"):
            code = self._code(2 if char == "x" else 4)
        elif char in CONTROLS:
            code = ord(CONTROLS[char])
        elif char.isalnum():
            raise Unsupported(f'"\\{char}" is not kept')
        else:
            code = ord(char)
        return ((code, code),), ((code, code),)

    def _property(self) -> tuple[Spans, Spans]:
        end = self._text.find("}", self._at)
        name = self._text[self._at + 1 : end]
        if self._peek() != "{" or name not in PROPERTIES:
            raise Unsupported(f'"\\p{{{name[:20]}}}" is not kept')
        self._at = end + 1
        return PROPERTIES[name], PROPERTIES[name] + WORD + NOT_ASCII

    def _code(self, length: int) -> int:
        if length == 4 and self._peek() == "{":
            end = self._text.find("}", self._at)
            digits, self._at = self._text[self._at + 1 : end], end + 1
        else:
            digits, self._at = self._text[self._at : self._at + length], self._at + length
        try:
            code = int(digits, 16)
        except ValueError as error:
            raise Unsupported("a character code is not understood") from error
        if 0xD800 <= code <= 0xDFFF or code > 0x10FFFF:
            raise Unsupported("a surrogate is not a character")
        return code


def _between(low: tuple[Spans, Spans], high: tuple[Spans, Spans]) -> tuple[Spans, Spans]:
    ends = [*low[0], *high[0]]
    if len(ends) != 2 or any(first != last for first, last in ends) or ends[0] > ends[1]:
        raise Unsupported("a range of characters is not understood")
    return ((ends[0][0], ends[1][0]),), ((ends[0][0], ends[1][0]),)


def _anchored(node: Node, *, is_start: bool, is_end: bool) -> Node:
    """Fill the sides that no anchor closes. An anchor anywhere else is Unsupported."""
    filler = Repeat(Chars(PRINTABLE), 0, MARGIN)
    match node:
        case Choice():
            return Choice(tuple(_anchored(option, is_start=is_start, is_end=is_end) for option in node.options))
        case Sequence(parts) if parts:
            inner = list(parts)
        case Sequence():
            inner = []
        case _:
            inner = [node]
    if len(inner) == 1 and isinstance(inner[0], Choice):
        return _anchored(inner[0], is_start=is_start, is_end=is_end)
    has_start = bool(inner) and isinstance(inner[0], Anchor) and inner[0].is_start
    if has_start:
        inner.pop(0)
    has_end = bool(inner) and isinstance(inner[-1], Anchor) and not inner[-1].is_start
    if has_end:
        inner.pop()
    if any(_has_anchor(part) for part in inner):
        raise Unsupported("an anchor inside is not kept")
    head: list[Node] = [filler] if is_start and not has_start else []
    tail: list[Node] = [filler] if is_end and not has_end else []
    return Sequence((*head, *inner, *tail))


def _has_anchor(node: Node) -> bool:
    match node:
        case Anchor():
            return True
        case Chars():
            return False
        case Repeat():
            return _has_anchor(node.inner)
        case Sequence():
            return any(_has_anchor(part) for part in node.parts)
        case Choice():
            return any(_has_anchor(option) for option in node.options)


def _class(spans: Spans) -> str:
    special = [code for code in (0x22, 0x5C, 0x08, 0x09, 0x0A, 0x0C, 0x0D) if is_meeting(spans, ((code, code),))]
    plain = less(spans, ((0, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x9F), (0xD800, 0xDFFF)))
    parts = [SHORT[code] for code in special]
    if plain:
        parts.append("[" + "".join(_code_span(first, last) for first, last in plain) + "]")
    if not parts:
        raise Unsupported("a control character has no place in a text")
    return parts[0] if len(parts) == 1 else f"({'|'.join(parts)})"


def _code_span(first: int, last: int) -> str:
    return f"\\x{{{first:x}}}" if first == last else f"\\x{{{first:x}}}-\\x{{{last:x}}}"
