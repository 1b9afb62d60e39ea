"""This is where measured figures meet the budgets of the product's design."""

from collections.abc import Callable, Mapping, Sequence

from bench.box import GOVERNED, GOVERNED_POSTGRES, PLAIN, TWO_WORKERS
from bench.results import Budget, EngineMeasured, Measured, Spread, Streams

MIB = 1024 * 1024


def budgets(targets: Sequence[Measured], engine: EngineMeasured | None) -> list[Budget]:
    """One row per budget, by the middle of the repeats: of the box with everything on, or of the plain one if only that was measured.

    Empty when neither was.
    """
    found = {target.name: target for target in targets}
    box, direct = found.get(GOVERNED) or found.get(PLAIN), found.get("direct")
    if box is None or direct is None:
        return []
    return [
        at_most("added latency of a call, p50, 1 at a time", 0.3, _ms(box.added_p50_s), "ms"),
        at_most("added latency of a call, p99, 1 at a time", 2.0, _ms(box.added_p99_s), "ms"),
        at_least("calls per second, 32 at a time", 4_000, box.calls_per_s.middle if box.calls_per_s else None, ""),
        at_most("CPU per call, 2 workers ÷ 1 worker with counters in memory", 1.35, _sharing(found), ""),
        *_streaming(box.one_stream, direct.one_stream),
        *_streaming(box.many_streams, direct.many_streams),
        _open(box.open_streams),
        at_least("tokens per second, box ÷ engine alone", 0.98, _ratio(engine), ""),
        at_most("added time to first token", 2.0, _ttft_ms(engine), "ms"),
        at_most("memory idle", 120, box.memory.idle_bytes / MIB if box.memory else None, "MiB"),
        _slope(box),
        at_most("start to ready", 1.5, box.start_s.middle if box.start_s else None, "s"),
    ]


def at_most(what: str, limit: float, value: float | None, unit: str) -> Budget:
    ratio = None if value is None else max(0.0, value) / limit
    return Budget(what=what, wanted=f"≤ {limit:g} {unit}".strip(), measured=_said(value, unit), ratio=ratio)


def at_least(what: str, limit: float, value: float | None, unit: str) -> Budget:
    ratio = None if not value else limit / value
    return Budget(what=what, wanted=f"≥ {limit:,g} {unit}".strip(), measured=_said(value, unit), ratio=ratio)


def _sharing(found: Mapping[str, Measured]) -> float | None:
    """Both write to the same kind of database, so that only the counters and the number of workers differ."""
    two, one = found.get(TWO_WORKERS), found.get(GOVERNED_POSTGRES)
    if two is None or one is None or two.cpu_per_call_s is None or one.cpu_per_call_s is None:
        return None
    return two.cpu_per_call_s.middle / one.cpu_per_call_s.middle


def _streaming(box: Streams | None, direct: Streams | None) -> list[Budget]:
    if box is None:
        return []
    added = None
    if box.delay_p99_s is not None and direct is not None and direct.delay_p99_s is not None:
        added = (box.delay_p99_s.middle - direct.delay_p99_s.middle) * 1e3
    name = "1 stream" if box.streams == 1 else f"{box.streams} streams"
    cost = None if box.cpu_per_chunk_s is None else box.cpu_per_chunk_s.middle * 1e6
    return [
        at_most(f"CPU per streamed chunk, {name}", 20, cost, "µs"),
        at_most(f"added delay of a chunk, p99, {name}", 1.0, added, "ms"),
    ]


def _open(streams: Streams | None) -> Budget:
    what = "open streams without an error"
    if streams is None:
        return Budget(what=what, wanted="≥ 2,000", measured="", ratio=None)
    whole = streams.streams - streams.failures
    return at_least(what, 2_000, whole, "")


def _slope(box: Measured) -> Budget:
    """A megabyte per 100,000 calls is the noise of an allocator."""
    memory = box.memory
    value = None if memory is None else memory.slope_bytes_per_call * 100_000 / MIB
    calls = "" if memory is None else f" (of {memory.calls:,})"
    return at_most(f"memory growth over 100,000 calls{calls}", 1.0, value, "MiB")


def _ratio(engine: EngineMeasured | None) -> float | None:
    return None if engine is None else engine.box_tokens_per_s.middle / engine.direct_tokens_per_s.middle


def _ttft_ms(engine: EngineMeasured | None) -> float | None:
    return None if engine is None else (engine.box_ttft_s.middle - engine.direct_ttft_s.middle) * 1e3


def _ms(spread: Spread | None) -> float | None:
    return None if spread is None else spread.middle * 1e3


def _said(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    shape: Callable[[float], str] = (lambda v: f"{v:,.0f}") if abs(value) >= 100 else (lambda v: f"{v:.3g}")
    return f"{shape(value)} {unit}".strip()
