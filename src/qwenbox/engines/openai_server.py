"""This is where any running server that speaks the OpenAI dialect becomes an engine: chat, raw prompts, health."""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import TypeAlias
from urllib.parse import urlsplit

import anyio
import msgspec

from qwenbox.dialects.openai import speak
from qwenbox.engines.vocabulary import Vocabulary
from qwenbox.remote import Remote, RemoteAnswer, RemoteRequest, Timeouts
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.engine import Capacity, EngineFacts, Events, Health, HealthState
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Completed
from qwenbox.terms.model import Capability
from qwenbox.terms.secret import Secret

# The last frame and the body's end are two writes of most servers: a connection is worth that much waiting, an answer no more.
DRAIN_S = 0.5
FAILURE_BYTES = 64 * 1024
HEALTH_TIMEOUTS = Timeouts(connect_s=2.0, first_byte_s=5.0, between_bytes_s=5.0)

Scalar: TypeAlias = str | int | float | bool

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Partial(StrEnum):
    """How a server is told to continue the last assistant turn."""

    FIELD = "field"  # `partial: true` in the message: Model Studio, qwenbox
    CONTINUE = "continue"  # continue_final_message beside the messages: vLLM, SGLang
    REFUSED = "refused"


class Quirks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a server's body differs from Model Studio's compatible dialect.

    leave_out: fields it refuses. Only those without which the answer is still what was asked for, as the catalog's sampling
    defaults. rename: our field → its own. add: fields every call carries.
    takes_stop_tokens: whether `stop` may hold token ids.
    """

    leave_out: frozenset[str] = frozenset()
    rename: dict[str, str] = {}
    add: dict[str, Scalar] = {}
    partial: Partial = Partial.FIELD
    takes_stop_tokens: bool = True


class OpenAiServerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="openai_server"):
    """One model of one server.

    address: its base URL, /v1 included. model: its own name of the model; "" sends the name the caller wrote.
    key_env, key_file: where its key is found, read once at the start; without either, it wants none.
    weights: what the models list says about who answers; "" means the server's own name of the model.
    context_tokens: the server's limit, if known. tokenizer: weights in the catalog with the model's own vocabulary, to count with where
    the server tells no usage; "" takes any Qwen vocabulary that is on this machine. Neither is ever fetched for it.
    """

    address: str
    model: str = ""
    key_env: str = ""
    key_file: str = ""
    weights: str = ""
    tokenizer: str = ""
    context_tokens: int | None = None
    capabilities: frozenset[Capability] = frozenset({Capability.CHAT, Capability.COMPLETION})
    timeouts: Timeouts = Timeouts()
    quirks: Quirks = Quirks()

    def __post_init__(self) -> None:
        if urlsplit(self.address).scheme not in ("http", "https"):
            raise ValueError("address must be a base URL such as http://127.0.0.1:8080/v1")
        if self.key_env and self.key_file:
            raise ValueError("key_env and key_file are two places for one key: name one of them")


class OpenAiServer:
    """A ChatEngine, Completer and TextCounter. It admits everything: queueing is the server's own business."""

    def __init__(
        self,
        config: OpenAiServerConfig,
        remote: Remote,
        environment: Mapping[str, str] = os.environ,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        """Nothing is reached yet. A key that is not where it should be makes the engine unhealthy, not the start fail."""
        self._config = config
        self._remote = remote
        self._vocabulary = vocabulary
        self._address = config.address.rstrip("/")
        self._missing = ""
        key: Secret | None = None
        try:
            key = _key(config, environment)
        except (OSError, KeyError, ValueError):
            self._missing = f"its key is not in {f'the variable {config.key_env}' if config.key_env else f'the file {config.key_file}'}"
        self._headers = speak.headers(key.reveal() if key else None)
        self._facts = EngineFacts(
            kind="openai_server",
            weights=config.weights or config.model or "whatever its server has",
            context_tokens=config.context_tokens,
            capabilities=config.capabilities,
        )

    @property
    def facts(self) -> EngineFacts:
        return self._facts

    @property
    def capacity(self) -> Capacity:
        return Capacity()

    @property
    def has_own_vocabulary(self) -> bool:
        return bool(self._config.tokenizer)

    async def count_texts(self, texts: Sequence[str], *, has_controls: bool = False) -> list[int] | None:
        return None if self._vocabulary is None else await self._vocabulary.count_texts(texts, has_controls=has_controls)

    async def health(self) -> Health:
        if self._missing:
            return Health(state=HealthState.DOWN, detail=f"Not usable: {self._missing}.")
        request = RemoteRequest(method="GET", url=f"{self._address}/models", headers=self._headers, timeouts=HEALTH_TIMEOUTS)
        try:
            reply = await self._remote.call(request)
        except ApiError as error:
            return Health(state=HealthState.DOWN, detail=error.message)
        if reply.status in (401, 403):
            return Health(state=HealthState.DOWN, detail=f"The model's server refuses the key (status {reply.status}): check key_env.")
        if reply.status >= 500:
            return Health(state=HealthState.DOWN, detail=f"The model's server answers with status {reply.status}.")
        return Health(state=HealthState.READY)  # a server without a models list (404, 405) is up all the same

    def chat(self, request: ChatRequest) -> Events:
        """Streamed, whatever the caller wants. Usage is the server's; counted from its deltas when it sends none."""
        quirks = self._config.quirks
        if request.stop_tokens and not quirks.takes_stop_tokens:
            raise ApiError(ErrorKind.INVALID_REQUEST, "This model's server takes no token ids in stop: use texts.", param="stop")
        is_partial = bool(request.messages) and request.messages[-1].is_partial
        if is_partial and quirks.partial is Partial.REFUSED:
            raise ApiError(ErrorKind.INVALID_REQUEST, "This model's server cannot continue a partial message.", param="messages")
        body = speak.chat(request, self._config.model or request.model)
        return self._ask("/chat/completions", _bent(body, quirks, is_continued=is_partial and quirks.partial is Partial.CONTINUE))

    def complete(self, request: CompletionRequest) -> Events:
        body = speak.completion(request, self._config.model or request.model)
        return self._ask("/completions", _bent(body, self._config.quirks))

    def _ask(self, path: str, body: bytes) -> Events:
        if self._missing:
            raise ApiError(ErrorKind.ENGINE_FAILED, "The model's server cannot be used: its key is not set on this box.")
        request = RemoteRequest(method="POST", url=self._address + path, body=body, headers=self._headers, timeouts=self._config.timeouts)
        return _Answer(self._remote, request)


class _Answer:
    """The events of one call; leaving hangs up, unless the answer was heard to its end."""

    __slots__ = ("_events", "_exchange")

    def __init__(self, remote: Remote, request: RemoteRequest) -> None:
        self._exchange = remote.stream(request)
        self._events: AsyncGenerator[ChatEvent] | None = None

    async def __aenter__(self) -> AsyncIterator[ChatEvent]:
        answer = await self._exchange.__aenter__()
        if answer.status == 200:
            is_whole = answer.headers.get("content-type", "").startswith("application/json")
            self._events = _whole(answer) if is_whole else _streamed(answer)
            return self._events
        try:
            body = await answer.read(FAILURE_BYTES)
        finally:
            await self._exchange.__aexit__(None, None, None)
        raise speak.failure(answer.status, body, answer.headers)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if self._events is not None:
                await self._events.aclose()
        finally:
            await self._exchange.__aexit__(kind, error, trace)


async def _streamed(answer: RemoteAnswer) -> AsyncGenerator[ChatEvent]:
    """`Completed` waits for the body's end: whoever hears it leaves, and the connection would be lost to the next call."""
    listener = speak.Listener()
    completed: ChatEvent | None = None
    async for chunk in answer:
        for event in listener.feed(chunk):
            if isinstance(event, Completed):
                completed = event
            else:
                yield event
        if completed is not None:
            await _drain(answer)
            break
    for event in listener.finish() if completed is None else [completed]:
        yield event


async def _drain(answer: RemoteAnswer) -> None:
    if answer.is_over:
        return
    with anyio.move_on_after(DRAIN_S):
        try:
            async for _ in answer:
                pass
        except ApiError:
            pass  # everything that matters was said


async def _whole(answer: RemoteAnswer) -> AsyncGenerator[ChatEvent]:
    """Of a server that does not stream, though it was asked to."""
    for event in speak.Listener().whole(await answer.read()):
        yield event


def _key(config: OpenAiServerConfig, environment: Mapping[str, str]) -> Secret | None:
    """Raises KeyError, OSError or ValueError when the key is not where the config says."""
    if not config.key_env and not config.key_file:
        return None
    text = environment[config.key_env] if config.key_env else Path(config.key_file).expanduser().read_text("utf-8")
    if not text.strip():
        raise ValueError("empty")
    return Secret(text.strip())


def _bent(body: bytes, quirks: Quirks, *, is_continued: bool = False) -> bytes:
    """The body as this server wants it; untouched for most."""
    if not (quirks.leave_out or quirks.rename or quirks.add or is_continued):
        return body
    fields = {quirks.rename.get(name, name): value for name, value in _FIELDS.decode(body).items() if name not in quirks.leave_out}
    added: dict[str, Scalar] = {**quirks.add, **({"continue_final_message": True, "add_generation_prompt": False} if is_continued else {})}
    return msgspec.json.encode({**fields, **added})
