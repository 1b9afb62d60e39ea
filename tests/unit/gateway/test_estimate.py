"""Estimates for engines that cannot count: never below the truth for a reservation, near it for a bill."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenbox.gateway.estimate import most_tokens, prompt_tokens, text_tokens
from qwenbox.terms.chat import ChatRequest, Message, Role, TextPart, ToolCall, ToolSpec
from qwenbox.terms.completion import CompletionRequest

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


@given(MESSAGES)
def test_prompt_tokens_is_never_above_most_tokens(texts: list[str]) -> None:
    request = ChatRequest(model="m", messages=tuple(Message(role=Role.USER, content=(TextPart(text=text),)) for text in texts))
    assert 0 < prompt_tokens(request) <= most_tokens(request)
