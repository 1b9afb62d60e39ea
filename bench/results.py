"""This is where measured figures have their shape; a report is these structs as JSON."""

from collections.abc import Sequence
from statistics import median

import msgspec


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Repeats of one figure."""

    least: float
    middle: float
    most: float
    repeats: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(least=min(values), middle=median(values), most=max(values), repeats=len(values))


class Streams(msgspec.Struct, frozen=True, kw_only=True):
    """delay_p50_s, delay_p99_s: from upstream's sending to the client's hearing, direct's own included."""

    streams: int
    chunks: int
    failures: int
    first_failure: str
    delay_p50_s: Spread | None
    delay_p99_s: Spread | None
    cpu_per_chunk_s: Spread | None


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """after_bytes: at equal steps of `calls`. slope: of the later half, bytes per call."""

    idle_bytes: int
    after_bytes: list[int]
    calls: int
    slope_bytes_per_call: float


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One target's figures. missing: why there are none. None where a part was not measured or failed (then `failures` says it).

    cpu_per_call_s: of the target and its children. stores_cpu_per_call_s: of the databases it writes to, beside it.
    """

    name: str
    governs: str = ""
    missing: str = ""
    hint: str = ""
    start_s: Spread | None = None
    calls_per_s: Spread | None = None
    cpu_per_call_s: Spread | None = None
    stores_cpu_per_call_s: Spread | None = None
    errors: int = 0
    latency_p50_s: Spread | None = None
    latency_p99_s: Spread | None = None
    added_p50_s: Spread | None = None
    added_p99_s: Spread | None = None
    one_stream: Streams | None = None
    many_streams: Streams | None = None
    open_streams: Streams | None = None
    memory: Memory | None = None
    failures: list[str] = []


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of governing a call, alone. CPU seconds of a call, of our process and of the databases it asked."""

    name: str
    at_once: int
    cpu_s: Spread
    stores_cpu_s: Spread | None


class EngineMeasured(msgspec.Struct, frozen=True, kw_only=True):
    """The same weights in the same kind of child, asked directly and through the box."""

    weights: str
    tokens: int
    direct_tokens_per_s: Spread
    box_tokens_per_s: Spread
    direct_ttft_s: Spread
    box_ttft_s: Spread


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """ratio: measured ÷ allowed for an upper bound, wanted ÷ measured for a lower one: 1 or less is met."""

    what: str
    wanted: str
    measured: str
    ratio: float | None

    @property
    def verdict(self) -> str:
        return "not measured" if self.ratio is None else "met" if self.ratio <= 1 else "NOT MET"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """at: UTC, ISO 8601. load: the machine's 1-minute load average before and after: above 1 at the start others were at work."""

    at: str
    version: str
    machine: str
    cores: int
    load_before: float
    load_after: float
    load_tool: str
    is_quick: bool
    targets: list[Measured]
    engine: EngineMeasured | None = None
    engine_missing: str = ""
    steps: list[Step] = []
    budgets: list[Budget] = []
