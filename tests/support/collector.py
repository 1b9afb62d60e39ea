"""This is where tests have a collector of traces: OTLP over HTTP, in a thread of its own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

# For anything at all, on a busy machine.
PATIENCE_S = 30.0


@dataclass
class Collector:
    """url: for OTEL_EXPORTER_OTLP_ENDPOINT. bodies: as they came."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    _came: threading.Condition = field(default_factory=threading.Condition)

    @property
    def spans(self) -> list[Span]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return [span for request in requests for group in request.resource_spans for scope in group.scope_spans for span in scope.spans]

    def until(self, name: str) -> list[Span]:
        """All spans of the trace of the span with that name, once that has come; hops come before their call."""
        with self._came:
            assert self._came.wait_for(lambda: any(span.name == name for span in self.spans), PATIENCE_S), [s.name for s in self.spans]
        root = next(span for span in self.spans if span.name == name)
        return [span for span in self.spans if span.trace_id == root.trace_id]

    def take(self, body: bytes) -> None:
        with self._came:
            self.bodies.append(body)
            self._came.notify_all()


@contextmanager
def collect() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert "/v1/traces" == self.path
            collector.take(body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
