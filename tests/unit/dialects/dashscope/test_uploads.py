"""The leave to upload is told as the service tells it, and read back as it was signed."""

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenbox.dialects.base import WireRequest
from qwenbox.dialects.dashscope import uploads
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.upload import Grant, Permit

PERMIT = Permit(account_id="acc", folder="dashscope-instant/x/2026-01-01/y", expires_at=1_767_225_600.5, most_bytes=100 * 1024 * 1024)


def ask(**query: str) -> WireRequest:
    return WireRequest(id="r", method="GET", path="/api/v1/uploads", received_at=0.0, query=query)


@given(st.builds(Permit, account_id=st.text(), folder=st.text(), expires_at=st.floats(0, 4e9), most_bytes=st.integers(1, 2**40)))
def test_permit_comes_back_from_its_policy(permit: Permit) -> None:
    assert uploads.permit(uploads.policy(permit)) == permit


def test_policy_is_one_of_the_services_storage() -> None:
    policy = msgspec.json.decode(base64.b64decode(uploads.policy(PERMIT)))

    assert policy["expiration"] == "2026-01-01T00:00:00.500Z"
    assert policy["conditions"][:2] == [["content-length-range", 0, 104_857_600], ["starts-with", "$key", f"{PERMIT.folder}/"]]


def test_grant_has_all_that_the_sdk_asks_for() -> None:
    """The SDK indexes them (wire reference 3.4)."""
    grant = Grant(permit=PERMIT, policy="p", signature="s", url="http://box/u", lasts_s=300, account_bytes=2**30)
    page = uploads.granted(grant, "r-1")
    told = msgspec.json.decode(page.body)

    assert told["request_id"] == "r-1"
    assert set(told["data"]) == {
        "policy",
        "signature",
        "upload_dir",
        "upload_host",
        "expire_in_seconds",
        "max_file_size_mb",
        "capacity_limit_mb",
        "oss_access_key_id",
        "x_oss_object_acl",
        "x_oss_forbid_overwrite",
    }
    assert page.head.headers == {"cache-control": "no-store"}


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda data: base64.b64encode(data).decode()))
def test_policy_is_refused_when_it_is_none(text: str) -> None:
    with pytest.raises(ApiError) as refused:
        uploads.permit(text)

    assert refused.value.kind is ErrorKind.FORBIDDEN


def test_model_is_asked_for() -> None:
    assert uploads.asked(ask(action="getPolicy", model="qwen-vl-plus")) == "qwen-vl-plus"


@pytest.mark.parametrize(
    "query", [{}, {"action": "getPolicy"}, {"model": "m"}, {"action": "x", "model": "m"}, {"action": "getPolicy", "model": "m" * 200}]
)
def test_question_is_refused_when_it_makes_no_sense(query: dict[str, str]) -> None:
    with pytest.raises(ApiError, match="missing or invalid"):
        uploads.asked(ask(**query))
