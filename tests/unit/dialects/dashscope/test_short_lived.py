"""The native request for a short-lived key."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenbox.dialects.base import WireRequest
from qwenbox.dialects.dashscope import short_lived
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret


def asked(query: dict[str, str]) -> WireRequest:
    return WireRequest(id="r", method="POST", path="/api/v1/tokens", received_at=0.0, query=query)


@pytest.mark.parametrize(("text", "seconds"), [("1", 1), ("60", 60), ("1800", 1800)])
def test_parse_takes_seconds_when_they_are_in_range(text: str, seconds: int) -> None:
    assert seconds == short_lived.parse(asked({"expire_in_seconds": text}))


def test_parse_takes_a_minute_when_nothing_is_said() -> None:
    assert 60 == short_lived.parse(asked({}))


@given(st.text().filter(lambda text: not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 1800)))
def test_parse_refuses_whatever_is_no_number_in_range(text: str) -> None:
    with pytest.raises(ApiError) as refused:
        short_lived.parse(asked({"expire_in_seconds": text}))
    assert (ErrorKind.INVALID_REQUEST, "expire_in_seconds") == (refused.value.kind, refused.value.param)


def test_render_is_bare_and_never_cached() -> None:
    page = short_lived.render(Secret("st-abc"), 1744080369)
    assert {"token": "st-abc", "expires_at": 1744080369} == json.loads(page.body)
    assert "no-store" == page.head.headers["cache-control"]
