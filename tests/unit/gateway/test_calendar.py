"""Days and months of an account turn at its own midnight."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenbox.gateway.calendar import day, month, month_span


def at(text: str, zone: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai", "Asia/Kathmandu", "America/New_York", "Australia/Lord_Howe"])
def test_day_turns_at_the_zones_midnight(zone: str) -> None:
    assert "2026-03-31" == day(zone, at("2026-03-31T23:59:59", zone))
    assert "2026-04-01" == day(zone, at("2026-04-01T00:00:00", zone))
    assert "2026-04" == month(zone, at("2026-04-01T00:00:00", zone))


def test_month_span_is_an_hour_short_when_clocks_go_forward() -> None:
    span = month_span("Europe/Berlin", at("2026-03-15T12:00:00", "Europe/Berlin"))
    assert at("2026-03-01T00:00:00", "Europe/Berlin") == span.start_at
    assert 31 * 86_400 - 3_600 == span.end_at - span.start_at


@given(st.floats(0, 4e9), st.sampled_from(["UTC", "Asia/Shanghai", "America/Sao_Paulo"]))
def test_month_span_holds_its_moment(moment: float, zone: str) -> None:
    span = month_span(zone, moment)
    assert span.start_at <= moment < span.end_at
    assert month(zone, span.start_at) == month(zone, moment) != month(zone, span.end_at)
