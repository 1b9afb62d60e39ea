"""This is where a command talks to a running box over HTTP, as any client would."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import msgspec
import typer

from qwenbox.app.console import box_address
from qwenbox.client.chat import ChatClient, Refused
from qwenbox.config import Config
from qwenbox.dialects.openai import speak
from qwenbox.remote import Remote, RemoteReply, RemoteRequest, Timeouts
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent
from qwenbox.terms.secret import Secret

_QUICK_TIMEOUTS = Timeouts(connect_s=3.0, first_byte_s=10.0, between_bytes_s=10.0)

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
        client = ChatClient(self._remote, self._address, self._key)
        try:
            async with client.chat(speak.chat(request, request.model)) as answer:
                yield answer.events
        except Refused as error:
            if error.kind is ErrorKind.UNAUTHENTICATED:
                raise ApiError(error.kind, f"{error.message} Make a key: qwenbox keys create") from error
            raise
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
    return box_address(config)


def refusal(body: bytes) -> str:
    """The box's own words for what it refused."""
    try:
        return msgspec.json.decode(body, type=_Refusal).error.message
    except msgspec.DecodeError:
        return ""
