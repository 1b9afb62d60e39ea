"""This is where several workers get one port: a listening socket each, so that the kernel spreads connections evenly.

On one socket whoever wakes first takes all that wait: of 32 clients that came together one worker of two got 31.
"""

import socket
import sys
from contextlib import suppress


def spread(bound: socket.socket, count: int) -> tuple[socket.socket, ...]:
    """A socket for each seat, bound like `bound`, which is closed; where the kernel cannot spread, `bound` itself for all of them.

    bound: not listening yet; alone on its address, which a socket that shares its port would not notice. Raises OSError.
    """
    if sys.platform != "linux":
        return (bound,) * count
    address = bound.getsockname()
    bound.close()
    sockets: list[socket.socket] = []
    for _ in range(count):
        one = socket.socket(bound.family, socket.SOCK_STREAM)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(address)
        one.setblocking(False)
        sockets.append(one)
    return tuple(sockets)


def rest(sockets: tuple[socket.socket, ...], index: int) -> None:
    """The worker of this seat (from 1) is dead: nobody shall queue for it until another listens there again."""
    if sys.platform == "linux" and sockets[index - 1].fileno() >= 0:
        with suppress(OSError):  # it never listened
            sockets[index - 1].shutdown(socket.SHUT_RDWR)
