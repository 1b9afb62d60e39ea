"""This is where pictures are asked for natively and told: from a prompt, and from messages (wire reference 3.2, 3.3, 6)."""

import re
from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import msgspec
from msgspec import Raw

from qwenbox.dialects.base import ParsedImage, WireRequest
from qwenbox.dialects.dashscope import body, errors
from qwenbox.dialects.whole import WholeReply
from qwenbox.terms.caller import Compat
from qwenbox.terms.chat import ImagePart
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, ImageMade
from qwenbox.terms.image import SERVICE_INPUT, SERVICE_PARAMETERS, ImageRequest
from qwenbox.terms.usage import Usage

SYNTHESIS = "/services/aigc/text2image/image-synthesis"
EDITING = "/services/aigc/image2image/image-synthesis"
GENERATION_TASKS = "/services/aigc/image-generation/generation"
GENERATION = "/services/aigc/multimodal-generation/generation"

NO_TASKS = "Current user api does not support asynchronous calls."
ONLY_TASKS = "current user api does not support synchronous calls."
NO_STREAM = "Pictures come whole: send no header that asks for a stream."
NO_UPLOAD = "{} takes http(s) addresses and data URLs; names of uploads are taken in base_image_url and images only."
ONE_TURN = "messages must be one message with the role user: its texts are the prompt, its images what to draw from."
WRONG_SIZE = "size must be width*height in pixels, e.g. 1024*1024"

# Beginnings of names by which a model draws, where the catalog knows only that it answers every name.
FAMILIES = ("wan", "qwen-image", "z-image", "flux", "stable-diffusion")
# Said when no style is meant.
_NO_STYLES = frozenset({"", "<auto>"})
_SIZE = re.compile(r"([0-9]{1,5})[*xX]([0-9]{1,5})")
_MAX_SEED = 2**63 - 1

# A field that was not sent, and what says as little.
_NOTHING = Raw()
_ABSENT = (b"", b"null")


class _Item(msgspec.Struct, frozen=True):
    text: str | None = None
    image: str | None = None


class _Message(msgspec.Struct, frozen=True):
    content: str | list[_Item]
    role: str = "user"


class _Service(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that only the service's own models understand. They reach it as they are; an engine that cannot honour them refuses them."""

    service_fields: ClassVar[tuple[str, ...]] = ()

    def service(self) -> bytes:
        """Those that were sent, as one JSON object; b"" for none."""
        sent = {name: value for name in self.service_fields if bytes(value := getattr(self, name)) not in _ABSENT}
        return _encoder.encode(sent) if sent else b""


class _Input(_Service, frozen=True, kw_only=True):
    service_fields = ("function", "mask_image_url", "sketch_image_url", "ref_img", "ref_image_url")

    prompt: str | None = None
    negative_prompt: str | None = None
    messages: list[_Message] | None = None
    images: list[str] | None = None
    base_image_url: str | None = None
    function: Raw = _NOTHING
    mask_image_url: Raw = _NOTHING
    sketch_image_url: Raw = _NOTHING
    ref_img: Raw = _NOTHING
    ref_image_url: Raw = _NOTHING


class _Parameters(_Service, frozen=True, kw_only=True):
    service_fields = (
        "ref_strength",
        "ref_mode",
        "bbox_list",
        "enable_sequential",
        "thinking_mode",
        "color_palette",
        "sketch_weight",
        "realisticness",
        "similarity",
        "strength",
        "top_scale",
        "bottom_scale",
        "left_scale",
        "right_scale",
        "upscale_factor",
        "is_sketch",
    )

    size: str | None = None
    n: int | None = None
    seed: int | None = None
    style: str | None = None
    negative_prompt: str | None = None
    prompt_extend: bool | None = None
    watermark: bool | None = None
    steps: int | None = None
    guidance: float | None = None
    ref_strength: Raw = _NOTHING
    ref_mode: Raw = _NOTHING
    bbox_list: Raw = _NOTHING
    enable_sequential: Raw = _NOTHING
    thinking_mode: Raw = _NOTHING
    color_palette: Raw = _NOTHING
    sketch_weight: Raw = _NOTHING
    realisticness: Raw = _NOTHING
    similarity: Raw = _NOTHING
    strength: Raw = _NOTHING
    top_scale: Raw = _NOTHING
    bottom_scale: Raw = _NOTHING
    left_scale: Raw = _NOTHING
    right_scale: Raw = _NOTHING
    upscale_factor: Raw = _NOTHING
    is_sketch: Raw = _NOTHING


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    model: str | None = None
    input: _Input | str | None = None
    parameters: _Parameters | None = None


class _Named(msgspec.Struct, frozen=True):
    model: str = ""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Body)
_named_decoder = msgspec.json.Decoder(_Named)
_NO_PARAMETERS = _Parameters()


def model_of(request: WireRequest) -> str:
    """The model a request names, "" for none; the rest of it is not looked at, and its faults are found by whoever reads it."""
    try:
        return _named_decoder.decode(request.body).model
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def wants_task(request: WireRequest) -> bool:
    return request.headers.get("x-dashscope-async", "").lower() == "enable"


def endpoint(request: WireRequest) -> str:
    """The path below the dialect's prefix."""
    return request.path[request.path.find("/services/") :].rstrip("/")


def is_synthesis(path: str) -> bool:
    """Whether what is made is told as `results`; else as `choices`."""
    return path in (SYNTHESIS, EDITING)


def parse(request: WireRequest, compat: Compat) -> ParsedImage:
    """What to draw and how to tell it.

    Raises ApiError: INVALID_REQUEST naming the field; FORBIDDEN for a task or none where the path knows only the other.
    """
    path = endpoint(request)
    _check_manner(request, path)
    given = body.decode_as(_decoder, request.body)
    if not given.model:
        raise ApiError(ErrorKind.INVALID_REQUEST, errors.EMPTY_MODEL, param="model")
    if given.input is None:
        raise ApiError(ErrorKind.INVALID_REQUEST, errors.EMPTY_INPUT, param="input")
    if isinstance(given.input, str):
        raise ApiError(ErrorKind.INVALID_REQUEST, errors.ILLEGAL_INPUT, param="input")
    asked, said = given.input, given.parameters or _NO_PARAMETERS
    prompt, pictures = _from_prompt(asked) if is_synthesis(path) else _from_messages(asked)
    if not prompt.strip():
        raise ApiError(ErrorKind.INVALID_REQUEST, body.INVALID.format("prompt"), param="input.prompt")
    width, height = _size(said.size)
    made = ImageRequest(
        model=given.model,
        prompt=prompt,
        negative_prompt=asked.negative_prompt or said.negative_prompt or "",
        n=1 if said.n is None else said.n,
        width=width,
        height=height,
        images=tuple(ImagePart(url=url) for url in pictures),
        seed=_seed(said.seed),
        steps=said.steps,
        guidance=said.guidance,
        style="" if (said.style or "") in _NO_STYLES else said.style or "",
        is_prompt_extended=said.prompt_extend,
        has_watermark=bool(said.watermark),
        extensions=_extensions(asked, said),
    )
    answer = partial(_synthesis if is_synthesis(path) else _generation, request.id)
    return ParsedImage(request=made, reply=WholeReply(_picture, answer, partial(errors.body, request_id=request.id)))


def _check_manner(request: WireRequest, path: str) -> None:
    if wants_task(request):
        if path == GENERATION:
            raise ApiError(ErrorKind.FORBIDDEN, NO_TASKS, param="X-DashScope-Async")
        return
    if path == GENERATION_TASKS:
        raise ApiError(ErrorKind.FORBIDDEN, ONLY_TASKS, param="X-DashScope-Async")
    if "text/event-stream" in request.headers.get("accept", "") or request.headers.get("x-dashscope-sse", "").lower() == "enable":
        raise ApiError(ErrorKind.INVALID_REQUEST, NO_STREAM, param="X-DashScope-SSE")


def _from_prompt(asked: _Input) -> tuple[str, list[str]]:
    first = [asked.base_image_url] if asked.base_image_url else []
    return asked.prompt or "", first + (asked.images or [])


def _from_messages(asked: _Input) -> tuple[str, list[str]]:
    messages = asked.messages or []
    if len(messages) != 1 or messages[0].role != "user":
        raise ApiError(ErrorKind.INVALID_REQUEST, ONE_TURN, param="input.messages")
    content = messages[0].content
    if isinstance(content, str):
        return content, []
    if any(item.text is None and item.image is None for item in content):
        raise ApiError(ErrorKind.INVALID_REQUEST, body.WRONG_ITEM, param="input.messages[0].content")
    return "".join(item.text for item in content if item.text), [item.image for item in content if item.image is not None]


def _size(text: str | None) -> tuple[int | None, int | None]:
    if not text:
        return None, None
    found = _SIZE.fullmatch(text)
    if found is None or not int(found[1]) or not int(found[2]):
        raise ApiError(ErrorKind.INVALID_REQUEST, WRONG_SIZE, param="size")
    return int(found[1]), int(found[2])


def _seed(seed: int | None) -> int | None:
    if seed is not None and not 0 <= seed <= _MAX_SEED:
        raise ApiError(ErrorKind.INVALID_REQUEST, f"Range of seed should be [0, {_MAX_SEED}]", param="seed")
    return seed


def _extensions(asked: _Input, said: _Parameters) -> dict[str, bytes]:
    for name in asked.service_fields:
        # Passed on as it is, to a service that knows nothing of what was uploaded here.
        if bytes(getattr(asked, name)).startswith(b'"oss://'):
            raise ApiError(ErrorKind.INVALID_REQUEST, NO_UPLOAD.format(name), param=f"input.{name}")
    found = {SERVICE_INPUT: asked.service(), SERVICE_PARAMETERS: said.service()}
    return {name: text for name, text in found.items() if text}


class Metrics(msgspec.Struct, frozen=True):
    TOTAL: int
    SUCCEEDED: int
    FAILED: int


class WireResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """orig_prompt, actual_prompt: where what was drawn from is not what was asked."""

    url: str
    orig_prompt: str = ""
    actual_prompt: str = ""


class _Image(msgspec.Struct, frozen=True):
    image: str
    type: str = "image"


class _Answer(msgspec.Struct, frozen=True):
    content: list[_Image]
    role: str = "assistant"


class WireChoice(msgspec.Struct, frozen=True):
    message: _Answer
    finish_reason: str = "stop"


class ImageUsage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """width, height: of the first picture, told by the newer form only."""

    image_count: int
    width: int = 0
    height: int = 0


class _Synthesis(msgspec.Struct, frozen=True, kw_only=True):
    task_status: str = "SUCCEEDED"
    results: list[WireResult]
    task_metrics: Metrics


class _Generation(msgspec.Struct, frozen=True, kw_only=True):
    choices: list[WireChoice]
    task_metric: Metrics
    finished: bool = True


class _Whole(msgspec.Struct, frozen=True):
    output: _Synthesis | _Generation
    usage: ImageUsage
    request_id: str


def choices(urls: Sequence[str]) -> list[WireChoice]:
    """One for each picture."""
    return [WireChoice(message=_Answer(content=[_Image(image=url)])) for url in urls]


def _picture(event: ChatEvent) -> ImageMade | None:
    return event if isinstance(event, ImageMade) else None


def _synthesis(request_id: str, made: list[ImageMade], usage: Usage) -> _Whole:
    """The older form: `results`."""
    count = len(made)
    results = [WireResult(url=picture.url, actual_prompt=picture.prompt) for picture in made]
    output = _Synthesis(results=results, task_metrics=Metrics(count, count, 0))
    return _Whole(output, ImageUsage(image_count=count), request_id)


def _generation(request_id: str, made: list[ImageMade], usage: Usage) -> _Whole:
    """The newer form: `choices`, as a chat has them."""
    count, first = len(made), made[0]
    output = _Generation(choices=choices([picture.url for picture in made]), task_metric=Metrics(count, count, 0))
    return _Whole(output, ImageUsage(image_count=count, width=first.width, height=first.height), request_id)
