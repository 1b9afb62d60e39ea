"""This is where pictures are answered without a model that sees: an engine around a text model's, which reads them out to it.

Each picture is read once by local tools in a process of its own (pictures.py), its reading takes the picture's place in the prompt
(words.py), and the inner engine answers. Calls without pictures pass through as they are.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from qwenbox.engines.reader import words
from qwenbox.engines.reader.pictures import Pictures, Reading, ReadingConfig
from qwenbox.terms.chat import AnyText, ChatRequest, ImagePart, Message, Role, TextPart, VideoPart
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.engine import Capacity, EngineFacts, Events, Health, TextCounter, TextEngine, TokenCounter, WeightsHolder
from qwenbox.terms.events import ChatEvent, Completed, Started, TextDelta
from qwenbox.terms.gauges import ChildState
from qwenbox.terms.model import Capability

# What the answer's head says of a call whose pictures were read.
APPLIED: Final = "pictures=read-by-ocr"
# How text is read out, where the caller does not say otherwise: what a model that sees draws its words with makes others of those it
# was given, since a penalty falls on every word that stands in the reading.
_EXACT: Final = {"top_k": 1, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
# A change of what is read, or of how it is said, makes other answers.
_FORM: Final = "read 1"


class ReaderConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="reader"):
    """text: the `[engine.NAME]` that answers. most_frames: of a film, that are looked at, evenly spread. begins: the answer's first words
    are given, since small models left alone say that they see nothing, or more than there is."""

    text: str
    most_frames: int = 8
    begins: bool = True
    reading: ReadingConfig = ReadingConfig()

    def __post_init__(self) -> None:
        if self.most_frames < 1:
            raise ValueError("most_frames must be at least 1")


def read_by(name: str) -> str:
    """The inner engine's weights as people are told of them."""
    return f"{name} (pictures read by RapidOCR)"


def reading(inner: TextEngine, pictures: Pictures, config: ReaderConfig) -> TextEngine:
    """The engine with pictures read out to it; it counts if the inner one does. pictures: entered."""
    return _CountingReader(inner, inner, pictures, config) if isinstance(inner, TokenCounter) else Reader(inner, pictures, config)


class Reader:
    """A TextEngine that answers as its inner one does, from what was read of the pictures."""

    def __init__(self, inner: TextEngine, pictures: Pictures, config: ReaderConfig) -> None:
        self._inner = inner
        self._pictures = pictures
        self._config = config

    @property
    def facts(self) -> EngineFacts:
        inner = self._inner.facts
        return msgspec.structs.replace(
            inner,
            kind="reader",
            weights=read_by(inner.weights),
            identity=f"{inner.identity} {_FORM}" if inner.identity else "",
            applied=APPLIED,
            capabilities=inner.capabilities | {Capability.VISION},
        )

    def children(self) -> tuple[ChildState, ...]:
        return (self._pictures.state(),)

    @property
    def capacity(self) -> Capacity:
        """The inner engine's very own: calls to either wait in one queue."""
        return msgspec.structs.replace(self._inner.capacity, queue=self._config.text)

    @property
    def is_here(self) -> bool:
        return not isinstance(self._inner, WeightsHolder) or self._inner.is_here

    async def health(self) -> Health:
        return await self._inner.health()

    def chat(self, request: ChatRequest) -> Events:
        return self._answer(request) if request.has_pictures else self._inner.chat(request)

    def complete(self, request: CompletionRequest) -> Events:
        return self._inner.complete(request)

    @asynccontextmanager
    async def _answer(self, request: ChatRequest) -> AsyncGenerator[AsyncIterator[ChatEvent]]:
        told = await self._told(request)
        tokens = await self._picture_tokens(told)
        async with self._inner.chat(told.request) as events:
            yield _Heard(events, tokens, told.opening, request.n)

    async def _told(self, request: ChatRequest) -> "Told":
        read: dict[int, Reading] = {}
        for message in request.messages:
            for part in message.content:
                for picture in _looked_at(part, self._config.most_frames):
                    read[id(picture)] = await self._pictures.read(picture)
        return tell(request, read, self._config)

    async def _picture_tokens(self, told: "Told") -> int | None:
        """What the readings took of the prompt; None where nobody can count it."""
        if isinstance(self._inner, TextCounter):
            counts = await self._inner.count_texts(told.readings)
            return None if counts is None else sum(counts)
        return None


class _CountingReader(Reader):
    def __init__(self, inner: TextEngine, counter: TokenCounter, pictures: Pictures, config: ReaderConfig) -> None:
        super().__init__(inner, pictures, config)
        self._counter = counter

    async def count(self, request: ChatRequest | CompletionRequest) -> int:
        if isinstance(request, ChatRequest) and request.has_pictures:
            request = (await self._told(request)).request
        return await self._counter.count(request)

    async def _picture_tokens(self, told: "Told") -> int | None:
        return await self._counter.count(told.request) - await self._counter.count(told.without)


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A request whose pictures were read out. without: the same, but for the readings themselves. readings: their texts.

    opening: how the answer begins, which the model was given to go on from; "" where it begins by itself.
    """

    request: ChatRequest
    without: ChatRequest
    readings: tuple[str, ...]
    opening: str = ""


def tell(request: ChatRequest, read: Mapping[int, Reading], config: ReaderConfig) -> Told:
    """The request in text alone. read: by the identity of the picture's part; every picture that is looked at is in it."""
    found = list(read.values())
    asked = _question(request)
    said = words.language(asked, found)
    texts: list[str] = []
    messages: list[Message] = []
    bare: list[Message] = []
    for message in request.messages:
        own: list[str] = []
        marks: list[TextPart] = []
        for part in message.content:
            if isinstance(part, TextPart):
                marks.append(part)
                continue
            number = len(texts) + len(own) + 1
            own.append(_reading(part, read, number, config.most_frames, said))
            marks.append(TextPart(text=said.mark.format(number)))
        # The readings first and the question last: small models answer what they read last. One picture needs no mark of its place.
        content = tuple(marks) if len(own) > 1 else tuple(part for part in message.content if isinstance(part, TextPart))
        lead = (TextPart(text="\n\n".join(own) + "\n\n"),) if own else ()
        messages.append(msgspec.structs.replace(message, content=(*lead, *content)))
        bare.append(msgspec.structs.replace(message, content=content))
        texts += own
    opening = words.opening(asked, found, said) if config.begins and _may_begin(request) else ""
    if any(stop in opening for stop in request.stop):
        opening = ""
    rules = words.rules(found, said)
    exact = {name: value for name, value in _EXACT.items() if name in request.defaults}
    request = msgspec.structs.replace(request, sampling=msgspec.structs.replace(request.sampling, **exact))
    return Told(
        request=msgspec.structs.replace(request, messages=_framed(messages, rules, opening)),
        without=msgspec.structs.replace(request, messages=_framed(bare, rules, opening)),
        readings=tuple(texts),
        opening=opening,
    )


def _may_begin(request: ChatRequest) -> bool:
    """Whether the answer is free text, and to a question about pictures: they stand in the last turn."""
    last = request.messages[-1]
    is_free = isinstance(request.response_format, AnyText) and not request.tools and not request.thinking.is_enabled
    return is_free and last.role is Role.USER and any(True for _ in last.pictures)


def _reading(part: ImagePart | VideoPart, read: Mapping[int, Reading], number: int, most_frames: int, said: words.Language) -> str:
    if isinstance(part, ImagePart):
        return words.picture(read[id(part)], number, said)
    spots = _spots(len(part.frames), most_frames)
    return words.film([(spot + 1, read[id(part.frames[spot])]) for spot in spots], len(part.frames), number, said)


def _looked_at(part: TextPart | ImagePart | VideoPart, most_frames: int) -> tuple[ImagePart, ...]:
    if isinstance(part, VideoPart):
        return tuple(part.frames[spot] for spot in _spots(len(part.frames), most_frames))
    return (part,) if isinstance(part, ImagePart) else ()


def _spots(count: int, most: int) -> list[int]:
    """Evenly spread over `count` frames, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(number * (count - 1) / max(most - 1, 1)) for number in range(most)})


def _question(request: ChatRequest) -> str:
    return next((message.text for message in reversed(request.messages) if message.role is Role.USER and message.text.strip()), "")


def _framed(messages: list[Message], rules: str, opening: str) -> tuple[Message, ...]:
    """With the rules before all else, a caller's own system message after them in the same turn; and with the answer begun."""
    first, *rest = messages
    if first.role is Role.SYSTEM:
        head = (msgspec.structs.replace(first, content=(TextPart(text=f"{rules}\n\n"), *first.content)),)
    else:
        head = (Message(role=Role.SYSTEM, content=(TextPart(text=rules),)), first)
    begun = (Message(role=Role.ASSISTANT, content=(TextPart(text=opening),), is_partial=True),) if opening else ()
    return (*head, *rest, *begun)


class _Heard(AsyncIterator[ChatEvent]):
    """The events as they come. The first and the last also say what the pictures took; after the first comes how each choice begins, which
    the model was given: it took no output tokens."""

    __slots__ = ("_begun", "_events", "_opening", "_tokens")

    def __init__(self, events: AsyncIterator[ChatEvent], tokens: int | None, opening: str, choices: int) -> None:
        self._events = events
        self._tokens = tokens
        self._opening = opening
        self._begun = choices if opening else 0

    async def __anext__(self) -> ChatEvent:
        if self._begun < 0:
            self._begun += 1
            return TextDelta(text=self._opening, index=-self._begun)
        event = await anext(self._events)
        match event:
            case Started():
                self._begun = -self._begun
                return msgspec.structs.replace(event, image_tokens=self._tokens)
            case Completed():
                return msgspec.structs.replace(event, usage=msgspec.structs.replace(event.usage, image_tokens=self._tokens))
            case _:
                return event
