"""What calls do to the numbers, and what may become a label."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from qwenbox.telemetry import names
from qwenbox.telemetry.exposition import page
from qwenbox.telemetry.metrics import Metrics
from qwenbox.telemetry.names import FAMILIES, GAUGE
from qwenbox.telemetry.snapshot import Sample, Snapshot, Spread, add, lasting, pack, unpack
from qwenbox.terms.timeline import Timeline

DOCS = Path(__file__).parents[3] / "docs"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the books, as far as observers see it."""

    model: str = "qwen-plus"
    deployment: str = "small"
    lane: str = "interactive"
    ttft_s: float | None = 0.5
    duration_s: float = 2.5
    input_tokens: int = 10
    cached_tokens: int | None = None
    output_tokens: int = 5
    reasoning_tokens: int | None = 3
    image_tokens: int | None = None
    is_cache_hit: bool = False
    outcome: str = "completed"
    finish_reason: str | None = "stop"
    error_kind: str | None = None
    cost_micros: int = 1_500_000
    currency: str = "CNY"


def metrics() -> Metrics:
    return Metrics("box", frozenset({"qwen-plus", "*"}), frozenset({"small"}))


def value(of: Metrics, name: str, *labels: str) -> float:
    return next((one.value for one in of.snapshot().samples if (one.name, one.labels) == (name, labels)), 0.0)


def spread(of: Metrics, name: str) -> Spread | None:
    return next((one for one in of.snapshot().spreads if one.name == name), None)


def test_call_is_counted_with_its_tokens_times_and_money() -> None:
    counted = metrics()
    counted.call_ended(Row(), Timeline(model="qwen-plus", queued_s=1.0, turn_s=1.25))
    labels = ("qwen-plus", "small", "interactive")
    assert 1 == value(counted, "qwenbox_calls_total", *labels, "completed")
    tokens = {kind: value(counted, "qwenbox_tokens_total", *labels, kind) for kind in ("input", "cached", "output", "reasoning", "image")}
    assert {"input": 10, "cached": 0, "output": 5, "reasoning": 3, "image": 0} == tokens
    assert 1.5 == value(counted, "qwenbox_money_settled_total", "qwen-plus", "CNY")
    sums = {name: found.sum_s for name in FAMILIES if (found := spread(counted, name)) is not None}
    assert {names.TTFT.name: 0.5, names.TPOT.name: 0.5, names.DURATION.name: 2.5, names.QUEUE.name: 0.25} == sums


def test_hit_of_the_cache_has_no_tokens_and_no_times() -> None:
    counted = metrics()
    counted.call_ended(Row(is_cache_hit=True, cost_micros=0), Timeline(model="qwen-plus", cache="hit"))
    assert 1 == value(counted, "qwenbox_calls_total", "qwen-plus", "small", "interactive", "completed")
    assert () == counted.snapshot().spreads
    assert not [one for one in counted.snapshot().samples if one.name == names.TOKENS.name]


def test_names_from_outside_never_become_labels() -> None:
    counted = metrics()
    for number in range(100):
        counted.call_ended(Row(model=f"made-up-{number}", deployment=f"gone-{number}"), Timeline(model=f"made-up-{number}"))
        counted.answered(Timeline(dialect="openai", operation="chat", model=f"made-up-{number}"), 404, "refused")
    text = page(counted.snapshot(), "")[1].decode()
    assert "made-up" not in text and "gone-" not in text
    assert 100 == value(counted, "qwenbox_calls_total", "other", "other", "interactive", "completed")


@pytest.mark.parametrize(("kind", "limit"), [("rate_limited", "requests"), ("quota_exhausted", "tokens"), ("out_of_funds", "money")])
def test_refusal_is_counted_by_its_limit(kind: str, limit: str) -> None:
    counted = metrics()
    counted.answered(Timeline(dialect="openai", operation="chat", model="qwen-plus", error=kind), 429, "refused")
    assert 1 == value(counted, "qwenbox_limit_refusals_total", limit)
    assert 1 == value(counted, "qwenbox_errors_total", "openai", kind)


def test_upstreams_refusal_is_no_limit_of_ours() -> None:
    counted = metrics()
    row = Row(outcome="failed", error_kind="rate_limited", ttft_s=None, cost_micros=0)
    counted.answered(Timeline(dialect="openai", operation="chat", error="rate_limited", record=row), 429, "failed")
    assert 0 == value(counted, "qwenbox_limit_refusals_total", "requests")
    assert 1 == value(counted, "qwenbox_errors_total", "openai", "rate_limited")


@given(some.lists(some.floats(0, 1_000), max_size=30))
def test_buckets_hold_every_value_once(values: list[float]) -> None:
    counted = metrics()
    for duration_s in values:
        counted.call_ended(Row(duration_s=duration_s, ttft_s=None), Timeline(model="qwen-plus"))
    found = spread(counted, names.DURATION.name)
    assert len(values) == (sum(found.counts) if found else 0)
    for place, bound in enumerate(names.DURATION_S):
        expected = sum(value <= bound for value in values)
        assert expected == (sum(found.counts[: place + 1]) if found else 0)


@given(some.lists(some.tuples(some.sampled_from(["a", "b"]), some.integers(0, 9), some.lists(some.integers(0, 9), min_size=3, max_size=3))))
def test_sum_of_processes_is_as_if_one_had_counted_all(told: list[tuple[str, int, list[int]]]) -> None:
    snapshots = [
        unpack(pack(Snapshot((Sample("n", (label,), float(count)),), (Spread("h", (label,), tuple(counts), 1.0),))))
        for label, count, counts in told
    ]
    whole = add(snapshots)
    for label in {label for label, _, _ in told}:
        assert [sum(count for known, count, _ in told if known == label)] == [s.value for s in whole.samples if s.labels == (label,)]
        columns = zip(*(counts for known, _, counts in told if known == label), strict=True)
        assert [tuple(map(sum, columns))] == [s.counts for s in whole.spreads if s.labels == (label,)]


def test_what_stays_of_a_dead_process_are_its_counters() -> None:
    gauges = frozenset(family.name for family in FAMILIES.values() if family.kind == GAUGE)
    counted = metrics()
    counted.call_ended(Row(), Timeline(model="qwen-plus"))
    left = lasting(counted.snapshot(), gauges)
    assert names.CALLS.name in {one.name for one in left.samples}
    assert not gauges & {one.name for one in left.samples}
    assert counted.snapshot().spreads == left.spreads


@pytest.mark.parametrize("accept", ["", "text/plain", "application/openmetrics-text; version=1.0.0"])
def test_page_is_read_by_the_librarys_own_parser(accept: str) -> None:
    counted = metrics()
    counted.call_ended(Row(), Timeline(model="qwen-plus", queued_s=1.0, turn_s=1.25))
    media_type, text = page(counted.snapshot(), accept)
    parse = open_metrics if "openmetrics" in media_type else prometheus
    assert ("openmetrics" in media_type) == ("openmetrics" in accept)
    found = {sample.name: sample.value for family in parse(text.decode()) for sample in family.samples}
    assert 1 == found["qwenbox_calls_total"]
    assert 2.5 == found["qwenbox_call_duration_seconds_sum"]


@pytest.mark.parametrize("name", ["metrics.md", "metrics.zh-CN.md"])
def test_page_of_the_docs_lists_every_metric_and_no_other(name: str) -> None:
    rows = [line.split("|") for line in (DOCS / name).read_text("utf-8").splitlines() if line.startswith("| `qwenbox_")]
    told = {row[1].strip(" `"): (row[2].strip(), tuple(label.strip(" `") for label in row[3].split(",") if label.strip())) for row in rows}
    assert {family.name: (family.kind, family.labels) for family in FAMILIES.values()} == told
    assert all(row[4].strip() for row in rows)
    if name == "metrics.md":
        assert {family.name: family.meaning for family in FAMILIES.values()} == {row[1].strip(" `"): row[4].strip() for row in rows}


def test_names_follow_the_fields_rules() -> None:
    for family in FAMILIES.values():
        assert family.name.startswith("qwenbox_") and family.meaning
        assert (family.kind == "counter") == family.name.endswith("_total"), family.name
        assert (family.kind == "histogram") == bool(family.buckets_s)
        assert list(family.buckets_s) == sorted(set(family.buckets_s))
