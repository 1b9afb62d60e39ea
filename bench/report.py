"""This is where figures become a table for people, JSON for machines, and a picture."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
import msgspec
from rich.console import Console
from rich.table import Table

from bench.box import BOXES, GOVERNED
from bench.results import Budget, Measured, Memory, Report, Spread, Step, Streams

MIB = 1024 * 1024
_LABELS = (
    ("calls/s", "32 at a time, more is better"),
    ("added p50, ms", "1 at a time, less is better"),
    ("CPU per chunk, µs", "200 streams, less is better"),
    ("memory idle, MiB", "less is better"),
)


def table(report: Report, console: Console) -> None:
    """All targets, then the budgets."""
    console.print(
        f"\n[bold]qwenbox {report.version}[/] · {report.machine}, {report.cores} cores · {report.at} · "
        f"load by {report.load_tool} · load average {report.load_before:.1f} → {report.load_after:.1f}"
    )
    if report.load_before > 0.7:
        console.print("[yellow]Others were at work on this machine when the run began: trust the ratios, repeat the absolute figures.[/]")
    console.print(_targets("beside the peers", [target for target in report.targets if not target.name.startswith(GOVERNED)]))
    governed = [target for target in report.targets if target.name.startswith(GOVERNED)]
    if governed:
        console.print(_targets("the box with everything on", governed))
    for target in report.targets:
        if target.missing:
            console.print(f"[yellow]{target.name}: {target.missing}. To measure it: {target.hint}[/]")
        for failure in _failures(target):
            console.print(f"[yellow]{target.name}: {failure}[/]")
    if report.engine is not None:
        engine = report.engine
        console.print(
            f"{engine.weights}: tokens/s {_spread(engine.direct_tokens_per_s)} alone, {_spread(engine.box_tokens_per_s)} through the box; "
            f"first token {_spread(engine.direct_ttft_s, 1e3)} ms alone, {_spread(engine.box_ttft_s, 1e3)} ms through the box"
        )
    elif report.engine_missing:
        console.print(f"[bold yellow]REAL WEIGHTS NOT MEASURED: {report.engine_missing}[/]")
    if report.steps:
        console.print(_steps(report.steps))
    if report.budgets:
        console.print(_budgets(report.budgets))


def save(report: Report, folder: Path, name: str) -> list[Path]:
    """name.json and name.png in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    data, picture = folder / f"{name}.json", folder / f"{name}.png"
    data.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    plot(report, picture)
    return [data, picture]


def plot(report: Report, path: Path) -> None:
    """One bar per target and figure, with the spread of its repeats."""
    mpl.use("agg")
    from matplotlib import pyplot  # noqa: PLC0415 (after the choice of a backend without a screen)

    targets = [target for target in report.targets if target.calls_per_s is not None]
    figure, axes = pyplot.subplots(1, len(_LABELS), figsize=(4 * len(_LABELS), 0.5 * len(targets) + 2), layout="constrained")
    for axis, (title, note), value in zip(axes, _LABELS, _VALUES, strict=True):
        rows = [(target.name, spread) for target in targets if (spread := value(target)) is not None]
        middles = [spread.middle for _, spread in rows]
        spans = [[s.middle - s.least for _, s in rows], [s.most - s.middle for _, s in rows]]
        colors = ["tab:orange" if name in _OWN else "tab:blue" for name, _ in rows]
        axis.barh([name for name, _ in rows], middles, xerr=spans, color=colors, capsize=3)
        axis.invert_yaxis()
        axis.set_title(f"{title}\n({note})", fontsize=10)
        if rows:
            axis.set_xscale("symlog", linthresh=max(min(abs(m) for m in middles) or 1.0, 1e-2))
    figure.suptitle(f"qwenbox {report.version}, {report.at[:10]}, {report.machine}, one core each", fontsize=11)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _scaled(spread: Spread | None, factor: float) -> Spread | None:
    if spread is None:
        return None
    return Spread(least=spread.least * factor, middle=spread.middle * factor, most=spread.most * factor, repeats=spread.repeats)


def _cpu(streams: Streams | None) -> Spread | None:
    return None if streams is None else _scaled(streams.cpu_per_chunk_s, 1e6)


def _idle(target: Measured) -> Spread | None:
    return None if target.memory is None else Spread.of([target.memory.idle_bytes / MIB])


_OWN = frozenset(box.name for box in BOXES)
_VALUES: tuple[Callable[[Measured], Spread | None], ...] = (
    lambda target: target.calls_per_s,
    lambda target: _scaled(target.added_p50_s, 1e3),
    lambda target: None if target.name == "direct" else _cpu(target.many_streams),
    _idle,
)


_ROWS: tuple[tuple[str, Callable[[Measured], str]], ...] = (
    ("calls/s, 32 at once", lambda t: _spread(t.calls_per_s) + (f"\n[red]{t.errors} errors[/]" if t.errors else "")),
    ("CPU per call, µs", lambda t: _spread(t.cpu_per_call_s, 1e6)),
    ("CPU per call of its stores, µs", lambda t: _spread(t.stores_cpu_per_call_s, 1e6)),
    ("added p50, ms", lambda t: _spread(t.added_p50_s, 1e3)),
    ("added p99, ms", lambda t: _spread(t.added_p99_s, 1e3)),
    ("CPU per chunk, µs, 1 stream", lambda t: _spread(_cpu(t.one_stream))),
    ("CPU per chunk, µs, many streams", lambda t: _spread(_cpu(t.many_streams))),
    ("chunk delay p99, ms, 1 stream", lambda t: _spread(t.one_stream.delay_p99_s if t.one_stream else None, 1e3)),
    ("chunk delay p99, ms, many streams", lambda t: _spread(t.many_streams.delay_p99_s if t.many_streams else None, 1e3)),
    ("open streams", lambda t: _opened(t.open_streams)),
    ("memory, MiB, idle → after", lambda t: _memory(t.memory)),
    ("start to ready, s", lambda t: _spread(t.start_s)),
)
# Of load and upstream themselves these would say nothing.
_NOT_OF_DIRECT = ("CPU", "added", "memory", "start")


def _targets(heading: str, targets: Sequence[Measured]) -> Table:
    grid = Table(title=f"{heading}: middle (least … most) of the repeats", title_justify="left", show_lines=True)
    grid.add_column("")
    present = [target for target in targets if not target.missing]
    for target in present:
        grid.add_column(f"{target.name}\n[dim]governs {target.governs}[/]", justify="right")
    for label, value in _ROWS:
        cells = ["" if t.name == "direct" and label.startswith(_NOT_OF_DIRECT) else value(t) for t in present]
        if any(cells):
            grid.add_row(label, *cells)
    return grid


def _steps(steps: Sequence[Step]) -> Table:
    grid = Table(title="steps of governing a call alone: CPU µs of a call, middle (least … most)", title_justify="left")
    for heading in ("step", "at once", "the box", "its stores"):
        grid.add_column(heading, justify="left" if heading == "step" else "right")
    for step in steps:
        grid.add_row(step.name, str(step.at_once), _spread(step.cpu_s, 1e6), _spread(step.stores_cpu_s, 1e6))
    return grid


def _memory(memory: Memory | None) -> str:
    if memory is None:
        return ""
    return f"{memory.idle_bytes / MIB:.0f} → {memory.after_bytes[-1] / MIB:.0f}\n[dim]{memory.calls:,} calls[/]"


def _opened(streams: Streams | None) -> str:
    if streams is None:
        return ""
    return f"{streams.streams - streams.failures:,}" + (f"\n[red]{streams.failures} failed[/]" if streams.failures else "")


def _failures(target: Measured) -> list[str]:
    broken = [s for s in (target.one_stream, target.many_streams, target.open_streams) if s is not None and s.failures]
    return [*target.failures, *(f"{s.failures} failures with {s.streams} streams, the first: {s.first_failure}" for s in broken)]


def _spread(spread: Spread | None, factor: float = 1.0) -> str:
    if spread is None:
        return ""
    middle, least, most = (_number(value * factor) for value in (spread.middle, spread.least, spread.most))
    return middle if spread.repeats == 1 else f"{middle}\n[dim]({least} … {most})[/]"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _budgets(rows: Sequence[Budget]) -> Table:
    grid = Table(title="budgets (ratio 1 or less is met)", title_justify="left")
    for heading in ("what", "wanted", "measured", "ratio", ""):
        grid.add_column(heading, justify="left" if heading in ("what", "") else "right")
    for row in rows:
        color = {"met": "green", "NOT MET": "red"}.get(row.verdict, "yellow")
        grid.add_row(row.what, row.wanted, row.measured, "" if row.ratio is None else f"{row.ratio:.2f}", f"[{color}]{row.verdict}[/]")
    return grid
