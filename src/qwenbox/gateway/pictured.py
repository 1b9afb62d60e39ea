"""This is where a chat with pictures waits for their bytes, before it is counted: below here nobody fetches."""

from types import TracebackType
from typing import Protocol

import msgspec

from qwenbox.gateway.router import Answer
from qwenbox.gateway.thrift import Way
from qwenbox.terms.call import Call
from qwenbox.terms.caller import Caller
from qwenbox.terms.chat import ChatRequest


class Pictures(Protocol):
    async def load(self, request: ChatRequest, caller: Caller, *, resolves_uploads: bool) -> ChatRequest:
        """The same request with bytes in every picture. resolves_uploads: names of uploads may stand for pictures.

        Raises ApiError(INVALID_REQUEST).
        """
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
