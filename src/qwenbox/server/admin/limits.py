"""This is where the live windows are shown over HTTP: what is used right now of the limits."""

from qwenbox.client.shapes import Nothing, Page, WindowState
from qwenbox.gateway.counters.base import LiveWindow
from qwenbox.server.admin.operation import Asked, Operation, operation
from qwenbox.server.admin.parts import AdminParts, live


async def windows(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> Page[WindowState]:
    """What every limited account or key uses of a model in the current window. Only a running box can tell."""
    return Page(items=tuple([_shown(window) for window in await live(parts).windows()]))


def _shown(window: LiveWindow) -> WindowState:
    owner_id, _, model = window.id.partition("/")
    return WindowState(owner_id=owner_id, model=model, requests=window.requests, tokens=window.tokens, open_calls=window.open)


OPERATIONS: tuple[Operation, ...] = (operation("GET /limits", windows),)
