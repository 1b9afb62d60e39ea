"""This is where every error kind has its native status, code and text (wire reference 5.3; help-centre page of 2025-12-26)."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from qwenbox.dialects.base import Head, Page
from qwenbox.terms.errors import ApiError, ErrorKind

NO_KEY = "No API-key provided."
BAD_BODY = "Required body invalid, please check the request body format."
EMPTY_INPUT = "Required input parameter missing from request."
EMPTY_MODEL = 'Required parameter "model" missing from request.'
WRONG_PATH = "url error, please check url！"
NOT_PENDING = "Failed to cancel the task, please confirm if the task is in PENDING status."
ILLEGAL_INPUT = "The input parameter requires json format."

# A name longer than any real one is not repeated whole into an answer.
LONGEST_ECHO = 128


class Entry(NamedTuple):
    """How one kind looks on this wire; `{param}` in the text stands for what the error names."""

    status: int
    code: str
    text: str


TABLE: Mapping[ErrorKind, Entry] = {
    ErrorKind.INVALID_REQUEST: Entry(400, "InvalidParameter", BAD_BODY),
    ErrorKind.UNAUTHENTICATED: Entry(401, "InvalidApiKey", "Invalid API-key provided."),
    ErrorKind.FORBIDDEN: Entry(403, "AccessDenied", "Access denied."),
    ErrorKind.MODEL_NOT_FOUND: Entry(404, "ModelNotFound", "The model {param} does not exist or you do not have access to it."),
    ErrorKind.WRONG_ENDPOINT: Entry(400, "InvalidParameter", WRONG_PATH),
    ErrorKind.NOT_FOUND: Entry(404, "NotFound", "Not found!"),
    ErrorKind.METHOD_NOT_ALLOWED: Entry(405, "InvalidParameter", "Request method '{param}' is not supported."),
    ErrorKind.CONFLICT: Entry(409, "Conflict", "The request conflicts with the current state of the resource."),
    ErrorKind.TOO_LARGE: Entry(413, "BadRequest.TooLarge", "Payload Too Large."),
    ErrorKind.CONTEXT_TOO_LONG: Entry(400, "InvalidParameter", "The input is longer than the context of the model."),
    ErrorKind.RATE_LIMITED: Entry(429, "Throttling.RateQuota", "Requests rate limit exceeded, please try again later."),
    ErrorKind.QUOTA_EXHAUSTED: Entry(429, "Throttling.AllocationQuota", "Allocated quota exceeded, please increase your quota limit."),
    ErrorKind.OUT_OF_FUNDS: Entry(400, "Arrearage", "Access denied, please make sure your account is in good standing."),
    ErrorKind.CONTENT_REJECTED: Entry(400, "DataInspectionFailed", "Input or output data may contain inappropriate content."),
    ErrorKind.OVERLOADED: Entry(
        503,
        "ModelServingError",
        "Too many requests. Your requests are being throttled due to system capacity limits. Please try again later.",
    ),
    ErrorKind.ENGINE_FAILED: Entry(500, "InternalError.Algo", "An internal error has occured during algorithm execution."),
    ErrorKind.TIMEOUT: Entry(500, "RequestTimeOut", "Request timed out, please try again later."),
    ErrorKind.INTERNAL: Entry(500, "InternalError", "An internal error has occured, please try again later or contact service support."),
}

# The envelope's own codes: one kind inside, told apart by the service's fixed texts.
_CODES_BY_TEXT: Mapping[str, str] = {
    "Download the media resource timed out during the data inspection process.": "InvalidParameter.DataInspection",
    "Failed to decode the image during the data inspection process.": "InvalidParameter.DataInspection",
    EMPTY_INPUT: "BadRequest.EmptyInput",
    EMPTY_MODEL: "BadRequest.EmptyModel",
    ILLEGAL_INPUT: "BadRequest.IllegalInput",
    NOT_PENDING: "UnsupportedOperation",
}
_KINDS_BY_CODE: Mapping[str, ErrorKind] = {
    **{entry.code: kind for kind, entry in TABLE.items() if entry.code != "InvalidParameter"},
    "InvalidParameter": ErrorKind.INVALID_REQUEST,
    "Model.NotExist": ErrorKind.MODEL_NOT_FOUND,
    "LimitRequests": ErrorKind.RATE_LIMITED,
    "Throttling": ErrorKind.RATE_LIMITED,
    "Throttling.BurstRate": ErrorKind.RATE_LIMITED,
    "ServiceUnavailable": ErrorKind.OVERLOADED,
    "ModelUnavailable": ErrorKind.OVERLOADED,
    "GatewayTimeout": ErrorKind.TIMEOUT,
    "InternalError.Timeout": ErrorKind.TIMEOUT,
}
_KINDS_BY_STATUS: Mapping[int, ErrorKind] = {
    400: ErrorKind.INVALID_REQUEST,
    401: ErrorKind.UNAUTHENTICATED,
    403: ErrorKind.FORBIDDEN,
    404: ErrorKind.NOT_FOUND,
    405: ErrorKind.METHOD_NOT_ALLOWED,
    408: ErrorKind.TIMEOUT,
    409: ErrorKind.CONFLICT,
    413: ErrorKind.TOO_LARGE,
    429: ErrorKind.RATE_LIMITED,
    500: ErrorKind.ENGINE_FAILED,
    503: ErrorKind.OVERLOADED,
    504: ErrorKind.TIMEOUT,
}
_RETRYABLE = frozenset({429, 503})


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """What an error is on this wire, whole or as the last frame of a stream. `code` must be there: one SDK path indexes it."""

    code: str
    message: str
    request_id: str


_encoder = msgspec.json.Encoder()


def wire(error: ApiError) -> Entry:
    """The status, code and final text of this error.

    An internal error shows the standard text only, whatever it carries.
    """
    entry = TABLE[error.kind]
    if error.kind is ErrorKind.INTERNAL:
        return entry
    message = error.message or _standard_text(entry, error.param)
    return entry._replace(code=_code(error, message, entry.code), text=_encodable(message))


def body(error: ApiError, request_id: str) -> bytes:
    """The error as one JSON object."""
    entry = wire(error)
    return _encoder.encode(ErrorBody(code=entry.code, message=entry.text, request_id=request_id))


def error_page(error: ApiError, request_id: str) -> Page:
    """The error as a whole response. JSON also where a stream was asked for: every SDK path reads it, with its true status."""
    entry = wire(error)
    headers: dict[str, str] = {}
    if error.retry_after_s is not None and entry.status in _RETRYABLE:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
        headers["retry-after-ms"] = str(max(1, math.ceil(error.retry_after_s * 1000)))
    return Page(head=Head(status=entry.status, media_type="application/json", headers=headers), body=body(error, request_id))


def kind_of(code: str, status: int) -> ErrorKind:
    """What an upstream's code and HTTP status mean; the code decides first, then its family before the dot, then the status."""
    known = _KINDS_BY_CODE.get(code) or _KINDS_BY_CODE.get(code.partition(".")[0])
    if known:
        return known
    fallback = ErrorKind.ENGINE_FAILED if status >= 500 else ErrorKind.INVALID_REQUEST
    return _KINDS_BY_STATUS.get(status, fallback)


def _standard_text(entry: Entry, param: str | None) -> str:
    if param:
        return entry.text.replace("{param}", param[:LONGEST_ECHO])
    return entry.text.replace("'{param}' ", "").replace("{param} ", "")


def _code(error: ApiError, message: str, code: str) -> str:
    if error.kind is ErrorKind.INVALID_REQUEST:
        if message.endswith("does not support enable_thinking."):
            return "InvalidParameter.NotSupportEnableThinking"
        return _CODES_BY_TEXT.get(message, code)
    if error.kind is ErrorKind.FORBIDDEN and error.param == "model":
        return "Model.AccessDenied"
    return code


def _encodable(text: str) -> str:
    """Text that UTF-8 can hold: a lone surrogate out of a URL or an upstream must not break the error about it."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
