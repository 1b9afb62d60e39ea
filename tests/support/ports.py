"""Ports of loopback for whatever the tests start."""

import contextlib
import itertools
import os
import random
import socket
from collections.abc import Iterator


def _ports() -> Iterator[int]:
    """Round and round through ports of this process alone: below those that the system gives to whoever asks for any, so that nobody gets
    one between its choice and its use, and of each four the one of this pytest-xdist worker."""
    low, high = 10_000, 32_000
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw3").removeprefix("gw")) % 4
    mine = range(low + worker, high, 4)
    start = random.SystemRandom().randrange(len(mine))
    return itertools.cycle([*mine[start:], *mine[:start]])


_PORTS = _ports()


def free_port() -> int:
    """A port of loopback where nobody listens."""
    for port in _PORTS:
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise AssertionError("the round has no end")
