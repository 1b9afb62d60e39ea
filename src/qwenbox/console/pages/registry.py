"""This is where the console's pages are listed, in the order of its navigation."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from qwenbox.console.pages import limits, logs, overview, password, usage
from qwenbox.console.pages.batches import page as batches
from qwenbox.console.pages.health import page as health
from qwenbox.console.pages.keys import page as keys
from qwenbox.console.pages.models import page as models
from qwenbox.console.pages.playground import page as playground
from qwenbox.console.view import View


class Room(NamedTuple):
    """icon: in the navigation; nothing: not there."""

    path: str
    title: str
    icon: str
    build: Callable[[View], Awaitable[None]]


ROOMS: tuple[Room, ...] = (
    Room("/", "Overview", "insights", overview.build),
    Room("/playground", "Playground", "forum", playground.build),
    Room("/keys", "Keys", "key", keys.build),
    Room("/models", "Models", "memory", models.build),
    Room("/usage", "Usage & billing", "payments", usage.build),
    Room("/logs", "Logs", "receipt_long", logs.build),
    Room("/batches", "Batches", "layers", batches.build),
    Room("/limits", "Limits", "speed", limits.build),
    Room("/health", "Settings & health", "monitor_heart", health.build),
    Room("/password", "Password", "", password.build),
)
