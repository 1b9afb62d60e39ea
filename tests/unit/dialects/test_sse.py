"""Frames are cut out of bytes the same way wherever the network cuts them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenbox.dialects import sse
from qwenbox.dialects.sse import Frame, Frames
from qwenbox.terms.errors import ApiError, ErrorKind


def cut(*chunks: bytes) -> list[Frame]:
    frames = Frames()
    return [frame for chunk in chunks for frame in frames.feed(chunk)] + frames.finish()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_frames_end_lines_at_lf_crlf_and_cr(end: bytes) -> None:
    stream = b"id:1\nevent:result\n:HTTP_STATUS/200\ndata:{}\n\ndata: b\n\n".replace(b"\n", end)
    assert [Frame(data=b"{}", event="result", id="1", comments=("HTTP_STATUS/200",)), Frame(data=b"b")] == cut(stream)


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_frames_keep_other_separators_as_text(character: str) -> None:
    assert [Frame(data=f"a{character}b".encode())] == cut(f"data: a{character}b\n\n".encode())


def test_frames_join_data_lines_with_lf() -> None:
    assert [Frame(data=b"a\n\n b")] == cut(b"data: a\ndata\ndata:  b\n\n")


def test_frames_skip_comments_and_unknown_fields() -> None:
    assert [Frame(data=b"x", comments=("keep-alive",))] == cut(b": keep-alive\n\n:keep-alive\nretry: 3\nfoo\ndata: x\n\n")


def test_frames_count_an_unfinished_last_message() -> None:
    assert [Frame(data=b"[DONE]")] == cut(b"data: [DO", b"NE]")


def test_frames_drop_a_byte_order_mark() -> None:
    assert [Frame(data=b"x")] == cut(b"\xef\xbb\xbfdata: x\n\n")


def test_frames_keep_what_looks_like_a_byte_order_mark_later() -> None:
    assert [Frame(data=b"x")] == cut(b"data: x\n\n", b"\xef\xbb\xbfdata: y\n\n")


def test_frames_raise_when_a_message_never_ends() -> None:
    frames = Frames(limit_bytes=10)
    frames.feed(b"data: 12")
    with pytest.raises(ApiError) as caught:
        frames.feed(b"345")
    assert ErrorKind.ENGINE_FAILED is caught.value.kind


def test_frames_forget_what_they_gave_when_counting_the_limit() -> None:
    frames = Frames(limit_bytes=12)
    assert 100 == sum(len(frames.feed(b"data: x\n\n")) for _ in range(100))


def test_frames_raise_when_a_whole_message_is_too_long() -> None:
    frames = Frames(limit_bytes=10)
    with pytest.raises(ApiError) as caught:
        frames.feed(b"data: 12345\n\n")
    assert ErrorKind.ENGINE_FAILED is caught.value.kind


@pytest.mark.parametrize("first", [b"event: e\n", b"data: a\n", b": c\n", b"data: a\r\n\r"])
def test_whole_messages_are_cut_the_same_after_the_rest_of_another(first: bytes) -> None:
    whole = b"data: x\n\ndata: y\n\n"
    assert cut(first + whole + b"\ndata: z\n\n") == cut(first, whole, b"\ndata: z\n\n")


@given(
    stream=st.lists(
        st.sampled_from(
            [b"data", b":", b" ", b"\r", b"\n", b"\r\n", b"a", "你\u2028".encode(), b"event: e", b"id: 1", b"data: ", b"data: b\n\n"]
        )
    ).map(b"".join),
    places=st.lists(st.integers(0, 200)),
)
def test_frames_are_the_same_however_the_bytes_are_cut(stream: bytes, places: list[int]) -> None:
    ends = sorted({place for place in places if place < len(stream)})
    chunks = [stream[start:end] for start, end in zip([0, *ends], [*ends, len(stream)], strict=True)]
    assert cut(stream) == cut(*chunks) == cut(*[bytes([byte]) for byte in stream])


def test_data_and_comment_are_read_back() -> None:
    assert [Frame(data=b'{"a":1}')] == cut(sse.comment("keep-alive") + sse.data(b'{"a":1}'))
