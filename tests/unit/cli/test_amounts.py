"""Amounts, times and spans as people write them."""

from datetime import UTC, datetime

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from qwenbox.cli import amounts

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "micros"),
    [("12.50", 12_500_000), ("0.000001", 1), ("-3", -3_000_000), ("1_000", 1_000_000_000), ("1e2", 100_000_000), (".5", 500_000)],
)
def test_micros_are_exact(text: str, micros: int) -> None:
    assert micros == amounts.micros(text)


@pytest.mark.parametrize("text", ["", "x", "1.0000001", "nan", "inf", "1,5", "1e99", f"1.{'0' * 40}1"])
def test_micros_refuse_what_is_no_amount(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        amounts.micros(text)


@given(st.integers(-(10**15), 10**15))
def test_units_are_read_back_as_the_same_amount(micros: int) -> None:
    assert micros == amounts.micros(amounts.units(micros).replace(",", ""))


@pytest.mark.parametrize(("micros", "text"), [(0, "0.00"), (1, "0.000001"), (12_500_000, "12.50"), (-1_234_567_890_000, "-1,234,567.89")])
def test_units_have_as_many_decimals_as_they_need(micros: int, text: str) -> None:
    assert text == amounts.units(micros)


@pytest.mark.parametrize(("text", "seconds"), [("60s", 60), ("60", 60), ("1.5h", 5_400), ("31d", 2_678_400), ("2w", 1_209_600)])
def test_spans_are_seconds(text: str, seconds: float) -> None:
    assert seconds == amounts.seconds(text)


@pytest.mark.parametrize("text", ["", "s", "-1s", "1y", "٣s"])
def test_spans_refuse_what_is_none(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        amounts.seconds(text)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1d", datetime(2026, 11, 24, 12, tzinfo=UTC)),
        ("2026-12-31", datetime(2026, 12, 31, tzinfo=UTC)),
        ("2026-12-31T18:00+08:00", datetime(2026, 12, 31, 10, tzinfo=UTC)),
    ],
)
def test_moment_is_a_span_from_now_or_a_date(text: str, at: datetime) -> None:
    assert at.timestamp() == amounts.moment(text, NOW)


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-13-01", "99999999999w"])
def test_moment_refuses_what_is_none(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        amounts.moment(text, NOW)


@pytest.mark.parametrize(("text", "number"), [("60", 60), ("100k", 100_000), ("1M", 1_000_000), ("1_000", 1_000)])
def test_numbers_may_be_short(text: str, number: int) -> None:
    assert number == amounts.number(text)


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5k", "1G", "k"])
def test_numbers_refuse_what_is_none_above_0(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        amounts.number(text)


def test_moment_is_shown_in_the_time_zone() -> None:
    assert "2026-11-23 20:00" == amounts.shown(NOW.timestamp(), "Asia/Shanghai")
