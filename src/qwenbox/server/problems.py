"""This is where an error looks like one on our own APIs (admin, receipts): {"error": {"code", "message", "param"}}."""

import math
from collections.abc import Mapping

import msgspec

from qwenbox.client.shapes import Problem, Refusal
from qwenbox.dialects.base import Head, Page
from qwenbox.terms.errors import ApiError, ErrorKind

STATUSES: Mapping[ErrorKind, int] = {
    ErrorKind.INVALID_REQUEST: 400,
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.FORBIDDEN: 403,
    ErrorKind.MODEL_NOT_FOUND: 404,
    ErrorKind.WRONG_ENDPOINT: 400,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.METHOD_NOT_ALLOWED: 405,
    ErrorKind.CONFLICT: 409,
    ErrorKind.TOO_LARGE: 413,
    ErrorKind.CONTEXT_TOO_LONG: 400,
    ErrorKind.RATE_LIMITED: 429,
    ErrorKind.QUOTA_EXHAUSTED: 429,
    ErrorKind.OUT_OF_FUNDS: 402,
    ErrorKind.CONTENT_REJECTED: 400,
    ErrorKind.OVERLOADED: 503,
    ErrorKind.ENGINE_FAILED: 502,
    ErrorKind.TIMEOUT: 504,
    ErrorKind.INTERNAL: 500,
}
_TEXTS: Mapping[ErrorKind, str] = {
    ErrorKind.UNAUTHENTICATED: "This needs a credential that is valid here.",
    ErrorKind.NOT_FOUND: "There is nothing here.",
    ErrorKind.OVERLOADED: "The box cannot do this now. Please try again later.",
    ErrorKind.INTERNAL: "Something failed inside the box; its log has the details under this answer's x-request-id.",
}
_RETRYABLE = frozenset({429, 503})


def page(error: ApiError) -> Page:
    """The error as a whole response. An internal error shows the standard text only, whatever it carries."""
    status = STATUSES[error.kind]
    message = "" if error.kind is ErrorKind.INTERNAL else error.message
    problem = Problem(code=error.kind.value, message=_encodable(message or _TEXTS.get(error.kind, error.kind.value)), param=error.param)
    headers: dict[str, str] = {}
    if status == 401:
        # Not Basic: a browser would ask its user for a password, keep it, and add it to whatever any page sends here.
        headers["www-authenticate"] = 'Bearer realm="qwenbox"'
    if error.retry_after_s is not None and status in _RETRYABLE:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    body = msgspec.json.encode(Refusal(error=problem))
    return Page(head=Head(status=status, media_type="application/json", headers=headers), body=body)


def _encodable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
