"""This is where the embedded engine answers: terms in, llama.cpp in a child, events out."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import anyio
import anyio.to_thread
import msgspec

from qwenbox.engines.llamacpp.answer import Answers
from qwenbox.engines.llamacpp.config import Lane, LlamaCppConfig, LlamaParts
from qwenbox.engines.llamacpp.job import Job, Weights, job, read_prompt, read_weights, with_pictures
from qwenbox.engines.llamacpp.weights_engine import WeightsEngine
from qwenbox.engines.vocabulary import service_tokens
from qwenbox.terms.caller import SeedPolicy
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.engine import Capacity, EngineFacts, Events, Token
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent
from qwenbox.terms.model import Capability

_CAPABILITIES: Final = frozenset({Capability.CHAT, Capability.COMPLETION, Capability.TOOLS, Capability.JSON, Capability.LOGPROBS})


class LlamaCpp(WeightsEngine[Weights]):
    """ChatEngine, Completer and TokenCounter over one GGUF file.

    Calls with an exact seed have a lane where they run one at a time, so that nothing else computes along and changes a rounding.
    """

    def __init__(self, config: LlamaCppConfig, parts: LlamaParts) -> None:
        super().__init__(config, parts)
        self._settings = msgspec.json.encode(config).decode()
        self._seed_turn = anyio.Semaphore(1)
        self._answers = Answers(config, parts.remote, parts.clock, parts.title)

    @property
    def facts(self) -> EngineFacts:
        return EngineFacts(
            kind="llamacpp",
            weights=self._parts.title,
            context_tokens=self._context_tokens,
            identity=self._identity,
            keeps_seeds=self._config.seeds is SeedPolicy.EXACT,
            capabilities=_CAPABILITIES | self._extras,
        )

    @property
    def _extras(self) -> frozenset[Capability]:
        thinks = self._weights is not None and self._weights.template.supports_thinking
        sees = self._parts.locate_projector is not None
        return frozenset({Capability.THINKING} if thinks else ()) | frozenset({Capability.VISION} if sees else ())

    @property
    def _identity(self) -> str:
        """Of these weights and of how they are run: other settings of the engine may make another text."""
        weights = self._parts.identity()
        return f"{weights} {self._settings}" if weights else ""

    @property
    def capacity(self) -> Capacity:
        return Capacity(slots=self._config.slots, kv_tokens=self._config.kv_tokens, has_seed_lane=self._config.seeds is SeedPolicy.EXACT)

    async def warm(self) -> None:
        """Load the weights now instead of on the first call. Raises ApiError like `chat`."""
        weights = await self._read()
        async with self.shared.use(weights.loading):
            pass

    async def unload(self) -> bool:
        """As `Unloadable` has it."""
        return await self.exact.unload() and await self.shared.unload()

    def chat(self, request: ChatRequest) -> Events:
        return self._answer(request)

    def complete(self, request: CompletionRequest) -> Events:
        return self._answer(request)

    async def count(self, request: ChatRequest | CompletionRequest) -> int:
        return (await read_prompt(await self._read(), request)).input_tokens

    async def split_texts(self, texts: Sequence[str]) -> list[Token] | None:
        """As the service does, by the weights' own vocabulary; None where they are not here."""
        if not self.is_here:
            return None
        weights = await self._read()
        return await anyio.to_thread.run_sync(service_tokens, weights.tokenizer, texts, abandon_on_cancel=True)

    @property
    def _context_tokens(self) -> int:
        if self._weights is None:
            return self._config.context_tokens
        return min(self._config.context_tokens, self._weights.context_tokens)

    async def _read(self) -> Weights:
        async with self._reading:
            if self._weights is None:
                self._weights = await read_weights(self._parts, self._config.picture_pixels)
            return self._weights

    @asynccontextmanager
    async def _answer(self, request: ChatRequest | CompletionRequest) -> AsyncGenerator[AsyncIterator[ChatEvent]]:
        weights = await self._read()
        asked = await with_pictures(job(weights, await read_prompt(weights, request), request, self._config))
        async with self._lane(asked) as lane, self._answers.open(asked, lane) as events:
            yield events

    @asynccontextmanager
    async def _lane(self, asked: Job) -> AsyncGenerator[Lane]:
        if not asked.is_exact:
            yield self.shared
            return
        try:
            with anyio.fail_after(self._config.seed_wait_s):
                await self._seed_turn.acquire()
        except TimeoutError as error:
            text = "Calls with a seed are answered one at a time, and too many wait; try again, or leave the seed out."
            raise ApiError(ErrorKind.OVERLOADED, text, retry_after_s=self._config.seed_wait_s / 10) from error
        try:
            yield self.exact
        finally:
            self._seed_turn.release()
