"""A picture says what an engine is sent, and never what it shows."""

from qwenbox.terms.chat import ChatRequest, ImagePart, Message, Role, TextPart, VideoPart

FETCHED = ImagePart(url="sha256:1", data=b"\x89PNG", media_type="image/png", width=20, height=10)
NAMED = ImagePart(url="https://pictures.example/a.png?token=secret")


def request(*messages: Message) -> ChatRequest:
    return ChatRequest(model="m", messages=messages)


def said(*parts: TextPart | ImagePart | VideoPart) -> Message:
    return Message(role=Role.USER, content=parts)


def test_engine_is_sent_bytes_when_there_are_some() -> None:
    assert [FETCHED.address, NAMED.address] == ["data:image/png;base64,iVBORw==", NAMED.url]


def test_pictures_are_told_in_order_with_frames_among_them() -> None:
    film = VideoPart(frames=(NAMED, FETCHED))
    asked = request(said(TextPart(text="a"), FETCHED), said(film, NAMED))

    assert list(asked.pictures) == [FETCHED, NAMED, FETCHED, NAMED]
    assert asked.has_pictures
    assert request(said(VideoPart(frames=()))).has_pictures
    assert not request(said(TextPart(text="a")), said()).has_pictures


def test_picture_shows_nothing_of_itself_when_it_is_printed() -> None:
    shown = repr(request(said(FETCHED, VideoPart(frames=(NAMED,)))))

    assert "20x10" in shown
    assert not [word for word in ("secret", "PNG", "pictures.example", "sha256") if word in shown]
