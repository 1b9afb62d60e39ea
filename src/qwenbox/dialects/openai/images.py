"""This is where pictures are asked for as OpenAI clients do, and told, by link or by their bytes; and the client's half."""

import base64
import re
from functools import partial

import msgspec
from msgspec import UNSET, UnsetType

from qwenbox.dialects.base import ParsedImage, WireRequest
from qwenbox.dialects.openai import errors, fields
from qwenbox.dialects.whole import WholeReply
from qwenbox.terms.caller import Compat
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Completed, ImageMade, Started
from qwenbox.terms.image import ImageRequest, media_type
from qwenbox.terms.usage import Usage

_SIZE = re.compile(r"([0-9]{1,5})[xX*]([0-9]{1,5})")
_FORMATS = ("url", "b64_json")
_OUTPUTS = (None, "png")
_ENCODER = msgspec.json.Encoder()


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's fields, and those by which servers of open weights go on: seed, negative_prompt, num_inference_steps, guidance_scale."""

    model: str | None = None
    prompt: str | None = None
    n: int | None = None
    size: str | None = None
    response_format: str | None = None
    output_format: str | None = None
    background: str | None = None
    stream: bool | None = None
    seed: int | None = None
    negative_prompt: str | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    watermark: bool | None = None
    prompt_extend: bool | None = None


class WireImage(msgspec.Struct, frozen=True, kw_only=True):
    url: str | UnsetType = UNSET
    b64_json: str | UnsetType = UNSET
    revised_prompt: str | UnsetType = UNSET


class WireImages(msgspec.Struct, frozen=True, kw_only=True):
    created: int
    data: list[WireImage]


_BODY = msgspec.json.Decoder(_Body)


def parse(request: WireRequest, compat: Compat) -> ParsedImage:
    """Raises ApiError(INVALID_REQUEST) naming the field at fault."""
    body = fields.decode(_BODY, request.body)
    if not body.model:
        raise fields.invalid("you must provide a model parameter", "model")
    if not (body.prompt or "").strip():
        raise fields.invalid("Required parameter(prompt) missing or invalid, please check the request parameters.", "prompt")
    _refuse_unsupported(body)
    width, height = _size(body.size)
    asked = ImageRequest(
        model=body.model,
        prompt=body.prompt or "",
        negative_prompt=body.negative_prompt or "",
        n=1 if body.n is None else body.n,
        width=width,
        height=height,
        seed=_seed(body.seed),
        steps=body.num_inference_steps,
        guidance=body.guidance_scale,
        is_prompt_extended=body.prompt_extend,
        has_watermark=bool(body.watermark),
    )
    reply = WholeReply(_image, partial(_answer, int(request.received_at)), partial(errors.body, request_id=request.id))
    return ParsedImage(request=asked, reply=reply, is_linked=body.response_format != "b64_json")


def _refuse_unsupported(body: _Body) -> None:
    """What is known and cannot be honoured is never dropped in silence."""
    if body.stream:
        raise fields.invalid("Pictures come whole: stream is not supported here.", "stream")
    if body.response_format not in (None, *_FORMATS):
        raise fields.invalid("response_format must be url or b64_json", "response_format")
    if body.output_format not in _OUTPUTS:
        raise fields.invalid("Pictures are PNG files: output_format must be png.", "output_format")
    if body.background == "transparent":
        raise fields.invalid("Pictures have a background: transparent is not supported.", "background")


def _seed(seed: int | None) -> int | None:
    if seed is not None and not 0 <= seed <= fields.MAX_SEED:
        raise fields.invalid(f"Range of seed should be [0, {fields.MAX_SEED}]", "seed")
    return seed


def _size(text: str | None) -> tuple[int | None, int | None]:
    if text in (None, "", "auto"):
        return None, None
    found = _SIZE.fullmatch(text or "")
    if found is None or not int(found[1]) or not int(found[2]):
        raise fields.invalid("size must be WIDTHxHEIGHT in pixels, e.g. 1024x1024, or auto", "size")
    return int(found[1]), int(found[2])


def _image(event: ChatEvent) -> WireImage | None:
    if not isinstance(event, ImageMade):
        return None
    drawn = event.prompt or UNSET
    if event.data:
        return WireImage(b64_json=base64.b64encode(event.data).decode(), revised_prompt=drawn)
    return WireImage(url=event.url, revised_prompt=drawn)


def _answer(created: int, made: list[WireImage], usage: Usage) -> WireImages:
    return WireImages(created=created, data=made)


class _Wish(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a server is asked for; only what was said."""

    model: str
    prompt: str
    n: int
    size: str
    response_format: str | None = None
    seed: int | None = None
    negative_prompt: str = ""
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    watermark: bool = False
    prompt_extend: bool | None = None


class _HeardImage(msgspec.Struct, frozen=True):
    b64_json: str | None = None
    revised_prompt: str | None = None


class _Heard(msgspec.Struct, frozen=True):
    data: list[_HeardImage]


_HEARD = msgspec.json.Decoder(_Heard)


def speak(request: ImageRequest, model: str) -> bytes:
    """The client's half. Bytes are asked for, so that nobody has to follow a server's links; OpenAI's own newer models give nothing else,
    and take no word about it."""
    return _ENCODER.encode(
        _Wish(
            model=model,
            prompt=request.prompt,
            n=request.n,
            size=f"{request.width}x{request.height}",
            response_format=None if model.startswith("gpt-image") else "b64_json",
            seed=request.seed,
            negative_prompt=request.negative_prompt,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
            watermark=request.has_watermark,
            prompt_extend=request.is_prompt_extended,
        )
    )


def hear(body: bytes, request: ImageRequest) -> list[ChatEvent]:
    """Raises ApiError(ENGINE_FAILED) for what is not as many pictures as were asked for."""
    try:
        made = [_made(index, heard, request) for index, heard in enumerate(_HEARD.decode(body).data)]
    except (ValueError, RecursionError) as error:
        raise ApiError(ErrorKind.ENGINE_FAILED, "The model's server answered with something that is no pictures.") from error
    if len(made) != request.n:
        raise ApiError(ErrorKind.ENGINE_FAILED, f"The model's server made {len(made)} pictures in place of {request.n}.")
    return [Started(input_tokens=0), *made, Completed(usage=Usage(input_tokens=0, output_tokens=request.n))]


def _made(index: int, heard: _HeardImage, request: ImageRequest) -> ImageMade:
    data = base64.b64decode(heard.b64_json or "", validate=True)
    return ImageMade(
        index=index,
        data=data,
        media_type=media_type(data),
        width=request.width or 0,
        height=request.height or 0,
        prompt=heard.revised_prompt or "",
    )
