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
from qwenbox.terms.chat import ChatRequest, ImagePart, Message, Role, TextPart, VideoPart
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.engine import Capacity, EngineFacts, Events, Health, TextCounter, TextEngine, TokenCounter, WeightsHolder
from qwenbox.terms.events import ChatEvent, Completed, Started
from qwenbox.terms.model import Capability

# What the answer's head says of a call whose pictures were read.
APPLIED: Final = "pictures=read-by-ocr"
# A change of what is read, or of how it is said, makes other answers.
_FORM: Final = "read 1"


class ReaderConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="reader"):
    """text: the `[engine.NAME]` that answers. most_frames: of a film, that are looked at, evenly spread."""

    text: str
    most_frames: int = 8
    reading: ReadingConfig = ReadingConfig()

    def __post_init__(self) -> None:
        if self.most_frames < 1:
            raise ValueError("most_frames must be at least 1")


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
            weights=f"{inner.weights} (pictures read by RapidOCR)",
            identity=f"{inner.identity} {_FORM}" if inner.identity else "",
            applied=APPLIED,
            capabilities=inner.capabilities | {Capability.VISION},
        )

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
            yield _Counted(events, tokens)

    async def _told(self, request: ChatRequest) -> "Told":
        read: dict[int, Reading] = {}
        for message in request.messages:
            for part in message.content:
                for picture in _looked_at(part, self._config.most_frames):
                    read[id(picture)] = await self._pictures.read(picture)
        return tell(request, read, self._config.most_frames)

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
    """A request whose pictures were read out. without: the same, but for the readings themselves. readings: their texts."""

    request: ChatRequest
    without: ChatRequest
    readings: tuple[str, ...]


def tell(request: ChatRequest, read: Mapping[int, Reading], most_frames: int) -> Told:
    """The request in text alone. read: by the identity of the picture's part; every picture that is looked at is in it."""
    said = words.language(_question(request), list(read.values()))
    messages: list[Message] = []
    bare: list[Message] = []
    readings: list[str] = []
    number = 0
    for message in request.messages:
        own: list[str] = []
        content: list[TextPart] = []
        for part in message.content:
            if isinstance(part, TextPart):
                content.append(part)
                continue
            number += 1
            own.append(_reading(part, read, number, most_frames, said))
            content.append(TextPart(text=said.mark.format(number)))
        if not own:
            messages.append(message)
            bare.append(message)
            continue
        # The readings first and the question last: small models answer what they read last. A single picture needs no mark of its place.
        rest = tuple(content) if len(own) > 1 else tuple(part for part in message.content if isinstance(part, TextPart))
        readings += own
        lead = TextPart(text="\n\n".join(own) + "\n\n")
        messages.append(msgspec.structs.replace(message, content=(lead, *rest)))
        bare.append(msgspec.structs.replace(message, content=rest))
    return Told(
        request=msgspec.structs.replace(request, messages=_ruled(messages, said.rules)),
        without=msgspec.structs.replace(request, messages=_ruled(bare, said.rules)),
        readings=tuple(readings),
    )


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


def _ruled(messages: list[Message], rules: str) -> tuple[Message, ...]:
    """With the rules before all else; a caller's own system message comes after them in the same turn."""
    first, *rest = messages
    if first.role is not Role.SYSTEM:
        return (Message(role=Role.SYSTEM, content=(TextPart(text=rules),)), first, *rest)
    return (msgspec.structs.replace(first, content=(TextPart(text=f"{rules}\n\n"), *first.content)), *rest)


class _Counted(AsyncIterator[ChatEvent]):
    """The events as they come; the first and the last also say what the pictures took."""

    __slots__ = ("_events", "_tokens")

    def __init__(self, events: AsyncIterator[ChatEvent], tokens: int | None) -> None:
        self._events = events
        self._tokens = tokens

    async def __anext__(self) -> ChatEvent:
        event = await anext(self._events)
        match event:
            case Started():
                return msgspec.structs.replace(event, image_tokens=self._tokens)
            case Completed():
                return msgspec.structs.replace(event, usage=msgspec.structs.replace(event.usage, image_tokens=self._tokens))
            case _:
                return event
