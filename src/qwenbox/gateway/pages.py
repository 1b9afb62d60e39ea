"""This is where long lists are cut into pages: newest first, each page begins after the last row of the one before.

A place is a moment and an id, not a number of rows, so what is written meanwhile neither repeats nor hides a row.
"""

import math

from qwenbox.terms.errors import ApiError, ErrorKind


def write(at: float, name: str) -> str:
    """The place of a row, as a text for the one who reads on."""
    return f"{at!r}~{name}"


def read(place: str) -> tuple[float, str]:
    """Raises ApiError(INVALID_REQUEST) for anything that `write` did not make."""
    at, mark, name = place.partition("~")
    try:
        moment = float(at)
    except ValueError:
        moment = math.nan
    if not mark or not math.isfinite(moment):
        raise ApiError(ErrorKind.INVALID_REQUEST, "This is no page of the list; take `next` of the page before.", param="after")
    return moment, name
