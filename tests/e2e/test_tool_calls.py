"""Tool calls from the smallest weights: what is demanded always comes and validates; what is offered validates when it comes."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jsonschema
import pytest

from boxes import Box
from e2e.tools import OFFERED, PAIRS, PLAIN, toolbox
from sdk import forms

pytestmark = pytest.mark.e2e

FORMS = (forms.openai_whole, forms.generation_stream, forms.generation, forms.openai_stream)


@dataclass(frozen=True)
class Case:
    number: int
    prompt: str
    tools: list[dict[str, Any]]
    choice: Any
    is_parallel: bool = False


def demanded(count: int) -> list[Case]:
    """Every tool by name, then out of a few, then two at once, over and over."""
    found: list[Case] = []
    for number in range(count):
        place = number * 3 % len(OFFERED) if number % 4 == 3 else number % len(OFFERED)
        tool, prompt = OFFERED[place]
        if number % 4 == 3:
            (left, right), prompt = PAIRS[number // 4 % len(PAIRS)]
            pair = [OFFERED[left][0], *([OFFERED[right][0]] if left != right else [])]
            found.append(Case(number, prompt, pair, "required", is_parallel=True))
        elif number % 4 == 2:
            found.append(Case(number, prompt, toolbox(place), "required"))
        else:
            found.append(Case(number, prompt, toolbox(place, 2), {"type": "function", "function": {"name": tool["function"]["name"]}}))
    return found


def fault(case: Case, said: forms.Said) -> str | None:
    """What is wrong with the calls of an answer that ended by itself."""
    names = {tool["function"]["name"]: tool["function"].get("parameters", {}) for tool in case.tools}
    if isinstance(case.choice, dict):
        names = {name: schema for name, schema in names.items() if name == case.choice["function"]["name"]}
    if len(said.calls) > 1 and not case.is_parallel:
        return "more than one call"
    for identity, name, arguments in said.calls:
        if not identity.startswith("call_") or len(identity) != 29:
            return f"id {identity}"
        if name not in names:
            return f"tool {name}"
        try:
            jsonschema.validate(json.loads(arguments), names[name], format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
        except (ValueError, jsonschema.ValidationError) as error:
            return f"{name}: {str(error).splitlines()[0]}: {arguments[:200]}"
    return None


def answers(box: Box, wanted: list[Case]) -> list[tuple[Case, forms.Said]]:
    forms.point(box)

    def ask(case: Case) -> tuple[Case, forms.Said]:
        form = FORMS[case.number % len(FORMS)]
        options: dict[str, Any] = {"tools": case.tools, "tool_choice": case.choice, "parallel_tool_calls": case.is_parallel}
        return case, form(box, [{"role": "user", "content": case.prompt}], max_tokens=512, temperature=1.0, **options).first

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(ask, wanted))


@pytest.mark.timeout(3_600)
def test_demanded_calls_are_all_valid(weights_box: Box, is_full: bool) -> None:
    """Over every tool there is when counts are full: no arguments, nested ones, enums, two at once."""
    count = 104 if is_full else 4
    heard = answers(weights_box, demanded(count))
    faults = [f"{case.number}: {found}" for case, said in heard if (found := fault(case, said))]
    silent = [case.number for case, said in heard if not said.calls]
    used = {name for _, said in heard for _, name, _ in said.calls}
    several = sum(len(said.calls) > 1 for _, said in heard)
    print(f"\n{count} demanded calls over {len(used)} tools, {several} answers with several calls, {len(faults)} invalid")
    assert [] == faults
    assert [] == silent
    assert {"stop", "tool_calls"} >= {said.reason for _, said in heard}
    assert not is_full or len(used) >= 25


@pytest.mark.timeout(3_600)
def test_offered_calls_are_valid_when_they_come(weights_box: Box, is_full: bool) -> None:
    count = 26 if is_full else 2
    calling = [Case(number, OFFERED[number][1], toolbox(number), "auto") for number in range(count)]
    silent = [Case(100 + number, PLAIN[number], toolbox(number), "auto") for number in range(min(count, len(PLAIN)))]
    heard = answers(weights_box, calling + silent)
    faults = [f"{case.number}: {found}" for case, said in heard if said.reason != "length" and (found := fault(case, said))]
    right = sum(
        [OFFERED[case.number][0]["function"]["name"]] == [call[1] for call in said.calls] for case, said in heard if case.number < 100
    )
    quiet = sum(not said.calls for case, said in heard if case.number >= 100)
    print(f"\n{right} of {len(calling)} prompts led to the right call, {quiet} of {len(silent)} prompts for no tool to none")
    assert [] == faults
    assert all(said.reason == "tool_calls" for _, said in heard if said.calls and said.reason != "length")


def test_conversation_goes_on_when_the_result_of_a_call_comes_back(weights_box: Box) -> None:
    """What so small a model makes of the result is its own affair; that its next calls are valid is ours."""
    case = Case(0, "What's the weather in Hangzhou right now?", toolbox(0, 1), "auto")
    messages: list[dict[str, Any]] = [{"role": "user", "content": case.prompt}]
    choice = {"type": "function", "function": {"name": "get_current_weather"}}
    identity, name, arguments = forms.openai_whole(weights_box, messages, tools=case.tools, tool_choice=choice, temperature=0).first.calls[
        0
    ]
    call = {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}
    messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
    messages.append({"role": "tool", "tool_call_id": identity, "content": '{"temperature": 17, "sky": "rain"}'})
    said = forms.openai_whole(weights_box, messages, tools=case.tools, max_tokens=256, temperature=0).first
    assert said.text or said.calls
    assert fault(case, said) is None


def test_answer_is_json_or_a_call_when_both_were_asked_for(weights_box: Box) -> None:
    form = {
        "type": "json_schema",
        "json_schema": {"name": "a", "schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}},
    }
    case = Case(0, "What's the weather in Hangzhou right now? Answer in JSON.", toolbox(0, 2), "auto")
    for ask in FORMS:
        forms.point(weights_box)
        messages = [{"role": "user", "content": case.prompt}]
        said = ask(weights_box, messages, tools=case.tools, response_format=form, max_tokens=256, temperature=0).first
        assert fault(case, said) is None
        assert said.calls or list(json.loads(said.text)) == ["city"]
