"""This is where a short-lived key is asked for and handed out (help-centre page on temporary keys, 2025-12)."""

import msgspec

from qwenbox.dialects.base import Head, Page, WireRequest
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret

DEFAULT_S = 60
LEAST_S, MOST_S = 1, 1_800

_SECONDS = "expire_in_seconds"
_encoder = msgspec.json.Encoder()


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    """Bare, without the envelope of other answers."""

    token: str
    expires_at: int


def parse(request: WireRequest) -> int:
    """How long the key shall last, from the query. Raises ApiError(INVALID_REQUEST) for what is no number in its range."""
    text = request.query.get(_SECONDS)
    if text is None:
        return DEFAULT_S
    # isdecimal alone admits digits of other scripts.
    seconds = int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(MOST_S)) else 0
    if not LEAST_S <= seconds <= MOST_S:
        raise ApiError(ErrorKind.INVALID_REQUEST, f"Range of {_SECONDS} should be [{LEAST_S}, {MOST_S}]", param=_SECONDS)
    return seconds


def render(secret: Secret, expires_at: int) -> Page:
    body = _encoder.encode(_Body(token=secret.reveal(), expires_at=expires_at))
    # No cache on the way may keep a key.
    return Page(head=Head(status=200, media_type="application/json", headers={"cache-control": "no-store"}), body=body)
