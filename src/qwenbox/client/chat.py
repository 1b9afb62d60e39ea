"""This is where a program talks to a model of a box over HTTP: an answer's events as they come, prompts counted before they are sent."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from qwenbox.dialects.openai import speak
from qwenbox.remote import Remote, RemoteAnswer, RemoteReply, RemoteRequest, Timeouts
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent
from qwenbox.terms.secret import Secret

# A small machine may read a long prompt for many minutes; the box sends comment lines meanwhile.
_CHAT_TIMEOUTS = Timeouts(connect_s=3.0, first_byte_s=900.0, between_bytes_s=300.0)
_COUNT_TIMEOUTS = Timeouts(connect_s=3.0, first_byte_s=60.0, between_bytes_s=60.0)
_KINDS = {
    401: ErrorKind.UNAUTHENTICATED,
    403: ErrorKind.FORBIDDEN,
    404: ErrorKind.MODEL_NOT_FOUND,
    413: ErrorKind.TOO_LARGE,
    429: ErrorKind.RATE_LIMITED,
    500: ErrorKind.INTERNAL,
    502: ErrorKind.ENGINE_FAILED,
    503: ErrorKind.OVERLOADED,
    504: ErrorKind.TIMEOUT,
}


class _Problem(msgspec.Struct, frozen=True, kw_only=True):
    message: str | None = ""
    code: str | None = ""
    type: str | None = ""


class _Refusal(msgspec.Struct, frozen=True, kw_only=True):
    error: _Problem = _Problem()


class _Count(msgspec.Struct, frozen=True, kw_only=True):
    input_tokens: int


class Refused(ApiError):
    """What the box refused, in its own words. status, code: as on the wire; request_id: to look it up, "" if it has none."""

    def __init__(self, kind: ErrorKind, message: str, *, status: int, code: str, request_id: str) -> None:
        super().__init__(kind, message)
        self.status = status
        self.code = code
        self.request_id = request_id


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that is arriving. request_id: its receipt's name. events: to be read once, to the end or not."""

    request_id: str
    events: AsyncIterator[ChatEvent]


class ChatClient:
    """remote: the process's HTTP client. address: the box's, e.g. "http://127.0.0.1:8000". key: who asks and pays."""

    def __init__(self, remote: Remote, address: str, key: Secret) -> None:
        self._remote = remote
        self._address = address.rstrip("/")
        self._key = key

    @asynccontextmanager
    async def chat(self, body: bytes) -> AsyncGenerator[Answer]:
        """Ask, and hear the answer; leaving early hangs up, and what was produced until then is billed.

        body: an OpenAI-compatible chat request as JSON, with `"stream": true` and usage in the stream.
        Raises Refused where the box says no, ApiError where nobody answers or the answer breaks off.
        """
        request = RemoteRequest(
            method="POST",
            url=f"{self._address}/compatible-mode/v1/chat/completions",
            body=body,
            headers=speak.headers(self._key.reveal()),
            timeouts=_CHAT_TIMEOUTS,
            peer=self._peer,
        )
        async with self._remote.stream(request) as answer:
            if answer.status != 200:
                raise _refused(RemoteReply(status=answer.status, headers=answer.headers, body=await answer.read()))
            yield Answer(request_id=answer.headers.get("x-request-id", ""), events=_events(answer))

    async def count(self, body: bytes) -> int:
        """Input tokens that a chat would be billed for; nothing is generated. body: an Anthropic count request as JSON.

        Raises as `chat`.
        """
        headers = {"content-type": "application/json", "x-api-key": self._key.reveal()}
        url = f"{self._address}/apps/anthropic/v1/messages/count_tokens"
        reply = await self._remote.call(
            RemoteRequest(method="POST", url=url, body=body, headers=headers, timeouts=_COUNT_TIMEOUTS, peer=self._peer)
        )
        if reply.status != 200:
            raise _refused(reply)
        try:
            return msgspec.json.decode(reply.body, type=_Count).input_tokens
        except msgspec.DecodeError as error:
            raise ApiError(ErrorKind.ENGINE_FAILED, "The box answered something that is no count of tokens.") from error

    @property
    def _peer(self) -> str:
        return f"the box at {self._address}"


@asynccontextmanager
async def open_chat(address: str, key: Secret) -> AsyncGenerator[ChatClient]:
    """A client with a connection pool of its own."""
    async with Remote() as remote:
        yield ChatClient(remote, address, key)


async def _events(answer: RemoteAnswer) -> AsyncIterator[ChatEvent]:
    listener = speak.Listener()
    async for chunk in answer:
        for event in listener.feed(chunk):
            yield event
    for event in listener.finish():
        yield event


def _refused(reply: RemoteReply) -> Refused:
    try:
        problem = msgspec.json.decode(reply.body, type=_Refusal).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = _Problem()
    return Refused(
        _KINDS.get(reply.status, ErrorKind.INVALID_REQUEST),
        problem.message or f"The box answered HTTP {reply.status}.",
        status=reply.status,
        code=problem.code or problem.type or "",
        request_id=reply.headers.get("x-request-id", ""),
    )
