"""This is where the console listens: NiceGUI's pages behind the door, in one process, until the box is gone."""

import os
import socket
import sys
import tempfile
import threading

# What NiceGUI would keep in a folder where the box was started: ours is given nothing to keep. It is read at the first import.
os.environ["NICEGUI_STORAGE_PATH"] = os.path.join(tempfile.gettempdir(), "qwenbox-console-keeps-nothing")

import anyio
import msgspec
import uvicorn

from qwenbox.client.admin import open_remote
from qwenbox.console.door import Door
from qwenbox.console.frame import application
from qwenbox.console.house import House
from qwenbox.console.settings import Opening
from qwenbox.terms.secret import Secret

# What requests still have when the console ends: uploads and downloads; open pages are simply left.
_DRAIN_S = 2


class _Listening(msgspec.Struct, frozen=True):
    """What the parent reads once we listen."""

    address: str


class _Server(uvicorn.Server):
    """uvicorn that tells the parent when it listens, and ends when the parent is gone."""

    def __init__(self, config: uvicorn.Config, address: str) -> None:
        super().__init__(config)
        self._address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        sys.stdout.write(msgspec.json.encode(_Listening(self._address)).decode() + "\n")
        sys.stdout.flush()
        threading.Thread(target=self._end_with_parent, daemon=True).start()

    def _end_with_parent(self) -> None:
        sys.stdin.buffer.read()
        self.should_exit = True


def serve(opening: Opening) -> None:
    """Serve until the parent closes our stdin. A taken port ends the process with one clear line on stderr."""
    listener = _bind(opening.host, opening.port)
    anyio.run(_serve, opening, listener)


async def _serve(opening: Opening, listener: socket.socket) -> None:
    port = int(listener.getsockname()[1])
    host = f"[{opening.host}]" if ":" in opening.host else opening.host
    async with open_remote(opening.box, Secret(opening.admin_key)) as admin:
        house = House(admin, opening.box, opening.base_url)
        door = Door(application(house), admin, port, is_local=opening.is_local)
        config = uvicorn.Config(
            door,
            loop="none",
            lifespan="on",
            access_log=False,
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_DRAIN_S,
        )
        async with house.own_keys:
            await _Server(config, f"http://{host}:{port}").serve(sockets=[listener])


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise SystemExit(f"The console can't listen on {host}:{port}: {error.strerror}. Another port: QWENBOX_CONSOLE_PORT.") from error
    return listener
