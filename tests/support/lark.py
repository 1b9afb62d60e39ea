"""This is where tests read a Lark grammar of ours and speak it: random texts it allows, without an engine.

The part of Lark that `qwenbox.engines.constraints` writes: rules of literals, names, groups, `?`, `{m,n}` and `|`; terminals of
regular expressions joined by `&`. Regular expressions: classes, groups, `|`, counts.
"""

import json
import random
import re
from collections.abc import Callable

_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[A-Za-z][A-Za-z0-9_]*|\{\d+,\d+\}|[()|?]')
_WIDE = "aZ09 -_.,/你é"


class Grammar:
    """sample() yields one random text; closer to the end of what is allowed it takes the shorter way."""

    def __init__(self, text: str) -> None:
        lines = [line for line in text.splitlines() if line and not line.startswith("%")]
        self._rules = dict(line.split(": ", 1) for line in lines)

    def sample(self, rng: random.Random, start: str = "start") -> str:
        return _Walk(self._rules[start], self._named, rng).text()

    def _named(self, name: str, rng: random.Random) -> str:
        body = self._rules[name]
        return _terminal(body, rng) if body.startswith("/") else self.sample(rng, name)


class _Walk:
    def __init__(self, body: str, named: Callable[[str, random.Random], str], rng: random.Random) -> None:
        self._tokens = _TOKENS.findall(body)
        self._at = 0
        self._named = named
        self._rng = rng

    def text(self) -> str:
        return self._choice()()

    def _choice(self) -> Callable[[], str]:
        options = [self._sequence()]
        while self._at < len(self._tokens) and self._tokens[self._at] == "|":
            self._at += 1
            options.append(self._sequence())
        return lambda: self._rng.choice(options)()

    def _sequence(self) -> Callable[[], str]:
        parts: list[Callable[[], str]] = []
        while self._at < len(self._tokens) and self._tokens[self._at] not in ("|", ")"):
            parts.append(self._counted(self._atom()))
        return lambda: "".join(part() for part in parts)

    def _atom(self) -> Callable[[], str]:
        token = self._tokens[self._at]
        self._at += 1
        if token == "(":
            inner = self._choice()
            self._at += 1
            return inner
        if token.startswith('"'):
            literal = json.loads(token)
            return lambda: literal
        return lambda: self._named(token, self._rng)

    def _counted(self, inner: Callable[[], str]) -> Callable[[], str]:
        token = self._tokens[self._at] if self._at < len(self._tokens) else ""
        if token == "?":
            low, high = 0, 1
        elif token.startswith("{"):
            low, high = (int(part) for part in token[1:-1].split(","))
        else:
            return inner
        self._at += 1
        return lambda: "".join(inner() for _ in range(_count(low, high, self._rng)))


def _count(low: int, high: int, rng: random.Random) -> int:
    return rng.choice([low, high, rng.randint(low, high)]) if high - low < 5 else min(high, low + int(rng.expovariate(0.2)))


def _terminal(body: str, rng: random.Random) -> str:
    """A text all expressions joined by `&` match: drawn from the first, tried on the others."""
    first, *others = (part[1:-1].replace("\\/", "/") for part in body.split(" & "))
    checks = [re.compile(_python(other)) for other in others]
    for _ in range(2_000):
        text = _Expression(first, rng).text()
        if all(check.fullmatch(text) for check in checks):
            return text
    raise AssertionError(f"nothing found that matches {body}")


def _python(expression: str) -> str:
    return re.sub(r"\\x\{([0-9a-f]+)\}", lambda found: f"\\U{int(found[1], 16):08x}", expression)


class _Expression:
    def __init__(self, text: str, rng: random.Random) -> None:
        self._text = text
        self._rng = rng
        self._at = 0

    def text(self) -> str:
        return self._choice()()

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _choice(self) -> Callable[[], str]:
        options = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            options.append(self._sequence())
        return lambda: self._rng.choice(options)()

    def _sequence(self) -> Callable[[], str]:
        parts: list[Callable[[], str]] = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._counted(self._atom()))
        return lambda: "".join(part() for part in parts)

    def _counted(self, inner: Callable[[], str]) -> Callable[[], str]:
        counts = re.compile(r"\{(\d+)(?:,(\d+))?\}|\?").match(self._text, self._at)
        if counts is None:
            return inner
        self._at = counts.end()
        low, high = (0, 1) if counts[0] == "?" else (int(counts[1]), int(counts[2] or counts[1]))
        return lambda: "".join(inner() for _ in range(_count(low, high, self._rng)))

    def _atom(self) -> Callable[[], str]:
        char = self._text[self._at]
        self._at += 1
        if char == "(":
            inner = self._choice()
            self._at += 1
            return inner
        if char == "[":
            return self._set()
        if char == "\\":
            literal = self._escape()
            return lambda: literal
        return lambda: char

    def _escape(self) -> str:
        code = re.compile(r"x\{([0-9a-f]+)\}|x([0-9a-f]{2})").match(self._text, self._at)
        if code is not None:
            self._at = code.end()
            return chr(int(code[1] or code[2], 16))
        self._at += 1
        return {"n": "\n", "t": "\t"}.get(self._text[self._at - 1], self._text[self._at - 1])

    def _member(self) -> str:
        char = self._text[self._at]
        self._at += 1
        return self._escape() if char == "\\" else char

    def _set(self) -> Callable[[], str]:
        is_negated = self._peek() == "^"
        self._at += is_negated
        spans: list[tuple[str, str]] = []
        while self._peek() != "]":
            low = high = self._member()
            if self._peek() == "-" and self._text[self._at + 1] != "]":
                self._at += 1
                high = self._member()
            spans.append((low, high))
        self._at += 1
        if is_negated:
            allowed = [char for char in _WIDE if not any(low <= char <= high for low, high in spans)]
            return lambda: self._rng.choice(allowed)
        return lambda: _one_of(*self._rng.choice(spans), self._rng)


def _one_of(low: str, high: str, rng: random.Random) -> str:
    return chr(rng.choice([ord(low), ord(high), rng.randint(ord(low), ord(high))]))
