"""Every refusal of the wire reference's tables (5.3): what passes to the caller, and what stays between the box and its service."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenbox.dialects.dashscope import refusals
from qwenbox.terms.errors import ErrorKind

INVALID, FAILED, REJECTED = ErrorKind.INVALID_REQUEST, ErrorKind.ENGINE_FAILED, ErrorKind.CONTENT_REJECTED
KEY, ACCOUNT, FUNDS = ErrorKind.UNAUTHENTICATED, ErrorKind.FORBIDDEN, ErrorKind.OUT_OF_FUNDS
RATE, QUOTA, BUSY, LATE = ErrorKind.RATE_LIMITED, ErrorKind.QUOTA_EXHAUSTED, ErrorKind.OVERLOADED, ErrorKind.TIMEOUT

# Status, code, message (wire reference 5.3), and what it means here.
TABLE = [
    (400, "InvalidParameter", "Temperature should be in [0.0, 2.0)", INVALID),
    (400, "InvalidParameter", "Range of max_tokens should be [1, 8192]", INVALID),
    (400, "InvalidParameter.NotSupportEnableThinking", "The model xxx does not support enable_thinking.", INVALID),
    (400, "InvalidParameter", "Range of input length should be [1, 30720]", ErrorKind.CONTEXT_TOO_LONG),
    (
        400,
        "InvalidParameter",
        "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 129024]",
        ErrorKind.CONTEXT_TOO_LONG,
    ),
    (400, "InvalidParameter", "Model not exist.", ErrorKind.MODEL_NOT_FOUND),
    (400, "InvalidParameter", "url error, please check url！", INVALID),
    (400, "InvalidParameter.DataInspection", "Unable to download the media resource during the data inspection process.", INVALID),
    (400, "BadRequest.EmptyInput", "Required input parameter missing from request.", INVALID),
    (400, "BadRequest.IllegalInput", "The input parameter requires json format.", INVALID),
    (400, "BadRequest.TooLarge", "Payload Too Large.", ErrorKind.TOO_LARGE),
    (400, "Arrearage", "Access denied, please make sure your account is in good standing.", FUNDS),
    (400, "DataInspectionFailed", "Input data may contain inappropriate content.", REJECTED),
    (400, "CustomRoleBlocked", "Blocked.", REJECTED),
    (400, "FaqRuleBlocked", "Blocked.", REJECTED),
    (400, "IPInfringementSuspect", "Suspect.", REJECTED),
    (400, "InvalidURL", "The provided URL does not appear to be valid.", INVALID),
    (401, "InvalidApiKey", "Invalid API-key provided.", KEY),
    (401, "NOT AUTHORIZED", "Access denied: Either you are not authorized to access this workspace, …", ACCOUNT),
    (403, "AccessDenied", "Access denied.", ACCOUNT),
    (403, "AccessDenied.Unpurchased", "Access to model denied.", ACCOUNT),
    (403, "Model.AccessDenied", "Model access denied.", ACCOUNT),
    (403, "AllocationQuota.FreeTierOnly", "The free tier of the model has been exhausted.", ACCOUNT),
    (404, "ModelNotFound", "The model xxx does not exist.", ErrorKind.MODEL_NOT_FOUND),
    (404, "WorkSpaceNotFound", "WorkSpace can not be found.", FAILED),
    (409, "Conflict", "Model instance xxx already exists", FAILED),
    (429, "Throttling", "Requests throttling triggered.", RATE),
    (429, "Throttling.RateQuota", "Requests rate limit exceeded, please try again later.", RATE),
    (429, "LimitRequests", "You have exceeded your request limit.", RATE),
    (429, "Throttling.BurstRate", "Request rate increased too quickly.", RATE),
    (429, "Throttling.AllocationQuota", "Allocated quota exceeded, please increase your quota limit.", QUOTA),
    (429, "CommodityNotPurchased", "Commodity has not purchased yet.", ACCOUNT),
    (429, "PrepaidBillOverdue", "The prepaid bill is overdue.", FUNDS),
    (429, "PostpaidBillOverdue", "The postpaid bill is overdue.", FUNDS),
    (500, "InternalError", "Internal server error!", FAILED),
    (500, "InternalError.Algo", "inference internal error.", FAILED),
    (500, "InternalError.Timeout", "An internal timeout error has occured.", LATE),
    (500, "SystemError", "An system error has occured, please try again later.", FAILED),
    (500, "ModelServiceFailed", "Failed to request model service.", FAILED),
    (500, "RequestTimeOut", "Request timed out, please try again later.", LATE),
    (503, "ModelUnavailable", "Model is unavailable, please try again later.", BUSY),
    (503, "ModelServingError", "Too many requests.", BUSY),
    (503, "ServiceUnavailable", "", BUSY),
]
PASSED_ON = {INVALID, REJECTED, ErrorKind.CONTEXT_TOO_LONG, ErrorKind.MODEL_NOT_FOUND, RATE, QUOTA, BUSY}


def body(code: str, message: str) -> bytes:
    return msgspec.json.encode({"code": code, "message": message, "request_id": "a1c0561c"})


@pytest.mark.parametrize(("status", "code", "message", "kind"), TABLE)
def test_every_refusal_of_the_table_means_one_kind_however_it_comes(status: int, code: str, message: str, kind: ErrorKind) -> None:
    """As a body, as a stream of one frame with its true status, and as one with status 200 (wire reference 2.6)."""
    frame = b"id:1\nevent:error\n:HTTP_STATUS/%d\ndata:%b\n\n" % (status, body(code, message))
    for error in (
        refusals.failure(status, body(code, message), {}),
        refusals.failure(status, frame, {}),
        refusals.failure(200, frame, {}),
    ):
        assert kind is error.kind
        assert (message if kind in PASSED_ON else error.message) == error.message


@pytest.mark.parametrize(("status", "code"), [(row[0], row[1]) for row in TABLE if row[3] in {FAILED, KEY, ACCOUNT, FUNDS}])
def test_trouble_between_the_box_and_its_service_names_itself_but_not_as_the_callers_own(status: int, code: str) -> None:
    error = refusals.failure(status, body(code, "secret sk-123 text of the service"), {})
    assert code in error.message
    assert "sk-123" not in error.message


def test_a_refused_key_and_an_unpaid_bill_are_the_boxs() -> None:
    assert "this box's API key" in refusals.failure(401, body("InvalidApiKey", "x"), {}).message
    assert "This box's account at the model's service is in arrears" in refusals.failure(400, body("Arrearage", "x"), {}).message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after": "-1"}, None),
        ({}, None),
    ],
)
def test_a_throttled_call_says_when_to_come_back_if_the_service_does(headers: dict[str, str], seconds: float | None) -> None:
    assert seconds == refusals.failure(429, body("Throttling.RateQuota", "x"), headers).retry_after_s


@pytest.mark.parametrize(("status", "text", "kind"), [(503, b"<html>", BUSY), (502, b"\xff", FAILED), (504, b"", LATE), (401, b"", KEY)])
def test_a_refusal_without_a_code_is_told_by_its_status(status: int, text: bytes, kind: ErrorKind) -> None:
    assert kind is refusals.failure(status, text, {}).kind


@given(st.integers(100, 999), st.binary(max_size=200) | st.builds(body, st.text(), st.text()))
def test_no_refusal_is_too_odd_to_be_read(status: int, text: bytes) -> None:
    assert refusals.failure(status, text, {"retry-after": "9" * 400}).retry_after_s is None
