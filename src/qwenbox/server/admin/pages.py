"""This is where a place in a list becomes a cursor and back: opaque to clients, safe in a URL."""

import base64
import binascii
from collections.abc import Callable
from typing import TypeVar

from qwenbox.client.shapes import Paging
from qwenbox.terms.errors import ApiError, ErrorKind

T = TypeVar("T")


def write(place: str) -> str | None:
    """None for "", the end."""
    return base64.urlsafe_b64encode(place.encode()).rstrip(b"=").decode() if place else None


def read(cursor: str) -> str:
    """Raises ApiError(INVALID_REQUEST) for what `write` did not make."""
    try:
        place = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise _wrong() from error
    if not place.isprintable():
        raise _wrong()
    return place


def cut(items: tuple[T, ...], asked: Paging, name: Callable[[T], str]) -> tuple[tuple[T, ...], str | None]:
    """One page of a list that is whole in memory, and the cursor of the next. name: of a row; rows are never removed."""
    start = 0
    if asked.cursor:
        place = read(asked.cursor)
        start = next((number + 1 for number, item in enumerate(items) if name(item) == place), len(items))
    shown = items[start : start + asked.limit]
    return shown, write(name(shown[-1])) if start + asked.limit < len(items) else None


def _wrong() -> ApiError:
    return ApiError(ErrorKind.INVALID_REQUEST, "This is no cursor; take `next_cursor` of the page before.", param="cursor")
