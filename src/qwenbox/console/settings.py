"""This is where the console's settings are declared. The box reads this file and nothing else of the console."""

import re

import msgspec

_ADDRESS = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")


class ConsoleConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[console]`. enabled: whether there is one at all. port: of the console's own process, on the box's host; 0 picks a free one.

    session_hours: how long somebody stays signed in after the last use; 168 in all. public_url: where browsers find the console behind a
    proxy, e.g. https://console.example.com; "" for the host at which they found the box, at the console's port.
    """

    enabled: bool = True
    port: int = 8001
    session_hours: float = 12.0
    public_url: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ValueError("port must be 0 to 65535")
        if not 0 < self.session_hours <= 168:
            raise ValueError("session_hours must be more than 0 and at most 168")
        if self.public_url and not _ADDRESS.fullmatch(self.public_url):
            raise ValueError("public_url must be scheme and host without a path, such as https://console.example.com")


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """What the box tells the console on its standard input, as one line of JSON.

    box: address at which to ask the box, by its loopback where it has one. admin_key: for the admin API. host, port: where to listen; 0
    picks. is_local: only this machine can reach it there. base_url: what programs are to be told as the box's address; "" where it is the
    host that the visitor came to, at the box's port.
    """

    box: str
    admin_key: str
    host: str
    port: int
    is_local: bool
    base_url: str

    def __repr__(self) -> str:
        return f"Opening(box={self.box!r}, host={self.host!r}, port={self.port})"
