"""Spans of calls that are over: which there are, how they hang together, what they say."""

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from qwenbox.telemetry.traces import Traces, hops
from qwenbox.telemetry.watch import Ended
from qwenbox.terms.timeline import Timeline
from unit.telemetry.test_metrics import Row

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def timeline(**changed: object) -> Timeline:
    marks = ("begun_s", "looked_s", "entered_s", "counted_s", "admitted_s", "queued_s", "turn_s", "first_s", "committing_s", "committed_s")
    moments = {name: 100.0 + place for place, name in enumerate(marks)}
    return Timeline(**{"id": "r-1", "dialect": "openai", "operation": "chat", "model": "qwen-plus", "attempts": 1, **moments, **changed})


def spans(told: Timeline, status: int = 200, outcome: str = "completed", traceparent: str = "") -> list[ReadableSpan]:
    exporter = InMemorySpanExporter()
    traces = Traces(SimpleSpanProcessor(exporter), "box")
    traces.ended(Ended(timeline=told, status=status, outcome=outcome, model=told.model, ended_s=111.0, traceparent=traceparent))
    traces.close()
    return list(exporter.get_finished_spans())


def test_call_has_a_span_and_a_child_for_each_hop() -> None:
    *children, call = spans(timeline(record=Row(cached_tokens=4)))
    assert "chat qwen-plus" == call.name
    assert ["cache", "count", "admission", "queue", "first token", "stream", "commit"] == [child.name for child in children]
    assert {call.context.span_id} == {child.parent.span_id for child in children}
    assert {call.context.trace_id} == {child.context.trace_id for child in children}
    assert [1.0] * 7 == [pytest.approx((child.end_time - child.start_time) / 1e9) for child in children]
    assert 11.0 == pytest.approx((call.end_time - call.start_time) / 1e9)
    told = {name: call.attributes[name] for name in call.attributes if name.startswith("gen_ai")}
    assert {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "qwenbox",
        "gen_ai.request.model": "qwen-plus",
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.response.finish_reasons": ("stop",),
    } == told


def test_callers_trace_is_continued() -> None:
    call = spans(timeline(), traceparent=f"00-{TRACE}-{PARENT}-01")[-1]
    assert (TRACE, PARENT) == (f"{call.context.trace_id:032x}", f"{call.parent.span_id:016x}")


def test_caller_who_samples_nothing_gets_nothing() -> None:
    assert [] == spans(timeline(), traceparent=f"00-{TRACE}-{PARENT}-00")


@pytest.mark.parametrize("traceparent", ["nonsense", "00-0-0-01", f"00-{'0' * 32}-{PARENT}-01", "\xff" * 99])
def test_bad_traceparent_begins_a_trace_of_its_own(traceparent: str) -> None:
    call = spans(timeline(), traceparent=traceparent)[-1]
    assert call.parent is None


def test_hop_that_was_cut_short_ends_with_its_call() -> None:
    waiting = timeline(turn_s=0.0, first_s=0.0, committing_s=0.0, committed_s=0.0)
    assert ("queue", 105.0, 111.0) == list(hops(waiting, 111.0))[-1]


def test_refused_call_says_why_and_has_no_engine_in_it() -> None:
    refused = Timeline(dialect="openai", operation="chat", begun_s=100.0, error="rate_limited")
    (call,) = spans(refused, status=429, outcome="refused")
    assert ("rate_limited", 429) == (call.attributes["error.type"], call.attributes["http.response.status_code"])
