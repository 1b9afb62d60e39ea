"""Estimates for engines that cannot count: never below the truth for a reservation, near it for a bill."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenbox.gateway.estimate import most_around, most_tokens, prompt_marks, prompt_texts, text_tokens, turns
from qwenbox.terms.chat import ChatRequest, ImagePart, Message, Role, TextPart, ToolCall, ToolSpec
from qwenbox.terms.completion import CompletionRequest

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
JSON = VALUES.map(lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")))
MESSAGES = st.lists(st.text(max_size=50), min_size=1, max_size=5)


@given(MESSAGES)
def test_most_tokens_is_no_less_than_the_bytes_of_all_texts(texts: list[str]) -> None:
    request = ChatRequest(model="m", messages=tuple(Message(role=Role.USER, content=(TextPart(text=text),)) for text in texts))
    assert most_tokens(request) >= sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)


def test_most_tokens_counts_tools_and_their_calls() -> None:
    plain = ChatRequest(model="m", messages=(Message(role=Role.USER, content=(TextPart(text="hi"),)),))
    call = Message(role=Role.ASSISTANT, tool_calls=(ToolCall(id="1", name="f", arguments='{"city":"杭州"}'),))
    tools = ChatRequest(model="m", messages=(*plain.messages, call), tools=(ToolSpec(name="f", parameters=b"{}" * 50),))
    assert most_tokens(tools) >= most_tokens(plain) + len('{"city":"杭州"}'.encode()) + 100


def test_most_tokens_counts_both_sides_of_a_hole() -> None:
    assert most_tokens(CompletionRequest(model="m", prompt="ab", suffix="cd")) >= 4


@pytest.mark.parametrize(
    ("text", "least", "most"), [("", 0, 0), ("hello world, how are you?", 6, 10), ("请介绍一下自然语言处理技术。", 7, 14)]
)
def test_text_tokens_is_near_what_the_vocabulary_says(text: str, least: int, most: int) -> None:
    assert least <= text_tokens(text) <= most


CALLS = st.lists(
    st.builds(ToolCall, id=st.just("1"), name=st.text(max_size=9), arguments=st.one_of(JSON, st.text(max_size=40))), max_size=2
)
ANY_MESSAGES = st.builds(
    Message,
    role=st.sampled_from(Role),
    content=st.tuples(st.builds(TextPart, text=st.text(max_size=50))),
    tool_calls=CALLS.map(tuple),
    reasoning=st.none() | st.text(max_size=20),
)
TOOLS = st.builds(ToolSpec, name=st.text(max_size=9), description=st.text(max_size=30), parameters=JSON.map(str.encode))


@given(st.lists(ANY_MESSAGES, max_size=4), st.lists(TOOLS, max_size=2))
def test_a_bill_is_never_above_what_was_reserved(messages: list[Message], tools: list[ToolSpec]) -> None:
    request = ChatRequest(model="m", messages=tuple(messages), tools=tuple(tools))
    billed = prompt_marks(request) + sum(map(text_tokens, prompt_texts(request)))
    assert 0 < billed <= most_tokens(request)


def test_most_tokens_is_the_turns_and_what_is_around_them() -> None:
    thought = Message(role=Role.ASSISTANT, content=(TextPart(text="hé"),), reasoning="so", name="me")
    request = ChatRequest(model="m", messages=(thought,))
    assert ["hé", "so"] == turns(request)
    assert most_around(request) + 5 == most_tokens(request)


def test_prompt_marks_are_fewer_when_the_last_turn_is_continued() -> None:
    turn = Message(role=Role.ASSISTANT, content=(TextPart(text="He"),))
    closed, partial = (ChatRequest(model="m", messages=(msgspec.structs.replace(turn, is_partial=it),)) for it in (False, True))
    assert (5 + 3, 3) == (prompt_marks(closed), prompt_marks(partial))


def test_prompt_texts_have_json_as_templates_print_it_when_it_is_json() -> None:
    calls = tuple(ToolCall(id="1", name="f", arguments=text) for text in ('{"a":"\\u676d"}', "{oops"))
    request = ChatRequest(model="m", messages=(Message(role=Role.ASSISTANT, tool_calls=calls),))
    assert [
        "",
        '\n<tool_call>\n{"name": "f", "arguments": {"a": "杭"}}\n</tool_call>',
        '\n<tool_call>\n{"name": "f", "arguments": {oops}\n</tool_call>',
    ] == prompt_texts(request)


@pytest.mark.parametrize(("suffix", "marks"), [(None, 0), ("", 3), ("b", 3)])
def test_prompt_marks_of_a_raw_prompt_are_those_of_its_hole(suffix: str | None, marks: int) -> None:
    assert marks == prompt_marks(CompletionRequest(model="m", prompt="a", suffix=suffix))


def test_pictures_are_counted_at_the_most_any_family_takes() -> None:
    def tokens(*parts: ImagePart) -> tuple[int, int]:
        request = ChatRequest(model="m", messages=(Message(role=Role.USER, content=(TextPart(text="hello"), *parts)),))
        return most_tokens(request), prompt_marks(request)

    plain = tokens()
    seen = ImagePart(url="https://example.com/1.png", width=280, height=280)
    unseen = ImagePart(url="https://example.com/2.png")

    assert tuple(count + 102 for count in plain) == tokens(seen)
    assert tuple(count + 102 + 16_386 for count in plain) == tokens(seen, unseen)
