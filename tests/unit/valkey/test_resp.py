"""The protocol's reader: any answer, however its bytes are cut."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenbox.valkey.resp import ProtocolError, Reader, Reply, ReplyError, command

TEXTS = st.binary(max_size=40)
LINES = st.text(st.characters(codec="ascii", exclude_characters="\r\n"), max_size=20).map(str.encode)


def written(reply: object) -> bytes:
    match reply:
        case None:
            return b"_\r\n"
        case bool():
            return b"#t\r\n" if reply else b"#f\r\n"
        case int():
            return b":%d\r\n" % reply
        case float():
            return b",%s\r\n" % repr(reply).encode()
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case list():
            return b"*%d\r\n" % len(reply) + b"".join(map(written, reply))
        case dict():
            return b"%%%d\r\n" % len(reply) + b"".join(written(key) + written(value) for key, value in reply.items())
    raise AssertionError(reply)


REPLIES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)


@given(st.lists(REPLIES, min_size=1, max_size=4), st.data())
def test_reader_gives_what_was_written_however_it_is_cut(replies: list[Reply], data: st.DataObject) -> None:
    stream = b"".join(map(written, replies))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader, heard = Reader(), list[Reply]()
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        heard += reader.feed(stream[start:end])
    assert replies == heard


def test_reader_gives_what_was_written_when_it_is_cut_everywhere() -> None:
    stream = b"*3\r\n:-7\r\n$5\r\na\r\nbc\r\n*1\r\n$-1\r\n+OK\r\n*-1\r\n%1\r\n+a\r\n=5\r\ntxt:b\r\n"
    whole = Reader().feed(stream)
    for cut in range(len(stream) + 1):
        reader = Reader()
        assert whole == reader.feed(stream[:cut]) + reader.feed(stream[cut:])
    reader = Reader()
    assert whole == [reply for index in range(len(stream)) for reply in reader.feed(stream[index : index + 1])]
    assert [[-7, b"a\r\nbc", [None]], b"OK", None, {b"a": b"b"}] == whole


@pytest.mark.parametrize("stream", [b"-NOSCRIPT No such\r\n", b"!17\r\nNOSCRIPT No such\n\r\n"])
def test_error_is_a_value_with_its_code_when_the_store_answers_one(stream: bytes) -> None:
    (reply,) = Reader().feed(stream)
    assert isinstance(reply, ReplyError)
    assert "NOSCRIPT" == reply.code


def test_push_is_no_answer_when_the_store_says_something_of_its_own() -> None:
    assert [1] == Reader().feed(b">2\r\n+message\r\n*1\r\n:5\r\n:1\r\n")


@pytest.mark.parametrize(
    "stream",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"$-2\r\n",
        b"$9999999999999\r\n",
        b"*x\r\n",
        b":\r\n",
        b"\r\n",
        b"$1\r\nabc\r\n",
        b"%1\r\n:1\r\n:2\r\n",
        b",x\r\n",
        b"*1\r\n" * 40,
        b"+" * 100_000,
    ],
)
def test_reader_refuses_what_is_no_resp(stream: bytes) -> None:
    with pytest.raises(ProtocolError):
        Reader().feed(stream)


@given(st.binary(max_size=200))
def test_reader_fails_in_one_way_when_anything_is_fed(stream: bytes) -> None:
    def feed(feed: Callable[[bytes], object]) -> None:
        try:
            feed(stream)
        except ProtocolError:
            return

    feed(Reader().feed)


@given(st.lists(TEXTS, min_size=1))
def test_command_is_a_list_of_texts(parts: list[bytes]) -> None:
    assert [parts] == Reader().feed(command(*parts))
