import httpx
import msgspec
import pytest
from dashscope.v2.errors import AuthenticationError, DashScopeError, NotFoundError, RateLimitError, response_error

from qwenbox.dialects.dashscope import errors
from qwenbox.terms.errors import ApiError, ErrorKind

STANDARD = {
    ErrorKind.INVALID_REQUEST: (400, "InvalidParameter"),
    ErrorKind.UNAUTHENTICATED: (401, "InvalidApiKey"),
    ErrorKind.FORBIDDEN: (403, "AccessDenied"),
    ErrorKind.MODEL_NOT_FOUND: (404, "ModelNotFound"),
    ErrorKind.WRONG_ENDPOINT: (400, "InvalidParameter"),
    ErrorKind.NOT_FOUND: (404, "NotFound"),
    ErrorKind.METHOD_NOT_ALLOWED: (405, "InvalidParameter"),
    ErrorKind.CONFLICT: (409, "Conflict"),
    ErrorKind.TOO_LARGE: (413, "BadRequest.TooLarge"),
    ErrorKind.CONTEXT_TOO_LONG: (400, "InvalidParameter"),
    ErrorKind.RATE_LIMITED: (429, "Throttling.RateQuota"),
    ErrorKind.QUOTA_EXHAUSTED: (429, "Throttling.AllocationQuota"),
    ErrorKind.OUT_OF_FUNDS: (400, "Arrearage"),
    ErrorKind.CONTENT_REJECTED: (400, "DataInspectionFailed"),
    ErrorKind.OVERLOADED: (503, "ModelServingError"),
    ErrorKind.ENGINE_FAILED: (500, "InternalError.Algo"),
    ErrorKind.TIMEOUT: (500, "RequestTimeOut"),
    ErrorKind.INTERNAL: (500, "InternalError"),
}


@pytest.mark.parametrize("kind", ErrorKind)
def test_kind_has_its_status_and_code(kind: ErrorKind) -> None:
    page = errors.error_page(ApiError(kind), "id")
    body = msgspec.json.decode(page.body)
    assert STANDARD[kind] == (page.head.status, body["code"])
    assert ["code", "message", "request_id"] == list(body)
    assert body["message"]
    assert "{" not in body["message"]
    assert "application/json" == page.head.media_type


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ApiError(ErrorKind.UNAUTHENTICATED), "Invalid API-key provided."),
        (ApiError(ErrorKind.MODEL_NOT_FOUND, param="qwen-x"), "The model qwen-x does not exist or you do not have access to it."),
        (ApiError(ErrorKind.MODEL_NOT_FOUND), "The model does not exist or you do not have access to it."),
        (ApiError(ErrorKind.MODEL_NOT_FOUND, "Pull it first.", param="qwen-x"), "Pull it first."),
        (ApiError(ErrorKind.MODEL_NOT_FOUND, param="{param}"), "The model {param} does not exist or you do not have access to it."),
        (ApiError(ErrorKind.METHOD_NOT_ALLOWED, param="GET"), "Request method 'GET' is not supported."),
        (ApiError(ErrorKind.METHOD_NOT_ALLOWED), "Request method is not supported."),
        (ApiError(ErrorKind.TOO_LARGE), "Payload Too Large."),
        (ApiError(ErrorKind.QUOTA_EXHAUSTED), "Allocated quota exceeded, please increase your quota limit."),
        (ApiError(ErrorKind.OUT_OF_FUNDS), "Access denied, please make sure your account is in good standing."),
        (
            ApiError(ErrorKind.INTERNAL, "secret detail"),
            "An internal error has occured, please try again later or contact service support.",
        ),
        (ApiError(ErrorKind.NOT_FOUND, "no \udc80 such"), "no ? such"),
    ],
)
def test_text_is_the_standard_one_unless_the_error_has_its_own(error: ApiError, text: str) -> None:
    assert text == errors.wire(error).text


def test_long_model_name_is_not_repeated_whole() -> None:
    assert len(errors.wire(ApiError(ErrorKind.MODEL_NOT_FOUND, param="x" * 100_000)).text) < 300


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ApiError(ErrorKind.INVALID_REQUEST, errors.EMPTY_MODEL), "BadRequest.EmptyModel"),
        (ApiError(ErrorKind.INVALID_REQUEST, errors.EMPTY_INPUT), "BadRequest.EmptyInput"),
        (ApiError(ErrorKind.INVALID_REQUEST, errors.ILLEGAL_INPUT), "BadRequest.IllegalInput"),
        (
            ApiError(ErrorKind.INVALID_REQUEST, "The model m does not support enable_thinking."),
            "InvalidParameter.NotSupportEnableThinking",
        ),
        (ApiError(ErrorKind.FORBIDDEN, "Model access denied.", param="model"), "Model.AccessDenied"),
    ],
)
def test_code_is_the_narrower_one_where_the_service_has_it(error: ApiError, code: str) -> None:
    assert code == errors.wire(error).code


@pytest.mark.parametrize(
    ("kind", "after_s", "header"),
    [
        (ErrorKind.RATE_LIMITED, 0.2, "1"),
        (ErrorKind.OVERLOADED, 2.1, "3"),
        (ErrorKind.RATE_LIMITED, None, None),
        (ErrorKind.INVALID_REQUEST, 3.0, None),
    ],
)
def test_retry_after_is_rounded_up_on_429_and_503(kind: ErrorKind, after_s: float | None, header: str | None) -> None:
    assert header == errors.error_page(ApiError(kind, retry_after_s=after_s), "id").head.headers.get("retry-after")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (ErrorKind.UNAUTHENTICATED, AuthenticationError),
        (ErrorKind.MODEL_NOT_FOUND, NotFoundError),
        (ErrorKind.RATE_LIMITED, RateLimitError),
        (ErrorKind.QUOTA_EXHAUSTED, RateLimitError),
    ],
)
def test_page_raises_the_right_exception_in_the_v2_client(kind: ErrorKind, expected: type[DashScopeError]) -> None:
    page = errors.error_page(ApiError(kind), "id")
    response = httpx.Response(page.head.status, headers={"content-type": page.head.media_type}, content=page.body)
    assert isinstance(response_error(response), expected)


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("InvalidApiKey", 401, ErrorKind.UNAUTHENTICATED),
        ("Throttling.BurstRate", 429, ErrorKind.RATE_LIMITED),
        ("Throttling.Whatever", 429, ErrorKind.RATE_LIMITED),
        ("InvalidParameter.DataInspection", 400, ErrorKind.INVALID_REQUEST),
        ("Unheard", 404, ErrorKind.NOT_FOUND),
        ("", 502, ErrorKind.ENGINE_FAILED),
        ("", 418, ErrorKind.INVALID_REQUEST),
    ],
)
def test_upstream_code_decides_before_its_status(code: str, status: int, kind: ErrorKind) -> None:
    assert kind is errors.kind_of(code, status)
