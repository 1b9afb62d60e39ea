"""Thrift: what a key's policies leave of a prompt, whatever the conversation; and that it says what it did."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from qwenbox.engines.echo.engine import Echo, EchoConfig
from qwenbox.gateway.journal.tables import USAGE
from qwenbox.gateway.thrift import Trimmed, collapse, cuts, trim, turn_starts
from qwenbox.terms.call import Call
from qwenbox.terms.caller import Caller, Thrift
from qwenbox.terms.chat import ChatRequest, Message, Role, TextPart, ToolCall
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.engine import Capacity, EngineFacts, Events, Health, TextEngine
from qwenbox.terms.events import Completed
from support.gateways import open_gateway

pytestmark = pytest.mark.anyio

ECHO = Echo(EchoConfig())
COLLAPSING = Thrift(collapses_whitespace=True)


class Uncounted:
    """Echo, as a server that tells no tokens before it answers."""

    @property
    def facts(self) -> EngineFacts:
        return ECHO.facts

    @property
    def capacity(self) -> Capacity:
        return ECHO.capacity

    async def health(self) -> Health:
        return await ECHO.health()

    def chat(self, request: ChatRequest) -> Events:
        return ECHO.chat(request)

    def complete(self, request: CompletionRequest) -> Events:
        return ECHO.complete(request)


def said(role: str, text: str = "", **fields: Any) -> Message:
    return Message(role=Role(role), content=(TextPart(text=text),) if text else (), **fields)


def called(*ids: str) -> Message:
    return said("assistant", tool_calls=tuple(ToolCall(id=each, name="look", arguments="{}") for each in ids))


def result(call_id: str, text: str = "found") -> Message:
    return said("tool", text, tool_call_id=call_id)


def asked(*messages: Message) -> ChatRequest:
    return ChatRequest(model="m", messages=messages)


async def shortened(request: ChatRequest, budget: int) -> Trimmed:
    return await trim(request, Thrift(history_tokens=budget), ECHO.count)


LONG = asked(
    said("system", "Be short."),
    *(
        message
        for number in range(20)
        for message in (said("user", f"question {number} " * 5), said("assistant", f"answer {number} " * 20))
    ),
    said("user", "And now?"),
)


async def test_history_is_left_whole_when_it_fits() -> None:
    tokens = await ECHO.count(LONG)
    assert Trimmed(request=LONG) == await shortened(LONG, tokens)


async def test_oldest_turns_go_until_the_rest_fits() -> None:
    tokens = await ECHO.count(LONG)
    trimmed = await shortened(LONG, tokens // 2)
    left = await ECHO.count(trimmed.request)
    messages = trimmed.request.messages
    assert (LONG.messages[0], *LONG.messages[len(LONG.messages) - len(messages) + 1 :]) == messages
    assert Role.USER is messages[1].role
    turns = (len(LONG.messages) - len(messages)) // 2
    assert (f"history-trimmed;turns={turns};tokens={tokens - left}",) == trimmed.applied
    assert {"thrift": {"trimmed_turns": turns, "trimmed_tokens": tokens - left}} == trimmed.notes
    one_more = msgspec.structs.replace(LONG, messages=(messages[0], *LONG.messages[-len(messages) - 1 :]))
    assert left <= tokens // 2 < await ECHO.count(one_more)


async def test_system_and_last_turn_stay_when_they_are_longer_than_the_budget() -> None:
    trimmed = await shortened(LONG, 1)
    left = await ECHO.count(trimmed.request)
    assert (LONG.messages[0], LONG.messages[-1]) == trimmed.request.messages
    assert f"history-over-budget;tokens={left - 1}" == trimmed.applied[-1]
    assert left - 1 == trimmed.notes["thrift"]["over_budget_tokens"]  # type: ignore[index]  # notes are JSON values
    only = asked(said("user", "one two three four"))
    assert only is (await shortened(only, 1)).request


async def test_few_counts_are_asked_for() -> None:
    asked_for: list[int] = []

    async def count(request: ChatRequest) -> int:
        asked_for.append(len(request.messages))
        return await ECHO.count(request)

    many = asked(*(said("user" if number % 2 == 0 else "assistant", "word " * 9) for number in range(1_001)))
    await trim(many, Thrift(history_tokens=400), count)
    assert len(asked_for) <= 11
    asked_for.clear()
    await trim(asked(said("user", "hi")), Thrift(history_tokens=400), count)
    assert [] == asked_for


async def test_results_stay_with_their_calls_over_turns() -> None:
    request = asked(
        said("user", "first"), called("a"), said("user", "wait"), result("a", "word " * 30), said("user", "second"), said("assistant", "x")
    )
    assert [0, 4] == cuts(request.messages)
    assert [0, 2, 4] == turn_starts(request.messages)
    trimmed = await shortened(request, 20)
    assert ("second", "x") == tuple(message.text for message in trimmed.request.messages)
    assert trimmed.applied[0].startswith("history-trimmed;turns=2;")


ROLES = st.sampled_from(["system", "user", "assistant", "call", "two calls", "result"])


@st.composite
def conversations(draw: st.DrawFn) -> ChatRequest:
    """Any order of messages in which a result has its call somewhere before it; ids are used again."""
    messages: list[Message] = []
    open_calls: list[str] = []
    for kind in draw(st.lists(ROLES, max_size=30)):
        text = " ".join(["w"] * draw(st.integers(1, 30)))
        if kind in ("call", "two calls"):
            ids = [f"c{draw(st.integers(0, 3))}" for _ in range(1 if kind == "call" else 2)]
            messages.append(called(*ids))
            open_calls += ids
        elif kind == "result":
            if open_calls:
                messages.append(result(open_calls.pop(draw(st.integers(0, len(open_calls) - 1))), text))
        else:
            messages.append(said(kind, text))
    return asked(*messages, said("user", "the last question"), *([called("z"), result("z")] if draw(st.booleans()) else []))


def origin(messages: tuple[Message, ...], place: int) -> Message | None:
    """The call that the result there answers: the nearest before it with its id."""
    wanted = messages[place].tool_call_id
    before = reversed(messages[:place])
    return next((message for message in before if any(call.id == wanted for call in message.tool_calls)), None)


@given(conversations(), st.integers(1, 400))
async def test_what_is_left_is_whole_whatever_the_conversation(request: ChatRequest, budget: int) -> None:
    trimmed = await shortened(request, budget)
    before, after = request.messages, trimmed.request.messages
    systems = [message for message in before if message.role is Role.SYSTEM]
    assert systems == [message for message in after if message.role is Role.SYSTEM]
    rest, kept = ([message for message in messages if message.role is not Role.SYSTEM] for messages in (before, after))
    assert kept == rest[len(rest) - len(kept) :]
    last = next(place for place in reversed(range(len(rest))) if rest[place].role is Role.USER)
    assert len(kept) >= len(rest) - last
    # Whole turns: it begins where one began, and no result is without its call.
    first = len(rest) - len(kept)
    assert first in turn_starts(rest)
    results = [place for place in range(first, len(rest)) if rest[place].role is Role.TOOL]
    for place in results:
        call = origin(tuple(rest), place)
        assert any(message is call for message in kept)
    # As much as fits, and an honest word about what does not.
    tokens, left = await ECHO.count(request), await ECHO.count(trimmed.request)
    assert (left > budget) == any(each.startswith("history-over-budget") for each in trimmed.applied)
    assert (left < tokens) == any(each.startswith("history-trimmed") for each in trimmed.applied)
    longer = [place for place in cuts(rest) if place < first]
    if longer:
        assert await ECHO.count(msgspec.structs.replace(request, messages=(*systems, *rest[longer[-1] :]))) > budget


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a  b   c", "a b c"),
        ("a\n\n\n\nb", "a\n\nb"),
        ("a \t \nb", "a\nb"),
        ("a\r\n\r\n\r\n\r\nb", "a\r\n\r\nb"),
        ("你好    世界", "你好 世界"),
        ("  - item   one\n   x", "  - item one\n   x"),
        ("\n\n\n", "\n"),
        ("a   ", "a "),
        ("use `a  b` and   c", "use `a  b` and c"),
        ("``x  `  y``  z", "``x  `  y`` z"),
    ],
)
def test_white_space_is_collapsed(text: str, expected: str) -> None:
    assert expected == collapse(asked(said("user", text))).messages[0].text


@pytest.mark.parametrize(
    "text",
    [
        "```py\nx  =  1\n\n\n\ny = 2  \n```",
        "~~~\na  b\n```\nc  d\n~~~",
        "````\n```\na  b\n```\nc  d\n````",
        "- step:\n  ```\n  a  b\n  ```",
        "> ```\n> a  b\n> ```",
        "```\nnever  closed",
        "    indented  code\n\n\n\n    more  of it  ",
        "\tif x:  y",
        "  \tif x:  y",
        "```\n        ```\na  b\n```",
        "a\t\tb",
        '{"a": "two  spaces"}',
        '[\n\n\n"x"]',
        "half `a  b of a span",
    ],
)
def test_code_and_data_stay_as_they_are(text: str) -> None:
    request = asked(said("user", text))
    assert request is collapse(request)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (result("a", 'Answer: {"a": "x  y"}'), 'Answer: {"a": "x  y"}'),
        (result("a", 'he said "x  y"'), 'he said "x  y"'),
        (result("a", "cloudy   today"), "cloudy today"),
        (said("assistant", "so  far", is_partial=True), "so  far"),
        (said("system", "be   short"), "be short"),
    ],
)
def test_collapse_knows_the_turns_it_may_touch(message: Message, expected: str) -> None:
    assert expected == collapse(asked(message)).messages[0].text


def test_texts_of_a_turn_are_read_as_one() -> None:
    def parts(*texts: str) -> Message:
        return Message(role=Role.USER, content=tuple(TextPart(text=text) for text in texts))

    open_fence = parts("```\n", "a  b\n", "```\n", "c  d")
    assert ("```\n", "a  b\n", "```\n", "c d") == tuple(part.text for part in collapse(asked(open_fence)).messages[0].content)  # type: ignore[union-attr]
    halves = parts("``", "`\na  b")
    assert halves is collapse(asked(halves)).messages[0]


async def test_collapse_is_told_in_characters() -> None:
    trimmed = await trim(asked(said("user", "a    b"), said("user", "c  d")), COLLAPSING, ECHO.count)
    assert (("whitespace-collapsed;characters=4",), {"thrift": {"collapsed_characters": 4}}) == (trimmed.applied, trimmed.notes)
    assert not (await trim(asked(said("user", "a b")), COLLAPSING, ECHO.count)).applied


LINES = st.lists(
    st.sampled_from(
        ["a  b", "", "  ", "\t", "    code  x", "```", "~~~", "````", "- x  y ", "\tz", "`a  b`", "`", "> ```", "字  字", "end\r", "  ```"]
    ),
    max_size=14,
).map("\n".join)


@given(LINES)
def test_collapse_changes_nothing_but_white_space_and_nothing_twice(text: str) -> None:
    once = collapse(asked(said("user", text)))
    after = once.messages[0].text
    assert re.sub(r"\s", "", text) == re.sub(r"\s", "", after)
    assert len(after) <= len(text)
    assert once is collapse(once)


@pytest.mark.parametrize("engine", [ECHO, Uncounted()], ids=["counts", "does not count"])
async def test_gateway_sends_what_is_left_and_says_so(tmp_path: Path, engine: TextEngine) -> None:
    budget = await ECHO.count(LONG) // 2
    caller = Caller(account_id="acc", key_id="key", thrift=Thrift(history_tokens=budget, collapses_whitespace=True))
    asking = Call(id="call-1", caller=caller, request=LONG, dialect="openai", arrived_at=0.0)
    async with open_gateway(tmp_path, engine) as office, office.gateway.chat(asking) as answer:
        events = [event async for event in answer.events]
        ((notes_json, input_tokens),) = msgspec.convert(
            [(row["notes"], row["input_tokens"]) for row in await office.database.read(select(USAGE))], list[tuple[str, int]]
        )
    last = events[-1]
    assert isinstance(last, Completed)
    notes = msgspec.json.decode(notes_json)["thrift"]
    turns, tokens = notes["trimmed_turns"], notes["trimmed_tokens"]
    assert f"history-trimmed;turns={turns};tokens={tokens}" == answer.applied[-1]
    assert last.usage.input_tokens == input_tokens < await ECHO.count(LONG) * 0.7


async def test_gateway_leaves_prompts_alone_when_nothing_is_asked(tmp_path: Path) -> None:
    asking = Call(id="call-1", caller=Caller(account_id="acc", key_id="key"), request=LONG, dialect="openai", arrived_at=0.0)
    async with open_gateway(tmp_path, ECHO) as office, office.gateway.chat(asking) as answer:
        events = [event async for event in answer.events]
    assert () == answer.applied
    last = events[-1]
    assert isinstance(last, Completed)
    assert await ECHO.count(LONG) == last.usage.input_tokens
