"""This is where it is said what one target of the bench is: how it is started, and how it is asked."""

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from bench.load import Endpoint
from bench.process import Command
from bench.stores import Stores

CHAT = "/v1/chat/completions"
KEY = "sk-bench-0123456789abcdef0123456789abcdef"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Of one start: its port, the upstream's, an empty folder for files of its own, and the stores it asked for."""

    port: int
    upstream: int
    folder: Path
    stores: Stores = Stores()

    @property
    def upstream_url(self) -> str:
        return f"http://127.0.0.1:{self.upstream}"

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text, "utf-8")
        return str(path)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """missing: what is not installed, or "". hint: the command that installs it. install: does it; None where only the user can.

    stores: started for it on the load's core. workers: more than one get both cores. fills_s: how long its windows of admitted calls
    grow under load before they are full; memory is looked at after that.
    """

    name: str
    governs: str
    missing: Callable[[], str]
    hint: str
    command: Callable[[Place], Command]
    headers: Callable[[Place], Mapping[str, str]] = lambda place: {}
    model: str = "instant"
    install: Callable[[], None] | None = None
    stores: frozenset[str] = frozenset()
    workers: int = 1
    fills_s: float = 0.0

    def endpoint(self, place: Place) -> Endpoint:
        return Endpoint(port=place.port, path=CHAT, model=self.model, headers=self.headers(place))


def bearer(place: Place) -> Mapping[str, str]:
    return {"authorization": f"Bearer {KEY}"}
