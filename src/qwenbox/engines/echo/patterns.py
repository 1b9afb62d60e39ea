"""This is where a regular expression gets a text that matches it.

The part of ECMA-262 that schemas use: alternation, groups, classes, escapes and quantifiers; look-around and back references are
refused, because a text for them cannot be read off the pattern.
"""

_WORD = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
_CLASSES = {"d": "0123456789", "w": _WORD, "s": " \t", "D": "abAB_- ", "W": " -.,", "S": "aA0_-."}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_ANY = "a0A_- .,:/é中"
_MAX_REPEATS = 1_000
_MAX_LENGTH = 10_000


class Unmatchable(ValueError):
    """No text can be read off this pattern."""


def matching(pattern: str, *, min_length: int = 0, max_length: int = _MAX_LENGTH) -> str:
    """A text between the two lengths (characters) that `pattern` matches in full, the shortest of those tried.

    Raises Unmatchable when the pattern uses what we do not read, or when no repetition count gives a text within the lengths.
    """
    for growth in (*range(65), 128, 256, 512):
        text = _Reader(pattern, growth).read()
        if min_length <= len(text) <= max_length:
            return text
        if len(text) > max_length:
            break
    raise Unmatchable("no length fits")


class _Reader:
    """One pass over the pattern. growth: how often more than needed a repeatable piece is repeated."""

    def __init__(self, pattern: str, growth: int) -> None:
        self._pattern = pattern
        self._growth = growth
        self._at = 0

    def read(self) -> str:
        text = self._alternatives(0)
        if self._at < len(self._pattern):
            raise Unmatchable("unbalanced parenthesis")
        return text

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _take(self) -> str:
        char = self._peek()
        if not char:
            raise Unmatchable("the pattern ends too early")
        self._at += 1
        return char

    def _alternatives(self, depth: int) -> str:
        if depth > 50:
            raise Unmatchable("nested too deeply")
        first = self._sequence(depth)
        while self._peek() == "|":
            self._at += 1
            self._sequence(depth)
        return first

    def _sequence(self, depth: int) -> str:
        pieces: list[str] = []
        length = 0
        while self._peek() not in ("", "|", ")"):
            piece = self._atom(depth)
            repeats = self._repeats()
            length += len(piece) * repeats
            if length > _MAX_LENGTH:
                raise Unmatchable("too long")
            pieces.append(piece * repeats)
        return "".join(pieces)

    def _atom(self, depth: int) -> str:
        char = self._take()
        match char:
            case "^" | "$":
                return ""
            case ".":
                return "a"
            case "(":
                return self._group(depth)
            case "[":
                return self._class()
            case "\\":
                return self._escape()[0:1]
            case "*" | "+" | "?":
                raise Unmatchable("nothing to repeat")
            case _:
                return char

    def _group(self, depth: int) -> str:
        if self._peek() == "?":
            self._at += 1
            kind = self._take()
            if kind == "<" and self._peek() not in ("=", "!"):
                while self._take() != ">":
                    pass
            elif kind != ":":
                raise Unmatchable("look-around")
        text = self._alternatives(depth + 1)
        if self._take() != ")":
            raise Unmatchable("unbalanced parenthesis")
        return text

    def _class(self) -> str:
        is_negated = self._peek() == "^"
        if is_negated:
            self._at += 1
        members: list[str] = []
        while self._peek() != "]":
            member = self._member()
            if len(member) == 1 and self._peek() == "-" and self._pattern[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                last = self._member()
                members.append("".join(chr(code) for code in range(ord(member), min(ord(last[-1]), ord(member) + 255) + 1)))
            else:
                members.append(member)
        self._at += 1
        chars = "".join(members)
        allowed = "".join(char for char in _ANY + _WORD if char not in chars) if is_negated else chars
        if not allowed:
            raise Unmatchable("an empty class")
        return allowed[0]

    def _member(self) -> str:
        char = self._take()
        return self._escape() if char == "\\" else char

    def _escape(self) -> str:
        """The characters an escape stands for; "" for a boundary."""
        char = self._take()
        if char in _CLASSES:
            return _CLASSES[char]
        if char in ("b", "B"):
            return ""
        if char in ("x", "u"):
            width = 2 if char == "x" else 4
            digits = self._pattern[self._at : self._at + width]
            self._at += width
            try:
                return chr(int(digits, 16))
            except ValueError as error:
                raise Unmatchable("a bad escape") from error
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char.isalnum():
            raise Unmatchable("an escape we do not read")
        return char

    def _repeats(self) -> int:
        low, high = 1, 1
        match self._peek():
            case "*":
                low, high = 0, _MAX_REPEATS
            case "+":
                low, high = 1, _MAX_REPEATS
            case "?":
                low, high = 0, 1
            case "{":
                bounds = self._braces()
                if bounds is None:
                    return 1
                low, high = bounds
            case _:
                return 1
        self._at += 1
        if self._peek() == "?":
            self._at += 1
        if low > _MAX_REPEATS:
            raise Unmatchable("too many repetitions")
        return min(high, low + self._growth)

    def _braces(self) -> tuple[int, int] | None:
        """The bounds of `{m}`, `{m,}` or `{m,n}`, standing on its last brace; None for a brace that is a letter."""
        end = self._pattern.find("}", self._at)
        low, comma, high = self._pattern[self._at + 1 : max(end, 0)].partition(",")
        if not (low.isdecimal() and (not high or high.isdecimal()) and len(low) < 6 and len(high) < 9):
            return None
        self._at = end
        return int(low), int(high) if high else (_MAX_REPEATS if comma else int(low))
