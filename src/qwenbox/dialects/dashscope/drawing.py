"""This is where the client's half of native pictures is spoken: what is sent for a drawing, what a task and its pictures say."""

from collections.abc import Mapping

import msgspec
from msgspec import Raw

from qwenbox.dialects.dashscope import errors, images
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.image import SERVICE_INPUT, SERVICE_PARAMETERS, ImageRequest
from qwenbox.terms.job import TaskState

TASKS = "/tasks/{id}"
CANCEL = "/tasks/{id}/cancel"

# Which path a model lives on, by its name (wire reference 6.1); others are asked for at once, by messages.
_EDITS = ("imageedit", "wan2.5-i2i")
_BY_MESSAGES = ("wan2.6", "wan2.7")
_BY_PROMPT = ("wan", "stable-diffusion", "flux")
_UNTOLD = "The model's service answered with something that is no pictures."


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a drawing. urls: once it is over. task_id: "" where there is no task."""

    task_id: str = ""
    state: TaskState = TaskState.SUCCEEDED
    urls: tuple[str, ...] = ()


class _Result(msgspec.Struct, frozen=True):
    url: str = ""
    code: str = ""
    message: str = ""


class _Item(msgspec.Struct, frozen=True):
    image: str = ""


class _Message(msgspec.Struct, frozen=True):
    content: list[_Item] = []


class _Choice(msgspec.Struct, frozen=True):
    message: _Message = _Message()


class _Output(msgspec.Struct, frozen=True):
    task_id: str = ""
    task_status: str = TaskState.SUCCEEDED.value
    results: list[_Result] = []
    choices: list[_Choice] = []
    code: str = ""
    message: str = ""


class _Body(msgspec.Struct, frozen=True):
    output: _Output


_decoder = msgspec.json.Decoder(_Body)
_object_decoder = msgspec.json.Decoder(dict[str, Raw])
_encoder = msgspec.json.Encoder()


def path(request: ImageRequest, model: str) -> str:
    """Where this model is asked for pictures; every path but GENERATION makes a task."""
    if any(word in model for word in _EDITS):
        return images.EDITING
    if model.startswith(_BY_MESSAGES):
        return images.GENERATION_TASKS
    return images.SYNTHESIS if model.startswith(_BY_PROMPT) else images.GENERATION


def speak(request: ImageRequest, model: str) -> bytes:
    """The body for `path`. Nothing is said that the caller left open, but for the size."""
    is_older = images.is_synthesis(path(request, model))
    parameters: dict[str, object] = {"size": f"{request.width}*{request.height}", "n": request.n, "watermark": request.has_watermark}
    given: dict[str, object] = {}
    optional = {
        "seed": request.seed,
        "style": request.style or None,
        "prompt_extend": request.is_prompt_extended,
        "steps": request.steps,
        "guidance": request.guidance,
    }
    parameters.update({name: value for name, value in optional.items() if value is not None})
    if is_older:
        given["prompt"] = request.prompt
        pictures = [image.address for image in request.images]
        if pictures and SERVICE_INPUT in request.extensions:
            given["base_image_url"] = pictures[0]
        elif pictures:
            given["images"] = pictures
    else:
        content: list[dict[str, str]] = [{"image": image.address} for image in request.images]
        given["messages"] = [{"role": "user", "content": [*content, {"text": request.prompt}]}]
    if request.negative_prompt:
        (given if is_older else parameters)["negative_prompt"] = request.negative_prompt
    given.update(_extra(request, SERVICE_INPUT))
    parameters.update(_extra(request, SERVICE_PARAMETERS))
    return _encoder.encode({"model": model, "input": given, "parameters": parameters})


def hear(body: bytes) -> Heard:
    """Raises ApiError as the service's own failure of the task means, and ENGINE_FAILED for what is no answer."""
    try:
        output = _decoder.decode(body).output
        state = TaskState(output.task_status)
    except (ValueError, RecursionError) as error:
        raise ApiError(ErrorKind.ENGINE_FAILED, _UNTOLD) from error
    if state in (TaskState.FAILED, TaskState.CANCELED, TaskState.UNKNOWN):
        raise _failure(output.code, output.message)
    urls = [item.image for choice in output.choices for item in choice.message.content if item.image]
    for result in output.results:
        if not result.url:
            raise _failure(result.code, result.message)
        urls.append(result.url)
    return Heard(task_id=output.task_id, state=state, urls=tuple(urls))


def _failure(code: str, message: str) -> ApiError:
    kind = errors.kind_of(code, 500)
    if kind in (ErrorKind.INVALID_REQUEST, ErrorKind.CONTENT_REJECTED):
        return ApiError(kind, message[:400])
    return ApiError(ErrorKind.ENGINE_FAILED, "The model's service could not draw this.")


def _extra(request: ImageRequest, name: str) -> Mapping[str, Raw]:
    return _object_decoder.decode(request.extensions[name]) if name in request.extensions else {}
