"""Pictures are fetched once, before a call is counted or shortened, and only for calls that have some."""

from pathlib import Path

import msgspec
import pytest
from sqlalchemy import select

from qwenbox.engines.echo.engine import Echo, EchoConfig
from qwenbox.gateway.journal.tables import USAGE
from qwenbox.gateway.redaction.rewrite import rewritten_chat
from qwenbox.terms.call import Call
from qwenbox.terms.caller import Caller, Thrift
from qwenbox.terms.chat import ChatRequest, ImagePart, Message, Part, Role, TextPart, VideoPart
from qwenbox.terms.engine import Events
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.image import ImageRequest
from qwenbox.terms.wishes import Wishes
from support.gateways import open_gateway
from support.pictures import drawn

pytestmark = pytest.mark.anyio

CALLER = Caller(account_id="acc", key_id="key")
DATA = drawn()
PICTURE = ImagePart(url="https://pictures.example/a.png")
FETCHED = ImagePart(url="sha256:1", data=DATA, media_type="image/png", width=64, height=48)


class Fetching:
    """Notes what it was asked for; fails on demand."""

    def __init__(self, error: ApiError | None = None) -> None:
        self.asked: list[tuple[ChatRequest, str, bool]] = []
        self._error = error

    async def load(self, request: ChatRequest, caller: Caller, *, resolves_uploads: bool) -> ChatRequest:
        self.asked.append((request, caller.account_id, resolves_uploads))
        if self._error is not None:
            raise self._error
        messages = tuple(
            msgspec.structs.replace(message, content=tuple(FETCHED if isinstance(part, ImagePart) else part for part in message.content))
            for message in request.messages
        )
        return msgspec.structs.replace(request, messages=messages)

    async def load_drawn_from(self, request: ImageRequest, caller: Caller, *, resolves_uploads: bool) -> ImageRequest:
        if self._error is not None:
            raise self._error
        return msgspec.structs.replace(request, images=(FETCHED,) * len(request.images))


class Listening(Echo):
    """Echo that keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(EchoConfig())
        self.heard: list[ChatRequest] = []

    def chat(self, request: ChatRequest) -> Events:
        self.heard.append(request)
        return super().chat(request)


def said(*parts: Part) -> Message:
    return Message(role=Role.USER, content=parts)


def call(*messages: Message, caller: Caller = CALLER, wishes: Wishes | None = None) -> Call[ChatRequest]:
    request = ChatRequest(model="m", messages=messages)
    return Call(id="call-1", caller=caller, request=request, dialect="openai", arrived_at=0.0, wishes=wishes or Wishes())


async def test_engine_gets_bytes_when_the_call_has_pictures(tmp_path: Path) -> None:
    engine, pictures = Listening(), Fetching()
    async with open_gateway(tmp_path, engine) as office:
        office.gateway.see(pictures)
        asked = call(said(PICTURE, TextPart(text="what?")), wishes=Wishes(resolves_uploads=True))
        async with office.gateway.chat(asked) as answer:
            assert [event async for event in answer.events]

    assert [(account, resolves) for _, account, resolves in pictures.asked] == [("acc", True)]
    assert [list(request.pictures) for request in engine.heard] == [[FETCHED]]


async def test_nobody_is_asked_when_the_call_has_none(tmp_path: Path) -> None:
    pictures = Fetching()
    async with open_gateway(tmp_path, Listening()) as office:
        office.gateway.see(pictures)
        async with office.gateway.chat(call(said(TextPart(text="what?")))) as answer:
            assert [event async for event in answer.events]

    assert pictures.asked == []


async def test_pictures_are_there_when_turns_are_left_out(tmp_path: Path) -> None:
    engine, pictures = Listening(), Fetching()
    thrifty = msgspec.structs.replace(CALLER, thrift=Thrift(history_tokens=40))
    long = Message(role=Role.ASSISTANT, content=(TextPart(text="word " * 200),))
    async with open_gateway(tmp_path, engine) as office:
        office.gateway.see(pictures)
        asked = call(said(PICTURE, TextPart(text="what?")), long, said(TextPart(text="and now?")), caller=thrifty)
        async with office.gateway.chat(asked) as answer:
            assert [event async for event in answer.events]

    assert len(pictures.asked) == 1
    assert [len(request.messages) for request in engine.heard] == [1]


async def test_call_is_refused_before_anything_is_reserved_when_a_picture_is(tmp_path: Path) -> None:
    engine, pictures = Listening(), Fetching(ApiError(ErrorKind.INVALID_REQUEST, "no picture"))
    async with open_gateway(tmp_path, engine) as office:
        office.gateway.see(pictures)
        with pytest.raises(ApiError, match="no picture"):
            async with office.gateway.chat(call(said(PICTURE))):
                pass
        assert await office.database.read(select(USAGE)) == []

    assert engine.heard == []


async def test_pictures_stay_what_they_are_when_a_request_is_redacted() -> None:
    film = VideoPart(frames=(FETCHED,) * 4, fps=1.0)
    request = ChatRequest(model="m", messages=(said(FETCHED, TextPart(text="call 13800138000"), film),))

    rewritten = rewritten_chat(request, lambda text: [(5, 16, "<phone>")] if "138" in text else [])

    assert rewritten.messages[0].content == (FETCHED, TextPart(text="call <phone>"), film)
