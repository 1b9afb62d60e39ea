"""This is where the admin API finds what runs below the models: weights and their pulls, engines, processes, database, settings."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec

from qwenbox.client.system import Setting
from qwenbox.db import Database
from qwenbox.gateway.speed import Speeds
from qwenbox.telemetry.snapshot import Snapshot
from qwenbox.terms.engine import Unloadable
from qwenbox.weights.pulls import Pulls
from qwenbox.weights.store import WeightsStore


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a box knows of itself. workers: processes that answer calls. memory_limit_bytes: what weights may take together.

    margin_bytes: what must stay free on its disk.
    """

    home: Path
    profile: str
    workers: int
    started_at: float
    memory_limit_bytes: int
    margin_bytes: int


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """files: names of the weights that each deployment needs here, by the deployment's name. loadable: deployments by name that take
    memory only from their first call on. counted: by all processes. valkey: "off", "up" or "down"."""

    about: About
    store: WeightsStore
    pulls: Pulls
    files: Mapping[str, tuple[str, ...]]
    loadable: Mapping[str, Unloadable]
    speeds: Speeds
    database: Database
    counted: Callable[[], Awaitable[Snapshot]]
    valkey: Callable[[], str]
    settings: Callable[[], tuple[Setting, ...]]
