"""How fast a batch moves, and how long the rest will take."""

from qwenbox.client.jobs import BatchJob
from qwenbox.console.pages.batches.pace import Pace


def batch(completed: int, failed: int = 0) -> BatchJob:
    return BatchJob(
        id="b",
        account_id="a",
        key_id="k",
        name="",
        description="",
        endpoint="/v1/chat/completions",
        model="m",
        status="in_progress",
        created_at=0.0,
        input_file_id="f",
        total=1_000,
        completed=completed,
        failed=failed,
    )


def test_pace_is_unknown_until_something_moved():
    pace = Pace()
    assert (None, None) == (pace.lines_s, pace.left_s(batch(0)))
    for now in (0.0, 2.0, 4.0):
        pace.see(batch(5), now)
    assert (None, None) == (pace.lines_s, pace.left_s(batch(5)))


def test_pace_counts_all_lines_that_ended():
    pace = Pace()
    pace.see(batch(0), 10.0)
    pace.see(batch(90, failed=10), 20.0)
    assert (10.0, 90.0) == (pace.lines_s, pace.left_s(batch(90, failed=10)))


def test_pace_is_that_of_the_last_minute():
    pace = Pace()
    for second in range(0, 200, 2):
        pace.see(batch(0 if second <= 100 else second - 100), float(second))
    assert pace.lines_s == 1.0
    for second in range(200, 300, 2):
        pace.see(batch(98), float(second))
    assert pace.lines_s is None
