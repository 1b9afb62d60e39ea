"""Measures the box against its budgets and beside its peers, in one run: `make bench`, or python -m bench [--help]."""

import datetime
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench import engine, report, steps
from bench.box import GOVERNED
from bench.budgets import budgets
from bench.measure import QUICK, ROOT, Sizes, bench
from bench.process import cores, raise_file_limit
from bench.results import EngineMeasured, Report
from bench.target import Target
from bench.targets import TARGETS, peers_folder
from qwenbox import __version__

app = typer.Typer(add_completion=False, help=__doc__)
console = Console(stderr=True)
NAMES = [target.name for target in TARGETS]


@app.callback(invoke_without_command=True)
def run(  # noqa: PLR0913 (a command's options are its arguments)
    context: typer.Context,
    quick: Annotated[bool, typer.Option(help="A smoke run: everything once and small; its figures mean nothing.")] = False,
    only: Annotated[str, typer.Option(help=f"Targets to measure, separated by commas, of: {', '.join(NAMES)}.")] = "",
    repeats: Annotated[int, typer.Option(help="Repeats of each figure.", min=1)] = 3,
    calls: Annotated[int, typer.Option(help="Calls of the memory measurement.", min=1)] = 100_000,
    weights: Annotated[bool, typer.Option(help="Measure tokens per second with real weights, too.")] = True,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = ROOT / "bench" / "results",
) -> None:
    if context.invoked_subcommand is not None:
        return
    sizes = QUICK if quick else Sizes(repeats=repeats, memory_calls=calls)
    made = _measure(sizes, _chosen(only), is_quick=quick, has_weights=weights)
    report.table(made, Console(width=max(120, Console().width)))
    for path in report.save(made, out, "quick" if quick else f"bench-{made.at[:10]}"):
        console.print(f"[dim]{path}[/]")


@app.command()
def setup(names: Annotated[list[str] | None, typer.Argument(help="Peers to install; all of them when none is named.")] = None) -> None:
    """Install the peers, each into an environment of its own below the data folder."""
    for target in _chosen(",".join(names or [])):
        if not target.missing():
            continue
        if target.install is None:
            console.print(f"[yellow]{target.name}: {target.hint}[/]")
            continue
        console.print(f"{target.name} → {peers_folder()}")
        target.install()


def _chosen(only: str) -> list[Target]:
    wanted = [name for name in only.split(",") if name]
    if unknown := [name for name in wanted if name not in NAMES]:
        raise typer.BadParameter(f"{', '.join(unknown)}: choose from {', '.join(NAMES)}.")
    return [target for target in TARGETS if not wanted or target.name in wanted]


def _measure(sizes: Sizes, targets: list[Target], *, is_quick: bool, has_weights: bool) -> Report:
    raise_file_limit()
    everywhere = os.sched_getaffinity(0)
    placed = cores()
    if placed[0] == placed[1]:
        console.print("[yellow]One core only: load, upstream and targets share it, so trust the CPU figures alone.[/]")
    load_before = os.getloadavg()[0]
    os.sched_setaffinity(0, placed[1])
    with tempfile.TemporaryDirectory(prefix="qwenbox-bench-") as folder, bench(sizes, placed, Path(folder), console.print) as running:
        measured = [running.direct(), *[running.target(target) for target in targets]]
    os.sched_setaffinity(0, everywhere)
    governing = steps.measure(sizes.step_repeats, console.print) if any(target.name == GOVERNED for target in targets) else []
    answered, missing = _weights(sizes) if has_weights else (None, "left out")
    return Report(
        at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        version=__version__,
        machine=_machine(),
        cores=len(everywhere),
        load_before=load_before,
        load_after=os.getloadavg()[0],
        load_tool="wrk" if shutil.which("wrk") else "bench",
        is_quick=is_quick,
        targets=measured,
        engine=answered,
        engine_missing=missing,
        steps=governing,
        budgets=budgets(measured, answered),
    )


def _weights(sizes: Sizes) -> tuple[EngineMeasured | None, str]:
    folder = engine.folder_of_weights()
    if folder is None:
        return None, f"{engine.WEIGHTS} is not here: qwenbox pull {engine.WEIGHTS}"
    console.print(f"{engine.WEIGHTS}: directly and through the box")
    try:
        return engine.measure(folder, repeats=2 * sizes.repeats, tokens=64), ""
    except (RuntimeError, OSError) as error:
        return None, str(error)


def _machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    app()
