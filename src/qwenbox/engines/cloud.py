"""This is where the real Qwen service, Alibaba's Model Studio, becomes an engine: by its native protocol or by its compatible one."""

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from types import TracebackType
from typing import TypeVar
from urllib.parse import urlsplit

import anyio
import msgspec

from qwenbox.dialects.dashscope import embeddings, refusals, rerank
from qwenbox.dialects.dashscope import speak as native
from qwenbox.dialects.openai import speak as compatible
from qwenbox.engines import drawn
from qwenbox.engines.upstream import Language, UpstreamAnswer, WholeListener, find_key
from qwenbox.engines.vocabulary import Vocabulary
from qwenbox.remote import Remote, RemoteRequest, Timeouts
from qwenbox.terms.chat import ChatRequest, Sampling
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.embedding import EmbeddingRequest
from qwenbox.terms.engine import Capacity, EngineFacts, Events, Health, HealthState, Token
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent
from qwenbox.terms.image import ImageRequest
from qwenbox.terms.model import Capability
from qwenbox.terms.rerank import RerankRequest

NATIVE_BASE = "/api/v1"
COMPATIBLE_BASE = "/compatible-mode/v1"
KEYS_PAGE = "https://bailian.console.aliyun.com/?tab=model#/api-key"
PEER = "Model Studio"

# Whoever asks how the service is gets the last answer for this long: a probe every second is no call every second.
HEALTH_HELD_S = 30.0
TROUBLE_HELD_S = 3.0
HEALTH_TIMEOUTS = Timeouts(connect_s=3.0, first_byte_s=5.0, between_bytes_s=5.0)

_CAPABILITIES = frozenset(Capability)

Asked = TypeVar("Asked", ChatRequest, CompletionRequest)


class Protocol(StrEnum):
    NATIVE = "native"
    OPENAI = "openai"


class Region(StrEnum):
    """Wire reference 1.1. A key is good in its own region only."""

    BEIJING = "cn-beijing"
    SINGAPORE = "ap-southeast-1"
    VIRGINIA = "us-east-1"
    FRANKFURT = "eu-central-1"
    TOKYO = "ap-northeast-1"
    HONGKONG = "cn-hongkong"


_PUBLIC_HOSTS: Mapping[Region, str] = {
    Region.BEIJING: "dashscope.aliyuncs.com",
    Region.SINGAPORE: "dashscope-intl.aliyuncs.com",
    Region.VIRGINIA: "dashscope-us.aliyuncs.com",
    Region.HONGKONG: "cn-hongkong.dashscope.aliyuncs.com",
}


class CloudConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="cloud"):
    """An account at Model Studio; one table serves every model.

    protocol: `native` streams tell usage with every frame. region, workspace: which host; address: in place of both, e.g. a proxy's root.
    key_env, key_file: where the key is found, read once at the start; key_file counts if both are named.
    model: the service's name of the model; "" sends the name the caller wrote.
    sends_defaults: also say what the caller left unsaid, as the catalog has it; else the service's own defaults hold, as in a direct call.
    multimodal: beginnings of names whose calls go to the multimodal path though they hold no picture (wire reference 2); the other path
    is tried when the service says it was the wrong one.
    tokenizer: as in `openai_server`.
    """

    protocol: Protocol = Protocol.NATIVE
    region: Region = Region.BEIJING
    workspace: str = ""
    address: str = ""
    key_env: str = "DASHSCOPE_API_KEY"
    key_file: str = ""
    model: str = ""
    sends_defaults: bool = False
    multimodal: tuple[str, ...] = (
        "qwen-vl",
        "qwen2-vl",
        "qwen2.5-vl",
        "qwen3-vl",
        "qvq",
        "qwen3.5-",
        "qwen3.6-",
        "qwen3.7-plus",
        "qwen3.8-",
    )
    tokenizer: str = ""
    timeouts: Timeouts = Timeouts()

    def __post_init__(self) -> None:
        if self.address and urlsplit(self.address).scheme not in ("http", "https"):
            raise ValueError("address must be the root of a host such as https://dashscope.aliyuncs.com")
        if self.workspace and not (self.workspace.isascii() and self.workspace.replace("-", "").replace("_", "").isalnum()):
            raise ValueError("workspace must be an id such as ws-1a2b3c: letters, digits, - and _")
        if not self.address and not self.workspace and self.region not in _PUBLIC_HOSTS:
            raise ValueError(f"region {self.region.value} has hosts for workspaces only: set workspace")

    @property
    def root(self) -> str:
        """Scheme and host, and a path where the address has one; without the protocols' prefixes."""
        if self.address:
            return self.address.rstrip("/").removesuffix(NATIVE_BASE).removesuffix(COMPATIBLE_BASE)
        if self.workspace:
            return f"https://{self.workspace}.{self.region.value}.maas.aliyuncs.com"
        return f"https://{_PUBLIC_HOSTS[self.region]}"


class Cloud:
    """A ChatEngine, Completer, Embedder, Reranker and TextCounter. It admits everything: the service has limits of its own."""

    def __init__(
        self,
        config: CloudConfig,
        remote: Remote,
        environment: Mapping[str, str] = os.environ,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        """Nothing is reached yet. A key that is not where it should be makes the engine unhealthy, not the start fail."""
        self._config = config
        self._remote = remote
        self._vocabulary = vocabulary
        self._missing = ""
        try:
            key = find_key(config.key_env, config.key_file, environment)
        except (OSError, KeyError, ValueError):
            key = None
            where = f"put it into the file {config.key_file}" if config.key_file else f"set {config.key_env}"
            self._missing = f"this box has no API key for it: {where} and start the box again (keys: {KEYS_PAGE})."
        secret = key.reveal() if key else None
        workspace = {"x-dashscope-workspace": config.workspace} if config.workspace else {}
        self._native_headers = native.headers(secret, config.workspace)
        self._compatible_headers = {**compatible.headers(secret), **workspace}
        self._swapped: set[str] = set()
        self._health = Health(state=HealthState.DOWN)
        self._health_until = 0.0
        self._looking = anyio.Lock()

    @property
    def facts(self) -> EngineFacts:
        place = urlsplit(self._config.root).hostname if self._config.address else self._config.workspace or self._config.region.value
        return EngineFacts(
            kind="cloud",
            is_upstream=True,
            weights=f"{self._config.model or 'Model Studio'} ({place})",
            identity=f"{self._config.root} {self._config.protocol} {self._config.workspace} {self._config.model}",
            capabilities=_CAPABILITIES,
        )

    @property
    def capacity(self) -> Capacity:
        return Capacity()

    @property
    def has_own_vocabulary(self) -> bool:
        return bool(self._config.tokenizer)

    async def count_texts(self, texts: Sequence[str], *, has_controls: bool = False) -> list[int] | None:
        return None if self._vocabulary is None else await self._vocabulary.count_texts(texts, has_controls=has_controls)

    async def health(self) -> Health:
        """What the service last said of itself, asked anew every half minute at most."""
        if self._missing:
            return Health(state=HealthState.DOWN, detail=f"{PEER} cannot be asked: {self._missing}")
        async with self._looking:
            if anyio.current_time() >= self._health_until:
                self._health = await self._look()
                self._health_until = anyio.current_time() + (HEALTH_HELD_S if self._health.state is HealthState.READY else TROUBLE_HELD_S)
            return self._health

    def chat(self, request: ChatRequest) -> Events:
        """Streamed, whatever the caller wants.

        Raises ApiError as the service refuses (dialects/dashscope/refusals.py).
        """
        self._require_key()
        name = self._config.model or request.model
        asked = request if self._config.sends_defaults else _as_said(request)
        if self._config.protocol is Protocol.OPENAI:
            return self._compatibly("/chat/completions", compatible.chat(asked, name, is_model_studio=True), asked)
        has_pictures = native.has_pictures(request)
        is_multimodal = has_pictures or name.startswith(self._config.multimodal) != (name in self._swapped)
        return _Native(partial(self._natively, asked, name), is_multimodal, partial(self._swap, name, has_pictures=has_pictures))

    def complete(self, request: CompletionRequest) -> Events:
        """By the compatible protocol: the native one has no raw prompts."""
        self._require_key()
        asked = request if self._config.sends_defaults else _as_said(request)
        return self._compatibly("/completions", compatible.completion(asked, self._config.model or request.model), asked)

    def embed(self, request: EmbeddingRequest) -> Events:
        """Natively: the compatible protocol has no sparse vectors and no kinds of texts."""
        self._require_key()
        body = embeddings.speak(request, self._config.model or request.model)
        return self._whole(
            "/services/embeddings/text-embedding/text-embedding", body, request, lambda heard: embeddings.hear(heard, request)
        )

    def make(self, request: ImageRequest) -> Events:
        """Natively, as a task where the model wants one (drawn.py)."""
        self._require_key()
        headers = {name: value for name, value in self._native_headers.items() if name != "x-dashscope-sse"}
        service = drawn.Service(
            remote=self._remote,
            base=self._config.root + NATIVE_BASE,
            headers={**headers, "accept": "application/json"},
            timeouts=self._config.timeouts.within(request.extensions),
            failure=self._native_failure,
            peer=PEER,
        )
        return drawn.draw(service, request, self._config.model or request.model)

    def rerank(self, request: RerankRequest) -> Events:
        self._require_key()
        body = rerank.speak(request, self._config.model or request.model)
        return self._whole("/services/rerank/text-rerank/text-rerank", body, request, lambda heard: rerank.hear(heard, request))

    async def split_texts(self, texts: Sequence[str]) -> list[Token] | None:
        return None if self._vocabulary is None else await self._vocabulary.split_texts(texts)

    def _require_key(self) -> None:
        if self._missing:
            raise ApiError(ErrorKind.UNAUTHENTICATED, f"{PEER} cannot be asked: {self._missing}")

    def _natively(self, request: ChatRequest, name: str, is_multimodal: bool) -> UpstreamAnswer:
        is_stored = any(picture.address.startswith("oss://") for picture in request.pictures)
        sent = RemoteRequest(
            method="POST",
            url=self._config.root + NATIVE_BASE + native.path(request, is_multimodal=is_multimodal),
            body=native.chat(request, name, is_multimodal=is_multimodal),
            headers={**self._native_headers, "x-dashscope-ossresourceresolve": "enable"} if is_stored else self._native_headers,
            timeouts=self._config.timeouts.within(request.extensions),
            peer=PEER,
        )
        return UpstreamAnswer(self._remote, sent, Language(listen=partial(native.Listener, request.n), failure=self._native_failure))

    def _compatibly(self, path: str, body: bytes, asked: ChatRequest | CompletionRequest) -> UpstreamAnswer:
        sent = RemoteRequest(
            method="POST",
            url=self._config.root + COMPATIBLE_BASE + path,
            body=body,
            headers=self._compatible_headers,
            timeouts=self._config.timeouts.within(asked.extensions),
            peer=PEER,
        )
        return UpstreamAnswer(self._remote, sent, Language(listen=compatible.Listener, failure=self._compatible_failure))

    def _whole(
        self, path: str, body: bytes, asked: EmbeddingRequest | RerankRequest, hear: Callable[[bytes], list[ChatEvent]]
    ) -> UpstreamAnswer:
        headers = {name: value for name, value in self._native_headers.items() if name != "x-dashscope-sse"}
        sent = RemoteRequest(
            method="POST",
            url=self._config.root + NATIVE_BASE + path,
            body=body,
            headers={**headers, "accept": "application/json"},
            timeouts=self._config.timeouts.within(asked.extensions),
            peer=PEER,
        )
        return UpstreamAnswer(self._remote, sent, Language(listen=lambda: WholeListener(hear), failure=self._native_failure))

    def _native_failure(self, status: int, body: bytes, headers: Mapping[str, str]) -> ApiError:
        return self._judged(refusals.failure(status, body, headers))

    def _compatible_failure(self, status: int, body: bytes, headers: Mapping[str, str]) -> ApiError:
        return self._judged(compatible.failure(status, body, headers, is_model_studio=True))

    def _judged(self, error: ApiError) -> ApiError:
        """A model the config names is the box's mistake, one the caller named is the caller's."""
        if error.kind is ErrorKind.MODEL_NOT_FOUND and self._config.model:
            # Asking for it again would not find it: the next deployment is asked at once, and the caller hears of the engine only.
            return ApiError(ErrorKind.FORBIDDEN, f"{PEER} does not know the model that this box's configuration names.")
        return error

    def _swap(self, name: str, *, has_pictures: bool) -> None:
        """Calls of this model belong on the other path, but for those with pictures, which have only one."""
        if not has_pictures:
            self._swapped ^= {name}

    async def _look(self) -> Health:
        url = f"{self._config.root}{NATIVE_BASE}/models?page_no=1&page_size=1"
        headers = {**self._native_headers, "accept": "application/json"}
        del headers["x-dashscope-sse"]
        try:
            reply = await self._remote.call(RemoteRequest(method="GET", url=url, headers=headers, timeouts=HEALTH_TIMEOUTS, peer=PEER))
        except ApiError as error:
            return Health(state=HealthState.DOWN, detail=error.message)
        if reply.status in (401, 403):
            where = self._config.key_file or self._config.key_env
            detail = f"{PEER} refuses this box's key: check {where}; a key is good in its own region only (this is {self._config.root})."
            return Health(state=HealthState.DOWN, detail=detail)
        if reply.status >= 500:
            return Health(state=HealthState.DOWN, detail=f"{PEER} answers with status {reply.status}.")
        return Health(state=HealthState.READY)


class _Native:
    """A native call: on one path, and on the other when the service says that this model lives there (nothing was generated yet)."""

    __slots__ = ("_answer", "_is_multimodal", "_open", "_swap")

    def __init__(self, opener: Callable[[bool], UpstreamAnswer], is_multimodal: bool, swap: Callable[[], None]) -> None:
        self._open = opener
        self._is_multimodal = is_multimodal
        self._swap = swap

    async def __aenter__(self) -> AsyncIterator[ChatEvent]:
        self._answer = self._open(self._is_multimodal)
        try:
            return await self._answer.__aenter__()
        except ApiError as error:
            if not refusals.is_wrong_path(error):
                raise
        self._answer = self._open(not self._is_multimodal)
        events = await self._answer.__aenter__()
        self._swap()
        return events

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._answer.__aexit__(kind, error, trace)


def _as_said(request: Asked) -> Asked:
    """The request as its caller wrote it: without what the catalog put in, unless that was changed since."""
    defaults = request.defaults
    changes: dict[str, object] = {"sampling": _unfilled(request.sampling, defaults)}
    if request.max_output_tokens == defaults.get("max_output_tokens"):
        changes["max_output_tokens"] = None
    if isinstance(request, ChatRequest) and "is_enabled" in defaults:
        changes["thinking"] = msgspec.structs.replace(request.thinking, is_enabled=None)
    return msgspec.structs.replace(request, **changes)


def _unfilled(sampling: Sampling, defaults: Mapping[str, float | bool]) -> Sampling:
    return msgspec.structs.replace(sampling, **{name: None for name in sampling.__struct_fields__ if name in defaults})
