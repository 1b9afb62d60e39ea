"""This is where server-sent events are cut out of bytes and written as bytes; what they mean is a dialect's business."""

import msgspec

from qwenbox.terms.errors import ApiError, ErrorKind

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# How nearly every message begins and ends, and what is between two of them.
_FIRST = b"data: "
_LAST = b"\n\n"
_BETWEEN = _LAST + _FIRST


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One message. data: its data lines joined by LF. event, id: "" when the sender gave none.

    comments: the comment lines before its end, without the colon and one space.
    """

    data: bytes
    event: str = ""
    id: str = ""
    comments: tuple[str, ...] = ()


class Frames:
    """Cuts a byte stream into frames: `feed` every piece as it comes, then `finish`.

    Lines end at CR, LF or CRLF and nowhere else (U+2028 is text). The frames do not depend on how the bytes were cut.
    Messages without a data line are not frames. limit_bytes: the longest unfinished frame kept in memory.
    Raises ApiError(ENGINE_FAILED) past the limit.
    Source: HTML standard, "Parsing an event stream" (2026-10); unlike there, an unfinished last message counts, since some servers
    omit its blank line.
    """

    def __init__(self, limit_bytes: int = 16 * 1024 * 1024) -> None:
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._tail: list[bytes] = []
        self._is_first_line = True
        self._is_after_cr = False
        self._reset()

    def feed(self, chunk: bytes) -> list[Frame]:
        # Whole messages of one data line each, as nearly every server writes and sends them, are cut without looking at lines.
        if not self._held_bytes and chunk.startswith(_FIRST) and chunk.endswith(_LAST) and b"\r" not in chunk:
            payloads = chunk[len(_FIRST) : -len(_LAST)].split(_BETWEEN)
            if chunk.count(b"\n") == len(_LAST) * len(payloads) and len(chunk) <= self._limit_bytes:
                self._is_first_line = self._is_after_cr = False
                return [Frame(data=payload) for payload in payloads]
        if self._is_after_cr and chunk:
            chunk = chunk[1:] if chunk[0] == 0x0A else chunk
            self._is_after_cr = False
        if not chunk:
            return []
        if b"\n" not in chunk and b"\r" not in chunk:
            self._keep(chunk)
            return []
        if self._tail:
            self._tail.append(chunk)
            chunk = b"".join(self._tail)
            self._tail = []
        self._is_after_cr = chunk[-1] == 0x0D
        return self._lines(chunk)

    def finish(self) -> list[Frame]:
        """The stream is over. Returns the last message if its blank line was missing."""
        rest = b"".join(self._tail)
        self._tail = []
        if rest:
            self._line(rest)
        frame = self._frame()
        return [frame] if frame is not None else []

    def _lines(self, text: bytes) -> list[Frame]:
        # bytes.splitlines, unlike str.splitlines, knows only CR, LF and CRLF.
        lines = text.splitlines()
        if text[-1] not in b"\r\n":
            self._keep(lines.pop())
        frames: list[Frame] = []
        for line in lines:
            if line:
                self._line(line)
                continue
            frame = self._frame()
            if frame is not None:
                frames.append(frame)
        return frames

    def _keep(self, piece: bytes) -> None:
        self._tail.append(piece)
        self._count(len(piece))

    def _count(self, size: int) -> None:
        self._held_bytes += size
        if self._held_bytes > self._limit_bytes:
            raise ApiError(ErrorKind.ENGINE_FAILED, "The model's server sent a message that never ends.")

    def _line(self, line: bytes) -> None:
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        self._count(len(line))
        field, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._event = value.decode(errors="replace")
        elif field == b"id":
            self._id = value.decode(errors="replace")
        elif not field:
            self._comments.append(value.decode(errors="replace"))

    def _frame(self) -> Frame | None:
        frame = None
        if self._data:
            frame = Frame(data=b"\n".join(self._data), event=self._event, id=self._id, comments=tuple(self._comments))
        self._held_bytes = 0
        self._reset()
        return frame

    def _reset(self) -> None:
        self._data: list[bytes] = []
        self._event = ""
        self._id = ""
        self._comments: list[str] = []


def data(payload: bytes) -> bytes:
    """A frame of one data line. payload: without CR and LF, as JSON encoders write it."""
    return b"data: " + payload + b"\n\n"


def comment(text: str) -> bytes:
    """A line every client ignores. text: without line ends."""
    return b": " + text.encode() + b"\n\n"
