"""What each side of a conversation remembers, and how an answer is heard."""

import pytest

from qwenbox.console.pages.playground.asking import Hearing
from qwenbox.console.pages.playground.conversation import Conversation, Exchange, Step
from qwenbox.console.pages.playground.request import Call, Question, Reply
from qwenbox.terms.events import ChoiceFinished, Completed, FinishReason, ReasoningDelta, Started, TextDelta, ToolCallDelta
from qwenbox.terms.usage import Usage


def _step(text: str, *calls: Call) -> Step:
    step = Step(Hearing("m"))
    step.reply = Reply(text=text, calls=list(calls))
    return step


def test_each_side_remembers_its_own_answers_and_shares_those_from_before_it_was_there() -> None:
    talk = Conversation()
    alone, both = Exchange(Question(text="one")), Exchange(Question(text="two"))
    talk.exchanges += [alone, both]
    alone.steps[0].append(_step("left"))
    both.steps[0].append(_step("left again"))
    both.steps[1].append(_step("right"))
    assert ["one", "left", "two", "left again"] == [turn.text for turn in talk.turns(0)]
    assert ["one", "left", "two", "right"] == [turn.text for turn in talk.turns(1)]
    assert [alone] == list(talk.before(both))


def test_calls_without_results_are_left_out_until_they_have_them() -> None:
    call = Call(id="c", name="f", arguments="{}")
    exchange = Exchange(Question(text="q"))
    exchange.steps[0].append(_step("", call))
    assert [exchange.question] == exchange.own_turns(0) and exchange.steps[0][0].is_waiting
    call.result = ""
    assert 2 == len(exchange.own_turns(0)) and not exchange.steps[0][0].is_waiting


def test_a_side_that_is_still_silent_is_asked_the_question_alone() -> None:
    exchange = Exchange(Question(text="q"))
    exchange.steps[0].append(_step("left"))
    assert [exchange.question] == exchange.own_turns(1)


class _Clock:
    def __init__(self) -> None:
        self.now = 10.0

    def __call__(self) -> float:
        self.now += 0.5
        return self.now


def test_an_answer_is_heard_piece_by_piece() -> None:
    hearing = Hearing("m", _Clock())
    pieces = (ReasoningDelta(text="hm", tokens=1), TextDelta(text="he", tokens=1), TextDelta(text="llo", tokens=2))
    for event in (Started(input_tokens=3), *pieces):
        hearing.add(event)
    assert ("hm", "hello", 4) == (hearing.reasoning, hearing.text, hearing.tokens)
    assert (0.5, 3.0) == (hearing.ttft_s, hearing.tokens_s)
    hearing.add(ChoiceFinished(reason=FinishReason.LENGTH))
    hearing.add(Completed(usage=Usage(input_tokens=3, output_tokens=6)))
    assert ("length", 5.0) == (hearing.reason, hearing.tokens_s)


@pytest.mark.parametrize(("reason", "kept"), [(FinishReason.TOOL_CALLS, 2), (FinishReason.LENGTH, 0)])
def test_calls_become_part_of_the_conversation_only_when_they_are_whole(reason: FinishReason, kept: int) -> None:
    hearing = Hearing("m")
    for event in (
        ToolCallDelta(call=0, id="a", name="f", arguments='{"x"'),
        ToolCallDelta(call=1, id="b", name="g"),
        ToolCallDelta(call=0, arguments=": 1}"),
        ChoiceFinished(reason=reason),
    ):
        hearing.add(event)
    step = Step(hearing)
    step.settle()
    assert [Call(id="a", name="f", arguments='{"x": 1}'), Call(id="b", name="g", arguments="")][:kept] == step.reply.calls
