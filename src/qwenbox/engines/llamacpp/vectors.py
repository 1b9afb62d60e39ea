"""This is where weights that make vectors, or order documents, answer in a child of their own: llama.cpp in its embedding mode."""

import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, NoReturn, TypeAlias

import anyio.to_thread
import msgspec

from qwenbox.dialects.openai import rerank as flat
from qwenbox.engines import gguf as gguf_file
from qwenbox.engines.gguf import Gguf
from qwenbox.engines.llamacpp import e5
from qwenbox.engines.llamacpp.config import Endpoint, LlamaCppConfig, LlamaParts, Serves
from qwenbox.engines.llamacpp.job import Loading
from qwenbox.engines.llamacpp.weights_engine import WeightsEngine
from qwenbox.remote import RemoteRequest
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.embedding import EmbeddingRequest, OutputType, TextType
from qwenbox.terms.engine import Capacity, EngineFacts, Events
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Completed, Embedded, Ranked, Started
from qwenbox.terms.model import Capability
from qwenbox.terms.rerank import RerankRequest
from qwenbox.terms.usage import Usage

Vector: TypeAlias = tuple[float, ...]

# Texts sent to the child in one piece: the vectors of documents to be ordered may be many.
_AT_ONCE: Final = 32
# Token counts kept from admission until the call is answered.
_MOST_COUNTS: Final = 4_096
_NOTICE_S: Final = 0.2
_INSTRUCT: Final = "Given a web search query, retrieve relevant passages that answer the query"


class _Tokens(msgspec.Struct, frozen=True):
    tokens: list[int]


class _Pooled(msgspec.Struct, frozen=True):
    index: int
    embedding: list[list[float]]


_tokens_decoder = msgspec.json.Decoder(_Tokens)
_pooled_decoder = msgspec.json.Decoder(list[_Pooled])


class _Weights(msgspec.Struct, frozen=True):
    """ends: the tokens that llama.cpp puts around a text: (beginning, end)."""

    gguf: Gguf
    loading: Loading
    ends: tuple[list[int], list[int]]


class LlamaVectors(WeightsEngine[_Weights]):
    """Embedder, Reranker and TextCounter over one GGUF file.

    A text longer than the weights can read at once is read in windows, and its vector is their mean, each with the weight of its tokens;
    for weights that pool by the mean only.
    """

    def __init__(self, config: LlamaCppConfig, parts: LlamaParts) -> None:
        super().__init__(config, parts)
        self._counts: dict[tuple[int, int], int] = {}

    @property
    def facts(self) -> EngineFacts:
        return EngineFacts(
            kind="llamacpp",
            weights=self._parts.title,
            context_tokens=self._window_tokens if self._weights else None,
            identity=self._parts.identity(),
            capabilities=frozenset({Capability.RERANK} if self._is_judge else {Capability.EMBEDDING, Capability.RERANK}),
        )

    @property
    def capacity(self) -> Capacity:
        return Capacity(slots=self._config.slots)

    @property
    def has_own_vocabulary(self) -> bool:
        return True

    async def warm(self) -> None:
        """Load the weights now instead of on the first call. Raises ApiError like `embed`."""
        weights = await self._read()
        async with self.shared.use(weights.loading):
            pass

    async def unload(self) -> bool:
        """As `Unloadable` has it."""
        return await self.shared.unload()

    def chat(self, request: ChatRequest) -> Events:
        self._refuse(request.model)

    def complete(self, request: CompletionRequest) -> Events:
        self._refuse(request.model)

    @asynccontextmanager
    async def embed(self, request: EmbeddingRequest) -> AsyncGenerator[AsyncIterator[ChatEvent]]:
        if self._is_judge:
            self._refuse(request.model)
        if request.output_type is not OutputType.DENSE:
            raise ApiError(ErrorKind.INVALID_REQUEST, f"The model {request.model} makes no sparse vectors here.", param="output_type")
        weights = await self._read()
        async with self.shared.use(weights.loading) as endpoint:
            own = len((await self._vectors(weights, endpoint, [" "]))[0]) if request.dimensions is not None else None
            if own is not None and request.dimensions != own:
                text = f"The dimension {request.dimensions} is not one of {request.model}'s weights here, which have {own}."
                raise ApiError(ErrorKind.INVALID_REQUEST, text, param="dimensions")
            form = self._form(request.text_type, request.instruct)
            texts = [form.replace("{text}", text) for text in request.texts]
            tokens = sum(await self._count(endpoint, request.texts))
            found = await self._vectors(weights, endpoint, texts)
            made: list[ChatEvent] = [Embedded(index=index, vector=vector) for index, vector in enumerate(found)]
            yield _played(tokens, made)

    @asynccontextmanager
    async def rerank(self, request: RerankRequest) -> AsyncGenerator[AsyncIterator[ChatEvent]]:
        weights = await self._read()
        async with self.shared.use(weights.loading) as endpoint:
            tokens = sum(await self._count(endpoint, (request.query, *request.documents)))
            if self._is_judge:
                body = flat.speak(msgspec.structs.replace(request, instruct=None), request.model)
                judged = flat.hear(await self._post(endpoint, "/rerank", body), request)
                yield _played(tokens, [event for event in judged if isinstance(event, Ranked)])
                return
            query = self._form(TextType.QUERY, request.instruct).replace("{text}", request.query)
            document = self._form(TextType.DOCUMENT, None)
            asked, *found = await self._vectors(
                weights, endpoint, [query, *(document.replace("{text}", text) for text in request.documents)]
            )
            scores = [min(max(sum(a * b for a, b in zip(asked, one, strict=True)), 0.0), 1.0) for one in found]
            best = sorted(enumerate(scores), key=lambda pair: (-pair[1], pair[0]))[: request.top_n]
            yield _played(tokens, [Ranked(index=index, score=score) for index, score in best])

    async def count_texts(self, texts: Sequence[str], *, has_controls: bool = False) -> list[int] | None:
        """By the child, which it loads: what is put around a text is not counted."""
        weights = await self._read()
        async with self.shared.use(weights.loading) as endpoint:
            return await self._count(endpoint, texts)

    @property
    def _is_judge(self) -> bool:
        return self._config.serves is Serves.RERANK

    @property
    def _window_tokens(self) -> int:
        own = self._weights.gguf.context_tokens if self._weights else self._config.context_tokens
        return min(self._config.context_tokens, own)

    def _refuse(self, model: str) -> NoReturn:
        raise ApiError(ErrorKind.WRONG_ENDPOINT, param=model)

    def _form(self, kind: TextType, instruct: str | None) -> str:
        """What the weights read around a text; "{text}" stands for it."""
        if kind is TextType.DOCUMENT:
            return self._config.document_form
        return self._config.query_form.replace("{instruct}", instruct or _INSTRUCT)

    async def _read(self) -> _Weights:
        async with self._reading:
            if self._weights is None:
                path = await self._parts.locate()
                if await anyio.to_thread.run_sync(e5.is_e5, path):
                    path = await anyio.to_thread.run_sync(e5.converted, path)
                gguf = await anyio.to_thread.run_sync(gguf_file.read, path)
                loading = Loading(path=str(path), size_bytes=gguf.size_bytes, kv_bytes_per_token=gguf.kv_bytes_per_token)
                async with self.shared.use(loading) as endpoint:
                    marks = await self._tokenize(endpoint, "", is_whole=True)
                middle = 1 if marks[:1] == [gguf.bos_id] else 0
                self._weights = _Weights(gguf, loading, (marks[:middle], marks[middle:]))
            return self._weights

    async def _count(self, endpoint: Endpoint, texts: Sequence[str]) -> list[int]:
        found: list[int] = []
        for text in texts:
            key = (hash(text), len(text))
            if key not in self._counts:
                if len(self._counts) >= _MOST_COUNTS:
                    self._counts.clear()
                self._counts[key] = len(await self._tokenize(endpoint, text)) if text else 0
            found.append(self._counts[key])
        return found

    async def _vectors(self, weights: _Weights, endpoint: Endpoint, texts: Sequence[str]) -> list[Vector]:
        """Of length 1, one for each text. Raises ApiError(CONTEXT_TOO_LONG) for one that cannot be read in windows."""
        whole: list[str | list[int]] = []
        owners: list[int] = []
        for index, text in enumerate(texts):
            windows = await self._windows(weights, endpoint, self._normalised(weights, text))
            whole += windows
            owners += [index] * len(windows)
        pooled: list[list[float]] = []
        for start in range(0, len(whole), _AT_ONCE):
            pooled += await self._pooled(endpoint, whole[start : start + _AT_ONCE])
        found: list[list[tuple[float, list[float]]]] = [[] for _ in texts]
        for owner, window, vector in zip(owners, whole, pooled, strict=True):
            found[owner].append((float(len(window)), vector))
        return [_mean(parts) for parts in found]

    async def _windows(self, weights: _Weights, endpoint: Endpoint, text: str) -> list[str | list[int]]:
        """The text itself where it fits: no token is shorter than a byte."""
        head, tail = weights.ends
        room = self._window_tokens - len(head) - len(tail)
        if len(text.encode("utf-8", "replace")) <= room:
            return [text]
        ids = await self._tokenize(endpoint, text, is_ready=True)
        if len(ids) <= room:
            return [text]
        if weights.gguf.architecture != "bert":
            raise ApiError(ErrorKind.CONTEXT_TOO_LONG, f"Range of input length should be [1, {room}]", param="input")
        return [[*head, *ids[start : start + room], *tail] for start in range(0, len(ids), room)]

    def _normalised(self, weights: _Weights, text: str) -> str:
        return e5.normalised(text) if weights.gguf.tokenizer == "t5" else text

    async def _tokenize(self, endpoint: Endpoint, text: str, *, is_whole: bool = False, is_ready: bool = False) -> list[int]:
        """is_whole: with what llama.cpp puts around it. is_ready: it is normalised already."""
        if self._weights is not None and not is_ready:
            text = self._normalised(self._weights, text)
        body = msgspec.json.encode({"content": text, "add_special": is_whole, "parse_special": False})
        return _tokens_decoder.decode(await self._post(endpoint, "/tokenize", body)).tokens

    async def _pooled(self, endpoint: Endpoint, texts: Sequence[str | list[int]]) -> list[list[float]]:
        body = msgspec.json.encode({"content": texts, "embd_normalize": 2})
        found = sorted(_pooled_decoder.decode(await self._post(endpoint, "/embedding", body)), key=lambda one: one.index)
        if len(found) != len(texts) or any(len(one.embedding) != 1 for one in found):
            raise ApiError(ErrorKind.ENGINE_FAILED, "The engine did not send one vector for each text.")
        return [one.embedding[0] for one in found]

    async def _post(self, endpoint: Endpoint, path: str, body: bytes) -> bytes:
        """Raises ApiError. A child that has just died is asked once more, by way of the one that follows it."""
        try:
            return await self._once(endpoint, path, body)
        except ApiError as error:
            if error.kind not in (ErrorKind.OVERLOADED, ErrorKind.ENGINE_FAILED) or self._weights is None:
                raise
            await self._parts.clock.sleep(_NOTICE_S)
            again = await self.shared.endpoint(self._weights.loading)
            if again == endpoint:
                raise
            return await self._once(again, path, body)

    async def _once(self, endpoint: Endpoint, path: str, body: bytes) -> bytes:
        request = RemoteRequest(
            method="POST",
            url=f"{endpoint.address}{path}",
            body=body,
            headers={"authorization": f"Bearer {endpoint.key.reveal()}", "content-type": "application/json"},
            timeouts=self._config.timeouts,
            peer=f"The engine of {self._parts.title}",
        )
        reply = await self._parts.remote.call(request)
        if reply.status != 200:
            raise ApiError(ErrorKind.ENGINE_FAILED, f"The engine of {self._parts.title} refused the texts (status {reply.status}).")
        return reply.body


def _mean(parts: list[tuple[float, list[float]]]) -> Vector:
    """Of windows with their weights; its length is 1."""
    if len(parts) == 1:
        return tuple(parts[0][1])
    total = [sum(weight * vector[at] for weight, vector in parts) for at in range(len(parts[0][1]))]
    length = math.sqrt(sum(value * value for value in total)) or 1.0
    return tuple(value / length for value in total)


async def _played(input_tokens: int, made: Sequence[ChatEvent]) -> AsyncGenerator[ChatEvent]:
    yield Started(input_tokens=input_tokens)
    for event in made:
        yield event
    yield Completed(usage=Usage(input_tokens=input_tokens, output_tokens=0))
