"""What is no picture, or made to break what decodes it, is refused before it costs anything."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qwenbox.media import picture, refusals
from qwenbox.media.config import MediaConfig
from qwenbox.media.picture import Looked
from qwenbox.terms.errors import ApiError
from support.pictures import animated, bombs, drawn

MOST = MediaConfig().most_pixels
TEXTS = frozenset({refusals.NOT_DECODED, refusals.WRONG_SIZE})
TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp", "BMP": "image/bmp", "TIFF": "image/tiff"}


@pytest.mark.parametrize("form", TYPES)
def test_picture_is_known_by_its_bytes(form: str) -> None:
    assert picture.look(drawn(form), MOST) == Looked(media_type=TYPES[form], width=64, height=48)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "TIFF", "PNG"])
def test_first_frame_counts_when_there_are_more(form: str) -> None:
    assert picture.look(animated(form), MOST) == Looked(media_type=TYPES[form], width=40, height=30)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16", "F"])
def test_picture_is_taken_whatever_its_colours_are(mode: str) -> None:
    written = io.BytesIO()
    Image.new(mode, (20, 20)).save(written, "TIFF")

    assert picture.look(written.getvalue(), MOST).width == 20


@pytest.mark.parametrize(("name", "data"), bombs().items(), ids=bombs().keys())
def test_file_is_refused_when_it_is_made_to_break_what_reads_it(name: str, data: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        picture.look(data, MOST)

    assert refused.value.message.partition(" [")[0] in TEXTS


def test_small_picture_is_told_its_sides() -> None:
    with pytest.raises(ApiError) as refused:
        picture.look(drawn("PNG", 1, 64), MOST)

    text = "The image length and width do not meet the model restrictions. [height:64 or width:1 must be larger than 10]"
    assert refused.value.message == text


@pytest.mark.parametrize(
    ("width", "height", "is_fit"),
    [(10, 10, True), (9, 10, False), (10, 9, False), (10, 2_000, True), (10, 2_001, False), (200, 100, True), (201, 100, False)],
)
def test_size_is_within_the_services_bounds(width: int, height: int, is_fit: bool) -> None:
    assert picture.fits(width, height, most_pixels=100 * 200) is is_fit


@given(st.sampled_from(sorted(TYPES)), st.data())
def test_file_is_read_or_refused_whatever_happened_to_it(form: str, drawing: st.DataObject) -> None:
    data = bytearray(drawn(form, 32, 24))
    for _ in range(drawing.draw(st.integers(1, 8))):
        data[drawing.draw(st.integers(0, len(data) - 1))] = drawing.draw(st.integers(0, 255))
    data = data[: drawing.draw(st.integers(0, len(data)))]

    try:
        picture.look(bytes(data), 64 * 1024)
    except ApiError as error:
        assert error.message.partition(" [")[0] in TEXTS
