"""Data URLs become bytes, or are refused with the service's text."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenbox.media import inline, refusals
from qwenbox.terms.errors import ApiError

MIB = 1024 * 1024


@given(st.binary(max_size=200), st.sampled_from(["image/png", "", "image/svg+xml", 'image/png;charset="utf-8"']))
def test_bytes_come_back_whatever_type_is_named(data: bytes, named: str) -> None:
    assert inline.read(f"data:{named};base64,{base64.b64encode(data).decode()}", MIB) == data


def test_bytes_come_back_when_the_text_is_broken_into_lines_or_its_padding_escaped() -> None:
    text = base64.encodebytes(b"x" * 100).decode()

    assert inline.read(f"DATA:image/png;BASE64,{text}", MIB) == b"x" * 100
    assert inline.read("data:image/png;base64,eA%3D%3D", MIB) == b"x"


@pytest.mark.parametrize(
    "url",
    [
        "data:",
        "data:,",
        "data:image/png,abc",
        "data:image/png;base64",
        "data:image/png;base64,a",
        "data:image/png;base64,ab$=",
        "data:image/png;base64,äöü=",
        "data:image/png;base64,\ud800",
        "data:image/png;base64;base64,",
        f"data:{'a' * 300};base64,eA==",
    ],
)
def test_url_is_refused_when_it_holds_no_base64(url: str) -> None:
    with pytest.raises(ApiError) as refused:
        inline.read(url, MIB)

    assert refused.value.message == refusals.WRONG_URL


def test_url_is_refused_with_the_limit_when_its_text_is_longer() -> None:
    head = "data:image/png;base64,"
    most = 10 * MIB
    assert len(inline.read(head + "A" * ((most - len(head)) // 4 * 4), most)) > 7 * MIB

    with pytest.raises(ApiError) as refused:
        inline.read(head + "A" * most, most)

    assert refused.value.message == "Exceeded limit on max bytes per data-uri item : 10485760'."


@given(st.text(max_size=80))
def test_url_is_read_or_refused_whatever_it_is(text: str) -> None:
    for url in (text, f"data:{text}", f"data:image/png;base64,{text}"):
        try:
            inline.read(url, MIB)
        except ApiError as error:
            assert error.message == refusals.WRONG_URL
