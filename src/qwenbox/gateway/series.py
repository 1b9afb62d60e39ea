"""This is where calls are added up over time, step by step, for plots: counts, tokens, cost, and how quick answers were.

Percentiles: each time is rounded to a 20th of a power of four before it is counted, which moves it by at most 2.5 %; the percentile is
then exact. So the database counts some dozens of values a step, and no single call leaves it.
"""

import math
from typing import cast

import msgspec
from sqlalchemy import BigInteger, ColumnElement, Executable, Float, Label, Text, TextClause, func, literal_column, select, text

from qwenbox.db import Database

MOST_STEPS = 1_000

# What one answer reads at most: on SQLite a third of a second of one thread that holds neither the interpreter nor the writer.
MOST_CALLS = 100_000

_TTFT, _DURATION = 0, 1
_POWERS = tuple(4.0**power for power in range(-7, 9))

# A cast rounds on PostgreSQL and cuts on SQLite.
_CAST = "CAST((admitted_at - :since) / :step AS BIGINT)"
_STEP = f"{_CAST} - CASE WHEN {_CAST} > (admitted_at - :since) / :step THEN 1 ELSE 0 END"

_COUNTS = {
    "calls": "COUNT(*)",
    "hung_up": "SUM(CASE WHEN outcome = 'hung_up' THEN 1 ELSE 0 END)",
    "failed": "SUM(CASE WHEN outcome = 'failed' THEN 1 ELSE 0 END)",
    "cache_hits": "SUM(CASE WHEN is_cache_hit THEN 1 ELSE 0 END)",
    "input_tokens": "SUM(input_tokens)",
    "cached_tokens": "SUM(COALESCE(cached_tokens, 0))",
    "output_tokens": "SUM(output_tokens)",
    "cost_micros": "SUM(cost_micros)",
    "later_tokens": "SUM(CASE WHEN output_tokens > 1 AND ttft_s IS NOT NULL THEN output_tokens - 1 ELSE 0 END)",
}
_TIMES = {
    "duration_s": "SUM(duration_s)",
    "ttft_s": "SUM(COALESCE(ttft_s, 0))",
    "later_s": "SUM(CASE WHEN output_tokens > 1 AND ttft_s IS NOT NULL THEN duration_s - ttft_s ELSE 0 END)",
}
_SUMS = {**_COUNTS, **_TIMES}


class SeriesAsked(msgspec.Struct, frozen=True, kw_only=True):
    """since <= admitted < until, seconds since the epoch; step_s: > 0. account_id, key_id, model: only such calls; None: all."""

    since: float
    until: float
    step_s: float
    account_id: str | None = None
    key_id: str | None = None
    model: str | None = None


class Quantiles(msgspec.Struct, frozen=True, kw_only=True):
    """Of times, seconds; mean is exact, p50 and p95 to 2.5 %."""

    mean: float
    p50: float
    p95: float


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Calls admitted from `at` on, until the next step. errors: how many failed, by kind. ttft: None if nothing was ever said.

    tpot_s: mean time of an output token after the first; None if there was none.
    """

    at: float
    calls: int = 0
    hung_up: int = 0
    failed: int = 0
    cache_hits: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_micros: int = 0
    errors: dict[str, int] = {}
    ttft: Quantiles | None = None
    duration: Quantiles | None = None
    tpot_s: float | None = None


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """steps: every one of the span, oldest first, empty ones too. total: of them all.

    since: as asked, or later where more than MOST_CALLS were made since; is_whole is False then. now: whether the last step still grows.
    """

    since: float
    is_whole: bool
    steps: tuple[Step, ...]
    total: Step


class SeriesReader:
    """Only reads; of calls as retention has left them. What was refused before it was admitted has no row and is not here."""

    def __init__(self, database: Database, most_calls: int = MOST_CALLS) -> None:
        self._database = database
        self._most_calls = most_calls

    async def read(self, asked: SeriesAsked) -> Series:
        """At most MOST_STEPS steps; the caller has seen to it."""
        count = max(1, math.ceil(round((asked.until - asked.since) / asked.step_s, 6)))
        first = await self._first(asked)
        rows = await self._database.read(statement(asked, asked.since + first * asked.step_s))
        sums = [_Sum() for _ in range(count)]
        for row in rows:
            sums[int(cast("int", row["step"]))].add(row)
        if any(one.values["failed"] for one in sums):
            for row in await self._database.read(_errors(asked, asked.since + first * asked.step_s)):
                sums[int(cast("int", row["step"]))].errors[str(row["kind"])] = int(cast("int", row["calls"]))
        total = _Sum()
        for one in sums:
            total.merge(one)
        since = asked.since + first * asked.step_s
        steps = tuple(one.step(asked.since + number * asked.step_s) for number, one in enumerate(sums) if number >= first)
        return Series(since=since, is_whole=first == 0, steps=steps, total=total.step(since))

    async def _first(self, asked: SeriesAsked) -> int:
        """The number of the first step that is read whole."""
        rows = await self._database.read(_BOUNDARY.bindparams(since=asked.since, until=asked.until, most=self._most_calls))
        if not rows:
            return 0
        return math.floor((float(cast("float", rows[0]["admitted_at"])) - asked.since) / asked.step_s) + 1


class _Sum:
    """What is known of a step, in numbers that can be added."""

    def __init__(self) -> None:
        self.values: dict[str, float] = dict.fromkeys(_SUMS, 0)
        self.errors: dict[str, int] = {}
        self.times: tuple[dict[float, int], dict[float, int]] = ({}, {})

    def add(self, row: dict[str, object]) -> None:
        times = self.times[int(cast("int", row["what"]))]
        for pair in str(row["times"] or "").split():
            value, _, number = pair.partition("=")
            times[float(value)] = times.get(float(value), 0) + int(number)
        if row["what"] == _TTFT:
            self.values = {name: float(cast("float", row[name])) if name in _TIMES else int(cast("int", row[name])) for name in _SUMS}

    def merge(self, other: "_Sum") -> None:
        for name, value in other.values.items():
            self.values[name] += value
        for kind, number in other.errors.items():
            self.errors[kind] = self.errors.get(kind, 0) + number
        for mine, theirs in zip(self.times, other.times, strict=True):
            for value, number in theirs.items():
                mine[value] = mine.get(value, 0) + number

    def step(self, at: float) -> Step:
        values = self.values
        return Step(
            at=at,
            **{name: int(values[name]) for name in _COUNTS if name != "later_tokens"},
            errors=dict(sorted(self.errors.items())),
            ttft=_quantiles(self.times[_TTFT], values["ttft_s"]),
            duration=_quantiles(self.times[_DURATION], values["duration_s"]),
            tpot_s=values["later_s"] / values["later_tokens"] if values["later_tokens"] else None,
        )


def _quantiles(times: dict[float, int], sum_s: float) -> Quantiles | None:
    count = sum(times.values())
    if not count:
        return None
    ordered = sorted(times.items())
    return Quantiles(mean=sum_s / count, p50=_at(ordered, count * 0.5), p95=_at(ordered, count * 0.95))


def _at(ordered: list[tuple[float, int]], rank: float) -> float:
    """The smallest value that so many are not above."""
    seen = 0
    for value, number in ordered:
        seen += number
        if seen >= rank:
            return value
    return ordered[-1][0]


def _rounded(name: str) -> str:
    widths = " ".join(f"WHEN {name} < {top!r} THEN {top / 80!r}" for top in _POWERS)
    width = f"(CASE {widths} ELSE {_POWERS[-1] / 20!r} END)"
    return f"ROUND({name} / {width}) * {width}"


_BOUNDARY = text("""
SELECT admitted_at FROM usage WHERE admitted_at >= :since AND admitted_at < :until ORDER BY admitted_at DESC LIMIT 1 OFFSET :most
""")


def _where(asked: SeriesAsked) -> str:
    filters = (name for name in ("account_id", "key_id", "model") if getattr(asked, name) is not None)
    return " AND ".join(("admitted_at >= :first", "admitted_at < :until", *(f"{name} = :{name}" for name in filters)))


def _counted(what: int, time: str, sums: str, where: str) -> str:
    return (
        f"SELECT {what} AS what, {_STEP} AS step, {_rounded(time)} AS value, COUNT(*) AS number, {sums} "  # noqa: S608 (all ours)
        f"FROM usage WHERE {where} GROUP BY 2, 3"
    )


def statement(asked: SeriesAsked, first: float) -> Executable:
    """One row for each kind of time and step that has calls. first: the first moment that is read."""
    where = _where(asked)
    sums = ", ".join(f"{sql} AS {name}" for name, sql in _SUMS.items())
    none = ", ".join(f"0 AS {name}" for name in _SUMS)
    joined = _joined("CAST(value AS TEXT) || '=' || CAST(number AS TEXT)")
    inner = f"{_counted(_TTFT, 'ttft_s', sums, where)} UNION ALL {_counted(_DURATION, 'duration_s', none, where)}"
    totals = [_total(name) for name in _SUMS]
    what, step = literal_column("what", BigInteger), literal_column("step", BigInteger)
    counted = select(what, step, joined.label("times"), *totals).select_from(text(f"({inner}) AS counted"))
    return counted.group_by(what, step).params(**_values(asked, first))


def _joined(texts: str) -> ColumnElement[str]:
    """All of a group with blanks between, as each database calls it: group_concat or string_agg."""
    return func.aggregate_strings(literal_column(texts, Text), " ")


def _total(name: str) -> Label[int] | Label[float]:
    if name in _COUNTS:
        return literal_column(f"CAST(SUM({name}) AS BIGINT)", BigInteger).label(name)
    return literal_column(f"CAST(SUM({name}) AS FLOAT)", Float).label(name)


def _errors(asked: SeriesAsked, first: float) -> TextClause:
    statement = text(
        f"SELECT {_STEP} AS step, COALESCE(error_kind, 'internal') AS kind, COUNT(*) AS calls "  # noqa: S608 (all ours)
        f"FROM usage WHERE {_where(asked)} AND outcome = 'failed' GROUP BY 1, 2"
    )
    return statement.bindparams(**_values(asked, first))


def _values(asked: SeriesAsked, first: float) -> dict[str, object]:
    values: dict[str, object] = {"since": asked.since, "step": asked.step_s, "first": first, "until": asked.until}
    return values | {name: value for name in ("account_id", "key_id", "model") if (value := getattr(asked, name)) is not None}
