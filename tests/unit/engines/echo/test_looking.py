"""Echo names pictures by what they are and counts them as qwen-vl-plus does."""

import pytest

from qwenbox.engines.echo.engine import Echo, EchoConfig
from qwenbox.terms.chat import ChatRequest, ImagePart, VideoPart
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, ChatResult, Completed, Fold, Started
from support.sights import look, picture


async def heard(request: ChatRequest) -> tuple[ChatResult, list[ChatEvent]]:
    folding, events = Fold(), []
    async with Echo(EchoConfig()).chat(request) as stream:
        async for event in stream:
            folding.add(event)
            events.append(event)
    return folding.result(), events


async def test_picture_is_named_by_size_form_and_bytes_and_counted_by_the_rule() -> None:
    # 300 by 200 is 9 by 6 units of 32, and two marks.
    request = look(picture(300, 200, "navy"), " hi", tokens=200)
    text, _ = await heard(look(" hi", tokens=200))

    result, events = await heard(request)

    assert "[picture 300x200 image/png " in result.choices[0].text
    assert (56, text.usage.input_tokens + 56) == (result.usage.image_tokens, result.usage.input_tokens)
    assert isinstance(events[0], Started)
    assert (56, result.usage.input_tokens) == (events[0].image_tokens, events[0].input_tokens)
    assert result.usage.input_tokens == await Echo(EchoConfig()).count(request)


async def test_other_bytes_make_another_name_and_the_same_ones_the_same() -> None:
    texts = [(await heard(look(picture(300, 200, colour), tokens=200)))[0].choices[0].text for colour in ("navy", "orange", "navy")]

    assert texts[0] == texts[2] != texts[1]


async def test_film_is_one_thing_whose_frames_all_count() -> None:
    film = VideoPart(frames=(picture(300, 200), picture(300, 200, "orange")))

    result, _ = await heard(look(film, tokens=200))

    assert "[film of 2 pictures, 300x200 image/png " in result.choices[0].text
    assert 112 == result.usage.image_tokens


@pytest.mark.parametrize(("wants", "sizes"), [(True, ((288, 192),)), (False, ())])
async def test_sizes_are_told_when_asked_for(wants: bool, sizes: tuple[tuple[int, int], ...]) -> None:
    _, events = await heard(look(picture(300, 200), tokens=200, wants_picture_sizes=wants))

    assert isinstance(events[-1], Completed)
    assert sizes == events[-1].picture_sizes


async def test_text_alone_has_no_image_tokens() -> None:
    result, _ = await heard(look("hi", tokens=200))

    assert result.usage.image_tokens is None


@pytest.mark.parametrize("part", [picture(300, 9), ImagePart(url="https://example.com/1.png", width=30, height=30)])
async def test_picture_that_cannot_be_seen_is_the_callers_error(part: ImagePart) -> None:
    with pytest.raises(ApiError) as raised:
        await heard(look(part))

    assert ErrorKind.INVALID_REQUEST == raised.value.kind
