"""Calls of known tools are heard in every form models use, and nothing else is; no token and no character is lost."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from qwenbox.engines.tool_calls import Hearing, hearing, make_id
from qwenbox.terms.chat import ChatRequest, ToolNone, ToolSpec
from qwenbox.terms.events import ChatDelta, ChoiceFinished, FinishReason, TextDelta, TokenLogprob, ToolCallDelta

NAMES = frozenset({"get_weather", "now", "查询"})
CALL = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
ARGUMENTS = '{"city": "Paris"}'


def machine(*, is_parallel: bool = False) -> Hearing:
    numbers = itertools.count()
    return Hearing(NAMES, is_parallel=is_parallel, make_id=lambda: f"call_{next(numbers)}")


def pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def hear(parts: Sequence[str], *, is_parallel: bool = False, reason: FinishReason = FinishReason.STOP) -> list[ChatDelta | ChoiceFinished]:
    ear = machine(is_parallel=is_parallel)
    events: list[ChatDelta | ChoiceFinished] = []
    for part in parts:
        events += ear.hear(TextDelta(text=part, tokens=1))
    return events + ear.finish(ChoiceFinished(reason=reason, tokens=1))


def text_of(events: Sequence[ChatDelta | ChoiceFinished]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def calls_of(events: Sequence[ChatDelta | ChoiceFinished]) -> list[tuple[str, str, str]]:
    """(id, name, arguments) of each call."""
    found: dict[int, list[str]] = {}
    for event in events:
        if isinstance(event, ToolCallDelta):
            call = found.setdefault(event.call, [event.id, event.name, ""])
            call[2] += event.arguments
    return [(call[0], call[1], call[2]) for _, call in sorted(found.items())]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000])
@pytest.mark.parametrize(
    "form",
    [
        CALL,
        f"<tool_call>\n{CALL}\n</tool_call>",
        f"<tool_call>{CALL}</tool_call>",
        f"```json\n{CALL}\n```",
        f"```\n{CALL}\n```",
        '{\n  "name": "get_weather",\n  "arguments": {"city": "Paris"}\n}',
        '{"name":"get_weather","arguments":{"city": "Paris"}}\n\n',
        '{"name": "get_weather", "parameters": {"city": "Paris"}}',
    ],
)
def test_call_is_heard_however_it_is_written_and_cut(form: str, size: int) -> None:
    events = hear(pieces(form, size))
    assert [("call_0", "get_weather", ARGUMENTS)] == calls_of(events)
    assert "" == text_of(events)
    assert FinishReason.TOOL_CALLS == events[-1].reason  # type: ignore[union-attr]  # the last event is the finish


@pytest.mark.parametrize("size", [1, 4, 1_000])
@pytest.mark.parametrize(
    "text",
    [
        "Hello, how are you?",
        '{"name": "Alice", "age": 5}',
        '{"name": "get_weather_now", "arguments": {}}',
        '{"name": "get_weather", "age": 5}',
        '{"name": "get_weather", "arguments": "none"}',
        'Use {"name": "get_weather", "arguments": {}} like this.',
        "```python\nprint({})\n```\nDone.",
        "<tool>\n{}",
        "a < b and <tool_call> is a tag",
        "{",
        "```json",
        "   \n\n",
        '{"name": "get_w',
        "{'name': 'get_weather', 'arguments': {}}",
    ],
)
def test_text_passes_unchanged_when_it_is_no_call(text: str, size: int) -> None:
    events = hear(pieces(text, size))
    assert text == text_of(events)
    assert [] == calls_of(events)
    assert FinishReason.STOP == events[-1].reason  # type: ignore[union-attr]  # the last event is the finish


def test_text_before_a_call_is_kept_when_there_is_some() -> None:
    events = hear(pieces(f"Let me look.\n<tool_call>\n{CALL}\n</tool_call>", 3))
    assert "Let me look.\n" == text_of(events)
    assert 1 == len(calls_of(events))


def test_tag_begins_a_call_when_it_stands_inside_a_line() -> None:
    events = hear([f"Sure: <tool_call>{CALL}</tool_call>"])
    assert "Sure: " == text_of(events)
    assert 1 == len(calls_of(events))


@pytest.mark.parametrize("size", [1, 5, 1_000])
@pytest.mark.parametrize("form", [CALL, f"<tool_call>\n{CALL}\n</tool_call>", f"```json\n{CALL}\n```"])
def test_calls_are_several_when_they_may_be_parallel(form: str, size: int) -> None:
    events = hear(pieces(f"{form}\n{form}", size), is_parallel=True)
    assert [("call_0", "get_weather", ARGUMENTS), ("call_1", "get_weather", ARGUMENTS)] == calls_of(events)
    assert "" == text_of(events)


def test_second_call_is_dropped_when_calls_may_not_be_parallel() -> None:
    ear = machine()
    events = ear.hear(TextDelta(text=f"{CALL}\n{CALL} and more"))
    assert 1 == len(calls_of(events))
    assert "" == text_of(events)
    assert ear.is_over


def test_arguments_stream_when_they_come_in_pieces() -> None:
    ear = machine()
    assert [] == ear.hear(TextDelta(text='{"name": "get_weather", "arg'))
    first = ear.hear(TextDelta(text='uments": {"city": "Pa'))
    second = ear.hear(TextDelta(text='ris"}'))
    assert [("call_0", "get_weather", '{"city": "Pa')] == [(event.id, event.name, event.arguments) for event in first]  # type: ignore[union-attr]  # calls
    assert [("", "", 'ris"}')] == [(event.id, event.name, event.arguments) for event in second]  # type: ignore[union-attr]  # calls


@pytest.mark.parametrize("size", [1, 2, 1_000])
def test_arguments_end_at_their_own_brace_when_strings_hold_braces(size: int) -> None:
    arguments = json.dumps({"city": 'a}"\\{[', "deep": {"list": [{"x": "}"}]}, "名": "\\"}, ensure_ascii=False)
    events = hear(pieces(f'{{"name": "查询", "arguments": {arguments}}}', size))
    assert [("call_0", "查询", arguments)] == calls_of(events)


def test_finish_is_length_when_a_call_is_only_half_there() -> None:
    events = hear(['{"name": "now", "arguments": {"zone": "U'])
    assert FinishReason.LENGTH == events[-1].reason  # type: ignore[union-attr]  # the last event is the finish


def test_length_stays_length_when_calls_were_heard() -> None:
    assert FinishReason.LENGTH == hear([CALL], reason=FinishReason.LENGTH)[-1].reason  # type: ignore[union-attr]  # the last event is the finish


@pytest.mark.parametrize("text", ["plain text", CALL, f"first\n{CALL}\nlast", "<tool_c", f"```json\n{CALL}\n```\n{CALL}"])
@pytest.mark.parametrize("size", [1, 3, 11])
def test_tokens_and_logprobs_are_conserved_when_text_is_held_back(text: str, size: int) -> None:
    parts = pieces(text, size)
    ear = machine(is_parallel=True)
    events: list[ChatDelta | ChoiceFinished] = []
    for part in parts:
        probability = TokenLogprob(text=part, raw=part.encode(), logprob=-1.0)
        events += ear.hear(TextDelta(text=part, tokens=1, logprobs=(probability,)))
    events += ear.finish(ChoiceFinished(reason=FinishReason.STOP, tokens=2))
    assert len(parts) + 2 == sum(event.tokens for event in events)
    heard = [one.text for event in events if isinstance(event, TextDelta | ToolCallDelta) for one in event.logprobs]
    assert parts[: len(heard)] == heard


def test_plain_text_is_not_held_back_when_nothing_in_it_begins_a_call() -> None:
    ear = machine()
    assert ["Hel", "lo, ", "you"] == [event.text for part in ("Hel", "lo, ", "you") for event in ear.hear(TextDelta(text=part))]  # type: ignore[union-attr]  # texts


def test_hearing_is_none_when_no_call_can_come() -> None:
    tool = ToolSpec(name="now")
    assert hearing(ChatRequest(model="m", messages=())) is None
    assert hearing(ChatRequest(model="m", messages=(), tools=(tool,), tool_choice=ToolNone())) is None
    assert hearing(ChatRequest(model="m", messages=(), tools=(tool,))) is not None


def test_ids_are_call_and_24_hex_digits_when_made() -> None:
    made = {make_id() for _ in range(50)}
    assert 50 == len(made)
    assert all(len(one) == 29 and one.startswith("call_") and int(one[5:], 16) >= 0 for one in made)


GOLDEN = Path(__file__).parents[2] / "golden" / "tools"
RECORDED = [json.loads(line) for line in (GOLDEN / "auto.jsonl").read_text("utf-8").splitlines()]
TOOLS = {tool["name"]: tool for tool in json.loads((GOLDEN / "tools.json").read_text("utf-8"))}


def heard_in(case: Any, size: int) -> list[dict[str, Any]]:
    ear = Hearing(frozenset(case["tools"]), is_parallel=case["is_parallel"])
    events: list[ChatDelta | ChoiceFinished] = []
    for part in pieces(case["text"], size):
        events += ear.hear(TextDelta(text=part))
    events += ear.finish(ChoiceFinished(reason=FinishReason.STOP))
    return [{"name": name, "arguments": json.loads(arguments)} for _, name, arguments in calls_of(events)]


@pytest.mark.parametrize("size", [1, 4, 100_000])
@pytest.mark.parametrize("number", range(len(RECORDED)))
def test_recorded_answer_has_exactly_the_labelled_calls(number: int, size: int) -> None:
    case = RECORDED[number]
    found = heard_in(case, size)
    assert case["calls"] == found
    for call in found:
        jsonschema.validate(call["arguments"], TOOLS[call["name"]].get("parameters", {}))


def test_recorded_answers_are_right_most_of_the_time_when_counted() -> None:
    """The labels alone: what the weights did with these prompts. Half of them call for no tool."""
    calling = [case for case in RECORDED if case["wanted"]]
    right = sum({call["name"] for call in case["calls"]} == set(case["wanted"]) for case in calling)
    silent = [case for case in RECORDED if not case["wanted"]]
    quiet = sum(not case["calls"] for case in silent)
    print(f"\n{right} of {len(calling)} prompts led to the right call, {quiet} of {len(silent)} prompts for no tool led to none")
    assert (50, 50) == (len(calling), len(silent))
    assert right >= 40
    assert quiet >= 40
