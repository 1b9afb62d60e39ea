"""This is where pictures get into a prompt: their sizes and tokens by the model's rule, their pixels at exactly that size.

llama.cpp is given pictures that need no further change, so what it makes of them is what was counted before it saw them.
"""

import base64
import io
from collections.abc import Sequence

import msgspec
from PIL import Image, ImageOps

from qwenbox.engines.gguf import Projector
from qwenbox.engines.llamacpp.wire import Shown
from qwenbox.engines.prompt import PICTURE, PromptTemplate
from qwenbox.engines.tokenizer import Tokenizer
from qwenbox.terms import pixels
from qwenbox.terms.chat import ChatRequest, ImagePart
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.pixels import PixelRule, Size

# Inside the name of a control token it makes plain text of it. llama.cpp reads prompts with pictures as text, so it stays there; no
# tokenizer of Qwen's has a meaning for it, and no reader sees it.
_JOINER = "\u2060"
_PAPER = (255, 255, 255)
# Pillow's names of what `media` lets in; it knows others that start programs.
_FORMS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """What a set of weights makes of pictures."""

    projector: Projector
    rule: PixelRule


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt, counted. ids: of its texts. texts: what lies between the pictures, () where there are none.

    sizes: at which the pictures are seen; picture_tokens: what they take of the input, their marks included.
    """

    ids: list[int]
    texts: tuple[str, ...] = ()
    pictures: tuple[ImagePart, ...] = ()
    sizes: tuple[Size, ...] = ()
    picture_tokens: int = 0

    @property
    def input_tokens(self) -> int:
        return len(self.ids) + self.picture_tokens

    @property
    def body(self) -> list[int] | Shown:
        """As llama.cpp is given it; its pictures are put in last, by `painted`."""
        return Shown(self.texts) if self.pictures else self.ids


def sight(projector: Projector, most_pixels: int) -> Sight:
    """The rule of the family that this projector belongs to, with no picture above `most_pixels`. Raises ApiError(ENGINE_FAILED)."""
    known = {rule.unit: rule for rule in (pixels.OLDER, pixels.QWEN3)}
    rule = known.get(projector.unit)
    if rule is None or "vl_merger" not in projector.kind:
        raise ApiError(ErrorKind.ENGINE_FAILED, f"{projector.path.name} sees pictures in a way that is not known here ({projector.kind}).")
    most = min(rule.most, most_pixels)
    return Sight(projector=projector, rule=msgspec.structs.replace(rule, most=most, usual=min(rule.usual, most)))


def read(request: ChatRequest, template: PromptTemplate, tokenizer: Tokenizer, seen: Sight | None) -> Prompt:
    """The prompt of a request with pictures.

    Raises ApiError: INVALID_REQUEST for sides no model takes, or where these weights see nothing; ENGINE_FAILED for a picture that was
    not fetched.
    """
    shown = tuple(request.pictures)
    if seen is None:
        raise ApiError(ErrorKind.INVALID_REQUEST, "This model reads text only; the message holds an image.", param="messages")
    if not all(picture.data for picture in shown):
        raise ApiError(ErrorKind.ENGINE_FAILED, "A picture of this call was not fetched before the engine was asked.")
    sizes = tuple(pixels.seen(picture, seen.rule, is_high_resolution=request.is_high_resolution) for picture in shown)
    texts = tuple(template.render(request, lambda text: plain(tokenizer, text)).split(PICTURE))
    if len(texts) != len(shown) + 1:
        raise ApiError(ErrorKind.INVALID_REQUEST, "The model's chat template cannot show pictures in these messages.", param="messages")
    return Prompt(
        ids=[token for text in texts for token in tokenizer.encode(text)],
        texts=texts,
        pictures=shown,
        sizes=sizes,
        picture_tokens=sum(pixels.tokens(size, seen.rule) for size in sizes),
    )


def plain(tokenizer: Tokenizer, text: str) -> str:
    """`text` so that no name of a control token in it is one."""
    return tokenizer.guard(text, _JOINER)


def painted(pictures: Sequence[ImagePart], sizes: Sequence[Size]) -> tuple[str, ...]:
    """The pictures at these sizes as base64 of files that hold their pixels unchanged; takes milliseconds per megapixel.

    Turned upright as their cameras say, on white where they are see-through. Raises ApiError(INVALID_REQUEST) for one that is damaged.
    """
    return tuple(_painted(picture, size) for picture, size in zip(pictures, sizes, strict=True))


def _painted(picture: ImagePart, size: Size) -> str:
    try:
        with Image.open(io.BytesIO(picture.data), formats=_FORMS) as opened:
            upright = ImageOps.exif_transpose(opened)
            # A camera held sideways: the size was counted before the picture was turned, and turns with it.
            sides = (size.width, size.height) if opened.size == upright.size else (size.height, size.width)
            resized = _opaque(upright).resize(sides, Image.Resampling.BICUBIC)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ApiError(ErrorKind.INVALID_REQUEST, "The image cannot be read.", param="messages") from error
    written = io.BytesIO()
    resized.save(written, "PNG", compress_level=1)
    return base64.b64encode(written.getvalue()).decode()


def _opaque(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layered = picture.convert("RGBA")
    paper = Image.new("RGB", layered.size, _PAPER)
    paper.paste(layered, mask=layered.getchannel("A"))
    return paper
