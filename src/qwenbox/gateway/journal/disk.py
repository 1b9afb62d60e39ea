"""This is where it is decided whether the event loop may write to a disk itself, by how long that took the last time."""

import resource
import sys
import time
from collections.abc import Callable
from types import TracebackType

# A disk this slow is left to a thread for a while: the loop has streams to serve.
SLOW_S = 0.02
SLOW_FOR_S = 1.0


def waits() -> int:
    """How often this thread has waited so far, be it for a disk or a lock, but not for its turn on a processor."""
    if sys.platform == "linux":
        return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    return time.monotonic_ns()  # elsewhere nobody tells: every write counts as one that waited


class Disk:
    """`with` around every write of the loop; `is_slow` for a while after one that waited long.

    On a busy processor a write takes as long as on a slow disk, because others have their turns in its middle. The thread would have
    to wait for its turns just the same, and needs more of them.
    """

    __slots__ = ("_begun", "_now", "_slow_until", "_waits", "_waits_before")

    def __init__(self, now: Callable[[], float] = time.monotonic, waits: Callable[[], int] = waits) -> None:
        self._now = now
        self._waits = waits
        self._slow_until = float("-inf")

    @property
    def is_slow(self) -> bool:
        return self._now() < self._slow_until

    def __enter__(self) -> None:
        self._waits_before = self._waits()
        self._begun = self._now()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        now = self._now()
        if now - self._begun > SLOW_S and self._waits() != self._waits_before:
            self._slow_until = now + SLOW_FOR_S
