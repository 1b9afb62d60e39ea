"""Thoughts and answers part at the tags, however the text is cut; the budget counts what was thought."""

from collections.abc import Sequence

import pytest

from qwenbox.engines.thinking import Thinking
from qwenbox.terms.events import ChatDelta, ChoiceFinished, FinishReason, ReasoningDelta, TextDelta


def pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def hear(machine: Thinking, parts: Sequence[str]) -> list[ChatDelta | ChoiceFinished]:
    events: list[ChatDelta | ChoiceFinished] = []
    for part in parts:
        events += machine.hear(TextDelta(text=part, tokens=1))
    return events + machine.finish(ChoiceFinished(reason=FinishReason.STOP, tokens=1))


def parted(events: Sequence[ChatDelta | ChoiceFinished]) -> tuple[str, str]:
    """(thoughts, answer)"""
    thoughts = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    return thoughts, "".join(event.text for event in events if isinstance(event, TextDelta))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1_000])
@pytest.mark.parametrize(
    ("text", "is_open", "expected"),
    [
        ("<think>\nhm, 1 < 2\n\nso\n</think>\n\nYes.\n", False, ("hm, 1 < 2\n\nso", "Yes.\n")),
        ("hm </ think\n</think>\n\nYes.", True, ("hm </ think", "Yes.")),
        ("<think>\n\n</think>\n\nYes.", False, ("", "Yes.")),
        ("Yes, a<b.", False, ("", "Yes, a<b.")),
        ("  <b>bold</b>", False, ("", "  <b>bold</b>")),
        ("Yes. <think>no</think>", False, ("", "Yes. <think>no</think>")),
        ("<think>never ends </thin", False, ("never ends </thin", "")),
        ("", False, ("", "")),
    ],
)
def test_text_is_parted_at_the_tags_however_it_is_cut(text: str, is_open: bool, expected: tuple[str, str], size: int) -> None:
    events = hear(Thinking(is_open=is_open), pieces(text, size))
    assert expected == parted(events)
    assert len(pieces(text, size)) + 1 == sum(event.tokens for event in events)


def test_budget_is_spent_when_so_many_tokens_were_thought() -> None:
    machine = Thinking(budget_tokens=3)
    for part in ("<think>", "a", "b"):
        machine.hear(TextDelta(text=part, tokens=1))
    assert machine.is_spent
    assert 3 == machine.reasoning_tokens


def test_budget_is_not_spent_when_the_model_already_answers() -> None:
    machine = Thinking(budget_tokens=3)
    hear(machine, ["<think>", "a", "</think>", "b", "c", "d"])
    assert not machine.is_spent
    assert 3 == machine.reasoning_tokens


def test_cut_goes_over_to_answering_when_the_budget_is_spent() -> None:
    machine = Thinking(is_open=True, budget_tokens=2)
    events: list[ChatDelta | ChoiceFinished] = []
    for part in ("so ", "far "):
        events += machine.hear(TextDelta(text=part, tokens=1))
    assert machine.is_spent
    events += machine.cut()
    events += hear(machine, ["Yes", "."])
    assert ("so far", "Yes.") == parted(events)
    assert 5 == sum(event.tokens for event in events)
    assert not machine.is_spent
