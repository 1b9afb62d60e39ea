"""Numbers as people read them."""

from datetime import timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as some

from qwenbox.console import figures


@pytest.mark.parametrize(
    ("value", "said"), [(0, "0"), (999, "999"), (12_345, "12,345"), (1_000_000, "1.00M"), (2_345_678_901, "2.35B"), (-3_000_000, "-3.00M")]
)
def test_counts_are_short_from_a_million_on(value: float, said: str):
    assert said == figures.count(value)


@pytest.mark.parametrize(
    ("micros", "currency", "said"),
    [
        (0, "CNY", "¥0.00"),
        (5_000_000, "CNY", "¥5.00"),
        (1, "CNY", "¥0.000001"),
        (9_999, "CNY", "¥0.009999"),
        (10_000, "CNY", "¥0.01"),
        (1_234_500, "USD", "$1.2345"),
        (1_234_567_891, "EUR", "€1,234.57"),
        (-2_348, "CNY", "-¥0.002348"),
        (1_500_000, "GBP", "GBP 1.50"),
    ],
)
def test_money_has_as_many_places_as_it_needs(micros: int, currency: str, said: str):
    assert said == figures.money(micros, currency)


@given(some.integers(-(10**15), 10**15))
def test_money_never_hides_an_amount(micros: int):
    said = figures.money(micros, "CNY").replace(",", "").replace("¥", "")
    assert (micros == 0) == (Decimal(said) == 0)
    assert abs(Decimal(said) * 1_000_000 - micros) <= max(5_000 if abs(micros) >= 100_000_000 else 50, abs(micros) * 1e-9)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "–"),
        (0.0042, "4.2 ms"),
        (0.25, "250 ms"),
        (1.239, "1.24 s"),
        (59.99, "59.99 s"),
        (125, "2 min 5 s"),
        (3_600, "1 h 0 min"),
        (90_061, "25 h 1 min"),
    ],
)
def test_durations_have_units(seconds: float | None, said: str):
    assert said == figures.duration(seconds)


@pytest.mark.parametrize(("size", "said"), [(0, "0 B"), (999, "999 B"), (1_000, "1.0 KB"), (367_897_780, "367.9 MB"), (5e15, "5000.0 TB")])
def test_sizes_have_units(size: float, said: str):
    assert said == figures.size(size)


def test_shares_are_told_of_something_only():
    assert ("25.0 %", "–") == (figures.share(1, 4), figures.share(1, 0))


@pytest.mark.parametrize(("seconds", "said"), [(0, "1 s"), (0.4, "1 s"), (1.6, "2 s"), (59.4, "59 s"), (125.4, "2 min 5 s")])
def test_waits_are_whole_seconds_and_never_none(seconds: float, said: str):
    assert said == figures.wait(seconds)


def test_moments_are_in_the_zone_that_is_asked():
    beijing = timezone(timedelta(hours=8))
    assert ("–", "2026-11-24 01:00:00") == (figures.moment(None), figures.moment(1_795_453_200.0, beijing))
