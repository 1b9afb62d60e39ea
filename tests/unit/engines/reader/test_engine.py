"""The reader: readings take the pictures' places, the rules come first, the question last; all else is the inner engine's."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec
import pytest

from qwenbox.clock import SystemClock
from qwenbox.engines.echo.engine import Echo, EchoConfig
from qwenbox.engines.memory import MemoryBudget
from qwenbox.engines.reader.engine import APPLIED, Reader, ReaderConfig, Told, reading, tell
from qwenbox.engines.reader.pictures import Line, Pictures, Reading, ReadingConfig
from qwenbox.engines.reader.words import CHINESE, ENGLISH
from qwenbox.remote import Remote
from qwenbox.terms.chat import ChatRequest, ImagePart, JsonObject, Message, Part, Role, Sampling, TextPart, Thinking, ToolSpec, VideoPart
from qwenbox.terms.engine import TextEngine, TokenCounter, WeightsHolder
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import Completed, Fold, Started, TextDelta
from qwenbox.terms.model import Capability

pytestmark = pytest.mark.anyio

CONFIG = ReaderConfig(text="inner")
SIGN = Reading(width=640, height=480, lines=(Line(text="EXIT", score=1.0, corners=((0, 0), (90, 0), (90, 30), (0, 30))),))
BLANK = Reading(width=32, height=32, colours=(("blue", 1.0),))


def picture(name: str = "a") -> ImagePart:
    return ImagePart(url=f"https://example.com/{name}", data=name.encode(), media_type="image/png", width=8, height=8)


def asked(*parts: Part, system: str = "", **fields: object) -> ChatRequest:
    lead = (Message(role=Role.SYSTEM, content=(TextPart(text=system),)),) if system else ()
    request = ChatRequest(model="m", messages=(*lead, Message(role=Role.USER, content=parts)), max_output_tokens=500)
    return msgspec.structs.replace(request, sampling=Sampling(temperature=0.0), **fields)


def told(request: ChatRequest, *readings: Reading, config: ReaderConfig = CONFIG) -> Told:
    """readings: of the pictures in order; the last one stands for all that follow."""
    pictures = list(request.pictures)
    read = {id(part): readings[min(at, len(readings) - 1)] for at, part in enumerate(pictures)}
    return tell(request, read, config)


def test_reading_stands_before_the_question_and_rules_before_all() -> None:
    messages = told(asked(TextPart(text="What is this?"), picture()), SIGN).request.messages
    assert [Role.SYSTEM, Role.USER, Role.ASSISTANT] == [message.role for message in messages]
    assert messages[0].text.startswith(ENGLISH.rules)
    assert messages[1].text.index("EXIT") < messages[1].text.index("What is this?")
    assert messages[1].text.endswith("What is this?")


def test_nothing_but_text_is_left_when_pictures_were_read() -> None:
    film = VideoPart(frames=(picture("1"), picture("2")), fps=2.0)
    request = told(asked(picture(), TextPart(text="这是什么？"), film), SIGN).request
    assert not request.has_pictures


def test_callers_own_system_message_is_kept_after_the_rules() -> None:
    messages = told(asked(picture(), TextPart(text="hi"), system="You are Lena."), SIGN).request.messages
    assert messages[0].text.startswith(ENGLISH.rules)
    assert messages[0].text.endswith("You are Lena.")
    assert sum(message.role is Role.SYSTEM for message in messages) == 1


def test_places_of_several_pictures_are_marked() -> None:
    text = told(asked(TextPart(text="before "), picture("a"), TextPart(text=" after "), picture("b")), SIGN, BLANK).request.messages[1].text
    assert text.endswith("before (picture 1) after (picture 2)")
    assert text.index("picture 1]") < text.index("EXIT") < text.index("picture 2]") < text.index("before")


def test_pictures_of_earlier_turns_keep_their_place_and_number() -> None:
    turns = (
        Message(role=Role.USER, content=(picture("a"), TextPart(text="first?"))),
        Message(role=Role.ASSISTANT, content=(TextPart(text="EXIT"),)),
        Message(role=Role.USER, content=(TextPart(text="and again?"),)),
    )
    found = told(msgspec.structs.replace(asked(), messages=turns), SIGN)
    assert "picture 1]" in found.request.messages[1].text
    assert ("and again?", "") == (found.request.messages[-1].text, found.opening)


def test_without_differs_by_the_readings_only() -> None:
    found = told(asked(picture(), TextPart(text="What?"), system="Be brief."), SIGN)
    (said,) = found.readings
    assert found.request.messages[1].text == f"{said}\n\nWhat?"
    assert found.without.messages[1].text == "What?"
    assert found.request.messages[0] == found.without.messages[0]


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": JsonObject()},
        {"tools": (ToolSpec(name="f"),)},
        {"thinking": Thinking(is_enabled=True)},
        {"stop": ("No text",)},
    ],
)
def test_answer_is_not_begun_when_it_must_have_another_form(fields: dict[str, object]) -> None:
    request = asked(picture(), TextPart(text="What?"))
    assert told(request, BLANK).opening.startswith("No text was found")
    changed = told(msgspec.structs.replace(request, **fields), BLANK)
    assert ("", Role.USER) == (changed.opening, changed.request.messages[-1].role)


def test_answer_is_not_begun_when_the_box_does_not_want_it() -> None:
    assert told(asked(picture()), SIGN, config=ReaderConfig(text="inner", begins=False)).opening == ""


def test_text_is_read_out_word_for_word_unless_the_caller_draws_otherwise() -> None:
    drawn = Sampling(temperature=0.5, top_k=20, repetition_penalty=1.2, presence_penalty=1.5)
    request = asked(picture(), TextPart(text="What?"), defaults={"repetition_penalty": 1.2, "top_k": 20})
    request = msgspec.structs.replace(request, sampling=drawn)
    sampling = told(request, SIGN).request.sampling
    assert (0.5, 1, 1.0, 1.5) == (sampling.temperature, sampling.top_k, sampling.repetition_penalty, sampling.presence_penalty)


def test_long_films_are_looked_at_from_end_to_end() -> None:
    frames = tuple(picture(str(number)) for number in range(100))
    text = (
        told(asked(VideoPart(frames=frames), TextPart(text="?")), SIGN, config=ReaderConfig(text="inner", most_frames=5))
        .request.messages[1]
        .text
    )
    assert CHINESE.frames.format(1, 100) in text or ENGLISH.frames.format(1, 100) in text


@pytest.mark.parametrize("number", [0, -1])
def test_config_refuses_films_without_frames(number: int) -> None:
    with pytest.raises(ValueError, match="most_frames"):
        ReaderConfig(text="inner", most_frames=number)


class Remembering(Pictures):
    """Pictures whose readings are given; no process is started."""

    def __init__(self, *readings: Reading) -> None:
        super().__init__(ReadingConfig(), Remote(), MemoryBudget(10**10), SystemClock())
        self._readings = readings
        self.asked = 0

    async def read(self, picture: ImagePart) -> Reading:
        self.asked += 1
        return self._readings[0]


@asynccontextmanager
async def opened(inner: TextEngine, *readings: Reading) -> AsyncGenerator[tuple[TextEngine, Remembering]]:
    async with Remembering(*readings) as pictures:
        yield reading(inner, pictures, CONFIG), pictures


async def test_calls_without_pictures_pass_as_they_are() -> None:
    request = asked(TextPart(text="hello"))
    inner = Echo(EchoConfig())
    async with opened(inner, SIGN) as (engine, pictures):
        fold = Fold()
        async with engine.chat(request) as events:
            async for event in events:
                fold.add(event)
        assert isinstance(engine, TokenCounter)
        assert ("Echo: hello", await inner.count(request)) == (fold.result().choices[0].text, await engine.count(request))
        assert (0, None) == (pictures.asked, fold.result().usage.image_tokens)


async def test_count_is_what_the_answer_says_it_read() -> None:
    request = asked(picture(), TextPart(text="What is this?"), n=2)
    async with opened(Echo(EchoConfig()), SIGN) as (engine, _):
        assert isinstance(engine, TokenCounter)
        counted = await engine.count(request)
        async with engine.chat(request) as events:
            said = [event async for event in events]
    first, last = said[0], said[-1]
    assert isinstance(first, Started) and isinstance(last, Completed)
    assert (counted, counted) == (first.input_tokens, last.usage.input_tokens)
    assert first.image_tokens == last.usage.image_tokens
    assert 0 < (last.usage.image_tokens or 0) < counted
    texts = {index: "".join(event.text for event in said if isinstance(event, TextDelta) and event.index == index) for index in (0, 1)}
    assert all(text.startswith(ENGLISH.opening_of_one) and "EXIT" in text for text in texts.values())
    assert sum(event.tokens for event in said if isinstance(event, TextDelta) and event.text == ENGLISH.opening_of_one) == 0


async def test_reader_says_who_reads_and_waits_in_the_inner_engines_queue() -> None:
    inner = Echo(EchoConfig(slots=2, kv_tokens=100))
    async with opened(inner, SIGN) as (engine, _):
        assert ("reader", "echo (no weights) (pictures read by RapidOCR)", APPLIED) == (
            engine.facts.kind,
            engine.facts.weights,
            engine.facts.applied,
        )
        assert engine.facts.identity not in ("", inner.facts.identity)
        assert Capability.VISION in engine.facts.capabilities
        assert ("inner", 2, 100) == (engine.capacity.queue, engine.capacity.slots, engine.capacity.kv_tokens)


class Waiting(Echo):
    """Whose weights are not here."""

    is_here = False


async def test_reader_is_here_when_its_inner_engine_is() -> None:
    async with opened(Waiting(EchoConfig()), SIGN) as (engine, _), opened(Echo(EchoConfig()), SIGN) as (other, _):
        assert isinstance(engine, WeightsHolder) and isinstance(other, WeightsHolder)
        assert (False, True) == (engine.is_here, other.is_here)


class Uncounted:
    """An engine that answers as Echo and cannot count."""

    def __init__(self) -> None:
        inner = Echo(EchoConfig())
        self.facts, self.capacity, self.health, self.chat, self.complete = (
            inner.facts,
            inner.capacity,
            inner.health,
            inner.chat,
            inner.complete,
        )


async def test_image_tokens_are_unknown_when_nobody_can_count() -> None:
    async with opened(Uncounted(), SIGN) as (engine, _):
        assert isinstance(engine, Reader) and not isinstance(engine, TokenCounter)
        async with engine.chat(asked(picture(), TextPart(text="?"))) as events:
            last = [event async for event in events][-1]
    assert isinstance(last, Completed) and last.usage.image_tokens is None


async def test_picture_without_bytes_is_the_requests_fault() -> None:
    async with Pictures(ReadingConfig(), Remote(), MemoryBudget(10**10), SystemClock()) as pictures:
        with pytest.raises(ApiError) as refused:
            await pictures.read(ImagePart(url="https://example.com/a.png"))
    assert (ErrorKind.INVALID_REQUEST, False) == (refused.value.kind, pictures.is_ready)
