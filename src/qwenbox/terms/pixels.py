"""This is where it is decided how large a model sees a picture, and what tokens that takes (wire reference 3.2).

The rule is Qwen-VL's own ("smart resize"): sides are rounded to whole units, then scaled until the number of pixels is in range.
"""

import math
from typing import Final

import msgspec

from qwenbox.terms.chat import ImagePart
from qwenbox.terms.errors import ApiError, ErrorKind

SHORTEST_SIDE: Final = 10
LONGEST_RATIO: Final = 200
WRONG_SIDES: Final = "The image length and width do not meet the model restrictions."
# The marks before and after a picture's own tokens.
MARKS_TOKENS: Final = 2


class PixelRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a family of models makes of pictures.

    unit: side in pixels of the square that one token stands for. least, usual, most: pixels (width times height) a picture has at
    least, has at most when nobody asks for more, and can have at all.
    """

    unit: int
    least: int
    usual: int
    most: int


class Size(msgspec.Struct, frozen=True):
    """Pixels."""

    width: int
    height: int


# Source: wire reference 3.2, pixel defaults of 2026-08. Older: Qwen2-VL, Qwen2.5-VL and the snapshots of qwen-vl-* up to 2025-05.
OLDER: Final = PixelRule(unit=28, least=3_136, usual=1_003_520, most=12_845_056)
CLASSIC: Final = PixelRule(unit=32, least=4_096, usual=1_310_720, most=16_777_216)
QWEN3: Final = PixelRule(unit=32, least=65_536, usual=2_621_440, most=16_777_216)


def seen(picture: ImagePart, rule: PixelRule, *, is_high_resolution: bool = False) -> Size:
    """The size at which a model of this family sees `picture`; both sides are multiples of the rule's unit.

    is_high_resolution: as large as it can; max_pixels is not looked at.
    Raises ApiError(INVALID_REQUEST) in the service's words for sides no model takes.
    """
    width, height = picture.width, picture.height
    if min(width, height) < SHORTEST_SIDE or max(width, height) > LONGEST_RATIO * min(width, height):
        raise ApiError(ErrorKind.INVALID_REQUEST, WRONG_SIDES, param="messages")
    most = rule.most if is_high_resolution else min(picture.max_pixels or rule.usual, rule.most)
    most = max(most, rule.unit**2)
    least = min(max(picture.min_pixels or rule.least, rule.least), most)
    return _resized(width, height, rule.unit, least, most)


def most_tokens(picture: ImagePart, *, is_high_resolution: bool = False) -> int:
    """No model of any family here takes more for this picture, fetched or not, whatever its sides."""
    families = (OLDER, CLASSIC, QWEN3)
    try:
        return max(tokens(seen(picture, rule, is_high_resolution=is_high_resolution), rule) for rule in families)
    except ApiError:
        return max(rule.most // rule.unit**2 for rule in families) + MARKS_TOKENS


def tokens(size: Size, rule: PixelRule) -> int:
    """Input tokens of a picture seen at `size`, the marks around it included."""
    return (size.width // rule.unit) * (size.height // rule.unit) + MARKS_TOKENS


def _resized(width: int, height: int, unit: int, least: int, most: int) -> Size:
    wide, high = (max(unit, round(side / unit) * unit) for side in (width, height))
    if wide * high > most:
        shrink = math.sqrt(width * height / most)
        wide, high = (max(unit, math.floor(side / shrink / unit) * unit) for side in (width, height))
    elif wide * high < least:
        grow = math.sqrt(least / (width * height))
        wide, high = (math.ceil(side * grow / unit) * unit for side in (width, height))
        if wide * high > most:  # a caller's least is close to the most there can be
            wide, high = (max(unit, math.floor(side * grow / unit) * unit) for side in (width, height))
    return Size(wide, high)
