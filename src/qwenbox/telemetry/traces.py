"""This is where a call that is over becomes an OpenTelemetry trace: one span for it, a child span for each hop. Never its content.

Imported only by a box that traces: `pip install 'qwenbox[otel]'`. Spans are made after the call, from its Timeline, so a call that is
traced runs as one that is not.
"""

import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from qwenbox import __version__
from qwenbox.telemetry.watch import Ended
from qwenbox.terms.timeline import Timeline

_PATH = "/v1/traces"
_NANOS = 1_000_000_000

# The conventions' own words for what a call does; other verbs keep ours.
_OPERATIONS = {
    "chat": "chat",
    "chat_or_image": "chat",
    "create_response": "chat",
    "complete": "text_completion",
    "embed": "embeddings",
    "make_image": "generate_content",
}


class Traces:
    """Makes spans and hands them to an exporter of its own thread. process: the name of ours among the box's."""

    def __init__(self, processor: SpanProcessor, process: str) -> None:
        resource = Resource.create({"service.name": "qwenbox", "service.version": __version__, "service.instance.id": process})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("qwenbox", __version__)
        self._callers = TraceContextTextMapPropagator()

    def ended(self, ended: Ended) -> None:
        """A watcher's `Tracer`. Whether it is sampled follows its caller's wish, else OTEL_TRACES_SAMPLER."""
        timeline = ended.timeline
        # Moments are of the monotonic clock, a trace's are of the wall.
        offset_s = time.time() - time.monotonic()
        carrier = {"traceparent": ended.traceparent, "tracestate": ended.tracestate} if ended.traceparent else {}
        name = _OPERATIONS.get(timeline.operation, timeline.operation)
        span = self._tracer.start_span(
            f"{name} {ended.model}".rstrip(),
            context=self._callers.extract(carrier),
            kind=SpanKind.SERVER,
            start_time=_nanos(timeline.begun_s, offset_s),
            attributes=dict(_attributes(ended, name)),
        )
        if span.is_recording():
            self._hops(span, ended, offset_s)
            if ended.status >= 500 or ended.outcome == "failed":
                span.set_status(Status(StatusCode.ERROR))
        span.end(_nanos(ended.ended_s, offset_s))

    def _hops(self, parent: Span, ended: Ended, offset_s: float) -> None:
        from_parent = set_span_in_context(parent)
        for name, begun_s, over_s in hops(ended.timeline, ended.ended_s):
            child = self._tracer.start_span(name, context=from_parent, start_time=_nanos(begun_s, offset_s))
            child.end(_nanos(over_s, offset_s))

    def close(self) -> None:
        """Send what is left; blocks for some seconds if nobody takes it."""
        self._provider.shutdown()


def open_traces(endpoint: str, process: str) -> Traces:
    """endpoint: of a collector that speaks OTLP over HTTP, as OTEL_EXPORTER_OTLP_ENDPOINT has it; a path of its own is kept."""
    path = urlsplit(endpoint).path
    address = endpoint if path.strip("/") else endpoint.rstrip("/") + _PATH
    return Traces(BatchSpanProcessor(OTLPSpanExporter(endpoint=address)), process)


def hops(timeline: Timeline, ended_s: float) -> Iterator[tuple[str, float, float]]:
    """Name, begin and end of each hop that the call came to (STYLE 4.3). One that was cut short ends with the call."""
    marks = (
        ("cache", timeline.looked_s, timeline.entered_s),
        ("count", timeline.entered_s if timeline.counted_s else 0.0, timeline.counted_s),
        ("admission", timeline.counted_s, timeline.admitted_s),
        ("queue", timeline.queued_s, timeline.turn_s),
        ("first token", timeline.turn_s, timeline.first_s),
        ("stream", timeline.first_s, timeline.committing_s),
        ("commit", timeline.committing_s, timeline.committed_s),
    )
    for name, begun_s, over_s in marks:
        if begun_s:
            yield name, begun_s, over_s or ended_s


def _attributes(ended: Ended, operation: str) -> Iterator[tuple[str, AttributeValue]]:
    """Names of the conventions (gen_ai.*, http.*, error.type) where they have one, else qwenbox.*."""
    timeline, record = ended.timeline, ended.timeline.record
    yield "gen_ai.operation.name", operation
    yield "gen_ai.provider.name", "qwenbox"
    yield "qwenbox.request_id", timeline.id
    yield "qwenbox.dialect", timeline.dialect
    yield "qwenbox.outcome", ended.outcome
    yield "qwenbox.attempts", timeline.attempts
    if ended.status:
        yield "http.response.status_code", ended.status
    if ended.model:
        yield "gen_ai.request.model", ended.model
    if timeline.cache:
        yield "qwenbox.cache", timeline.cache
    error = timeline.error or (record.error_kind if record is not None else None)
    if error:
        yield "error.type", error
    if record is None:
        return
    yield "qwenbox.deployment", record.deployment
    yield "gen_ai.usage.input_tokens", record.input_tokens
    yield "gen_ai.usage.output_tokens", record.output_tokens
    if record.cached_tokens is not None:
        yield "gen_ai.usage.cache_read.input_tokens", record.cached_tokens
    if record.finish_reason:
        yield "gen_ai.response.finish_reasons", (record.finish_reason,)


def _nanos(moment_s: float, offset_s: float) -> int:
    return round((moment_s + offset_s) * _NANOS)
