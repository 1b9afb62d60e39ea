"""This is where echo draws: a mosaic that follows from the request, the word ECHO on it, and in the file's texts what was asked.

The same request with the same seed gives the same bytes; without a seed the prompt decides alone. Nobody mistakes it for a model's work:
it is stamped, and a file's texts (`Software`, `Description`, …) say where it comes from.
"""

import hashlib
import struct
import zlib
from collections.abc import AsyncGenerator, Callable
from types import TracebackType

import anyio
import anyio.to_thread

from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Completed, ImageMade, Started
from qwenbox.terms.image import ImageRequest
from qwenbox.terms.usage import Usage

SOFTWARE = "qwenbox echo: no model drew this"
# A machine's mark, where one is asked for.
MARK = "AI"

# The picture is as many dots wide and high; what is stamped on it is written in them.
_DOTS = 32
_CELL_DOTS = 4
_COLOURS = 8
_WHITE, _BLACK = _COLOURS, _COLOURS + 1
# Letters of five rows, three dots wide.
_LETTERS = {"E": "74647", "C": "74447", "H": "55755", "O": "75557", "A": "75755", "I": "72227"}
_PNG = b"\x89PNG\r\n\x1a\n"


class Drawing:
    """One call: its pictures, one after the other. delays_s: before the first event, before each picture."""

    def __init__(self, request: ImageRequest, delays_s: tuple[float, float], tokens: Callable[[str], list[str]]) -> None:
        self._request = request
        self._delays_s = delays_s
        self._tokens = tokens
        self._events: AsyncGenerator[ChatEvent] | None = None

    async def __aenter__(self) -> AsyncGenerator[ChatEvent]:
        if not self._request.width or not self._request.height:
            raise ApiError(ErrorKind.INVALID_REQUEST, "A picture needs a size.", param="size")
        self._events = self._play(self._request.width, self._request.height)
        return self._events

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._events is not None:
            await self._events.aclose()

    async def _play(self, width: int, height: int) -> AsyncGenerator[ChatEvent]:
        request = self._request
        first_s, each_s = self._delays_s
        if first_s:
            await anyio.sleep(first_s)
        input_tokens = len(self._tokens(request.prompt)) + len(self._tokens(request.negative_prompt))
        yield Started(input_tokens=input_tokens, cached_tokens=0)
        for index in range(request.n):
            if each_s:
                await anyio.sleep(each_s)
            data = await anyio.to_thread.run_sync(draw, request, index, width, height)
            yield ImageMade(index=index, data=data, media_type="image/png", width=width, height=height)
        yield Completed(usage=Usage(input_tokens=input_tokens, output_tokens=request.n, cached_tokens=0))


def draw(request: ImageRequest, index: int, width: int, height: int) -> bytes:
    """The `index`-th picture of a request, a PNG file."""
    seed = None if request.seed is None else request.seed + index
    asked = (request.prompt, request.negative_prompt, request.style, *(image.url for image in request.images), str(seed), str(index))
    origin = hashlib.sha256("\0".join(asked).encode("utf-8", "surrogatepass"))
    dots = _dots(origin.digest(), MARK if request.has_watermark else "")
    rows = [bytes(row[x * _DOTS // width] for x in range(width)) for row in dots]
    pixels = b"".join(b"\0" + rows[y * _DOTS // height] for y in range(height))
    texts = {"Software": SOFTWARE, "Description": request.prompt, "Size": f"{width}x{height}", "Seed": str(seed)}
    if request.negative_prompt:
        texts["Negative"] = request.negative_prompt
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    palette = hashlib.sha256(origin.digest()).digest()[: 3 * _COLOURS] + b"\xff\xff\xff\0\0\0"
    return b"".join(
        [
            _PNG,
            _chunk(b"IHDR", head),
            *(_chunk(b"iTXt", _text(name, text)) for name, text in texts.items()),
            _chunk(b"PLTE", palette),
            _chunk(b"IDAT", zlib.compress(pixels, 1)),
            _chunk(b"IEND", b""),
        ]
    )


def _dots(digest: bytes, mark: str) -> list[list[int]]:
    """Colours by row and column: cells that follow from the digest, the stamp in the middle, the mark at the lower right."""
    cells = _DOTS // _CELL_DOTS
    dots = [
        [digest[(row // _CELL_DOTS * cells + column // _CELL_DOTS) % len(digest)] % _COLOURS for column in range(_DOTS)]
        for row in range(_DOTS)
    ]
    _stamp(dots, "ECHO", 12, 8)
    if mark:
        _stamp(dots, mark, 25, 22)
    return dots


def _stamp(dots: list[list[int]], word: str, top: int, left: int) -> None:
    """Black letters of five by three dots on a white field."""
    width = 4 * len(word) + 1
    for row in range(top, top + 7):
        dots[row][left : left + width] = [_WHITE] * width
    for place, letter in enumerate(word):
        for row, bits in enumerate(_LETTERS[letter]):
            for column in range(3):
                if int(bits) >> (2 - column) & 1:
                    dots[top + 1 + row][left + 1 + 4 * place + column] = _BLACK


def _text(name: str, text: str) -> bytes:
    """An international text: no compression, no language."""
    return name.encode("latin-1") + b"\0\0\0\0\0" + text.encode("utf-8", "replace").replace(b"\0", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
