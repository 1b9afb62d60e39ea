"""This is where an exchange's end is told to everybody who watches: metrics, the access log, traces."""

import logging
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from qwenbox.telemetry.logs import ACCESS, fields
from qwenbox.telemetry.metrics import COMPLETED, HUNG_UP, REFUSED, Metrics
from qwenbox.terms.timeline import Timeline

_LOG = logging.getLogger(ACCESS)


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """An exchange that is over, as traces tell it. status: 0 if its client left before it had one. model: as a label.

    traceparent, tracestate: headers of the caller who traces; "" without. ended_s: as Timeline's moments.
    """

    timeline: Timeline
    status: int
    outcome: str
    model: str
    ended_s: float
    traceparent: str = ""
    tracestate: str = ""


Tracer: TypeAlias = Callable[[Ended], None]


class Watch:
    """Of one process. logs_access: whether every exchange gets a line. tracer: where spans go."""

    def __init__(self, metrics: Metrics, *, logs_access: bool = False, tracer: Tracer | None = None) -> None:
        self.metrics = metrics
        self.logs_access = logs_access
        self.tracer = tracer

    def ended(self, timeline: Timeline, status: int, ended_s: float, headers: list[tuple[bytes, bytes]]) -> None:
        """headers: of the request. Costs some microseconds where nothing but metrics is on."""
        outcome = _outcome(timeline, status)
        self.metrics.answered(timeline, status, outcome)
        if self.logs_access:
            self._line(timeline, status, outcome, ended_s)
        if self.tracer is not None:
            ended = Ended(
                timeline=timeline,
                status=status,
                outcome=outcome,
                model=self.metrics.model(timeline.model),
                ended_s=ended_s,
                traceparent=_header(headers, b"traceparent"),
                tracestate=_header(headers, b"tracestate"),
            )
            self.tracer(ended)

    def _line(self, timeline: Timeline, status: int, outcome: str, ended_s: float) -> None:
        """No path and no query: both can carry what is nobody's business, such as an upload's signature."""
        record = timeline.record
        told: dict[str, object] = {
            "dialect": timeline.dialect,
            "operation": timeline.operation,
            "model": self.metrics.model(timeline.model),
            "status": status,
            "outcome": outcome,
            "duration_s": round(ended_s - timeline.begun_s, 6),
        }
        if timeline.key_id:
            told |= {"account_id": timeline.account_id, "key_id": timeline.key_id}
        if timeline.error or (record is not None and record.error_kind):
            told["error"] = timeline.error or (record.error_kind if record is not None else "")
        if timeline.cache:
            told["cache"] = timeline.cache
        if record is not None:
            told |= {"deployment": record.deployment, "input_tokens": record.input_tokens, "output_tokens": record.output_tokens}
            if record.ttft_s is not None:
                told["ttft_s"] = round(record.ttft_s, 6)
        _LOG.info(" ".join(f"{name}={value}" for name, value in told.items()), extra=fields(**told))


def _outcome(timeline: Timeline, status: int) -> str:
    if timeline.record is not None:
        return timeline.record.outcome
    if status == 0:
        return HUNG_UP
    return REFUSED if status >= 400 else COMPLETED


def _header(headers: list[tuple[bytes, bytes]], name: bytes) -> str:
    return next((value.decode("latin-1") for known, value in headers if known == name), "")
