"""This is where pictures and films of a request are held against the service's ranges, whatever the wire (wire reference 3.1, 3.2, 5.3)."""

from collections.abc import Sequence
from typing import Final

import msgspec

from qwenbox.terms.chat import ImagePart, VideoPart
from qwenbox.terms.errors import ApiError, ErrorKind

FEWEST_FRAMES: Final = 4
MOST_FRAMES: Final = 512
LOWEST_FPS: Final = 0.1
HIGHEST_FPS: Final = 10.0
WRONG_FRAMES: Final = (
    "The video modality input does not meet the requirements because: the range of sequence images shoule be "
    f"({FEWEST_FRAMES}, {MOST_FRAMES})."
)
NO_FILMS: Final = "A film is read as the list of its frames here: send a list of pictures as video, with fps."
_MOST_PIXELS: Final = 2**31 - 1


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What lies beside a picture or film: pixels of each picture, of all frames together; frames per second."""

    min_pixels: int | None = None
    max_pixels: int | None = None
    total_pixels: int | None = None
    fps: float | None = None


def image(url: str, wishes: Wishes, param: str) -> ImagePart:
    """Raises ApiError(INVALID_REQUEST) naming the field below `param`."""
    _check(wishes, param)
    return ImagePart(url=url, min_pixels=wishes.min_pixels, max_pixels=wishes.max_pixels)


def film(urls: Sequence[str], wishes: Wishes, param: str) -> VideoPart:
    """As `image`; what all frames may have together is shared out evenly."""
    if not FEWEST_FRAMES <= len(urls) <= MOST_FRAMES:
        raise ApiError(ErrorKind.INVALID_REQUEST, WRONG_FRAMES, param=f"{param}.video")
    _check(wishes, param)
    most = wishes.max_pixels
    if wishes.total_pixels is not None:
        share = max(wishes.total_pixels // len(urls), 1)
        most = share if most is None else min(most, share)
    frames = tuple(ImagePart(url=url, min_pixels=wishes.min_pixels, max_pixels=most) for url in urls)
    return VideoPart(frames=frames, fps=wishes.fps)


def _check(wishes: Wishes, param: str) -> None:
    for name in ("min_pixels", "max_pixels", "total_pixels"):
        value = getattr(wishes, name)
        if value is not None and not 1 <= value <= _MOST_PIXELS:
            raise ApiError(ErrorKind.INVALID_REQUEST, f"The {name} parameter must be a positive integer", param=f"{param}.{name}")
    if wishes.min_pixels is not None and wishes.max_pixels is not None and wishes.min_pixels > wishes.max_pixels:
        raise ApiError(ErrorKind.INVALID_REQUEST, "min_pixels must not be greater than max_pixels", param=f"{param}.min_pixels")
    if wishes.fps is not None and not LOWEST_FPS <= wishes.fps <= HIGHEST_FPS:
        raise ApiError(ErrorKind.INVALID_REQUEST, f"Range of fps should be [{LOWEST_FPS}, {HIGHEST_FPS}]", param=f"{param}.fps")
