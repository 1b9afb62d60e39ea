"""An answer that is one JSON: nothing before its end, and all of it then."""

import msgspec

from qwenbox.dialects import whole
from qwenbox.dialects.whole import JSON_HEAD, WholeReply
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Completed, Embedded, Started
from qwenbox.terms.usage import Usage


class _Answer(msgspec.Struct):
    places: list[int]
    tokens: int


def _place(event: ChatEvent) -> int | None:
    return event.index if isinstance(event, Embedded) else None


def _reply() -> WholeReply[int]:
    return WholeReply(_place, lambda places, usage: _Answer(places, usage.input_tokens), lambda error: error.message.encode())


def test_whole_reply_is_silent_until_completed() -> None:
    reply = _reply()
    said = [reply.event(event) for event in whole.heard([Embedded(index=at, vector=(1.0,)) for at in range(3)], 7)]
    assert [b"", b"", b"", b"", b'{"places":[0,1,2],"tokens":7}'] == said
    assert JSON_HEAD == reply.head


def test_whole_reply_keeps_a_piece_that_is_false_by_itself() -> None:
    reply = _reply()
    reply.event(Embedded(index=0, vector=(1.0,)))
    assert b'{"places":[0],"tokens":0}' == reply.event(Completed(usage=Usage(input_tokens=0, output_tokens=0)))


def test_whole_reply_tells_an_error_in_its_dialect_and_has_no_heartbeat() -> None:
    reply = _reply()
    assert b"no" == reply.error(ApiError(ErrorKind.INTERNAL, "no"))
    assert b"" == reply.heartbeat()


def test_heard_counts_for_a_server_that_told_no_tokens() -> None:
    assert whole.heard([], None) == [Started(input_tokens=0), Completed(usage=Usage(input_tokens=0, output_tokens=0, is_counted=True))]
    assert whole.heard([], 0) == [Started(input_tokens=0), Completed(usage=Usage(input_tokens=0, output_tokens=0))]
