"""Answers on their way to the shelf and back."""

from hypothesis import given
from hypothesis import strategies as st

from qwenbox.gateway.cache.base import Recorded, merged, pack, unpack
from qwenbox.terms.events import (
    ChatEvent,
    ChoiceFinished,
    Completed,
    FinishReason,
    ReasoningDelta,
    Started,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    fold,
)
from qwenbox.terms.usage import Usage

_LOGPROBS = st.lists(st.builds(TokenLogprob, text=st.text(max_size=2), raw=st.binary(max_size=2), logprob=st.just(-0.5)), max_size=2)
_COMMON = {"index": st.integers(0, 2), "tokens": st.integers(0, 3), "logprobs": _LOGPROBS.map(tuple)}
_DELTAS = st.one_of(
    st.builds(TextDelta, text=st.text(max_size=3), **_COMMON),
    st.builds(ReasoningDelta, text=st.text(max_size=3), **_COMMON),
    st.builds(ToolCallDelta, call=st.integers(0, 2), name=st.just("f"), arguments=st.text(max_size=3), **_COMMON),
)


@st.composite
def answers(draw: st.DrawFn) -> tuple[ChatEvent, ...]:
    deltas = draw(st.lists(_DELTAS, max_size=12))
    finishes = [ChoiceFinished(reason=FinishReason.STOP, index=index, tokens=1) for index in range(3)]
    return (Started(input_tokens=3), *deltas, *finishes, Completed(usage=Usage(input_tokens=3, output_tokens=5)))


@given(answers())
def test_merged_answer_is_the_same_answer(events: tuple[ChatEvent, ...]) -> None:
    few = merged(events)
    assert fold(events) == fold(few)
    assert len(few) <= len(events)
    tokens = [sum(getattr(event, "tokens", 0) for event in some) for some in (events, few)]
    assert tokens[0] == tokens[1]
    assert few == merged(few)


@given(answers())
def test_answer_comes_back_as_it_went(events: tuple[ChatEvent, ...]) -> None:
    recorded = Recorded(deployment="up", events=events)
    assert recorded == unpack(pack(recorded), is_whole=False)
    assert Recorded(deployment="up", events=merged(events)) == unpack(pack(recorded), is_whole=True)


@given(st.binary(max_size=40))
def test_foreign_bytes_are_no_answer(data: bytes) -> None:
    assert unpack(data, is_whole=True) is None or isinstance(unpack(data, is_whole=True), Recorded)
