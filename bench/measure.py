"""This is where one target after the other is started and measured, direct beside each of them."""

import contextlib
import sys
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench import stores, streams
from bench.load import Endpoint, latencies, throughput
from bench.process import Command, Started, free_port, start
from bench.results import Measured, Memory, Spread, Streams
from bench.stores import Stores
from bench.target import CHAT, Place, Target

ROOT = Path(__file__).resolve().parent.parent


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured. concurrency: of the throughput. Paces in milliseconds between chunks of a stream.

    fills_s: the longest time that is taken to fill a target's windows.
    """

    repeats: int = 3
    starts: int = 3
    seconds: float = 5.0
    concurrency: int = 32
    sequential: int = 1_000
    one_stream_chunks: int = 200
    one_stream_pace_ms: int = 10
    many_streams: int = 200
    many_chunks: int = 60
    many_pace_ms: int = 50
    open_streams: int = 2_000
    open_chunks: int = 12
    open_pace_ms: int = 1_000
    memory_calls: int = 100_000
    fills_s: float = 62.0
    step_repeats: int = 40


QUICK = Sizes(
    repeats=1,
    starts=1,
    seconds=1.0,
    sequential=50,
    one_stream_chunks=20,
    many_streams=20,
    many_chunks=10,
    open_streams=50,
    open_chunks=3,
    open_pace_ms=100,
    memory_calls=400,
    fills_s=1.0,
    step_repeats=2,
)


class Bench:
    """The instant upstream, running, and what is measured against it. cores: for targets, and for load, upstream and stores."""

    def __init__(self, sizes: Sizes, cores: tuple[set[int], set[int]], upstream: Started, port: int, say: Callable[[str], None]) -> None:
        self._sizes = sizes
        self._cores = cores
        self._upstream = upstream
        self._direct = Endpoint(port=port, path=CHAT, model="instant")
        self._say = say

    def direct(self) -> Measured:
        """Load and upstream with nothing between: what the rest is compared with."""
        return self._figures(Measured(name="direct", governs="nothing"), self._direct, self._upstream, Stores())

    def target(self, target: Target) -> Measured:
        missing = target.missing()
        measured = Measured(name=target.name, governs=target.governs, missing=missing, hint=target.hint if missing else "")
        if missing:
            self._say(f"{target.name}: {missing}; {target.hint}")
            return measured
        try:
            starts = [self._start_s(target) for _ in range(self._sizes.starts - 1)]
            with self._started(target) as (endpoint, running, kept):
                idle_bytes = running.rss_bytes()
                measured = msgspec.structs.replace(measured, start_s=Spread.of([*starts, running.start_s]))
                measured = self._figures(measured, endpoint, running, kept)
                fills_s = min(target.fills_s, self._sizes.fills_s)
                memory = self._part(measured, "memory", lambda: self._memory(endpoint, running, Fill(idle_bytes, fills_s), measured))
                return msgspec.structs.replace(measured, memory=memory)
        except RuntimeError as error:
            return msgspec.structs.replace(measured, failures=[*measured.failures, str(error)])

    def _start_s(self, target: Target) -> float:
        with self._started(target) as (_, running, _):
            return running.start_s

    @contextlib.contextmanager
    def _started(self, target: Target) -> Generator[tuple[Endpoint, Started, Stores]]:
        core = self._cores[0] if target.workers == 1 else self._cores[0] | self._cores[1]
        with tempfile.TemporaryDirectory(prefix="qwenbox-bench-") as name:
            folder = Path(name)
            with stores.started(target.stores, folder) as kept:
                place = Place(port=free_port(), upstream=self._direct.port, folder=folder, stores=kept)
                with start(target.command(place), core, folder / "log") as running:
                    yield target.endpoint(place), running, kept

    def _figures(self, measured: Measured, endpoint: Endpoint, running: Started, kept: Stores) -> Measured:
        sizes = self._sizes
        self._say(f"{measured.name}: latency, calls per second")
        latencies(endpoint, max(20, sizes.sequential // 10))
        measured = self._latencies(measured, endpoint)
        measured = self._throughput(measured, endpoint, running, kept)
        for name, count, chunks, pace_ms in (
            ("one_stream", 1, sizes.one_stream_chunks, sizes.one_stream_pace_ms),
            ("many_streams", sizes.many_streams, sizes.many_chunks, sizes.many_pace_ms),
            ("open_streams", sizes.open_streams, sizes.open_chunks, sizes.open_pace_ms),
        ):
            self._say(f"{measured.name}: {count} streams")
            repeats = 1 if name == "open_streams" else sizes.repeats
            shape = Shape(streams=count, chunks=chunks, pace_ms=pace_ms, repeats=repeats)
            heard = self._part(measured, name, lambda shape=shape: self._streams(endpoint, running, shape))
            measured = msgspec.structs.replace(measured, **{name: heard})
        return measured

    def _latencies(self, measured: Measured, endpoint: Endpoint) -> Measured:
        """Blocks of direct and target in turn, so that a slow moment of the machine meets both."""
        p50s: list[float] = []
        p99s: list[float] = []
        added_p50s: list[float] = []
        added_p99s: list[float] = []
        for _ in range(self._sizes.repeats):
            base = sorted(latencies(self._direct, self._sizes.sequential))
            mine = sorted(latencies(endpoint, self._sizes.sequential))
            p50s.append(percentile(mine, 50))
            p99s.append(percentile(mine, 99))
            added_p50s.append(p50s[-1] - percentile(base, 50))
            added_p99s.append(p99s[-1] - percentile(base, 99))
        return msgspec.structs.replace(
            measured,
            latency_p50_s=Spread.of(p50s),
            latency_p99_s=Spread.of(p99s),
            added_p50_s=Spread.of(added_p50s),
            added_p99_s=Spread.of(added_p99s),
        )

    def _throughput(self, measured: Measured, endpoint: Endpoint, running: Started, kept: Stores) -> Measured:
        rates: list[float] = []
        costs: list[float] = []
        kept_costs: list[float] = []
        errors = 0
        for _ in range(self._sizes.repeats):
            before_s, kept_before_s = running.cpu_s(), kept.cpu_s()
            made = throughput(endpoint, self._sizes.concurrency, self._sizes.seconds)
            rates.append(made.calls_per_s)
            costs.append((running.cpu_s() - before_s) / max(1, made.calls))
            kept_costs.append((kept.cpu_s() - kept_before_s) / max(1, made.calls))
            errors += made.errors
        return msgspec.structs.replace(
            measured,
            calls_per_s=Spread.of(rates),
            cpu_per_call_s=Spread.of(costs),
            stores_cpu_per_call_s=Spread.of(kept_costs) if kept.pids else None,
            errors=errors,
        )

    def _streams(self, endpoint: Endpoint, running: Started, shape: "Shape") -> Streams:
        p50s: list[float] = []
        p99s: list[float] = []
        costs: list[float] = []
        failures: list[str] = []
        chunks = 0
        for _ in range(shape.repeats):
            before_s = running.cpu_s()
            # Openings spread over one pace or two seconds: a crowd at one instant would measure accept(), not streaming.
            spread_s = min(shape.chunks * shape.pace_ms / 1000 / 2, max(shape.pace_ms / 1000, shape.streams / 1000))
            heard = streams.hear(endpoint, shape.streams, shape.chunks, shape.pace_ms, spread_s=spread_s)
            failures += heard.failures
            chunks += heard.chunks
            if heard.chunks:
                costs.append((running.cpu_s() - before_s) / heard.chunks)
                p50s.append(percentile(sorted(heard.delays_s), 50))
                p99s.append(percentile(sorted(heard.delays_s), 99))
        return Streams(
            streams=shape.streams,
            chunks=chunks,
            failures=len(failures),
            first_failure=failures[0] if failures else "",
            delay_p50_s=Spread.of(p50s) if p50s else None,
            delay_p99_s=Spread.of(p99s) if p99s else None,
            cpu_per_chunk_s=Spread.of(costs) if costs else None,
        )

    def _memory(self, endpoint: Endpoint, running: Started, fill: "Fill", measured: Measured) -> Memory:
        """Asked for so many calls; a target that would need more than two minutes for them gets what fits."""
        if fill.seconds:
            self._say(f"{measured.name}: {fill.seconds:.0f} s of calls until its windows are full")
            throughput(endpoint, self._sizes.concurrency, fill.seconds)
        rate = measured.calls_per_s.middle if measured.calls_per_s else 1.0
        step_s = min(30.0, self._sizes.memory_calls / 4 / rate)
        self._say(f"{measured.name}: memory over {step_s * 4:.0f} s of calls")
        after: list[int] = []
        calls: list[int] = []
        for _ in range(4):
            calls.append(throughput(endpoint, self._sizes.concurrency, max(1.0, step_s)).calls)
            after.append(running.rss_bytes())
        slope = (after[3] - after[1]) / max(1, calls[2] + calls[3])
        return Memory(idle_bytes=fill.idle_bytes, after_bytes=after, calls=sum(calls), slope_bytes_per_call=slope)

    def _part(self, measured: Measured, name: str, measure: Callable[[], object]) -> object:
        """One peer that cannot do one thing must not cost the others their figures."""
        try:
            return measure()
        except (RuntimeError, OSError) as error:
            measured.failures.append(f"{name}: {error}")
            return None


class Fill(NamedTuple):
    """Before memory is looked at: its size when nothing had been asked, and how long it has to be asked until its windows are full."""

    idle_bytes: int
    seconds: float


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    streams: int
    chunks: int
    pace_ms: int
    repeats: int


def percentile(ordered: list[float], percent: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


@contextlib.contextmanager
def bench(sizes: Sizes, cores: tuple[set[int], set[int]], folder: Path, say: Callable[[str], None]) -> Generator[Bench]:
    """cores: for targets, and for load and upstream."""
    port = free_port()
    command = Command(
        arguments=(sys.executable, "-m", "bench.upstream", "--port", str(port)),
        ready=f"http://127.0.0.1:{port}/health",
        environment={"PYTHONPATH": str(ROOT)},
    )
    with start(command, cores[1], folder / "upstream.log") as upstream:
        yield Bench(sizes, cores, upstream, port, say)
