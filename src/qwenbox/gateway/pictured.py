"""This is where a call with pictures waits for their bytes, before it is counted: below here nobody fetches."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol

import msgspec

from qwenbox.gateway.router import Answer
from qwenbox.gateway.thrift import Way
from qwenbox.terms.call import Call
from qwenbox.terms.caller import Caller
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.image import ImageRequest


class Pictures(Protocol):
    async def load(self, request: ChatRequest, caller: Caller, *, resolves_uploads: bool) -> ChatRequest:
        """The same request with bytes in every picture. resolves_uploads: names of uploads may stand for pictures.

        Raises ApiError(INVALID_REQUEST).
        """
        ...

    async def load_drawn_from(self, request: ImageRequest, caller: Caller, *, resolves_uploads: bool) -> ImageRequest:
        """As `load`, of the pictures that others are to be drawn from."""
        ...


class Pictured:
    """The answer to a chat whose pictures are fetched first; `way` leads to it."""

    __slots__ = ("_call", "_opening", "_pictures", "_request", "_way")

    def __init__(self, pictures: Pictures, way: Way, call: Call[ChatRequest], request: ChatRequest) -> None:
        """request: complete; `call` holds it as the client sent it."""
        self._pictures = pictures
        self._way = way
        self._call = call
        self._request = request

    async def __aenter__(self) -> Answer:
        call = self._call
        request = await self._pictures.load(self._request, call.caller, resolves_uploads=call.wishes.resolves_uploads)
        call = msgspec.structs.replace(call, request=msgspec.structs.replace(call.request, messages=request.messages))
        self._opening = self._way(call, request)
        return await self._opening.__aenter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._opening.__aexit__(kind, error, trace)


class DrawnFrom:
    """The answer to a wish for pictures that are drawn from others, which are fetched first; `way` leads to it."""

    __slots__ = ("_call", "_opening", "_pictures", "_request", "_way")

    def __init__(
        self,
        pictures: Pictures,
        way: Callable[[ImageRequest], AbstractAsyncContextManager[Answer]],
        call: Call[ImageRequest],
        request: ImageRequest,
    ) -> None:
        """request: complete."""
        self._pictures = pictures
        self._way = way
        self._call = call
        self._request = request

    async def __aenter__(self) -> Answer:
        resolves_uploads = self._call.wishes.resolves_uploads
        request = await self._pictures.load_drawn_from(self._request, self._call.caller, resolves_uploads=resolves_uploads)
        self._opening = self._way(request)
        return await self._opening.__aenter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._opening.__aexit__(kind, error, trace)
