"""This is where what all open pages share lives: the way to the box, and what several pages ask for at once."""

import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar
from urllib.parse import urlsplit

import anyio

from qwenbox.client.admin import AdminClient
from qwenbox.console.own_keys import OwnKeys

T = TypeVar("T")


class Polled(Generic[T]):
    """One answer for everybody who asks within `every_s`: ten open pages cost the box what one does."""

    def __init__(self, fetch: Callable[[], Awaitable[T]], every_s: float) -> None:
        self._fetch = fetch
        self._every_s = every_s
        self._lock = anyio.Lock()
        self._found: tuple[float, T] | None = None

    async def get(self) -> T:
        """The answer, at most every_s old. Raises ApiError as the box does; nothing of that is kept."""
        async with self._lock:
            if self._found is None or time.monotonic() - self._found[0] >= self._every_s:
                self._found = (time.monotonic(), await self._fetch())
            return self._found[1]

    def forget(self) -> None:
        """Ask anew next time: something was changed."""
        self._found = None


class House:
    """box: the address at which we ask it. base_url: the one that callers are told; "" where the visitor's own way is the best guess.

    own_keys: for calls in a visitor's name; whoever opens the house opens them.
    """

    def __init__(self, admin: AdminClient, box: str, base_url: str = "") -> None:
        self.admin = admin
        self.own_keys = OwnKeys(admin)
        self.box = box
        self.base_url = base_url
        self._polled: dict[object, Polled[object]] = {}

    @property
    def port(self) -> int:
        return urlsplit(self.box).port or 80

    def polled(self, name: object, fetch: Callable[[], Awaitable[T]], every_s: float = 2.0) -> Polled[T]:
        """The shared answer of that name, e.g. ("series", span); whoever asks first says how it is fetched."""
        if len(self._polled) > 1_000:
            self._polled.clear()
        # Names and types belong together by convention: a name is used in one place.
        return self._polled.setdefault(name, Polled(fetch, every_s))  # pyright: ignore[reportReturnType, reportArgumentType]
