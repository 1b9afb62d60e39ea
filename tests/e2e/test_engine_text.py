"""What the embedded engine says: stops, limits, choices, logprobs, beginnings, holes, a full pool."""

import time
from functools import partial
from pathlib import Path

import anyio
import msgspec
import pytest

from e2e.engines import ask, open_engine, text_of, weights_file, whole
from qwenbox.engines import gguf
from qwenbox.engines.llamacpp.engine import LlamaCpp
from qwenbox.engines.tokenizer import Tokenizer
from qwenbox.terms.chat import ChatRequest, Message, Role, Sampling, TextPart
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, ChoiceFinished, Completed, FinishReason, Fold, Started, TextDelta

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]

POOL = {"kv_tokens": 2048, "context_tokens": 2048}
COUNT = partial(ask, "Count from one to ten in words, separated by commas.", temperature=0.0)


def _continued(beginning: str, **fields: object) -> ChatRequest:
    """The count, from this beginning of the answer on."""
    begun = Message(role=Role.ASSISTANT, content=(TextPart(text=beginning),), is_partial=True)
    request = COUNT(tokens=16, **fields)
    return msgspec.structs.replace(request, messages=(*request.messages, begun))


async def _events(engine: LlamaCpp, request: ChatRequest) -> list[ChatEvent]:
    async with engine.chat(request) as events:
        return [event async for event in events]


async def test_events_keep_their_order_and_count_every_token_once(weights_folder: Path) -> None:
    async with open_engine(weights_folder, **POOL) as engine:
        request = COUNT(tokens=24, n=2)
        events = await _events(engine, request)
        counted = await engine.count(request)

    usage = events[-1].usage if isinstance(events[-1], Completed) else None
    assert usage is not None
    assert isinstance(events[0], Started)
    assert (counted, counted) == (events[0].input_tokens, usage.input_tokens)
    assert usage.output_tokens == sum(event.tokens for event in events if isinstance(event, TextDelta | ChoiceFinished))
    assert [0, 1] == sorted(event.index for event in events if isinstance(event, ChoiceFinished))


async def test_greedy_text_ends_before_a_stop_text_or_a_stop_token(weights_folder: Path) -> None:
    async with open_engine(weights_folder, **POOL) as engine:
        tokenizer = Tokenizer(gguf.read(weights_file(weights_folder)))
        counting = partial(_continued, "one, two, three,")
        free = await text_of(engine, counting())
        six = free.index("six")
        at_text = await whole(engine, counting(stop=("zebra", "six")))
        at_token = await whole(engine, counting(stop_tokens=(tuple(tokenizer.encode(" six")),)))
        at_two = await whole(engine, counting(stop_tokens=(tuple(tokenizer.encode(", six")),)))
        never = await whole(engine, counting(stop=("six zebras",)))

    assert free[:six] == at_text.choices[0].text
    assert free[:six].rstrip(" ") == at_token.choices[0].text
    assert free[:six].rstrip(" ,") == at_two.choices[0].text
    assert free == never.choices[0].text
    assert [FinishReason.STOP] * 3 == [answer.choices[0].reason for answer in (at_text, at_token, at_two)]


async def test_text_that_looked_like_a_stop_is_given_back_when_the_limit_comes_first(weights_folder: Path) -> None:
    async with open_engine(weights_folder, **POOL) as engine:
        free = [await text_of(engine, COUNT(tokens=tokens)) for tokens in range(1, 9)]
        stopped = [await whole(engine, COUNT(tokens=tokens, stop=(free[tokens - 1] + "zebra",))) for tokens in range(1, 9)]

    assert free == [answer.choices[0].text for answer in stopped]
    assert list(range(1, 9)) == [answer.usage.output_tokens for answer in stopped]


async def test_no_event_holds_half_a_character(weights_folder: Path) -> None:
    text = "🦜𓀀🏴‍☠️龘𠜎"
    async with open_engine(weights_folder, **POOL) as engine:
        begun = Message(role=Role.ASSISTANT, content=(TextPart(text=text + text),), is_partial=True)
        question = ask(f"Repeat this again and again without spaces: {text}").messages[0]
        for tokens in range(1, 12):
            request = ChatRequest(model="m", messages=(question, begun), max_output_tokens=tokens, sampling=Sampling(temperature=0.0))
            events = await _events(engine, request)
            assert not any("\ufffd" in event.text for event in events if isinstance(event, TextDelta))
            assert tokens >= events[-1].usage.output_tokens


async def test_partial_answer_is_continued_and_not_repeated(weights_folder: Path) -> None:
    async with open_engine(weights_folder, **POOL) as engine:
        text = await text_of(engine, _continued("one, two, three, four,"))

    assert text.startswith(" five")


async def test_logprobs_are_natural_logarithms_of_the_tokens_shown(weights_folder: Path) -> None:
    async with open_engine(weights_folder, **POOL) as engine:
        choice = (await whole(engine, COUNT(tokens=10, top_logprobs=3))).choices[0]

    assert choice.text == b"".join(one.raw for one in choice.logprobs).decode()
    assert all(one.logprob <= 0.0 and 3 == len(one.rivals) and one.rivals[0].logprob >= one.rivals[1].logprob for one in choice.logprobs)
    assert all(one.logprob == one.rivals[0].logprob for one in choice.logprobs)  # greedy takes the best


async def test_second_call_reads_its_prompt_from_the_cache(weights_folder: Path) -> None:
    async with open_engine(weights_folder, **POOL) as engine:
        request = ask("Tell me about " + "very " * 100 + "old trees.", tokens=2)
        first = (await whole(engine, request)).usage
        second = (await whole(engine, request)).usage
        seeded = (await whole(engine, msgspec.structs.replace(request, sampling=Sampling(seed=1)))).usage

    assert 0 == seeded.cached_tokens
    assert (second.cached_tokens or 0) > 100 > (first.cached_tokens or 0)


async def test_hole_in_code_is_filled(weights_folder: Path) -> None:
    request = CompletionRequest(
        model="m",
        prompt="def add(first, second):\n    return ",
        suffix="\n\nassert add(1, 2) == 3\n",
        max_output_tokens=12,
        sampling=Sampling(temperature=0.0),
    )
    async with open_engine(weights_folder, **POOL) as engine, engine.complete(request) as events:
        fold = Fold()
        async for event in events:
            fold.add(event)

    assert "first + second" in fold.result().choices[0].text


async def test_prompt_past_the_context_is_refused_at_once(weights_folder: Path, is_full: bool) -> None:
    async with open_engine(weights_folder) as engine:
        await engine.count(ask("warm up the tokenizer"))
        begun_s = time.monotonic()
        with pytest.raises(ApiError) as raised:
            await text_of(engine, ask("word " * 33_000))
        passed_s = time.monotonic() - begun_s

        assert (ErrorKind.CONTEXT_TOO_LONG, "Range of input length should be [1, 32767]") == (raised.value.kind, raised.value.message)
        assert passed_s < (2 if is_full else 30)
        assert not engine.shared.is_ready


async def test_calls_that_fill_the_pool_are_not_cut_by_what_idle_slots_still_hold(weights_folder: Path) -> None:
    """Four slots keep their last prompts; two calls that take all the pool's tokens between them must still find room."""
    pool = {"kv_tokens": 1024, "context_tokens": 1024, "slots": 4}
    async with open_engine(weights_folder, **pool) as engine:
        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(text_of, engine, ask(f"{number} " + "old " * 200, tokens=2))
        answers = []

        async def fill(number: int) -> None:
            request = ask(f"{number} new " + "words " * 300 + "Count from one to a hundred.", temperature=0.0)
            answers.append(await whole(engine, msgspec.structs.replace(request, max_output_tokens=512 - await engine.count(request))))

        async with anyio.create_task_group() as tasks:
            for number in range(2):
                tasks.start_soon(fill, number)

    used = [answer.usage.total_tokens for answer in answers]
    print(f"\ntokens of the two calls in a pool of 1024: {used}")
    assert 2 == len(answers)
    assert all(answer.choices[0].reason is FinishReason.STOP or answer.usage.total_tokens == 512 for answer in answers)


async def test_most_choices_run_one_after_another_when_slots_are_few(weights_folder: Path) -> None:
    async with open_engine(weights_folder, slots=1, **POOL) as engine:
        answer = await whole(engine, COUNT(tokens=4, n=3))

    assert [0, 1, 2] == [choice.index for choice in answer.choices]
    assert 1 == len({choice.text for choice in answer.choices})
