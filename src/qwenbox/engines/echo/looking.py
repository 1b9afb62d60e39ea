"""This is where echo says what pictures are, since it cannot see what they show; they take the tokens that qwen-vl-plus counts."""

import zlib
from typing import Final

import msgspec

from qwenbox.terms import pixels
from qwenbox.terms.chat import ChatRequest, ImagePart, Part, TextPart, VideoPart
from qwenbox.terms.errors import ApiError, ErrorKind

RULE: Final = pixels.CLASSIC


def sizes(request: ChatRequest) -> tuple[pixels.Size, ...]:
    """At which the pictures count as seen, in order. Raises ApiError(INVALID_REQUEST) for sides no model takes."""
    return tuple(pixels.seen(picture, RULE, is_high_resolution=request.is_high_resolution) for picture in request.pictures)


def tokens(request: ChatRequest) -> int | None:
    """Input tokens of the pictures, None where there are none."""
    return sum(pixels.tokens(size, RULE) for size in sizes(request)) if request.has_pictures else None


def described(request: ChatRequest) -> ChatRequest:
    """The request with a few words in place of each picture: size, form, and a number that only the same bytes have."""
    if not request.has_pictures:
        return request
    if not all(picture.data for picture in request.pictures):
        raise ApiError(ErrorKind.INVALID_REQUEST, "The picture was not fetched.", param="messages")
    messages = [msgspec.structs.replace(message, content=tuple(map(_words, message.content))) for message in request.messages]
    return msgspec.structs.replace(request, messages=tuple(messages))


def _words(part: Part) -> TextPart:
    match part:
        case TextPart():
            return part
        case ImagePart():
            return TextPart(text=f"[picture {_facts(part)}] ")
        case VideoPart():
            whole = zlib.crc32(b"".join(frame.data for frame in part.frames))
            return TextPart(text=f"[film of {len(part.frames)} pictures, {_facts(part.frames[0])} first, {whole:08x}] ")


def _facts(picture: ImagePart) -> str:
    return f"{picture.width}x{picture.height} {picture.media_type} {zlib.crc32(picture.data):08x}"
