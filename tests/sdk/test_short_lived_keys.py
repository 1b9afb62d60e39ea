"""Short-lived keys through both official SDKs: their parent's rights, limits and bill, and an end."""

from collections.abc import Iterator

import dashscope
import openai
import pytest

import boxes
import wire
from boxes import Box
from sdk import forms
from support.admin_calls import TESTING, admin, advance, short_lived

ASKED = [{"role": "user", "content": "讲个故事"}]


@pytest.fixture(scope="module")
def testing_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """An echo box whose clock may be moved."""
    with boxes.serve(tmp_path_factory.mktemp("testing"), environment=TESTING) as running:
        yield running


@pytest.fixture(autouse=True)
def pointed(testing_box: Box) -> None:
    forms.point(testing_box)


def native_status(token: str) -> int:
    return dashscope.Generation.call(model="qwen-turbo", messages=ASKED, api_key=token).status_code


def compatible(box: Box, token: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=box.compatible, api_key=token, max_retries=0)


def new_key(box: Box, name: str, **fields: object) -> str:
    """The secret of a key of the box's first account."""
    issued = admin(box, "POST", "/keys", {"account": "default", "name": name, **fields})
    assert 201 == issued.status, issued.body
    return issued.json["secret"]


def test_short_lived_key_works_through_both_sdks_and_is_401_from_its_end_on(testing_box: Box):
    heard = short_lived(testing_box, 60)
    token, now = heard.json["token"], admin(testing_box, "GET", "/clock").json["now_at"]

    assert heard.status == 200
    assert set(heard.json) == {"token", "expires_at"}
    assert token.startswith("st-")
    assert now + 58 < heard.json["expires_at"] <= now + 61
    assert native_status(token) == 200
    with compatible(testing_box, token) as client:
        assert client.chat.completions.create(model="qwen-turbo", messages=ASKED).choices[0].message.content

        # One second after its end.
        advance(testing_box, heard.json["expires_at"] + 1 - now)

        assert native_status(token) == 401
        with pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(model="qwen-turbo", messages=ASKED)


@pytest.mark.parametrize("seconds", [0, 1801, -1])
def test_short_lived_key_is_refused_natively_when_its_span_is_out_of_range(testing_box: Box, seconds: int):
    heard = short_lived(testing_box, seconds)

    assert (heard.status, heard.json["code"]) == (400, "InvalidParameter")
    assert heard.json["request_id"]


def test_short_lived_key_cannot_make_further_keys(testing_box: Box):
    token = short_lived(testing_box).json["token"]

    assert short_lived(testing_box, key=token).status == 403
    assert short_lived(testing_box, key="sk-wrong").status == 401


def test_short_lived_key_may_use_what_its_parent_may(testing_box: Box):
    parent = new_key(testing_box, "narrow", models=["qwen-max"])
    token = short_lived(testing_box, key=parent).json["token"]

    narrow = wire.post(testing_box, wire.NATIVE_CHAT, wire.native(), key=token)
    allowed = wire.post(testing_box, wire.NATIVE_CHAT, wire.native(model="qwen-max"), key=token)

    assert narrow.status in (403, 404)
    assert wire.post(testing_box, wire.NATIVE_CHAT, wire.native(), key=parent).status == narrow.status
    assert allowed.status == 200


def test_short_lived_key_shares_its_parents_limit(testing_box: Box):
    parent = new_key(testing_box, "limited", rpm=2)
    tokens = [short_lived(testing_box, 1_800, key=parent).json["token"] for _ in range(2)]

    heard = [wire.post(testing_box, wire.NATIVE_CHAT, wire.native(), key=key).status for key in (*tokens, parent)]

    assert heard == [200, 200, 429]
    advance(testing_box, 61)
    assert wire.post(testing_box, wire.NATIVE_CHAT, wire.native(), key=tokens[0]).status == 200


def test_short_lived_key_bills_its_parent(testing_box: Box):
    parent = new_key(testing_box, "billed")
    token = short_lived(testing_box, key=parent).json["token"]

    answer = wire.post(testing_box, wire.NATIVE_CHAT, wire.native(), key=token)
    receipt = wire.call(testing_box, "GET", f"/qwenbox/v1/receipts/{answer.json['request_id']}", key=token)

    key_id = next(key["id"] for key in admin(testing_box, "GET", "/keys").json["items"] if key["name"] == "billed")
    assert (receipt.status, receipt.json["call"]["key_id"]) == (200, key_id)
    assert receipt.json["call"]["output_tokens"] == answer.json["usage"]["output_tokens"]


def test_short_lived_key_is_401_when_its_parent_was_revoked(testing_box: Box):
    parent = new_key(testing_box, "revoked")
    token = short_lived(testing_box, 1_800, key=parent).json["token"]
    assert native_status(token) == 200

    admin(testing_box, "DELETE", "/keys/revoked")

    assert native_status(token) == 401
