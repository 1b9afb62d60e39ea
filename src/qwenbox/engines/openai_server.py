"""This is where any running server that speaks the OpenAI dialect becomes an engine: chat, raw prompts, health."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from qwenbox.dialects.openai import embeddings, images, rerank, speak
from qwenbox.engines import told
from qwenbox.engines.flavours import FLAVOURS, Quirks, Told, bend, check
from qwenbox.engines.upstream import Language, UpstreamAnswer, WholeListener, find_key
from qwenbox.engines.vocabulary import Vocabulary
from qwenbox.remote import Remote, RemoteReply, RemoteRequest, Timeouts
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.embedding import EmbeddingRequest
from qwenbox.terms.engine import Capacity, EngineFacts, Events, Health, HealthState, Token
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent
from qwenbox.terms.image import SERVICE_INPUT, SERVICE_PARAMETERS, ImageRequest
from qwenbox.terms.model import Capability
from qwenbox.terms.rerank import RerankRequest

HEALTH_TIMEOUTS = Timeouts(connect_s=2.0, first_byte_s=5.0, between_bytes_s=5.0)
Asked: TypeAlias = ChatRequest | CompletionRequest | EmbeddingRequest | RerankRequest | ImageRequest
BASIC = frozenset({Capability.CHAT, Capability.COMPLETION})
FlavourName: TypeAlias = Literal["", "vllm", "sglang", "ollama", "llama-server", "openai"]


class OpenAiServerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="openai_server"):
    """One model of one server.

    flavour: what runs there, for what it takes and tells (engines/flavours.py); "" speaks as Model Studio does.
    address: its base URL, /v1 included. model: its own name of the model; "" sends the name the caller wrote.
    key_env, key_file: where its key is found, read once at the start; without either, it wants none.
    weights: what the models list says about who answers; "" means the server's own name of the model.
    context_tokens: the server's limit; None takes what it tells itself, as do capabilities left empty. quirks: in place of the flavour's.
    tokenizer: weights in the catalog with the model's own vocabulary, to count with where
    the server tells no usage; "" takes any Qwen vocabulary that is on this machine. Neither is ever fetched for it.
    """

    flavour: FlavourName = ""
    address: str
    model: str = ""
    key_env: str = ""
    key_file: str = ""
    weights: str = ""
    tokenizer: str = ""
    context_tokens: int | None = None
    capabilities: frozenset[Capability] = frozenset()
    timeouts: Timeouts = Timeouts()
    quirks: Quirks | None = None

    def __post_init__(self) -> None:
        if urlsplit(self.address).scheme not in ("http", "https"):
            raise ValueError("address must be a base URL such as http://127.0.0.1:8080/v1")
        if self.key_env and self.key_file:
            raise ValueError("key_env and key_file are two places for one key: name one of them")


class OpenAiServer:
    """A ChatEngine, Completer, Embedder, Reranker and TextCounter. It admits everything: queueing is the server's own business."""

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
        self._flavour = FLAVOURS[config.flavour]
        self._quirks = self._flavour.quirks if config.quirks is None else config.quirks
        self._missing = ""
        try:
            key = find_key(config.key_env, config.key_file, environment)
        except (OSError, KeyError, ValueError):
            key = None
            self._missing = f"its key is not in {f'the variable {config.key_env}' if config.key_env else f'the file {config.key_file}'}"
        self._headers = speak.headers(key.reveal() if key else None)
        self._facts = EngineFacts(
            kind="openai_server",
            is_upstream=True,
            weights=config.weights or config.model or "whatever its server has",
            context_tokens=config.context_tokens,
            identity=f"{self._address} {config.model} {config.weights}",
            capabilities=config.capabilities or BASIC,
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
        try:
            alive = await self._look("GET", self._root + self._flavour.alive_path) if self._flavour.alive_path else None
            listed = alive if alive and alive.status >= 500 else await self._look("GET", f"{self._address}/models")
            found = _state(alive or listed, listed)
            if found.state is HealthState.READY:
                await self._learn(listed)
        except ApiError as error:
            return Health(state=HealthState.DOWN, detail=error.message)
        return found

    def chat(self, request: ChatRequest) -> Events:
        """Streamed, whatever the caller wants. Usage is the server's; counted from its deltas when it sends none."""
        check(request, self._quirks)
        body = speak.chat(request, self._config.model or request.model)
        return self._ask("/chat/completions", bend(body, request, self._quirks), request)

    def complete(self, request: CompletionRequest) -> Events:
        body = speak.completion(request, self._config.model or request.model)
        return self._ask("/completions", bend(body, request, self._quirks), request)

    def embed(self, request: EmbeddingRequest) -> Events:
        body = embeddings.speak(request, self._config.model or request.model)
        return self._ask("/embeddings", body, request, _whole(lambda heard: embeddings.hear(heard, request)))

    def make(self, request: ImageRequest) -> Events:
        """Where its server has `/images/generations`. Raises ApiError(INVALID_REQUEST) for what that wire has no word for."""
        is_foreign = self._config.flavour != ""
        for is_there, what in (
            (bool(request.images), "pictures to draw from"),
            (bool(request.style), "style: say it in the prompt"),
            (SERVICE_INPUT in request.extensions or SERVICE_PARAMETERS in request.extensions, "fields that only the service's models know"),
            (request.has_watermark and is_foreign, "watermark"),
        ):
            if is_there:
                raise ApiError(ErrorKind.INVALID_REQUEST, f"The model {request.model} does not understand {what}.", param="input")
        body = images.speak(request, self._config.model or request.model)
        return self._ask("/images/generations", body, request, _whole(lambda heard: images.hear(heard, request)))

    def rerank(self, request: RerankRequest) -> Events:
        """Where its server has `/rerank`: vLLM, SGLang, llama-server, a second qwenbox."""
        body = rerank.speak(request, self._config.model or request.model)
        return self._ask("/rerank", body, request, _whole(lambda heard: rerank.hear(heard, request)))

    async def split_texts(self, texts: Sequence[str]) -> list[Token] | None:
        return None if self._vocabulary is None else await self._vocabulary.split_texts(texts)

    @property
    def _root(self) -> str:
        return self._address.removesuffix("/v1")

    async def _look(self, method: str, url: str, body: bytes = b"") -> RemoteReply:
        headers = {**self._headers, "accept": "application/json"}
        return await self._remote.call(RemoteRequest(method=method, url=url, headers=headers, body=body, timeouts=HEALTH_TIMEOUTS))

    async def _learn(self, listed: RemoteReply) -> None:
        """What the server tells of its model goes into the facts, where the config does not say."""
        name = self._config.model
        match self._flavour.told:
            case Told.MODELS:
                heard = told.models(listed.body, name)
            case Told.PROPS:
                heard = told.props((await self._look("GET", f"{self._root}/props")).body)
            case Told.SHOW:
                shown = await self._look("POST", f"{self._root}/api/show", msgspec.json.encode({"model": name}))
                heard = told.show(shown.body)
        self._facts = msgspec.structs.replace(
            self._facts,
            context_tokens=self._config.context_tokens or heard.context_tokens,
            capabilities=self._config.capabilities or heard.capabilities or BASIC,
        )

    def _ask(self, path: str, body: bytes, asked: Asked, language: Language | None = None) -> Events:
        if self._missing:
            # As `cloud` does: another attempt would miss it too, another deployment may not.
            raise ApiError(ErrorKind.UNAUTHENTICATED, "The model's server cannot be used: its key is not set on this box.")
        timeouts = self._config.timeouts.within(asked.extensions)
        request = RemoteRequest(method="POST", url=self._address + path, body=body, headers=self._headers, timeouts=timeouts)
        return UpstreamAnswer(self._remote, request, language or LANGUAGE)


def _failure(status: int, body: bytes, headers: Mapping[str, str]) -> ApiError:
    """As the dialect says. A model or path that is not there is the box's mistake: asking for it again would not find it."""
    error = speak.failure(status, body, headers)
    return ApiError(ErrorKind.FORBIDDEN, error.message) if status == 404 and error.kind is ErrorKind.ENGINE_FAILED else error


def _whole(hear: Callable[[bytes], list[ChatEvent]]) -> Language:
    return Language(listen=lambda: WholeListener(hear), failure=_failure)


LANGUAGE = Language(listen=speak.Listener, failure=_failure)


def _state(alive: RemoteReply, listed: RemoteReply) -> Health:
    if listed.status in (401, 403):
        return Health(state=HealthState.DOWN, detail=f"The model's server refuses the key (status {listed.status}): check key_env.")
    if alive.status == 503 and b"oading" in alive.body:
        return Health(state=HealthState.STARTING, detail="The model's server is loading its weights.")
    if alive.status >= 500 or listed.status >= 500:
        status = alive.status if alive.status >= 500 else listed.status
        return Health(state=HealthState.DOWN, detail=f"The model's server answers with status {status}.")
    return Health(state=HealthState.READY)  # a server without a models list (404, 405) is up all the same
