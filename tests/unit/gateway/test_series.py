"""Calls over time: every step adds up to its calls, percentiles are as near as promised, and one answer reads a bounded number of rows."""

import math
import random

import msgspec
import pytest
from sqlalchemy import Select, insert, text
from sqlalchemy.dialects.sqlite import dialect

from qwenbox.db import Database
from qwenbox.gateway.journal.tables import USAGE
from qwenbox.gateway.series import Quantiles, SeriesAsked, SeriesReader, statement

pytestmark = pytest.mark.anyio

START = 1_774_828_800.0
STEP_S = 60.0
CALLS = 400

Row = dict[str, object]


def rows() -> list[Row]:
    """400 calls over ten minutes, of two models and three keys; times from 0.2 ms to some minutes; every fifth said nothing."""
    draw = random.Random(7)
    made: list[Row] = []
    for number in range(CALLS):
        failed = number % 10 == 3
        made.append(
            {
                "id": f"call-{number:04}",
                "account_id": f"acc-{number % 2}",
                "key_id": f"key-{number % 3}",
                "model": "qwen-plus" if number % 4 else "qwen-max",
                "deployment": "large",
                "dialect": "openai",
                "lane": "interactive",
                "day": "2026-03-30",
                "arrived_at": START + number * 1.5,
                "admitted_at": START + number * 1.5,
                "ttft_s": None if number % 5 == 0 else 2.0 ** draw.uniform(-12, 5),
                "duration_s": 2.0 ** draw.uniform(5, 8),
                "input_tokens": number,
                "cached_tokens": None if number % 2 else 1,
                "output_tokens": number % 7,
                "reasoning_tokens": None,
                "is_counted": False,
                "is_cache_hit": number % 8 == 0,
                "outcome": "failed" if failed else "hung_up" if number % 9 == 0 else "completed",
                "finish_reason": None,
                "error_kind": ("timeout" if number % 20 == 3 else "engine_failed") if failed else None,
                "cost_micros": 3 * number,
                "currency": "CNY",
                "price_version": "",
                "notes": "{}",
            }
        )
    return made


@pytest.fixture
async def series(database: Database) -> SeriesReader:
    await database.write(insert(USAGE).values(rows()))
    return SeriesReader(database)


def asked(**changes: object) -> SeriesAsked:
    return msgspec.structs.replace(SeriesAsked(since=START, until=START + 600, step_s=STEP_S), **changes)


def number(one: Row, name: str) -> float:
    value = one[name]
    return 0.0 if value is None else float(str(value))


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[math.ceil(share * len(values)) - 1]


def check(found: Quantiles | None, values: list[float]) -> None:
    assert found is not None
    assert pytest.approx(sum(values) / len(values)) == found.mean
    assert pytest.approx(percentile(values, 0.5), rel=0.025) == found.p50
    assert pytest.approx(percentile(values, 0.95), rel=0.025) == found.p95


async def test_steps_add_up_to_their_calls(series: SeriesReader) -> None:
    found = await series.read(asked())
    assert [START + STEP_S * step for step in range(10)] == [step.at for step in found.steps]
    assert found.is_whole
    for step in found.steps:
        mine = [one for one in rows() if step.at <= number(one, "admitted_at") < step.at + STEP_S]
        assert len(mine) == step.calls == 40
        for name in ("input_tokens", "output_tokens", "cached_tokens", "cost_micros"):
            assert sum(number(one, name) for one in mine) == getattr(step, name)
        assert sum(one["is_cache_hit"] is True for one in mine) == step.cache_hits
        assert (sum(one["outcome"] == "failed" for one in mine), sum(one["outcome"] == "hung_up" for one in mine)) == (
            step.failed,
            step.hung_up,
        )
        kinds = [str(one["error_kind"]) for one in mine if one["outcome"] == "failed"]
        assert {kind: kinds.count(kind) for kind in kinds} == step.errors != {}


async def test_percentiles_are_as_near_as_promised(series: SeriesReader) -> None:
    found = await series.read(asked())
    for step in (*found.steps, found.total):
        mine = rows() if step is found.total else [one for one in rows() if step.at <= number(one, "admitted_at") < step.at + STEP_S]
        check(step.ttft, [number(one, "ttft_s") for one in mine if one["ttft_s"] is not None])
        check(step.duration, [number(one, "duration_s") for one in mine])
        later = [one for one in mine if one["ttft_s"] is not None and number(one, "output_tokens") > 1]
        spent = sum(number(one, "duration_s") - number(one, "ttft_s") for one in later)
        assert pytest.approx(spent / sum(number(one, "output_tokens") - 1 for one in later)) == step.tpot_s


async def test_the_total_is_the_sum_of_the_steps(series: SeriesReader) -> None:
    found = await series.read(asked())
    assert CALLS == found.total.calls == sum(step.calls for step in found.steps)
    assert sum(step.cost_micros for step in found.steps) == found.total.cost_micros
    assert {"engine_failed": 20, "timeout": 20} == found.total.errors


@pytest.mark.parametrize("name", ["account_id", "key_id", "model"])
async def test_a_filter_leaves_only_its_calls(series: SeriesReader, name: str) -> None:
    value = str(rows()[4][name])
    found = await series.read(asked(**{name: value}))
    assert sum(one[name] == value for one in rows()) == found.total.calls < CALLS
    assert 0 == (await series.read(asked(**{name: "x' OR 1=1"}))).total.calls


async def test_a_step_without_calls_is_there_and_empty(series: SeriesReader) -> None:
    found = await series.read(asked(since=START - 120, until=START + 61))
    assert [0, 0, 40, 1] == [step.calls for step in found.steps]
    assert (None, None, None) == (found.steps[0].ttft, found.steps[0].duration, found.steps[0].tpot_s)


async def test_steps_begin_where_they_say_when_calls_lie_on_their_edges(series: SeriesReader) -> None:
    found = await series.read(asked(step_s=1.5, until=START + 15))
    assert [1] * 10 == [step.calls for step in found.steps]
    # The half-way points, where a database that rounds would go wrong.
    found = await series.read(asked(step_s=3.0, until=START + 15))
    assert [2] * 5 == [step.calls for step in found.steps]


async def test_what_is_too_much_begins_later_and_says_so(series: SeriesReader, database: Database) -> None:
    found = await SeriesReader(database, most_calls=100).read(asked())
    assert not found.is_whole
    assert START + 8 * STEP_S == found.since == found.steps[0].at
    assert (2, 80) == (len(found.steps), found.total.calls)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_only_the_span_is_read_by_its_index(series: SeriesReader, database: Database) -> None:
    wanted = statement(asked(model="qwen-plus"), START)
    assert isinstance(wanted, Select)
    written = str(wanted.compile(dialect=dialect(paramstyle="named"))).replace("__[POSTCOMPILE_aggregate_strings_1]", "' '")
    values = {"since": START, "step": STEP_S, "first": START, "until": START + 600, "model": "qwen-plus"}
    plan = await database.read(text(f"EXPLAIN QUERY PLAN {written}").bindparams(**values))
    reads = [str(row["detail"]) for row in plan if "usage" in str(row["detail"])]
    assert ["SEARCH usage USING INDEX usage_by_time (admitted_at>? AND admitted_at<?)"] * 2 == reads
