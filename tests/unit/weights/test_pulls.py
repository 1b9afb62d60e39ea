"""Pulls beside a serving box: one at a time for a file, seen and stopped by whichever process is asked."""

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from mirrors import blob, hub, published
from qwenbox.weights.entry import WeightsConfig
from qwenbox.weights.lock import take
from qwenbox.weights.pulls import ENDED, Pulls, PullState
from qwenbox.weights.store import WeightsStore

pytestmark = pytest.mark.anyio

DATA = blob(2_000_000)


def pulls_of(home: Path, url: str) -> Pulls:
    """As another process of the same box would have them: they share nothing but the folder."""
    config = WeightsConfig(hub_endpoint=url, modelscope_endpoint=url, free_space_margin_bytes=0, stall_timeout_s=5.0)
    return Pulls(WeightsStore(home, {"m": published(DATA), "n": published(DATA, file="n.gguf")}, config))


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110 (files of other processes, which no event tells)
            await anyio.sleep(0.02)


async def test_pull_is_seen_by_another_process_while_it_runs_and_when_it_is_done(tmp_path: Path) -> None:
    with hub(DATA) as it:
        it.pause_s = 0.02
        other = pulls_of(tmp_path, it.url)
        assert PullState.NONE is other.state("m").state
        async with pulls_of(tmp_path, it.url) as pulls:
            await pulls.start(("m",))
            assert PullState.RUNNING is other.state("m").state
            await until(lambda: other.state("m").done_bytes > 0)
            seen = other.state("m")
            assert (PullState.RUNNING, len(DATA)) == (seen.state, seen.total_bytes)
            await until(lambda: other.state("m").state is PullState.DONE)
    assert (len(DATA), DATA) == (other.state("m").done_bytes, (tmp_path / "weights/m/model-q4.gguf").read_bytes())


async def test_file_is_pulled_once_when_two_processes_are_asked(tmp_path: Path) -> None:
    with hub(DATA) as it:
        it.pause_s = 0.01
        async with pulls_of(tmp_path, it.url) as one, pulls_of(tmp_path, it.url) as two:
            for pulls in (one, two, one):
                await pulls.start(("m",))
            await until(lambda: two.state("m").state is PullState.DONE)
    assert 1 == len(it.asked)


async def test_files_of_one_model_come_one_after_the_other(tmp_path: Path) -> None:
    with hub(DATA) as it:
        async with pulls_of(tmp_path, it.url) as pulls:
            await pulls.start(("m", "n"))
            assert [PullState.RUNNING] * 2 == [pulls.state(name).state for name in ("m", "n")]
            await until(lambda: pulls.state("n").state is PullState.DONE)
        assert PullState.DONE is pulls.state("m").state
    assert ["model-q4.gguf", "n.gguf"] == [path.rpartition("/")[2] for path, _ in it.asked]


async def test_pull_stops_and_keeps_what_it_has_when_another_process_cancels_it(tmp_path: Path) -> None:
    with hub(DATA) as it:
        it.pause_s = 0.1
        other = pulls_of(tmp_path, it.url)
        async with pulls_of(tmp_path, it.url) as pulls:
            await pulls.start(("m",))
            await until(lambda: other.state("m").done_bytes > 0)
            await other.cancel("m")
            assert PullState.CANCELLED is other.state("m").state
            kept = other.state("m").done_bytes
            it.pause_s = 0.0
            await other.cancel("m")  # of what nobody fetches: nothing
            await pulls.start(("m",))
            await until(lambda: other.state("m").state is PullState.DONE)
    assert 0 < kept < len(DATA)
    assert f"bytes={kept}-" == it.asked[-1][1]


async def test_failure_says_why_in_words_of_the_store(tmp_path: Path) -> None:
    with hub(DATA) as it:
        it.statuses = [404] * 9
        async with pulls_of(tmp_path, it.url) as pulls:
            await pulls.start(("m",))
            await until(lambda: pulls.state("m").state is PullState.FAILED)
            assert "it has no such file (HTTP 404)" in pulls_of(tmp_path, it.url).state("m").reason
            it.statuses = []
            await pulls.start(("m",))  # after a failure it may be tried again
            await until(lambda: pulls.state("m").state is PullState.DONE)


async def test_pull_is_over_when_its_process_ended(tmp_path: Path) -> None:
    with hub(DATA) as it:
        it.pause_s = 0.1
        other = pulls_of(tmp_path, it.url)
        async with pulls_of(tmp_path, it.url) as pulls:
            await pulls.start(("m",))
            await until(lambda: other.state("m").done_bytes > 0)
    assert (PullState.FAILED, ENDED) == (other.state("m").state, other.state("m").reason)


async def test_lock_is_taken_by_one_at_a_time(tmp_path: Path) -> None:
    held = await take(tmp_path / "a.job")
    assert held is not None
    assert await take(tmp_path / "a.job") is None
    held.release()
    held.release()
    again = await take(tmp_path / "a.job")
    assert again is not None
    again.release()
