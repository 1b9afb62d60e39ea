"""This is where a picture that is to be made is said in our own words."""

from typing import ClassVar

import msgspec

from qwenbox.terms.chat import ImagePart

# Extensions that hold fields of the service's own models, JSON objects as they were sent: only its engine understands them.
SERVICE_INPUT = "cloud.input"
SERVICE_PARAMETERS = "cloud.parameters"


class ImageRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Draw `n` pictures of `prompt`.

    width, height: pixels, None until the catalog puts in the card's own. negative_prompt: what must not be seen. images: what is to be
    changed, or looked at; () for a picture out of nothing. seed: of the first picture, the others count on from it; None: any.
    steps, guidance: of the drawing, None: the model's own. style: the service's word for one, "" for none. is_prompt_extended: the prompt
    may be written out before it is drawn, None: as the model does by itself. has_watermark: a mark that a machine drew it.
    extensions: as in an embedding. max_output_tokens: a picture is one unit of output, for limits and for money.
    """

    max_output_tokens: ClassVar[int] = 1

    model: str
    prompt: str
    negative_prompt: str = ""
    n: int = 1
    width: int | None = None
    height: int | None = None
    images: tuple[ImagePart, ...] = ()
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    style: str = ""
    is_prompt_extended: bool | None = None
    has_watermark: bool = False
    extensions: dict[str, bytes] = {}


def media_type(data: bytes) -> str:
    """What a picture's bytes are by their first ones. Raises ValueError for what is none of the kinds that are passed on."""
    for kind, begins in (("image/png", b"\x89PNG\r\n\x1a\n"), ("image/jpeg", b"\xff\xd8\xff")):
        if data.startswith(begins):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    raise ValueError("no PNG, JPEG or WebP file")
