"""Headers that ask something of the box itself."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenbox.server.wishes import wishes
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.wishes import NO_WISHES, CacheWish, Patience


def test_no_header_is_no_wish() -> None:
    assert wishes({"content-type": "application/json"}) is NO_WISHES


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("no-cache", CacheWish(may_read=False)),
        ("no-store", CacheWish(may_read=False, may_store=False)),
        ("Max-Age=60", CacheWish(max_age_s=60)),
        ('max-age="0", only-if-cached', CacheWish(max_age_s=0, only_if_cached=True)),
        ("max-age=soon, private", CacheWish()),
        ("", CacheWish()),
    ],
)
def test_cache_control_is_read_as_the_rfc_has_it(value: str, expected: CacheWish) -> None:
    assert wishes({"cache-control": value}).cache == expected


def test_timeouts_are_read_by_their_names() -> None:
    found = wishes({"x-qwenbox-timeout": "connect=1, first-token=2.5s,between_tokens=3 , total=60"}).patience
    assert found == Patience(connect_s=1, first_token_s=2.5, between_tokens_s=3, total_s=60)


@pytest.mark.parametrize("value", ["5", "total", "total=", "total=0", "total=-1", "total=nan", "total=inf", "whole=3", "total=1e999"])
def test_timeout_that_makes_no_sense_is_refused(value: str) -> None:
    with pytest.raises(ApiError) as caught:
        wishes({"x-qwenbox-timeout": value})
    assert caught.value.kind is ErrorKind.INVALID_REQUEST
    assert caught.value.param == "x-qwenbox-timeout"


def test_show_and_provoke_are_read() -> None:
    found = wishes({"x-qwenbox-show": "Deployment", "x-qwenbox-provoke": " arrearage "})
    assert found.shows_deployment
    assert found.provoke == "arrearage"


@given(cache=st.text(max_size=60), timeout=st.text(max_size=60), show=st.text(max_size=20))
def test_any_header_is_a_wish_or_a_clear_refusal(cache: str, timeout: str, show: str) -> None:
    try:
        found = wishes({"cache-control": cache, "x-qwenbox-timeout": timeout, "x-qwenbox-show": show})
    except ApiError as error:
        assert error.kind is ErrorKind.INVALID_REQUEST
    else:
        assert all(value is None or (value > 0 and math.isfinite(value)) for value in (found.patience.total_s, found.patience.connect_s))
