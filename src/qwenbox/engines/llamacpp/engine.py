"""This is where the embedded engine answers: terms in, llama.cpp in a child, events out."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, Self

import anyio

from qwenbox.engines.llamacpp.answer import Answers
from qwenbox.engines.llamacpp.config import LlamaCppConfig, LlamaParts
from qwenbox.engines.llamacpp.job import Job, Weights, job, prompt_ids, read_weights
from qwenbox.engines.llamacpp.lane import Lane, LaneConfig
from qwenbox.terms.caller import SeedPolicy
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.engine import Capacity, EngineFacts, Events, Health, HealthState
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent
from qwenbox.terms.model import Capability

_CAPABILITIES: Final = frozenset({Capability.CHAT, Capability.COMPLETION, Capability.TOOLS, Capability.JSON, Capability.LOGPROBS})


class LlamaCpp:
    """ChatEngine, Completer and TokenCounter over one GGUF file.

    Build it inside the event loop and enter it before the first call; leaving it ends its children.
    shared: the lane of all calls without an exact seed, many at a time. exact: the lane of those with one, one at a time, so that
    nothing else computes along and changes a rounding.
    """

    def __init__(self, config: LlamaCppConfig, parts: LlamaParts) -> None:
        self._config = config
        self._parts = parts
        self._weights: Weights | None = None
        self._reading = anyio.Lock()
        self._seed_turn = anyio.Semaphore(1)
        self._tasks = anyio.create_task_group()
        self._answers = Answers(config, parts.remote, parts.clock, parts.title)
        self.shared = Lane(_shared(config, parts.title), parts.memory, self._tasks, parts.clock)
        self.exact = Lane(_exact(config, parts.title), parts.memory, self._tasks, parts.clock)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._tasks.start_soon(self.shared.unload_when_idle)
        self._tasks.start_soon(self.exact.unload_when_idle)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with anyio.CancelScope(shield=True):
            await self.shared.close()
            await self.exact.close()
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)  # with the error it would come out wrapped in a group

    @property
    def facts(self) -> EngineFacts:
        thinks = self._weights is not None and self._weights.template.supports_thinking
        return EngineFacts(
            kind="llamacpp",
            weights=self._parts.title,
            context_tokens=self._context_tokens,
            keeps_seeds=self._config.seeds is SeedPolicy.EXACT,
            capabilities=_CAPABILITIES | {Capability.THINKING} if thinks else _CAPABILITIES,
        )

    @property
    def capacity(self) -> Capacity:
        return Capacity(slots=self._config.slots, kv_tokens=self._config.kv_tokens, has_seed_lane=self._config.seeds is SeedPolicy.EXACT)

    async def health(self) -> Health:
        if self.shared.is_ready:
            return Health(state=HealthState.READY)
        if self.shared.is_starting:
            return Health(state=HealthState.STARTING, detail="The weights are being loaded.")
        if not self._parts.is_here():
            return Health(state=HealthState.MISSING, detail=f"The weights are not here yet: qwenbox pull {self._config.weights}")
        return Health(state=HealthState.IDLE, detail="The first call loads the weights.")

    async def warm(self) -> None:
        """Load the weights now instead of on the first call. Raises ApiError like `chat`."""
        weights = await self._read()
        async with self.shared.use(weights.gguf):
            pass

    def chat(self, request: ChatRequest) -> Events:
        return self._answer(request)

    def complete(self, request: CompletionRequest) -> Events:
        return self._answer(request)

    async def count(self, request: ChatRequest | CompletionRequest) -> int:
        return len(await prompt_ids(await self._read(), request))

    @property
    def _context_tokens(self) -> int:
        if self._weights is None:
            return self._config.context_tokens
        return min(self._config.context_tokens, self._weights.context_tokens)

    async def _read(self) -> Weights:
        async with self._reading:
            if self._weights is None:
                self._weights = await read_weights(self._parts)
            return self._weights

    @asynccontextmanager
    async def _answer(self, request: ChatRequest | CompletionRequest) -> AsyncGenerator[AsyncIterator[ChatEvent]]:
        weights = await self._read()
        asked = job(weights, await prompt_ids(weights, request), request, self._config)
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


def _shared(config: LlamaCppConfig, title: str) -> LaneConfig:
    return LaneConfig(
        name=title,
        slots=config.slots,
        kv_tokens=config.kv_tokens,
        threads=config.thread_count,
        batch_tokens=config.batch_tokens,
        cache_mib=config.prompt_cache_mib,
        nice=config.nice,
        spin_count=config.spin_count,
        idle_unload_s=config.idle_unload_s,
        child=config.child,
    )


def _exact(config: LlamaCppConfig, title: str) -> LaneConfig:
    return LaneConfig(
        name=f"{title} (seeds)",
        slots=1,
        kv_tokens=config.context_tokens,
        threads=config.thread_count,
        batch_tokens=config.batch_tokens,
        cache_mib=0,
        nice=config.seed_nice,
        spin_count=config.spin_count,
        idle_unload_s=config.seed_idle_unload_s,
        child=config.child,
    )
