"""This is where bytes are looked at: whether they are a picture, of which kind and size, and whether it can be decoded."""

import io
import struct
import zlib
from collections.abc import Callable, Mapping

import msgspec
from PIL import Image

from qwenbox.media import refusals

# How many bytes at the beginning tell a format.
SNIFFED_BYTES = 18

_MEDIA_TYPES: Mapping[str, str] = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "WEBP": "image/webp",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
}
_BMP_HEADS = frozenset({12, 40, 52, 56, 64, 108, 124})
_SIGNS: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    ("JPEG", lambda head: head.startswith(b"\xff\xd8\xff")),
    ("PNG", lambda head: head.startswith(b"\x89PNG\r\n\x1a\n")),
    ("GIF", lambda head: head.startswith((b"GIF87a", b"GIF89a"))),
    ("WEBP", lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP"),
    ("BMP", lambda head: head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADS),
    ("TIFF", lambda head: head.startswith((b"II*\0", b"MM\0*"))),
)

# The service's own bounds (wire reference 3.2).
_LEAST_SIDE = 10
_MOST_RATIO = 200

# What Pillow raises for files that are broken, or made to break it.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    OverflowError,
    AttributeError,
    ZeroDivisionError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    # Where these are errors, as in tests; Pillow warns of what it can live with, and of sizes that are looked at here anyway.
    Warning,
)


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """width, height: pixels, of the first frame."""

    media_type: str
    width: int
    height: int


def kind(head: bytes) -> str | None:
    """Pillow's name of the format that begins like this; None for what is not taken. head: SNIFFED_BYTES, or a whole shorter file."""
    return next((name for name, begins in _SIGNS if begins(head)), None)


def look(data: bytes, most_pixels: int) -> Looked:
    """Takes a while, and four bytes a pixel: for a thread. Of an animation the first frame counts.

    Raises ApiError(INVALID_REQUEST) for what is no picture, breaks off, or is too large, too small or too narrow; the size is known
    before anything is decoded.
    """
    name = kind(data[:SNIFFED_BYTES])
    if name is None:
        raise refusals.refused(refusals.NOT_DECODED)
    try:
        with Image.open(io.BytesIO(data), formats=(name,)) as image:
            width, height = image.size
            if not fits(width, height, most_pixels):
                is_small = min(width, height) < _LEAST_SIDE
                why = f" {refusals.TOO_SMALL.format(height=height, width=width)}" if is_small else ""
                raise refusals.refused(refusals.WRONG_SIZE + why)
            # A JPEG is read at an eighth of its size, which still reads all of it.
            image.draft(image.mode, (max(1, width // 8), max(1, height // 8)))
            image.load()
    except _BROKEN as error:
        raise refusals.refused(refusals.NOT_DECODED) from error
    return Looked(media_type=_MEDIA_TYPES[name], width=width, height=height)


def fits(width: int, height: int, most_pixels: int) -> bool:
    short, long = sorted((width, height))
    return short >= _LEAST_SIDE and long <= short * _MOST_RATIO and width * height <= most_pixels
