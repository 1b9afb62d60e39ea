"""This is where pictures are drawn at the real service: asked for or submitted as a task, polled, fetched from where the service put them.

The links live for a day and lead elsewhere; whoever is answered gets the bytes, so that he needs no way to the service himself.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol
from urllib.parse import urlsplit

import anyio
import msgspec

from qwenbox.dialects.dashscope import drawing, images
from qwenbox.dialects.dashscope.drawing import Heard
from qwenbox.remote import Remote, RemoteReply, RemoteRequest, Timeouts
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Completed, ImageMade, Started
from qwenbox.terms.image import ImageRequest, media_type
from qwenbox.terms.job import TaskState
from qwenbox.terms.usage import Usage

# As the service's own SDK waits.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 5.0
# Where the service puts pictures.
_STORES = ".aliyuncs.com"
_LAST_S = 3.0
_POLL_TIMEOUTS = Timeouts(connect_s=5.0, first_byte_s=30.0, between_bytes_s=30.0)


class Failure(Protocol):
    """What a refusal by status, body and headers means."""

    def __call__(self, status: int, body: bytes, headers: Mapping[str, str], /) -> ApiError: ...


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how it is asked. base: with its native prefix. headers: with the key; peer: for people."""

    remote: Remote
    base: str
    headers: Mapping[str, str]
    timeouts: Timeouts
    failure: Failure
    peer: str


@asynccontextmanager
async def draw(service: Service, request: ImageRequest, model: str) -> AsyncGenerator[AsyncIterator[ChatEvent]]:
    """The events of one call, once it is taken; leaving before its end withdraws a task that waits."""
    path = drawing.path(request, model)
    is_task = path != images.GENERATION
    headers = {**service.headers, "x-dashscope-async": "enable"} if is_task else service.headers
    heard = drawing.hear(await _ask(service, "POST", path, drawing.speak(request, model), headers))
    events = _play(service, request, heard)
    is_over = False
    try:
        yield events
        is_over = True
    finally:
        await events.aclose()
        if is_task and not is_over:
            await _withdraw(service, heard.task_id)


async def _play(service: Service, request: ImageRequest, heard: Heard) -> AsyncGenerator[ChatEvent]:
    yield Started(input_tokens=0)
    wait_s = _FIRST_WAIT_S
    while heard.state is not TaskState.SUCCEEDED:
        await anyio.sleep(wait_s)
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        heard = drawing.hear(await _ask(service, "GET", drawing.TASKS.format(id=heard.task_id), b"", service.headers))
    for index, url in enumerate(heard.urls):
        data = await _fetched(service, url)
        try:
            kind = media_type(data)
        except ValueError as error:
            raise ApiError(ErrorKind.ENGINE_FAILED, f"{service.peer} gave a picture that is none.") from error
        yield ImageMade(index=index, data=data, media_type=kind, width=request.width or 0, height=request.height or 0)
    if not heard.urls:
        raise ApiError(ErrorKind.ENGINE_FAILED, f"{service.peer} drew nothing.")
    yield Completed(usage=Usage(input_tokens=0, output_tokens=len(heard.urls)))


async def _ask(service: Service, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    timeouts = service.timeouts if method == "POST" else _POLL_TIMEOUTS
    sent = RemoteRequest(method=method, url=service.base + path, body=body, headers=headers, timeouts=timeouts, peer=service.peer)
    reply = await service.remote.call(sent)
    if reply.status != 200:
        raise service.failure(reply.status, reply.body, reply.headers)
    return reply.body


async def _fetched(service: Service, url: str) -> bytes:
    """From the service's own stores only: nothing that an answer says makes this box look elsewhere."""
    place, own = urlsplit(url), urlsplit(service.base)
    is_own = (place.scheme, place.netloc) == (own.scheme, own.netloc)
    if not is_own and not (place.scheme in ("http", "https") and (place.hostname or "").endswith(_STORES)):
        raise ApiError(ErrorKind.ENGINE_FAILED, f"{service.peer} put a picture where this box does not look.")
    secure = url if is_own else place._replace(scheme="https").geturl()
    reply: RemoteReply = await service.remote.call(RemoteRequest(method="GET", url=secure, timeouts=_POLL_TIMEOUTS, peer=service.peer))
    if reply.status != 200:
        raise ApiError(ErrorKind.ENGINE_FAILED, f"{service.peer} does not give a picture that it made (status {reply.status}).")
    return reply.body


async def _withdraw(service: Service, task_id: str) -> None:
    with anyio.move_on_after(_LAST_S, shield=True):
        try:
            await _ask(service, "POST", drawing.CANCEL.format(id=task_id), b"", service.headers)
        except ApiError:
            return  # it runs already, and is billed to this box's account there
