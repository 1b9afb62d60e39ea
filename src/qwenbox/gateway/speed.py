"""This is where a model's speed is measured: how soon it begins to answer, how fast it reads and writes."""

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

import anyio
import msgspec

from qwenbox.clock import Clock
from qwenbox.gateway.catalog import Catalog, Model, complete_chat, fit
from qwenbox.gateway.router import Party, Router
from qwenbox.gateway.settings import Settings
from qwenbox.terms.caller import Caller, Compat
from qwenbox.terms.chat import ChatRequest, Message, Role, TextPart
from qwenbox.terms.engine import HealthState
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Completed, ReasoningDelta, TextDelta

OUTPUT_TOKENS = 64
_PREFIX = "speed/"
# Long enough that reading it can be told from everything else before the first token, also on a fast machine.
_LINE = "{}. The library has a room for maps, a room for letters and a room in which nobody may speak."
_LINES = 24
_TASK = "Write a Python function that sorts a list, and explain every line of it."
# Nobody's: what is measured is in no one's books.
_NOBODY = Caller(account_id="", key_id="")

Ask: TypeAlias = Callable[[ChatRequest], AbstractAsyncContextManager[AsyncIterator[ChatEvent]]]


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement. at: seconds since the epoch. deployment: which of the model's it was, "" where nobody told.

    prefill_tokens_s: prompt tokens read until the first one was written; decode_tokens_s: tokens written after that. None: too few to say.
    """

    at: float
    ttft_s: float
    input_tokens: int
    output_tokens: int
    prefill_tokens_s: float | None
    decode_tokens_s: float | None
    deployment: str = ""


async def measure(ask: Ask, model: str, clock: Clock, output_tokens: int = OUTPUT_TOKENS, lines: int = _LINES) -> Speed:
    """Let `model` read some hundred tokens that it never read before, and write a few. Raises what asking raises.

    lines: of a sentence each.
    """
    # New from its first word on: an engine reuses what it has read before.
    notes = [f"Notes {secrets.token_hex(4)}.", *(_LINE.format(number) for number in range(1, lines + 1)), _TASK]
    message = Message(role=Role.USER, content=(TextPart(text="\n".join(notes)),))
    began_s, first_s, usage = clock.monotonic(), 0.0, None
    async with ask(ChatRequest(model=model, messages=(message,), max_output_tokens=output_tokens)) as events:
        async for event in events:
            if isinstance(event, TextDelta | ReasoningDelta):
                first_s = first_s or clock.monotonic()
            elif isinstance(event, Completed):
                usage = event.usage
    ended_s = clock.monotonic()
    first_s = first_s or ended_s
    read = usage.input_tokens - (usage.cached_tokens or 0) if usage else 0
    written = usage.output_tokens if usage else 0
    return Speed(
        at=clock.now(),
        ttft_s=first_s - began_s,
        input_tokens=usage.input_tokens if usage else 0,
        output_tokens=written,
        prefill_tokens_s=_rate(read, first_s - began_s),
        decode_tokens_s=_rate(written - 1, ended_s - first_s),
    )


def _rate(tokens: int, time_s: float) -> float | None:
    return tokens / time_s if tokens > 0 and time_s > 0 else None


class Speeds:
    """Measures the models of a running box, past limits and books, and remembers the last of each for all processes."""

    def __init__(self, catalog: Catalog, router: Router, settings: Settings, clock: Clock) -> None:
        self._catalog = catalog
        self._router = router
        self._settings = settings
        self._clock = clock
        self._turn = anyio.Lock()

    async def last(self) -> dict[str, Speed]:
        """By model."""
        found = await self._settings.beginning(_PREFIX)
        return {name.removeprefix(_PREFIX): msgspec.json.decode(value, type=Speed) for name, value in found.items()}

    async def measure(self, name: str) -> Speed:
        """Of the model of that name or alias; one whose weights are not loaded is loaded first, which does not count.

        Raises ApiError: MODEL_NOT_FOUND, INVALID_REQUEST for a model that writes no text, CONFLICT while another one is measured, and as
        a call does.
        """
        known = self._catalog.find(name)
        if known is None:
            raise ApiError(ErrorKind.MODEL_NOT_FOUND, param=name)
        if not known.entry.card.is_text:
            raise ApiError(ErrorKind.INVALID_REQUEST, f"The model {known.entry.name} writes no text; only what writes can be measured.")
        try:
            self._turn.acquire_nowait()
        except anyio.WouldBlock:
            text = "Another measurement is running; two at a time would each measure the other."
            raise ApiError(ErrorKind.CONFLICT, text) from None
        try:
            return await self._measured(self._catalog.resolve(name, _NOBODY))
        finally:
            self._turn.release()

    async def _measured(self, model: Model) -> Speed:
        deployment = ""

        @asynccontextmanager
        async def ask(request: ChatRequest) -> AsyncGenerator[AsyncIterator[ChatEvent]]:
            nonlocal deployment
            request = complete_chat(request, model.entry.card, _NOBODY, Compat.DOCUMENTED)
            prompt = await self._router.count(model, request)
            request = msgspec.structs.replace(request, max_output_tokens=fit(request, prompt.input_tokens, model.entry.card))
            async with self._router.open(model, request, prompt, Party(account_id="")) as answer:
                deployment = answer.deployment
                yield answer.events

        # At worst a letter is a token.
        lines = min(_LINES, model.entry.card.input_limit_tokens // 128)
        if (await model.deployments[0].engine.health()).state is not HealthState.READY:
            await measure(ask, model.entry.name, self._clock, 1, 0)
        speed = msgspec.structs.replace(await measure(ask, model.entry.name, self._clock, lines=lines), deployment=deployment)
        await self._settings.put(_PREFIX + model.entry.name, msgspec.json.encode(speed).decode())
        return speed
