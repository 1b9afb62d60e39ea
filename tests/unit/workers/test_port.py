"""One port for several workers: connections spread, and nobody queues for the dead."""

import socket
import sys

import pytest

from qwenbox.workers.port import rest, spread

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the workers accept from one socket")


def opened(count: int) -> tuple[socket.socket, ...]:
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    sockets = spread(bound, count)
    for one in sockets:
        one.listen(256)
    return sockets


def accepted(one: socket.socket) -> int:
    count = 0
    while True:
        try:
            connection, _ = one.accept()
        except BlockingIOError:
            return count
        connection.close()
        count += 1


def connect(address: tuple[str, int], times: int) -> None:
    for connection in [socket.create_connection(address) for _ in range(times)]:
        connection.close()


def test_connections_spread_over_the_sockets() -> None:
    sockets = opened(2)
    connect(sockets[0].getsockname(), 100)
    counts = [accepted(one) for one in sockets]
    for one in sockets:
        one.close()
    print(f"\n{counts}")
    assert 100 == sum(counts)
    assert min(counts) >= 20


def test_nobody_queues_for_a_dead_worker_until_another_listens() -> None:
    sockets = opened(2)
    address = sockets[0].getsockname()
    rest(sockets, 1)
    connect(address, 20)
    assert 20 == accepted(sockets[1])
    sockets[0].listen(256)
    connect(address, 100)
    assert 0 < accepted(sockets[0])
    for one in sockets:
        one.close()


def test_taken_port_is_noticed_when_others_share_it_among_themselves() -> None:
    sockets = opened(2)
    with socket.socket() as late:
        late.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError):
            late.bind(sockets[0].getsockname())
    for one in sockets:
        one.close()
