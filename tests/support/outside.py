"""This is where tests put servers: one outside, that pictures are fetched from and that misbehaves as told, and a listener inside."""

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field

# A loopback address that a box is told to take for one outside.
OUTSIDE = "127.0.0.2"

# Gets the connection, its request's head read; what it writes is the whole answer.
Answer = Callable[[socket.socket], None]


@dataclass
class Server:
    """url: without a path. connections: how many came. answers: by path."""

    url: str
    answers: dict[str, Answer] = field(default_factory=dict)
    connections: int = 0

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


def file(data: bytes, *headers: str) -> Answer:
    head = "\r\n".join(["HTTP/1.1 200 OK", f"content-length: {len(data)}", "content-type: image/png", *headers, "", ""])
    return lambda connection: connection.sendall(head.encode() + data)


def redirect(location: str, status: int = 302) -> Answer:
    return lambda connection: connection.sendall(f"HTTP/1.1 {status} Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n".encode())


def endless(head: bytes, piece: bytes) -> Answer:
    """Until the other side hangs up."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(piece)

    return answer


def slow(data: bytes) -> Answer:
    """A byte now and then, until the other side hangs up."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + data)
        connection.settimeout(0.02)
        while True:
            connection.sendall(b"x")
            with suppress(TimeoutError):
                if not connection.recv(1):
                    return

    return answer


@contextmanager
def serve(host: str = OUTSIDE, answers: Mapping[str, Answer] | None = None) -> Iterator[Server]:
    with closing(socket.create_server((host, 0))) as listener:
        server = Server(f"http://{host}:{listener.getsockname()[1]}", dict(answers or {}))
        threading.Thread(target=_accept, args=(server, listener), daemon=True).start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def listen_inside() -> Iterator[Server]:
    """Listens where nobody may come from outside, on all addresses of the machine; answers with a picture, should it be asked."""
    with closing(socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)) as listener:
        server = Server(f"http://127.0.0.1:{listener.getsockname()[1]}")
        threading.Thread(target=_accept, args=(server, listener), daemon=True).start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _accept(server: Server, listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        server.connections += 1
        threading.Thread(target=_answer, args=(server, connection), daemon=True).start()


def _answer(server: Server, connection: socket.socket) -> None:
    with connection, suppress(OSError):
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(4096)
            if not piece:
                return
            head += piece
        path = head.split(b" ")[1].decode().partition("?")[0]
        if path in server.answers:
            server.answers[path](connection)
