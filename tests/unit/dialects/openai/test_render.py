"""What the golden cases do not show of replies: deltas that say nothing, and numbers JSON has no word for."""

import msgspec

from qwenbox.dialects.base import Reply, WireRequest
from qwenbox.dialects.openai import parse
from qwenbox.terms.caller import Compat
from qwenbox.terms.events import ReasoningDelta, TextDelta, TokenLogprob, ToolCallDelta

NEVER = TokenLogprob(text="a", raw=b"a", logprob=float("-inf"))


def reply(**fields: object) -> Reply:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True, **fields}
    request = WireRequest(id="id", method="POST", path="/v1/chat/completions", received_at=0.0, body=msgspec.json.encode(body))
    return parse.chat(request, Compat.DOCUMENTED).reply


def test_stream_is_silent_when_a_delta_says_nothing() -> None:
    stream = reply()
    empty = [
        TextDelta(text="", tokens=1),
        ReasoningDelta(text="", tokens=1),
        ToolCallDelta(call=0, tokens=1),
        TextDelta(text="", logprobs=(NEVER,)),
    ]
    assert [b"", b"", b"", b""] == [stream.event(event) for event in empty]


def test_stream_writes_an_impossible_token_as_a_finite_number() -> None:
    frame = reply(logprobs=True).event(TextDelta(text="", tokens=1, logprobs=(NEVER,)))
    assert -9999.0 == msgspec.json.decode(frame[6:])["choices"][0]["logprobs"]["content"][0]["logprob"]


def test_stream_keeps_line_separators_within_one_frame() -> None:
    frame = reply().event(TextDelta(text="a\n\r\u2028b"))
    assert 1 == frame.count(b"data: ") and frame.index(b"\n") == len(frame) - 2


def test_stream_heartbeat_is_a_comment() -> None:
    assert b": keep-alive\n\n" == reply().heartbeat()
