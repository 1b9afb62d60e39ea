"""This is where two processes that pull the same file take turns."""

import fcntl
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel

POLL_S = 0.2


@asynccontextmanager
async def exclusive(path: Path, waiting: Callable[[], None]) -> AsyncGenerator[None]:
    """Hold the lock file `path`; `waiting` is called every POLL_S while another holder works. A killed holder lets go."""
    handle = _open(path)
    try:
        while not _try(handle, fcntl.LOCK_EX):
            waiting()
            await anyio.sleep(POLL_S)
        yield
    finally:
        os.close(handle)


class Hold:
    """A lock file held until `release`; called again, that does nothing."""

    def __init__(self, handle: int) -> None:
        self._handle: int | None = handle

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


async def take(path: Path) -> Hold | None:
    """Hold the lock file `path`; None when somebody else does."""
    while True:
        handle = _open(path)
        if _try(handle, fcntl.LOCK_EX):
            return Hold(handle)
        os.close(handle)
        if is_held(path):
            return None
        await anyio.lowlevel.checkpoint()  # somebody only looked


def is_held(path: Path) -> bool:
    """Whether somebody pulls right now."""
    if not path.exists():
        return False
    handle = _open(path)
    try:
        return not _try(handle, fcntl.LOCK_SH)
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _try(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
