"""Echo's pictures: they follow from the request, say what they are, and are sound PNG files of any size."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qwenbox.engines.echo.engine import Echo, EchoConfig
from qwenbox.engines.echo.pictures import draw
from qwenbox.terms.events import ChatEvent, Completed, ImageMade, Started
from qwenbox.terms.image import ImageRequest

ASKED = ImageRequest(model="m", prompt="一只猫", n=2, width=64, height=48, seed=7)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=20), st.integers(1, 80), st.integers(1, 80), st.booleans())
def test_any_request_gives_a_sound_file_of_its_size(prompt: str, width: int, height: int, is_marked: bool):
    image = Image.open(io.BytesIO(draw(ImageRequest(model="m", prompt=prompt, has_watermark=is_marked), 0, width, height)))
    image.load()
    assert image.size == (width, height)


def test_pictures_follow_from_the_request():
    first = draw(ASKED, 0, 64, 48)
    assert draw(ASKED, 0, 64, 48) == first
    others = [
        draw(ASKED, 1, 64, 48),
        draw(ImageRequest(model="m", prompt="一只狗", seed=7), 0, 64, 48),
        draw(ImageRequest(model="m", prompt="一只猫", seed=8), 0, 64, 48),
        draw(ImageRequest(model="m", prompt="一只猫", seed=7, negative_prompt="x"), 0, 64, 48),
    ]
    assert len({first, *others}) == 5
    image = Image.open(io.BytesIO(first))
    assert (image.info["Description"], image.info["Seed"]) == ("一只猫", "7") and "no model" in image.info["Software"]


async def test_one_event_for_each_picture_between_the_ends():
    events: list[ChatEvent] = []
    async with Echo(EchoConfig()).make(ASKED) as coming:
        events = [event async for event in coming]
    assert [type(event) for event in events] == [Started, ImageMade, ImageMade, Completed]
    assert events[-1] == Completed(usage=events[-1].usage) and events[-1].usage.output_tokens == 2
    assert [event.index for event in events if isinstance(event, ImageMade)] == [0, 1]


@pytest.mark.parametrize("size", [(1, 1), (4096, 16)])
def test_edges_are_drawn(size: tuple[int, int]):
    assert Image.open(io.BytesIO(draw(ASKED, 0, *size))).size == size
