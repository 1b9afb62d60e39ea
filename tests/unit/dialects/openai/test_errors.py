"""Error pages: codes, texts and headers of the compatible wire."""

import msgspec
import pytest

from qwenbox.dialects.openai import errors
from qwenbox.terms.errors import ApiError, ErrorKind


def shown(error: ApiError) -> dict[str, object]:
    return msgspec.json.decode(errors.page(error, "rid").body)


def test_every_kind_has_its_row() -> None:
    assert set(ErrorKind) == set(errors.TABLE)


@pytest.mark.parametrize(
    ("kind", "status", "code", "text"),
    [
        (ErrorKind.UNAUTHENTICATED, 401, "invalid_api_key", "Incorrect API key provided. "),
        (ErrorKind.RATE_LIMITED, 429, "limit_requests", "You exceeded your current request limit. Please try again later."),
        (
            ErrorKind.QUOTA_EXHAUSTED,
            429,
            "insufficient_quota",
            "You exceeded your current quota, please check your plan and billing details.",
        ),
        (ErrorKind.OUT_OF_FUNDS, 400, "Arrearage", "Access denied, please make sure your account is in good standing."),
        (ErrorKind.CONTENT_REJECTED, 400, "data_inspection_failed", "Input or output data may contain inappropriate content."),
        (
            ErrorKind.INTERNAL,
            500,
            "internal_error",
            "An internal error has occured, please try again later or contact service support.",
        ),
    ],
)
def test_page_says_the_standard_text_when_the_error_has_none(kind: ErrorKind, status: int, code: str, text: str) -> None:
    page = errors.page(ApiError(kind), "rid")
    error = msgspec.json.decode(page.body)["error"]
    assert (status, code, text) == (page.head.status, error["code"], error["message"])


def test_page_carries_the_call_id_when_a_call_failed() -> None:
    assert "chatcmpl-rid" == shown(ApiError(ErrorKind.INVALID_REQUEST, "no"))["id"]
    assert {"error", "request_id"} == set(shown(ApiError(ErrorKind.UNAUTHENTICATED)))


def test_page_names_the_field() -> None:
    error = shown(ApiError(ErrorKind.INVALID_REQUEST, "'seed' must be Integer", param="seed"))["error"]
    assert {
        "message": "'seed' must be Integer",
        "type": "invalid_request_error",
        "param": "seed",
        "code": "invalid_parameter_error",
    } == error


def test_page_is_json_when_a_name_is_half_a_surrogate_pair() -> None:
    assert "`?`" in str(shown(ApiError(ErrorKind.MODEL_NOT_FOUND, param="\ud800")))


@pytest.mark.parametrize(("kind", "expected"), [(ErrorKind.RATE_LIMITED, "1"), (ErrorKind.OVERLOADED, "1"), (ErrorKind.INTERNAL, None)])
def test_page_sends_retry_after_only_where_waiting_helps(kind: ErrorKind, expected: str | None) -> None:
    assert expected == errors.page(ApiError(kind, retry_after_s=0.01), "rid").head.headers.get("retry-after")
