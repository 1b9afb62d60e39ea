"""How much of a prompt was reusable: whole messages it shares with an earlier prompt of the same account and model."""

import msgspec
import pytest

from qwenbox.gateway.prefixes import Prefixes
from qwenbox.terms.chat import ChatRequest, Message, Role, TextPart, ToolCall, ToolSpec


def asked(*texts: str) -> ChatRequest:
    return ChatRequest(model="m", messages=tuple(Message(role=Role.USER, content=(TextPart(text=text),)) for text in texts))


def test_share_is_what_an_earlier_prompt_began_with() -> None:
    prefixes = Prefixes()
    assert 0 == prefixes.share("acc", asked("x" * 49, "y" * 49))
    assert 0.5 == prefixes.share("acc", asked("x" * 49, "z" * 49))
    assert 1 == prefixes.share("acc", asked("x" * 49, "y" * 49))
    assert pytest.approx(2 / 3) == prefixes.share("acc", asked("x" * 49, "y" * 49, "w" * 49))
    assert 0 == prefixes.share("acc", asked("y" * 49, "x" * 49))


def test_share_is_nothing_for_another_account_model_tool_or_call() -> None:
    prefixes, request = Prefixes(), asked("x" * 99)
    prefixes.share("acc", request)
    (message,) = request.messages
    called = msgspec.structs.replace(message, tool_calls=(ToolCall(id="1", name="f", arguments="{}"),))
    others = (
        msgspec.structs.replace(request, model="n"),
        msgspec.structs.replace(request, tools=(ToolSpec(name="f"),)),
        msgspec.structs.replace(request, messages=(called,)),
    )
    assert [0, 0, 0] == [prefixes.share("acc", other) for other in others]
    assert 0 == prefixes.share("other", request)
    assert 1 == prefixes.share("acc", request)


def test_longest_unused_is_forgotten_first() -> None:
    prefixes = Prefixes(most=2)
    for text in ("a", "b", "a", "c"):
        prefixes.share("acc", asked(text))
    assert [1, 0] == [prefixes.share("acc", asked(text)) for text in ("a", "b")]
