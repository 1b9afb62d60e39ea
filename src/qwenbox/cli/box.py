"""This is where a command talks to a running box over HTTP, as any client would."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import msgspec
import typer

from qwenbox.config import Config
from qwenbox.dialects.openai import speak
from qwenbox.remote import Remote, RemoteAnswer, RemoteReply, RemoteRequest, Timeouts
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent
from qwenbox.terms.secret import Secret

# A small machine may read a long prompt for many minutes; the box sends comment lines meanwhile.
_CHAT_TIMEOUTS = Timeouts(connect_s=3.0, first_byte_s=900.0, between_bytes_s=300.0)
_QUICK_TIMEOUTS = Timeouts(connect_s=3.0, first_byte_s=10.0, between_bytes_s=10.0)
_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (an address to replace, not to listen on)

Key = Annotated[
    str,
    typer.Option(
        "--key", envvar=["QWENBOX_API_KEY", "DASHSCOPE_API_KEY"], help="API key; `qwenbox keys create` makes one.", show_default=False
    ),
]
Address = Annotated[str, typer.Option("--url", help="Address of the box; nothing: the one your settings name.", show_default=False)]


class _Problem(msgspec.Struct, frozen=True, kw_only=True):
    message: str = ""


class _Refusal(msgspec.Struct, frozen=True, kw_only=True):
    error: _Problem = _Problem()


class RunningBox:
    """A box at an address, used with a key; `name` is how messages call it."""

    def __init__(self, remote: Remote, address: str, key: Secret | None) -> None:
        self.name = f"the box at {address}"
        self._remote = remote
        self._address = address.rstrip("/")
        self._key = key

    async def get(self, path: str) -> RemoteReply:
        """A whole answer, whatever its status. Raises ApiError when nothing answers."""
        headers = speak.headers(self._key.reveal() if self._key else None)
        url = self._address + path
        return await self._remote.call(RemoteRequest(method="GET", url=url, headers=headers, timeouts=_QUICK_TIMEOUTS, peer=self.name))

    @asynccontextmanager
    async def chat(self, request: ChatRequest) -> AsyncGenerator[AsyncIterator[ChatEvent]]:
        """The answer's events as they come; leaving early hangs up. Raises ApiError in the box's own words."""
        if self._key is None:
            raise ApiError(
                ErrorKind.UNAUTHENTICATED,
                "No API key. Export DASHSCOPE_API_KEY as the box's banner shows it, or make one: qwenbox keys create",
            )
        wire = RemoteRequest(
            method="POST",
            url=f"{self._address}/v1/chat/completions",
            body=speak.chat(request, request.model),
            headers=speak.headers(self._key.reveal()),
            timeouts=_CHAT_TIMEOUTS,
            peer=self.name,
        )
        try:
            async with self._remote.stream(wire) as answer:
                if answer.status != 200:
                    raise _refused(answer.status, await answer.read())
                yield _events(answer)
        except ApiError as error:
            if error.kind is ErrorKind.OVERLOADED and "cannot be reached" in error.message:
                raise ApiError(error.kind, f"No box answers at {self._address}. Start one: qwenbox serve") from error
            raise


@asynccontextmanager
async def open_running_box(config: Config, address: str, key: str) -> AsyncGenerator[RunningBox]:
    """address, key: "" takes them from the settings."""
    secret = Secret(key) if key else config.api_key
    async with Remote() as remote:
        yield RunningBox(remote, address or configured_address(config), secret)


def configured_address(config: Config) -> str:
    """Where a box started with these settings can be reached from this machine."""
    host = _EVERYWHERE.get(config.server.host, config.server.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{config.server.port}"


def refusal(body: bytes) -> str:
    """The box's own words for what it refused."""
    try:
        return msgspec.json.decode(body, type=_Refusal).error.message
    except msgspec.DecodeError:
        return ""


async def _events(answer: RemoteAnswer) -> AsyncIterator[ChatEvent]:
    listener = speak.Listener()
    async for chunk in answer:
        for event in listener.feed(chunk):
            yield event
    for event in listener.finish():
        yield event


def _refused(status: int, body: bytes) -> ApiError:
    said = refusal(body) or f"The box answered HTTP {status}."
    if status == 401:
        return ApiError(ErrorKind.UNAUTHENTICATED, f"{said} Make a key: qwenbox keys create")
    return ApiError(ErrorKind.INVALID_REQUEST, said)
