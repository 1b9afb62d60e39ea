"""A client's connection to the box, between its calls."""

import contextlib
import http.client

from qwenbox.server.exchange import ServerConfig

# What httpx and aiohttp keep an idle connection for, in seconds.
_CLIENTS_KEEP_S = (5, 15)


def _connected(box) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", box.port, timeout=30)
    connection.request("GET", "/health")
    answer = connection.getresponse()
    assert (200, True) == (answer.status, answer.read() != b"")
    return connection


def test_connection_ends_when_it_idles_for_longer_than_allowed(serve) -> None:
    with contextlib.closing(_connected(serve(toml="[server]\nkeep_alive_s = 1\n"))) as connection:
        assert connection.sock is not None
        assert b"" == connection.sock.recv(1)


def test_idle_connection_outlives_those_of_the_sdks() -> None:
    assert max(_CLIENTS_KEEP_S) < ServerConfig().keep_alive_s
