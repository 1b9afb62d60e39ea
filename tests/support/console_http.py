"""A console as a program meets it that is no browser: pages by httpx, the web socket by hand, its process by /proc."""

import json
import re
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from boxes import Box
from support.consoles import login_link

# What NiceGUI's pages ask for as soon as they are shown.
_SOCKET = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket&implicit_handshake=false"
_QUIET_S = 1.0
_MOST_MESSAGES = 20
_CLIENT_ID = re.compile(r"[\"']client_id[\"']\s*:\s*[\"']([^\"']+)")


class Person:
    """Somebody at a console. address: of it. A context of its own: cookies are kept."""

    def __init__(self, address: str, cookies: httpx.Cookies | None = None) -> None:
        self.address = address
        # A connection for each request, so that nothing is left open when nobody closes this.
        limits = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(base_url=address, cookies=cookies, timeout=60, follow_redirects=False, limits=limits)

    @property
    def cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.http.cookies.items())

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.http.get(path, headers=headers)

    def post(self, path: str, form: dict[str, str] | None = None, origin: str | None = "") -> httpx.Response:
        """origin: "" for the console's own, None for none."""
        headers = {} if origin is None else {"origin": origin or self.address}
        return self.http.post(path, data=form or {}, headers=headers)

    def is_in(self) -> bool:
        return self.get("/keys").status_code == 200

    @contextmanager
    def socket(self, origin: str | None = "", query: str = "") -> Generator[ClientConnection]:
        """A web socket as pages open it. Raises InvalidStatus when the handshake is refused."""
        headers = {"cookie": self.cookie} if self.cookie else {}
        own = self.address if origin == "" else origin
        url = self.address.replace("http", "ws", 1) + _SOCKET + query
        with connect(url, origin=own, additional_headers=headers, open_timeout=30, max_size=None) as opened:  # type: ignore[arg-type]
            yield opened

    def handshake_status(self, origin: str | None = "") -> int:
        """101 when the web socket opens."""
        try:
            with self.socket(origin):
                return 101
        except InvalidStatus as error:
            return error.response.status_code

    def seen(self, path: str) -> str:
        """What reaches a browser with this page open: its HTML, and what the socket brings until it is quiet, or has brought a lot."""
        page = self.get(path)
        assert page.status_code == 200, (path, page.status_code)
        told = [str(page.headers), page.text]
        with self.socket() as opened:
            joined(opened, page.text)
            with suppress(TimeoutError):
                while len(told) < _MOST_MESSAGES:
                    told.append(str(opened.recv(timeout=_QUIET_S)))
        return "\n".join(told)


def joined(socket: ClientConnection, page: str) -> None:
    """Tell NiceGUI which page this socket belongs to; returns once it has agreed."""
    found = _CLIENT_ID.search(page)
    assert found, page[:2_000]
    socket.recv(timeout=30)  # engine.io's open
    socket.send("40")
    socket.recv(timeout=30)  # socket.io's connect
    ids = {"client_id": found[1], "tab_id": "tab", "old_tab_id": None, "document_id": "document", "next_message_id": 0}
    socket.send(f"420{json.dumps(['handshake', ids])}")
    while True:
        told = str(socket.recv(timeout=30))
        if told.startswith("430"):
            assert told == "430[true]", told
            return


def ended(socket: ClientConnection, within_s: float) -> bool:
    """Whether the other side closes this socket, whose page goes on answering, within that time."""
    until_s = time.monotonic() + within_s
    try:
        while time.monotonic() < until_s:
            socket.send("3")  # engine.io's pong, as every page sends now and then
            try:
                socket.recv(timeout=0.2)
            except TimeoutError:
                continue
    except ConnectionClosed:
        return True
    return False


def raw_status(address: str, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> int:
    """The status of a request that no client library would send."""
    place = urlsplit(address)
    head = "".join(f"{name}: {value}\r\n" for name, value in {**headers, "Content-Length": str(len(body)), "Connection": "close"}.items())
    with socket.create_connection((str(place.hostname), place.port or 80), timeout=30) as opened:
        opened.sendall(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body)
        with opened.makefile("rb") as answer:
            return int(answer.readline().split()[1])


def console_address(box: Box) -> str:
    """Where `/console` leads; starts it if need be."""
    led = httpx.get(f"{box.base_url}/console", timeout=90)
    assert led.status_code == 307, led.text
    return led.headers["location"].rstrip("/")


def by_link(box: Box) -> Person:
    """Somebody who came by a link of the box's."""
    person = Person(console_address(box))
    entered = person.get(f"/link?token={login_link(box).partition('token=')[2]}")
    assert entered.status_code == 303, entered.text
    return person


def processes(box: Box) -> list[int]:
    """Process ids of the box's consoles."""
    found: list[int] = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            line = (folder / "cmdline").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == box.process.pid and b"qwenbox.console" in line:
            found.append(int(folder.name))
    return found


def is_alive(pid: int) -> bool:
    """Whether it runs; one that nobody has taken note of yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(holds: Any, within_s: float = 30.0) -> None:
    """Wait for what another process does."""
    limit_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < limit_s
        time.sleep(0.02)
