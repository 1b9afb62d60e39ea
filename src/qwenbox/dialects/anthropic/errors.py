"""This is where every kind of failure gets its status, type and text on Anthropic's wire.

Source: Anthropic, "Errors" (2026): the types and their statuses.
"""

import math
from collections.abc import Mapping

import msgspec

from qwenbox.dialects.base import Head, Page
from qwenbox.terms.errors import ApiError, ErrorKind

_INVALID = "invalid_request_error"


class ErrorRow(msgspec.Struct, frozen=True):
    """text: what a caller reads when an error brings no message of its own."""

    status: int
    type: str
    text: str


TABLE: Mapping[ErrorKind, ErrorRow] = {
    ErrorKind.INVALID_REQUEST: ErrorRow(400, _INVALID, "There was an issue with the format or content of your request."),
    ErrorKind.UNAUTHENTICATED: ErrorRow(401, "authentication_error", "invalid x-api-key"),
    ErrorKind.FORBIDDEN: ErrorRow(403, "permission_error", "Your API key does not have permission to use the specified resource."),
    ErrorKind.MODEL_NOT_FOUND: ErrorRow(404, "not_found_error", "The requested model could not be found."),
    ErrorKind.WRONG_ENDPOINT: ErrorRow(400, _INVALID, "The model does not do what this endpoint is for."),
    ErrorKind.NOT_FOUND: ErrorRow(404, "not_found_error", "The requested resource could not be found."),
    ErrorKind.METHOD_NOT_ALLOWED: ErrorRow(405, _INVALID, "Method Not Allowed"),
    ErrorKind.CONFLICT: ErrorRow(409, _INVALID, "The request conflicts with the present state of its target."),
    ErrorKind.TOO_LARGE: ErrorRow(413, "request_too_large", "Request exceeds the maximum size."),
    ErrorKind.CONTEXT_TOO_LONG: ErrorRow(400, _INVALID, "prompt is too long"),
    ErrorKind.RATE_LIMITED: ErrorRow(
        429, "rate_limit_error", "This request would exceed your account's rate limit. Please try again later."
    ),
    ErrorKind.QUOTA_EXHAUSTED: ErrorRow(429, "rate_limit_error", "Your account has used up its quota."),
    ErrorKind.OUT_OF_FUNDS: ErrorRow(402, "billing_error", "Your credit balance is too low."),
    ErrorKind.CONTENT_REJECTED: ErrorRow(400, _INVALID, "Input or output may contain inappropriate content."),
    ErrorKind.OVERLOADED: ErrorRow(529, "overloaded_error", "Overloaded"),
    ErrorKind.ENGINE_FAILED: ErrorRow(500, "api_error", "The model failed to answer."),
    ErrorKind.TIMEOUT: ErrorRow(504, "timeout_error", "The request timed out."),
    ErrorKind.INTERNAL: ErrorRow(500, "api_error", "Internal server error"),
}

# After these the same request may succeed; the SDK waits as long as it is told.
_PASSING = frozenset({429, 529})


class _Error(msgspec.Struct, kw_only=True):
    type: str
    message: str


class _Body(msgspec.Struct, kw_only=True, tag="error", tag_field="type"):
    error: _Error
    request_id: str


_ENCODER = msgspec.json.Encoder()


def body(error: ApiError, request_id: str) -> bytes:
    """The error as JSON: of a page, or of the event that ends a stream."""
    row = TABLE[error.kind]
    return _ENCODER.encode(_Body(error=_Error(type=row.type, message=_message(error, row)), request_id=request_id))


def page(error: ApiError, request_id: str) -> Page:
    """The error as a whole response. Retry-After is rounded up to whole seconds."""
    row = TABLE[error.kind]
    # The SDK's `request_id` of an error comes from this header.
    headers = {"request-id": request_id}
    if error.retry_after_s is not None and row.status in _PASSING:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
        headers["retry-after-ms"] = str(max(1, math.ceil(error.retry_after_s * 1000)))
    return Page(head=Head(status=row.status, media_type="application/json", headers=headers), body=body(error, request_id))


def _message(error: ApiError, row: ErrorRow) -> str:
    # What went wrong inside is for the log; the caller gets the request id to ask with.
    if error.kind is ErrorKind.INTERNAL:
        return row.text
    if error.message:
        return _clean(error.message)
    if error.kind is ErrorKind.MODEL_NOT_FOUND and error.param:
        return f"model: {_clean(error.param)}"
    return row.text


def _clean(text: str) -> str:
    """A path may smuggle in half a surrogate pair, which is not JSON."""
    return text.encode(errors="replace").decode()
