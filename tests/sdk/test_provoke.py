"""Every fault a request may ask for, as each form of the SDKs reports it; and none from a box that was not started for testing."""

from collections.abc import Iterator
from pathlib import Path

import dashscope
import httpx
import openai
import pytest

import boxes
from boxes import Box
from sdk import forms
from sdk.forms import Form, Refused

ASKED = [{"role": "user", "content": "one two three four five six seven eight nine ten"}]
BLIND = "Completions"

# fault: status, native code, compatible code, exceptions of the v2 client and of openai ("" for forms that raise none of their own).
REFUSED = {
    "throttling_rate": (429, "Throttling.RateQuota", "limit_requests", ("RateLimitError",)),
    "throttling_allocation": (429, "Throttling.AllocationQuota", "insufficient_quota", ("RateLimitError",)),
    "arrearage": (400, "Arrearage", "Arrearage", ("PermissionDeniedError", "BadRequestError")),
    "data_inspection": (400, "DataInspectionFailed", "data_inspection_failed", ("ContentFilterError", "BadRequestError")),
    "overloaded": (503, "ModelServingError", "model_unavailable", ("InternalServerError", "ServiceUnavailableError")),
    "internal_error": (500, "InternalError", "internal_error", ("InternalServerError",)),
    "timeout": (500, "RequestTimeOut", "request_timeout", ("InternalServerError", "APITimeoutError")),
    "malformed": (500, "InternalError.Algo", "internal_error", ("InternalServerError",)),
}


@pytest.fixture(scope="module")
def testing_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    home = tmp_path_factory.mktemp("provoking")
    with boxes.serve(home, toml="[faults]\nprovoke = true\n") as box:
        yield box


@pytest.fixture(scope="module", params=REFUSED)
def failing_box(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Box]]:
    """A box all of whose calls meet one fault, and the fault's name."""
    with boxes.serve(tmp_path_factory.mktemp("failing"), toml=f"[faults]\nshare = {{ {request.param} = 1.0 }}\n") as box:
        yield request.param, box


def provoked(fault: str) -> dict[str, str]:
    return {"x-qwenbox-provoke": fault}


@pytest.mark.parametrize(("name", "form"), forms.EVERY.items(), ids=forms.EVERY)
def test_refusal_arrives_with_its_code_and_exception(failing_box: tuple[str, Box], name: str, form: Form) -> None:
    fault, box = failing_box
    status, native, compatible, kinds = REFUSED[fault]

    with pytest.raises(Refused) as caught:
        form(box, ASKED)

    assert caught.value.status == status
    if name != BLIND:
        assert caught.value.code == (native if name in forms.NATIVE else compatible)
    assert caught.value.kind in ("", *kinds)


def test_header_provokes_through_dashscope(testing_box: Box) -> None:
    answer = dashscope.Generation.call(
        "qwen-plus", messages=ASKED, api_key=testing_box.key, base_address=testing_box.native, headers=provoked("arrearage")
    )
    assert (answer.status_code, answer.code) == (400, "Arrearage")
    assert answer.message == "Access denied, please make sure your account is in good standing."


def body(*, is_streamed: bool) -> dict[str, object]:
    return {"model": "qwen-plus", "messages": ASKED, "stream": is_streamed, "temperature": 0}


def test_throttling_says_when_to_come_back(testing_box: Box) -> None:
    answer = httpx.post(
        f"{testing_box.compatible}/chat/completions",
        json=body(is_streamed=True),
        headers={"authorization": f"Bearer {testing_box.key}", **provoked("throttling_rate")},
    )
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"


def test_cut_ends_a_stream_with_an_error_frame(testing_box: Box) -> None:
    client = openai.OpenAI(base_url=testing_box.compatible, api_key=testing_box.key, max_retries=0)
    heard = []
    with pytest.raises(openai.APIError, match="broke off") as caught:
        for chunk in client.chat.completions.create(model="qwen-plus", messages=ASKED, stream=True, extra_headers=provoked("cut;after=3")):
            heard.extend(choice.delta.content for choice in chunk.choices if choice.delta.content)
    assert len(heard) == 3
    assert caught.value.code == "internal_error"


@pytest.mark.parametrize("is_streamed", [True, False])
def test_reset_ends_the_connection_in_the_middle(testing_box: Box, is_streamed: bool) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(
            f"{testing_box.compatible}/chat/completions",
            json=body(is_streamed=is_streamed),
            headers={"authorization": f"Bearer {testing_box.key}", **provoked("reset;after=2")},
        )


def test_slow_first_token_is_slow_and_whole(testing_box: Box) -> None:
    client = openai.OpenAI(base_url=testing_box.compatible, api_key=testing_box.key, max_retries=0, timeout=0.3)
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="qwen-plus", messages=ASKED, extra_headers=provoked("slow_first_token;seconds=30"))
    patient = client.with_options(timeout=60)
    answer = patient.chat.completions.create(model="qwen-plus", messages=ASKED, extra_headers=provoked("slow_first_token;seconds=0.1"))
    assert "ten" in (answer.choices[0].message.content or "")


def test_unknown_fault_is_refused_with_the_names(testing_box: Box) -> None:
    client = openai.OpenAI(base_url=testing_box.compatible, api_key=testing_box.key, max_retries=0)
    with pytest.raises(openai.BadRequestError, match="slow_first_token"):
        client.chat.completions.create(model="qwen-plus", messages=ASKED, extra_headers=provoked("earthquake"))


@pytest.mark.parametrize("fault", [*REFUSED, "slow_first_token;seconds=600", "cut", "reset", "earthquake"])
def test_header_does_nothing_on_a_box_that_is_not_for_testing(box: Box, fault: str) -> None:
    client = openai.OpenAI(base_url=box.compatible, api_key=box.key, max_retries=0, timeout=60)
    answer = client.chat.completions.create(model="qwen-plus", messages=ASKED, extra_headers=provoked(fault))
    assert "ten" in (answer.choices[0].message.content or "")


def test_drawn_faults_follow_from_the_seed(tmp_path_factory: pytest.TempPathFactory) -> None:
    outcomes = [_outcomes(tmp_path_factory.mktemp("drawn"), seed) for seed in (7, 7, 8)]

    assert outcomes[0] == outcomes[1]
    assert outcomes[0] != outcomes[2]
    assert 5 <= outcomes[0].count(429) <= 35


def _outcomes(home: Path, seed: int) -> list[int]:
    toml = f"[faults]\nseed = {seed}\nshare = {{ throttling_rate = 0.4 }}\n"
    with boxes.serve(home, toml=toml) as box, httpx.Client(headers={"authorization": f"Bearer {box.key}"}) as client:
        return [client.post(f"{box.compatible}/chat/completions", json=body(is_streamed=False)).status_code for _ in range(50)]
