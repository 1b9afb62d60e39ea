from pathlib import Path

import msgspec
import pytest

from qwenbox.engines import gguf
from qwenbox.engines.llamacpp.job import Weights
from qwenbox.engines.llamacpp.voice import Manner, Voice
from qwenbox.engines.llamacpp.wire import Chunk
from qwenbox.engines.prompt import PromptTemplate
from qwenbox.engines.thinking import Thinking
from qwenbox.engines.tokenizer import Tokenizer
from qwenbox.engines.tool_calls import hearing
from qwenbox.terms.chat import ChatRequest, Message, Role, Sampling, TextPart, ToolSpec
from qwenbox.terms.events import ChatEvent, ChoiceFinished, FinishReason, ReasoningDelta, TextDelta, ToolCallDelta
from support.tiny_gguf import TEMPLATE, TINY, write_gguf


@pytest.fixture(name="weights")
def _weights(tmp_path: Path) -> Weights:
    tiny = gguf.read(write_gguf(tmp_path / "tiny.gguf", TINY))
    return Weights(tiny, Tokenizer(tiny), PromptTemplate(TEMPLATE))


def _chat(sampling: Sampling | None = None, **extensions: bytes) -> ChatRequest:
    message = Message(role=Role.USER, content=(TextPart(text="hello"),))
    return ChatRequest(model="m", messages=(message,), sampling=sampling or Sampling(), extensions=extensions)


def _voice(weights: Weights, request: ChatRequest, *, is_open: bool | None = None, budget: int | None = None) -> Voice:
    thinking = None if is_open is None else Thinking(is_open=is_open, budget_tokens=budget)
    return Voice(0, Manner(tokenizer=weights.tokenizer), thinking, hearing(request))


def _spoken(voice: Voice, *texts: str) -> list[ChatEvent]:
    """What comes of pieces of one token each, and of the end."""
    events: list[ChatEvent] = []
    for place, text in enumerate(texts, 1):
        events += voice.hear(Chunk(content=text, tokens=(0,), tokens_predicted=place))
    return events + voice.hear(Chunk(stop=True, stop_type="eos", tokens_predicted=len(texts) + 1))


def test_voice_counts_every_token_once_when_text_is_held_back(weights: Weights) -> None:
    events = _spoken(_voice(weights, _chat()), "a", "", "", "b")

    assert [("a", 1), ("b", 3)] == [(event.text, event.tokens) for event in events if isinstance(event, TextDelta)]
    assert ChoiceFinished(reason=FinishReason.STOP, tokens=1) == events[-1]


def test_voice_tells_thoughts_from_the_answer(weights: Weights) -> None:
    voice = _voice(weights, _chat(), is_open=False)

    events = _spoken(voice, "<think>", "\nhm", "</think>", "\n\n", "Yes")

    assert ["hm"] == [event.text for event in events if isinstance(event, ReasoningDelta)]
    assert ["Yes"] == [event.text for event in events if isinstance(event, TextDelta)]
    assert 6 == voice.output_tokens == sum(event.tokens for event in events)


def test_voice_hears_a_call_and_ends_there_when_one_was_asked_for(weights: Weights) -> None:
    request = msgspec.structs.replace(_chat(), tools=(ToolSpec(name="f"),))
    voice = _voice(weights, request)

    events = [
        event for text in ('{"name": "f", "arguments": ', '{"a": 1}', "}", "\n") for event in voice.hear(Chunk(content=text, tokens=(0,)))
    ]

    calls = [event for event in events if isinstance(event, ToolCallDelta)]
    assert ("f", '{"a": 1}') == (calls[0].name, "".join(call.arguments for call in calls))
    assert FinishReason.TOOL_CALLS is events[-1].reason
    assert voice.is_over


def test_voice_goes_on_in_a_second_call_when_its_thoughts_were_cut(weights: Weights) -> None:
    voice = _voice(weights, _chat(), is_open=True, budget=2)
    thoughts = [event for place in (1, 2) for event in voice.hear(Chunk(content="hm ", tokens=(0,), tokens_predicted=place))]
    assert (True, "hm hm ") == (voice.is_spent, voice.said)

    answer = [*voice.cut(), *_spoken(voice, "Yes")]

    assert "hm hm" == "".join(event.text for event in [*thoughts, *answer] if isinstance(event, ReasoningDelta)).strip()
    assert ["Yes"] == [event.text for event in answer if isinstance(event, TextDelta)]
    assert (4, 2, True) == (voice.output_tokens, voice.reasoning_tokens, voice.is_over)
