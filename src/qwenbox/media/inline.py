"""This is where a data URL becomes bytes."""

import base64
import binascii
import re

from qwenbox.media import refusals

_HEAD = re.compile(r"data:([a-zA-Z0-9!#$&^_.+/-]*)((?:;[a-zA-Z0-9_.+-]+=[a-zA-Z0-9\"_.+-]*)*)(;base64)?", re.IGNORECASE)
_MOST_HEAD = 256
_WHITE = str.maketrans("", "", " \t\r\n")


def is_inline(url: str) -> bool:
    return url[:5].lower() == "data:"


def read(url: str, most_bytes: int) -> bytes:
    """most_bytes: of the URL's text, as the service counts. What its head says of the type is not asked: the bytes know.

    Raises ApiError(INVALID_REQUEST).
    """
    if len(url) > most_bytes:
        raise refusals.refused(refusals.DATA_TOO_LARGE.format(limit_bytes=most_bytes))
    comma = url.find(",", 0, _MOST_HEAD)
    head = _HEAD.fullmatch(url, 0, comma) if comma >= 0 else None
    if head is None or not head[3]:
        raise refusals.refused(refusals.WRONG_URL)
    text = url[comma + 1 :]
    if "%" in text[-6:]:
        # Padding is often escaped; nothing else of base64 but its plus sign has to be.
        text = text.replace("%3D", "=").replace("%3d", "=")
    try:
        return base64.b64decode(text.translate(_WHITE), validate=True)
    except (binascii.Error, ValueError) as error:
        raise refusals.refused(refusals.WRONG_URL) from error
