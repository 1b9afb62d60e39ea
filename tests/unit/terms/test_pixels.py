"""At which size a model sees a picture: the service's rule, whatever the picture."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenbox.terms import pixels
from qwenbox.terms.chat import ImagePart
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.pixels import CLASSIC, OLDER, QWEN3, PixelRule, Size

RULES = st.sampled_from([OLDER, CLASSIC, QWEN3])
SIDES = st.tuples(st.integers(10, 6_000), st.integers(10, 6_000)).filter(lambda sides: max(sides) <= 200 * min(sides))


def image(width: int, height: int, **wishes: int | None) -> ImagePart:
    return ImagePart(url="x", width=width, height=height, **wishes)


@pytest.mark.parametrize(
    ("rule", "sides", "size", "tokens"),
    [
        (OLDER, (280, 280), Size(280, 280), 102),
        (OLDER, (28, 28), Size(56, 56), 6),
        (OLDER, (1920, 1080), Size(1316, 728), 1224),
        (CLASSIC, (1920, 1080), Size(1504, 832), 1224),
        (QWEN3, (1920, 1080), Size(1920, 1088), 2042),
        (QWEN3, (28, 28), Size(256, 256), 66),
    ],
)
def test_size_and_tokens_are_the_references(rule: PixelRule, sides: tuple[int, int], size: Size, tokens: int) -> None:
    assert (size, tokens) == (pixels.seen(image(*sides), rule), pixels.tokens(size, rule))


@given(RULES, SIDES, st.none() | st.integers(1, 2**31), st.none() | st.integers(1, 2**31), st.booleans())
def test_any_picture_fits_its_range_in_whole_units(
    rule: PixelRule, sides: tuple[int, int], least: int | None, most: int | None, is_high: bool
) -> None:
    size = pixels.seen(image(*sides, min_pixels=least, max_pixels=most), rule, is_high_resolution=is_high)

    assert (0, 0) == (size.width % rule.unit, size.height % rule.unit)
    wished = rule.most if is_high else max(min(most or rule.usual, rule.most), rule.unit**2)
    # A side is never less than a unit, so a long strip may stand out by its shorter side.
    assert size.width * size.height <= wished + rule.unit * max(size.width, size.height)
    assert pixels.tokens(size, rule) >= 3


@given(RULES, SIDES)
def test_size_once_found_stays(rule: PixelRule, sides: tuple[int, int]) -> None:
    size = pixels.seen(image(*sides), rule)
    if rule.least <= size.width * size.height <= rule.usual:
        assert size == pixels.seen(image(size.width, size.height), rule)


@pytest.mark.parametrize("sides", [(9, 100), (100, 9), (10, 2001), (0, 0)])
def test_sides_no_model_takes_are_refused_in_the_services_words(sides: tuple[int, int]) -> None:
    with pytest.raises(ApiError) as raised:
        pixels.seen(image(*sides), QWEN3)

    assert (ErrorKind.INVALID_REQUEST, "The image length and width do not meet the model restrictions.") == (
        raised.value.kind,
        raised.value.message,
    )


@given(SIDES, st.none() | st.integers(1, 2**31), st.booleans())
def test_no_family_takes_more_than_the_most(sides: tuple[int, int], most: int | None, is_high: bool) -> None:
    part = image(*sides, max_pixels=most)
    bound = pixels.most_tokens(part, is_high_resolution=is_high)

    assert all(pixels.tokens(pixels.seen(part, rule, is_high_resolution=is_high), rule) <= bound for rule in (OLDER, CLASSIC, QWEN3))


@pytest.mark.parametrize("sides", [(0, 0), (9, 9), (10, 2001)])
def test_picture_of_unknown_sides_takes_the_most_there_is(sides: tuple[int, int]) -> None:
    assert 16_384 + 2 == pixels.most_tokens(image(*sides))
