"""This is where the speed of batches is watched: lines a second over the last minute, and how long the rest will take."""

from collections import deque

from qwenbox.client.jobs import BatchJob

_SPAN_S = 60.0


class Pace:
    """Of one batch. Tell it what the box says, whenever it does."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def see(self, batch: BatchJob, now: float) -> None:
        """now: seconds of any clock that goes on evenly."""
        self._seen.append((now, batch.completed + batch.failed))
        # The oldest one kept is just older than the span, so that the span is covered.
        while len(self._seen) > 2 and self._seen[1][0] <= now - _SPAN_S:
            self._seen.popleft()

    @property
    def lines_s(self) -> float | None:
        """None until something was seen to move."""
        if len(self._seen) < 2:
            return None
        (since, before), (until, after) = self._seen[0], self._seen[-1]
        return (after - before) / (until - since) if until > since and after > before else None

    def left_s(self, batch: BatchJob) -> float | None:
        """Until its last line, if it goes on like this."""
        rate = self.lines_s
        return max(0, batch.total - batch.completed - batch.failed) / rate if rate else None
