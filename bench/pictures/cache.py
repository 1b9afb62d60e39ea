"""This is where the cost of the response cache's hits is measured and drawn: `python -m bench.pictures.cache [FILE.svg]`.

One worker on one core with limits, money and ledger on; answers of several lengths, whole and streamed; the same calls with the cache
told to stay out of it (no-store) stand beside them: the echo engine takes no time of its own, so those are the box alone.
"""

import sys
import tempfile
from pathlib import Path

import anyio
import msgspec

from bench.box import fund, qwenbox_command
from bench.load import Endpoint, Throughput, latencies, throughput
from bench.measure import percentile
from bench.process import cores, free_port, start
from bench.target import CHAT, KEY, Place
from qwenbox import config

_LENGTHS = (10, 100, 1_000)
_CALLS = 600
_CONNECTIONS = 32
_SECONDS = 2.0
_GOAL_MS = 1.0
_PICTURE = Path("docs/practices/cache.svg")
_LIMITED = """
[limits]
default_tier = "bench"

[tier.bench]
rpm = 1_000_000_000
tpm = 1_000_000_000_000
concurrency = 1_000_000
"""


class _Asked(Endpoint, frozen=True, kw_only=True):
    """The same greedy call each time. words: how long its answer is, in tokens of echo."""

    words: int

    def body(self, text: str, *, is_streamed: bool = False) -> bytes:
        messages = [{"role": "user", "content": " ".join(["word"] * self.words)}]
        return msgspec.json.encode({"model": self.model, "messages": messages, "stream": is_streamed, "temperature": 0})


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds of single calls; calls per second of the worker's CPU time."""

    label: str
    p50_ms: float
    p99_ms: float
    per_core_s: float


def measure() -> list[Measured]:
    measured, _ = cores()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(port=free_port(), upstream=0, folder=Path(folder))
        command = qwenbox_command(place, _LIMITED)
        anyio.run(fund, config.load(environment=command.environment))
        with start(command, measured, place.folder / "log") as running:
            found: list[Measured] = []
            for words in _LENGTHS:
                for label, headers in ((f"hit, {words:,} tokens", {}), (f"no-store, {words:,} tokens", {"cache-control": "no-store"})):
                    asked = _Asked(
                        port=place.port, path=CHAT, model="qwen-turbo", headers={"authorization": f"Bearer {KEY}", **headers}, words=words
                    )
                    latencies(asked, 100)
                    single = sorted(latencies(asked, _CALLS))
                    before = running.cpu_s()
                    many: Throughput = throughput(asked, _CONNECTIONS, _SECONDS)
                    if many.errors:
                        raise RuntimeError(f"{many.errors} calls failed")
                    found.append(
                        Measured(
                            label=label,
                            p50_ms=percentile(single, 50) * 1_000,
                            p99_ms=percentile(single, 99) * 1_000,
                            per_core_s=many.calls / (running.cpu_s() - before),
                        )
                    )
            return found


def draw(rows: list[Measured]) -> str:
    """Bars of p50, a mark at p99, the goal as a line."""
    most = max(*(row.p99_ms for row in rows), _GOAL_MS) * 1.05
    left, width, step, top = 170, 420, 30, 46

    def x(ms: float) -> float:
        return left + width * ms / most

    height = top + step * len(rows) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" font-family="sans-serif" font-size="13">',
        f'<rect width="760" height="{height}" fill="white"/>',
        '<text x="12" y="22" font-size="15">One call at a time: p50 (bar), p99 (tick), ms; calls per second and core</text>',
    ]
    for number, row in enumerate(rows):
        y = top + step * number
        colour = "#2a7" if row.label.startswith("hit") else "#bbb"
        parts += [
            f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{row.label}</text>',
            f'<rect x="{left}" y="{y + 2}" width="{x(row.p50_ms) - left:.1f}" height="18" fill="{colour}"/>',
            f'<line x1="{x(row.p99_ms):.1f}" x2="{x(row.p99_ms):.1f}" y1="{y}" y2="{y + 22}" stroke="#333"/>',
            f'<text x="{left + width + 12}" y="{y + 15}">{row.p50_ms:.2f} ms · {row.per_core_s:,.0f}/s</text>',
        ]
    bottom = top + step * len(rows)
    parts += [
        f'<line x1="{x(_GOAL_MS):.1f}" x2="{x(_GOAL_MS):.1f}" y1="{top - 6}" y2="{bottom}" stroke="#c33" stroke-dasharray="4 3"/>',
        f'<text x="{x(_GOAL_MS):.1f}" y="{bottom + 16}" text-anchor="middle" fill="#c33">{_GOAL_MS:g} ms</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def main() -> None:
    rows = measure()
    for row in rows:
        print(f"{row.label:>24}: p50 {row.p50_ms:.3f} ms, p99 {row.p99_ms:.3f} ms, {row.per_core_s:,.0f} per second and core")
    picture = Path(sys.argv[1]) if len(sys.argv) > 1 else _PICTURE
    picture.write_text(draw(rows), "utf-8")


if __name__ == "__main__":
    main()
