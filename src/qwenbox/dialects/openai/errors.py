"""This is where every kind of failure gets its status, code, type and text on the OpenAI-compatible wire."""

import math
from collections.abc import Mapping

import msgspec

from qwenbox.dialects.base import Head, Page
from qwenbox.terms.errors import ApiError, ErrorKind

_INVALID_REQUEST_TYPE = "invalid_request_error"
_OF_MODELS = frozenset({ErrorKind.MODEL_NOT_FOUND, ErrorKind.WRONG_ENDPOINT})
_NO_CALL_YET = frozenset(
    {
        ErrorKind.UNAUTHENTICATED,
        ErrorKind.FORBIDDEN,
        *_OF_MODELS,
        ErrorKind.NOT_FOUND,
        ErrorKind.METHOD_NOT_ALLOWED,
        ErrorKind.TOO_LARGE,
    }
)


class ErrorRow(msgspec.Struct, frozen=True):
    """text: what a caller reads when an error brings no message of its own."""

    status: int
    code: str
    type: str
    text: str


TABLE: Mapping[ErrorKind, ErrorRow] = {
    ErrorKind.INVALID_REQUEST: ErrorRow(
        400, "invalid_parameter_error", _INVALID_REQUEST_TYPE, "Required parameter missing or invalid, please check the request parameters."
    ),
    ErrorKind.UNAUTHENTICATED: ErrorRow(401, "invalid_api_key", _INVALID_REQUEST_TYPE, "Incorrect API key provided. "),
    ErrorKind.FORBIDDEN: ErrorRow(403, "access_denied", "access_denied", "Access denied."),
    ErrorKind.MODEL_NOT_FOUND: ErrorRow(404, "model_not_found", _INVALID_REQUEST_TYPE, "Model can not be found."),
    ErrorKind.WRONG_ENDPOINT: ErrorRow(
        404, "model_not_supported", _INVALID_REQUEST_TYPE, "Unsupported model {param} for OpenAI compatibility mode."
    ),
    ErrorKind.NOT_FOUND: ErrorRow(404, "not_found", _INVALID_REQUEST_TYPE, "Not found!"),
    ErrorKind.METHOD_NOT_ALLOWED: ErrorRow(405, "method_not_allowed", _INVALID_REQUEST_TYPE, "Request method is not supported."),
    ErrorKind.CONFLICT: ErrorRow(409, "conflict", _INVALID_REQUEST_TYPE, "The request conflicts with the present state of its target."),
    ErrorKind.TOO_LARGE: ErrorRow(413, "request_too_large", _INVALID_REQUEST_TYPE, "Payload Too Large."),
    ErrorKind.CONTEXT_TOO_LONG: ErrorRow(
        400, "invalid_parameter_error", _INVALID_REQUEST_TYPE, "The input is longer than this model's range of input length."
    ),
    ErrorKind.RATE_LIMITED: ErrorRow(
        429, "limit_requests", "limit_requests", "You exceeded your current request limit. Please try again later."
    ),
    ErrorKind.QUOTA_EXHAUSTED: ErrorRow(
        429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota, please check your plan and billing details."
    ),
    ErrorKind.OUT_OF_FUNDS: ErrorRow(400, "Arrearage", "Arrearage", "Access denied, please make sure your account is in good standing."),
    ErrorKind.CONTENT_REJECTED: ErrorRow(
        400, "data_inspection_failed", "data_inspection_failed", "Input or output data may contain inappropriate content."
    ),
    ErrorKind.OVERLOADED: ErrorRow(
        503,
        "model_unavailable",
        "ServiceUnavailable",
        "Too many requests. Your requests are being throttled due to system capacity limits. Please try again later.",
    ),
    ErrorKind.ENGINE_FAILED: ErrorRow(500, "internal_error", "internal_error", "Failed to request model service."),
    ErrorKind.TIMEOUT: ErrorRow(500, "request_timeout", "internal_error", "Request timed out, please try again later."),
    ErrorKind.INTERNAL: ErrorRow(
        500,
        "internal_error",
        "internal_error",
        "An internal error has occured, please try again later or contact service support.",
    ),
}


class _Error(msgspec.Struct, kw_only=True):
    message: str
    type: str
    param: str | None
    code: str


class _Body(msgspec.Struct, kw_only=True, omit_defaults=True):
    error: _Error
    id: str = ""
    request_id: str


_ENCODER = msgspec.json.Encoder()


def body(error: ApiError, request_id: str) -> bytes:
    """The error as JSON: of a page, or of the frame that ends a stream."""
    row = TABLE[error.kind]
    # A model's name is not a field of the request: the service answers null there.
    param = None if error.kind in _OF_MODELS or error.param is None else _clean(error.param)
    call_id = "" if error.kind in _NO_CALL_YET else f"chatcmpl-{request_id}"
    wire = _Error(message=message(error), type=row.type, param=param, code=row.code)
    return _ENCODER.encode(_Body(error=wire, id=call_id, request_id=request_id))


def page(error: ApiError, request_id: str) -> Page:
    """The error as a whole response. Retry-After is rounded up to whole seconds."""
    headers: dict[str, str] = {}
    row = TABLE[error.kind]
    if error.retry_after_s is not None and row.status in (429, 503):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
        headers["retry-after-ms"] = str(max(1, math.ceil(error.retry_after_s * 1000)))
    return Page(head=Head(status=row.status, media_type="application/json", headers=headers), body=body(error, request_id))


def message(error: ApiError) -> str:
    """What the caller reads."""
    row = TABLE[error.kind]
    # What went wrong inside is for the log; the caller gets the request id to ask with.
    if error.kind is ErrorKind.INTERNAL:
        return row.text
    if error.message:
        return _clean(error.message)
    if error.kind is ErrorKind.MODEL_NOT_FOUND and error.param:
        return f"The model `{_clean(error.param)}` does not exist or you do not have access to it."
    if error.kind is ErrorKind.WRONG_ENDPOINT:
        return row.text.format(param=_clean(error.param or "of that name"))
    return row.text


def _clean(text: str) -> str:
    """A path may smuggle in half a surrogate pair, which is not JSON."""
    return text.encode(errors="replace").decode()
