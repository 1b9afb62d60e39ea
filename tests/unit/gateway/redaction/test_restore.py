"""However an answer is cut, what stands in it afterwards is the same, and so are its tokens."""

import itertools
import json
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenbox.gateway.redaction.mend import Mender, Names
from qwenbox.gateway.redaction.restore import Restored, Restorer
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, ChoiceFinished, Completed, FinishReason, Started, TextDelta, TokenLogprob, ToolCallDelta, fold
from qwenbox.terms.usage import Usage

SPELLINGS = {"PHONE_1": "138 1234 5678", "PHONE_10": 'a"b\\c', "EMAIL_1": "x@y.cn"}
PIECES = st.lists(
    st.sampled_from(
        [
            "<",
            ">",
            "<PHONE_1>",
            "<PHONE_10>",
            "<EMAIL_1>",
            "<PHONE_9>",
            "PHONE_1",
            "\\",
            "\\\\",
            "\\u003c",
            "\\u003e",
            "<<PHONE_1",
            "_1>",
            "好",
            "\n",
        ]
    )
)


@given(PIECES, st.booleans(), st.lists(st.integers(0, 60)))
def test_any_split_restores_as_the_whole_does(pieces: list[str], is_json: bool, cuts: list[int]) -> None:
    names = Names(SPELLINGS, is_json=is_json)
    text = "".join(pieces)
    whole, split = Mender(names), Mender(names)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    said = ""
    for start, end in itertools.pairwise(places):
        said += split.feed(text[start:end])
        assert len(split.held) <= names.most_held
    assert said + split.flush() == whole.feed(text) + whole.flush()


def test_arguments_stay_json_when_a_server_escapes_brackets() -> None:
    mender = Mender(Names(SPELLINGS, is_json=True))
    said = mender.feed('{"a": "\\u003cPHONE_10\\u003e", "b": "<PHONE_1>", "c": "\\\\u003cPHONE_1\\u003e"}') + mender.flush()
    assert json.loads(said) == {"a": SPELLINGS["PHONE_10"], "b": SPELLINGS["PHONE_1"], "c": "\\u003cPHONE_1>"}


async def events(said: Sequence[ChatEvent], failure: ApiError | None = None) -> AsyncIterator[ChatEvent]:
    for event in said:
        yield event
    if failure is not None:
        raise failure


def restored(said: AsyncIterator[ChatEvent]) -> Restored:
    return Restored(said, Restorer(Names(SPELLINGS, is_json=False), Names(SPELLINGS, is_json=True)))


def logprob(text: str) -> TokenLogprob:
    return TokenLogprob(text=text, raw=text.encode(), logprob=-1.0)


async def test_tokens_and_logprobs_of_held_pieces_move_to_the_piece_that_lets_them_go() -> None:
    pieces = ["a <", "PHO", "NE", "_1", "> b", "<"]
    deltas = [TextDelta(text=piece, index=index, tokens=1, logprobs=(logprob(piece),)) for piece in pieces for index in (0, 1)]
    ends = [ChoiceFinished(reason=FinishReason.STOP, index=index) for index in (1, 0)]
    said = [Started(input_tokens=1), *deltas, *ends, Completed(usage=Usage(input_tokens=1, output_tokens=12))]
    heard = [event async for event in restored(events(said))]
    first = [event for event in heard if isinstance(event, TextDelta) and event.index == 0]
    assert [(event.text, event.tokens) for event in first] == [("a ", 1), ("138 1234 5678 b", 4), ("<", 1)]
    result = fold(heard)
    for choice in result.choices:
        assert choice.text == "a 138 1234 5678 b<"
        assert [each.text for each in choice.logprobs] == pieces


async def test_parallel_calls_restore_each_by_itself() -> None:
    said = [ToolCallDelta(call=call, name="f", id="i") for call in (0, 1)]
    said += [ToolCallDelta(call=call, arguments=piece) for piece in ('{"n":"<PHO', 'NE_1>"}') for call in (0, 1)]
    finish = ChoiceFinished(reason=FinishReason.TOOL_CALLS)
    heard = [event async for event in restored(events([*said, finish, Completed(usage=Usage(input_tokens=1, output_tokens=1))]))]
    assert [call.arguments for call in fold(heard).choices[0].tool_calls] == ['{"n":"138 1234 5678"}'] * 2


async def test_what_is_held_comes_before_the_error_when_an_answer_is_cut() -> None:
    heard: list[ChatEvent] = []
    with pytest.raises(ApiError):
        async for event in restored(events([TextDelta(text="a <PHONE", tokens=3)], ApiError(ErrorKind.ENGINE_FAILED))):
            heard.append(event)  # noqa: PERF401  (a comprehension would lose what came before the error)
    assert "".join(event.text for event in heard if isinstance(event, TextDelta)) == "a <PHONE"
