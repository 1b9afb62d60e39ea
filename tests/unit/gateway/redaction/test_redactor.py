"""What leaves in place of what was found, and what stays as it was."""

import json

import pytest

from qwenbox.gateway.redaction import patterns
from qwenbox.gateway.redaction.config import Mode, RedactionConfig
from qwenbox.gateway.redaction.detector import detector
from qwenbox.gateway.redaction.redactor import Redacted, Redactor
from qwenbox.terms.chat import ChatRequest, ImagePart, Message, Role, TextPart, ToolCall, ToolSpec
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.image import ImageRequest

FIND = detector(RedactionConfig(patterns={"badge": "EMP-[0-9]+"}))


def redact(*texts: str, **fields: object) -> Redacted | None:
    messages = tuple(Message(role=Role.USER, content=(TextPart(text=text),)) for text in texts)
    return Redactor(Mode.REPLACE, FIND).redact(ChatRequest(model="m", messages=messages, **fields))  # type: ignore[arg-type]


def sent(redacted: Redacted | None) -> list[str]:
    assert redacted is not None
    assert isinstance(redacted.request, ChatRequest)
    return [message.text for message in redacted.request.messages]


def test_same_value_has_the_same_placeholder_in_every_spelling() -> None:
    texts = sent(redact("13812345678", "+86 １３８ 1234-5678 and 139 1234 5678", "EMP-7"))
    assert texts == ["<PHONE_1>", "<PHONE_1> and <PHONE_2>", "<BADGE_1>"]


def test_placeholder_is_none_that_the_request_says_already() -> None:
    assert sent(redact("write <PHONE_1>", "to 13812345678")) == ["write <PHONE_1>", "to <PHONE_2>"]


def test_request_without_personal_data_is_left_alone() -> None:
    assert redact("order no. 13812345678, v1.2.3.4") is None


def test_counts_have_no_values_and_no_repr_has() -> None:
    redacted = redact("13812345678 a@b.cn a@b.cn")
    assert redacted is not None
    assert redacted.notes == {"redacted": {"email": 2, "phone": 1}}
    assert "138" not in repr(redacted) + repr(redacted.notes)


def test_arguments_and_parameters_stay_json_and_numbers_become_texts() -> None:
    arguments = '{ "passport": "E12345678", "n": 13812345678, "t": "\\n13912345678", "x": 1.50 }'
    message = Message(role=Role.ASSISTANT, tool_calls=(ToolCall(id="1", name="f", arguments=arguments),))
    tool = ToolSpec(name="f", description="a@b.cn", parameters=b'{"enum": ["a@b.cn"], "maximum": 13812345678}')
    redacted = Redactor(Mode.REPLACE, FIND).redact(ChatRequest(model="m", messages=(message,), tools=(tool,)))
    assert redacted is not None
    assert isinstance(redacted.request, ChatRequest)
    left = redacted.request.messages[0].tool_calls[0].arguments
    assert left == '{ "passport": "<PASSPORT_1>", "n": "<PHONE_1>", "t": "\\n<PHONE_2>", "x": 1.50 }'
    assert json.loads(left)
    assert redacted.request.tools[0] == ToolSpec(
        name="f", description="<EMAIL_1>", parameters=b'{"enum": ["<EMAIL_1>"], "maximum": 13812345678}'
    )


def test_raw_prompt_suffix_and_stops_are_redacted() -> None:
    request = CompletionRequest(model="m", prompt="13812345678", suffix="a@b.cn", stop=("a@b.cn",))
    redacted = Redactor(Mode.REPLACE, FIND).redact(request)
    assert redacted is not None
    assert isinstance(redacted.request, CompletionRequest)
    assert (redacted.request.prompt, redacted.request.suffix, redacted.request.stop) == ("<PHONE_1>", "<EMAIL_1>", ("<EMAIL_1>",))


def test_block_mode_names_kinds_and_no_value() -> None:
    request = CompletionRequest(model="m", prompt="a@b.cn 13812345678")
    with pytest.raises(ApiError, match="email, phone") as caught:
        Redactor(Mode.BLOCK, FIND).redact(request)
    assert caught.value.kind is ErrorKind.CONTENT_REJECTED
    assert "138" not in str(caught.value)


def test_pictures_pass_unless_they_may_not() -> None:
    picture = ImagePart(url="https://example.com/a.png")
    asked = ChatRequest(model="m", messages=(Message(role=Role.USER, content=(picture,)),))
    drawn = ImageRequest(model="m", prompt="brighter", images=(picture,))
    for request in (asked, drawn):
        assert Redactor(Mode.REPLACE, FIND).redact(request) is None
        with pytest.raises(ApiError, match="pictures must not leave") as caught:
            Redactor(Mode.REPLACE, FIND, lets_pictures_pass=False).redact(request)
        assert caught.value.kind is ErrorKind.CONTENT_REJECTED
    assert Redactor(Mode.REPLACE, FIND, lets_pictures_pass=False).redact(ImageRequest(model="m", prompt="a cat")) is None


@pytest.mark.parametrize("pattern", ["(", "(a|aa)+$", "x*", "(?:[A-Z]|[A-Z][A-Z])+#"])
def test_pattern_that_cannot_be_used_is_refused_at_the_start(pattern: str) -> None:
    with pytest.raises(patterns.BadPattern, match="'own'"):
        patterns.finder("own", pattern)


def test_pattern_that_takes_too_long_refuses_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SEARCH_S", 0.01)
    monkeypatch.setattr(patterns, "_try", lambda *_: None)
    find = patterns.finder("own", "(a|aa)+$")
    with pytest.raises(ApiError, match="takes too long"):
        list(find("a" * 60 + "!"))
