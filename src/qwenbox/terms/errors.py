"""This is where everything that can go wrong for a caller has its one name."""

from enum import StrEnum

from qwenbox.terms.limits import LimitState


class ErrorKind(StrEnum):
    """What went wrong, without any wire's words; every dialect owns one total table kind → (status, code, text)."""

    INVALID_REQUEST = "invalid_request"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    MODEL_NOT_FOUND = "model_not_found"
    WRONG_ENDPOINT = "wrong_endpoint"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    CONFLICT = "conflict"
    TOO_LARGE = "too_large"
    CONTEXT_TOO_LONG = "context_too_long"
    RATE_LIMITED = "rate_limited"
    QUOTA_EXHAUSTED = "quota_exhausted"
    OUT_OF_FUNDS = "out_of_funds"
    CONTENT_REJECTED = "content_rejected"
    OVERLOADED = "overloaded"
    ENGINE_FAILED = "engine_failed"
    TIMEOUT = "timeout"
    INTERNAL = "internal"


class ApiError(Exception):
    """The only exception a caller can ever see; a dialect renders it.

    message: what was wrong, where, and how to fix it; "" asks for the dialect's own standard text of the kind.
        Never contains a key, a prompt or a traceback.
    param: the request's field at fault as the caller wrote it, or the model's name for MODEL_NOT_FOUND and WRONG_ENDPOINT.
    retry_after_s: seconds after which the same call may succeed; sent as `Retry-After` (rounded up) and `retry-after-ms` with 429 and 503.
    is_final: nobody may try again in the caller's name. cuts_connection: the caller sees its connection end instead of the error; both
        only for provoked failures, and set after the fact, as limits.
    limits: the state of the limit that refused, sent as `x-ratelimit-*`; set after the fact, by whoever knows it.
    """

    limits: LimitState | None = None
    is_final: bool = False
    cuts_connection: bool = False

    def __init__(self, kind: ErrorKind, message: str = "", *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message or kind.value)
        self.kind = kind
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
