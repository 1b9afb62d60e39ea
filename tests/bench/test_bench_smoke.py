"""`make bench` end to end, small: what it measures and writes, not how fast anything was."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "bench", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder = tmp_path_factory.mktemp("results")
    return run("--quick", "--only", "qwenbox", "--no-weights", "--out", str(folder)), folder


@pytest.fixture(scope="module")
def report(quick: tuple[subprocess.CompletedProcess[str], Path]) -> dict[str, Any]:
    done, folder = quick
    assert 0 == done.returncode, done.stderr[-4000:]
    return json.loads((folder / "quick.json").read_bytes())


def test_the_quick_bench_measures_direct_and_the_box(report: dict[str, Any]) -> None:
    assert ["direct", "qwenbox"] == [target["name"] for target in report["targets"]]
    for target in report["targets"]:
        assert [] == target["failures"]
        assert 0 == target["errors"]
        assert target["calls_per_s"]["least"] > 0
        assert target["latency_p50_s"]["middle"] > 0


def test_every_stream_of_the_quick_bench_is_whole(report: dict[str, Any]) -> None:
    for target in report["targets"]:
        for part, streams, chunks in (("one_stream", 1, 20), ("many_streams", 20, 10), ("open_streams", 50, 3)):
            heard = target[part]
            assert (0, streams * chunks) == (heard["failures"], heard["chunks"]), heard["first_failure"]


def test_the_box_is_watched_while_it_is_measured(report: dict[str, Any]) -> None:
    box = report["targets"][1]
    assert box["cpu_per_call_s"]["middle"] > 0
    assert box["many_streams"]["cpu_per_chunk_s"]["middle"] > 0
    assert box["memory"]["idle_bytes"] > 10_000_000
    assert box["start_s"]["middle"] > 0


def test_every_budget_has_a_verdict_or_says_that_it_was_not_measured(report: dict[str, Any]) -> None:
    unmeasured = [budget["what"] for budget in report["budgets"] if budget["ratio"] is None]
    assert 14 == len(report["budgets"])
    shared = "CPU per call, 2 workers ÷ 1 worker with counters in memory"
    assert [shared, "tokens per second, box ÷ engine alone", "added time to first token"] == unmeasured


def test_the_bench_prints_a_table_and_draws_a_picture(quick: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, folder = quick
    assert "budgets" in done.stdout
    assert "REAL WEIGHTS NOT MEASURED" in done.stdout
    assert (folder / "quick.png").read_bytes().startswith(b"\x89PNG")


def test_a_governed_box_counts_bills_and_refuses_nobody(tmp_path: Path) -> None:
    done = run("--quick", "--only", "governed,governed-2-workers", "--no-weights", "--out", str(tmp_path))
    report = json.loads((tmp_path / "quick.json").read_bytes())
    assert ["direct", "governed", "governed-2-workers"] == [target["name"] for target in report["targets"]]
    assert [[], [], []] == [target["failures"] for target in report["targets"]]
    assert [0, 0, 0] == [target["errors"] for target in report["targets"]]
    # PostgreSQL and Valkey are watched beside the two workers that share them.
    assert report["targets"][1]["stores_cpu_per_call_s"] is None
    assert report["targets"][2]["stores_cpu_per_call_s"]["middle"] > 0
    assert all(step["cpu_s"]["middle"] > 0 for step in report["steps"])
    assert "the box with everything on" in done.stdout


def test_a_target_nobody_knows_is_refused() -> None:
    assert 0 != run("--only", "nobody").returncode
