"""Every failure a caller can provoke, as each form of the SDKs reports it: status, code, words, request id."""

import dataclasses

import openai
import pytest

import wire
from boxes import Box
from sdk import forms
from sdk.forms import Form, Refused

ASKED = [{"role": "user", "content": "你好"}]

every_form = pytest.mark.parametrize(("name", "form"), forms.EVERY.items(), ids=forms.EVERY)

# dashscope's class for the OpenAI-compatible path shows of an error its status alone (dashscope 2.0.2).
BLIND = "Completions"


def refusal(form: Form, box: Box, messages=ASKED, **options) -> Refused:
    with pytest.raises(Refused) as caught:
        form(box, messages, **options)
    return caught.value


def expected(name: str, native: str, compatible: str) -> str:
    return native if name in forms.NATIVE else compatible


@every_form
def test_wrong_key_is_401(box: Box, name: str, form: Form):
    refused = refusal(form, dataclasses.replace(box, key="sk-wrong"))

    assert refused.status == 401
    if name != BLIND:
        assert refused.code == expected(name, "InvalidApiKey", "invalid_api_key")
        assert refused.message.startswith(expected(name, "Invalid API-key provided.", "Incorrect API key provided."))
        assert len(refused.request_id) == 36
    assert refused.kind in ("", "AuthenticationError")


@every_form
def test_unknown_model_is_404(catalog_box: Box, name: str, form: Form):
    refused = refusal(form, catalog_box, model="qwen-imaginary")

    assert refused.status == 404
    if name != BLIND:
        assert refused.code == expected(name, "ModelNotFound", "model_not_found")
        assert "qwen-imaginary" in refused.message
    assert refused.kind in ("", "NotFoundError")


@every_form
def test_parameter_out_of_range_is_400(box: Box, name: str, form: Form):
    refused = refusal(form, box, temperature=2.5)

    assert refused.status == 400
    if name != BLIND:
        assert refused.code == expected(name, "InvalidParameter", "invalid_parameter_error")
        assert refused.message == "Temperature should be in [0.0, 2.0]"
    assert refused.kind in ("", "BadRequestError")


@every_form
def test_prompt_past_the_context_is_400(box: Box, name: str, form: Form):
    refused = refusal(form, box, [{"role": "user", "content": "长" * 131_072}])

    assert refused.status == 400
    if name != BLIND:
        assert "Range of input length should be [1, 131071]" in refused.message


# aiohttp, below dashscope's asynchronous classes, warns of any body past a megabyte.
@pytest.mark.filterwarnings("ignore:Sending a large body directly with raw bytes:ResourceWarning")
@every_form
def test_body_past_the_limit_is_413(box: Box, name: str, form: Form):
    refused = refusal(form, box, [{"role": "user", "content": "a" * (33 * 1024 * 1024)}])

    assert refused.status == 413
    if name != BLIND:
        assert refused.code == expected(name, "BadRequest.TooLarge", "request_too_large")


@every_form
def test_wrong_prefix_is_404_that_names_the_right_one(box: Box, name: str, form: Form):
    lost = dataclasses.replace(box, base_url=f"{box.base_url}/wrong")
    refused = refusal(form, lost)

    assert refused.status == 404
    if name != BLIND:
        assert (box.native if name in forms.NATIVE else box.compatible) in refused.message


@every_form
def test_schema_nobody_can_satisfy_is_400(box: Box, name: str, form: Form):
    wanted = {"type": "json_schema", "json_schema": {"name": "none", "schema": {"$ref": "https://example.com/remote.json"}}}

    assert refusal(form, box, response_format=wanted).status == 400


def test_context_is_kept_to_exactly(box: Box):
    """131,072 tokens: a prompt of 131,071 leaves one for the answer."""
    fitting = "长" * (131_071 - 3 - 4)

    for form in (forms.generation, forms.openai_whole):
        outcome = form(box, [{"role": "user", "content": fitting}], temperature=0)
        assert (outcome.input_tokens, outcome.output_tokens, outcome.first.reason) == (131_071, 1, "length")
        assert refusal(form, box, [{"role": "user", "content": fitting + "长"}]).status == 400


def test_missing_key_is_401(box: Box):
    native = wire.post(box, wire.NATIVE_CHAT, wire.native(), key=None)
    compatible = wire.post(box, wire.COMPATIBLE_CHAT, wire.compatible(), key=None)

    assert (native.status, native.error["code"], native.error["message"]) == (401, "InvalidApiKey", "No API-key provided.")
    assert (compatible.status, compatible.error["code"]) == (401, "invalid_api_key")
    assert compatible.error["message"].startswith("You didn't provide an API key.")


@pytest.mark.parametrize("header", ["Basic abc", "Bearer", "Bearer ", "sk-test", "bearer  "])
def test_credential_of_another_kind_is_401(box: Box, header: str):
    for path, body in ((wire.NATIVE_CHAT, wire.native()), (wire.COMPATIBLE_CHAT, wire.compatible())):
        assert wire.post(box, path, body, headers={"authorization": header}, key=None).status == 401


def test_request_id_is_the_same_in_header_and_body(box: Box):
    for path, body in (
        (wire.NATIVE_CHAT, wire.native()),
        (wire.NATIVE_CHAT, wire.native({"temperature": 9})),
        (wire.COMPATIBLE_CHAT, wire.compatible(temperature=9)),
    ):
        heard = wire.post(box, path, body)
        assert heard.headers["x-request-id"] == heard.json["request_id"]


def test_wrong_method_is_405(box: Box):
    with forms.openai_client(box) as client, pytest.raises(openai.APIStatusError) as caught:
        client.get("/chat/completions", cast_to=object)

    assert (caught.value.status_code, caught.value.response.headers["allow"]) == (405, "POST")


def test_error_is_json_with_its_true_status_when_a_stream_was_asked_for(box: Box):
    native = wire.post(box, wire.NATIVE_CHAT, wire.native({"temperature": 9}), headers={"x-dashscope-sse": "enable"})
    compatible = wire.post(box, wire.COMPATIBLE_CHAT, wire.compatible(temperature=9, stream=True))

    assert [(heard.status, heard.headers["content-type"]) for heard in (native, compatible)] == [(400, "application/json")] * 2


def test_key_never_comes_back(box: Box):
    for heard in (
        wire.post(box, wire.NATIVE_CHAT, wire.native(), key="sk-secret-of-mine"),
        wire.post(box, wire.COMPATIBLE_CHAT, wire.compatible(), key="sk-secret-of-mine"),
        wire.post(box, "/nowhere", {}, key="sk-secret-of-mine"),
    ):
        assert b"sk-secret-of-mine" not in heard.body
    assert "sk-secret-of-mine" not in box.log


def test_answers_and_prompts_are_not_logged(box: Box):
    forms.openai_whole(box, [{"role": "user", "content": "ein geheimes Wort"}])

    assert "geheimes" not in box.log
