"""This is where the console's pages are listed, in the order of its navigation."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from qwenbox.console.pages import keys, password
from qwenbox.console.view import View


class Room(NamedTuple):
    """icon: in the navigation; nothing: not there."""

    path: str
    title: str
    icon: str
    build: Callable[[View], Awaitable[None]]


ROOMS: tuple[Room, ...] = (
    Room("/keys", "Keys", "key", keys.build),
    Room("/password", "Password", "", password.build),
)
