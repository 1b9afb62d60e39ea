"""This is where the store's protocol is written and read (RESP 2, and the types RESP 3 adds): bytes ⇄ values, no I/O.

Source: https://valkey.io/topics/protocol/ (read 2026-07).
"""

from typing import TypeAlias

Reply: TypeAlias = "bool | int | float | bytes | list[Reply] | dict[bytes, Reply] | ReplyError | None"

MAX_BULK_BYTES = 512 * 1024 * 1024  # what the server itself takes for one text
MAX_DEPTH = 32
MAX_LINE_BYTES = 64 * 1024

_LINES = b"+-:_,#("
_TEXTS = b"$=!"
_LISTS = b"*~>"


class ReplyError(Exception):
    """The store answered a command with an error. code: its first word, e.g. NOSCRIPT."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]


class ProtocolError(Exception):
    """What arrived is no RESP: whoever is on the other side is no Valkey, and the connection is of no more use."""


def command(*parts: bytes) -> bytes:
    return b"*%d\r\n" % len(parts) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


class _Open:
    """A list or map some of whose items are still to come."""

    __slots__ = ("items", "kind", "missing")

    def __init__(self, kind: int, missing: int) -> None:
        self.kind = kind
        self.missing = missing
        self.items: list[Reply] = []

    def close(self) -> Reply:
        if self.kind != ord("%"):
            return self.items
        names = iter(self.items)
        return {_name(name): value for name, value in zip(names, names, strict=True)}


class Reader:
    """The answers in a stream of bytes, however it is cut. An error answered to a command is a value here, not raised."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        self._open: list[_Open] = []

    def feed(self, data: bytes) -> list[Reply]:
        """The answers that are whole now, in order. Raises ProtocolError; after that the reader is of no more use."""
        self._buffer += data
        replies: list[Reply] = []
        while (end := self._buffer.find(b"\r\n", self._at)) >= 0:
            if not self._step(end, replies):
                break
        else:
            if len(self._buffer) - self._at > MAX_LINE_BYTES:
                raise ProtocolError("a line without an end")
        del self._buffer[: self._at]
        self._at = 0
        return replies

    def _step(self, end: int, replies: list[Reply]) -> bool:
        """Read what begins with the line that ends at `end`; False if it is not whole yet."""
        kind = self._buffer[self._at] if end > self._at else 0
        line = bytes(self._buffer[self._at + 1 : end])
        if kind in _LINES:
            self._at = end + 2
            self._add(_scalar(kind, line), replies)
            return True
        size = _size(line)
        if kind in _TEXTS:
            return self._text(kind, size, end + 2, replies)
        if kind not in _LISTS and kind != ord("%"):
            raise ProtocolError("a type that is not RESP's")
        self._at = end + 2
        if len(self._open) >= MAX_DEPTH:
            raise ProtocolError("lists in lists without an end")
        missing = size * 2 if kind == ord("%") else size
        if missing > 0:
            self._open.append(_Open(kind, missing))
        else:
            self._add(_Open(kind, 0).close() if size == 0 else None, replies)
        return True

    def _text(self, kind: int, size: int, start: int, replies: list[Reply]) -> bool:
        if size < 0:
            self._at = start
            self._add(None, replies)
            return True
        if len(self._buffer) < start + size + 2:
            return False
        if not self._buffer.startswith(b"\r\n", start + size):
            raise ProtocolError("a text longer than it said")
        text = bytes(self._buffer[start : start + size])
        self._at = start + size + 2
        if kind == ord("="):
            text = text[4:]  # "txt:" or "mkd:"
        self._add(ReplyError(text.decode("utf-8", "replace")) if kind == ord("!") else text, replies)
        return True

    def _add(self, value: Reply, replies: list[Reply]) -> None:
        while self._open:
            inner = self._open[-1]
            inner.items.append(value)
            inner.missing -= 1
            if inner.missing:
                return
            self._open.pop()
            value = inner.close()
            if inner.kind == ord(">") and not self._open:
                return  # a push answers no command
        replies.append(value)


def _scalar(kind: int, line: bytes) -> Reply:
    match chr(kind):
        case "+":
            return line
        case "-":
            return ReplyError(line.decode("utf-8", "replace"))
        case "_":
            return None
        case "#":
            return line == b"t"
        case _:
            try:
                return float(line) if kind == ord(",") else int(line)
            except ValueError as error:
                raise ProtocolError("a number that is none") from error


def _size(line: bytes) -> int:
    if not (line.isdigit() or line == b"-1") or len(line) > 10 or int(line) > MAX_BULK_BYTES:
        raise ProtocolError("a length that is none")
    return int(line)


def _name(value: Reply) -> bytes:
    if not isinstance(value, bytes):
        raise ProtocolError("a map with names that are no texts")
    return value
