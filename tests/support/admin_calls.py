"""This is where tests speak to a running box's admin API, byte for byte, and get short-lived keys from it."""

from typing import Any

import wire
from boxes import Box

ADMIN_KEY = "ak-test-0123456789abcdef"

# A box whose admin key tests know, and whose clock they may move.
TESTING = {"QWENBOX_ADMIN_KEY": ADMIN_KEY, "QWENBOX_TESTING": "1"}


def admin(box: Box, method: str, path: str, body: Any = None, *, key: str | None = ADMIN_KEY, **more: Any) -> wire.Heard:
    """One request below /admin/v1. key: None sends none."""
    return wire.call(box, method, f"/admin/v1{path}", body, key=key, **more)


def short_lived(box: Box, seconds: int | None = None, *, key: str = "") -> wire.Heard:
    """Ask for a short-lived key. key: "" is the box's own."""
    query = "" if seconds is None else f"?expire_in_seconds={seconds}"
    return wire.call(box, "POST", f"/api/v1/tokens{query}", key=key)


def advance(box: Box, seconds: float) -> None:
    """Move the box's time; it has moved when this returns."""
    assert 200 == admin(box, "POST", "/clock", {"advance_s": seconds}).status
