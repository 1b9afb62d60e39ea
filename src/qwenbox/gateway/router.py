"""This is where a deployment is found that answers: in order of preference, falling back until the first event."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

import msgspec

from qwenbox.gateway.catalog import Deployment, Model, Request, fit
from qwenbox.gateway.scheduler import SEEDS, Claim, Need, Pools, SchedulerConfig, Turns, seeds_of
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.engine import Events
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent

# What another deployment may do better; everything else is the request's own fault.
_WORTH_ANOTHER = frozenset({ErrorKind.OVERLOADED, ErrorKind.ENGINE_FAILED, ErrorKind.TIMEOUT, ErrorKind.MODEL_NOT_FOUND})


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What is known before the first event, and the events."""

    deployment: str
    events: AsyncIterator[ChatEvent]


class Router:
    """Opens a request on the first deployment that takes it; each deployment has one pool of turns."""

    def __init__(self, config: SchedulerConfig, turns: Turns | None = None) -> None:
        self._turns: Turns = turns or Pools(config)

    def waiting(self) -> int:
        """Calls that wait for a turn, over all engines."""
        return self._turns.waiting()

    @asynccontextmanager
    async def open(self, model: Model, request: Request) -> AsyncGenerator[Answer]:
        """The answer, begun. Raises the last deployment's ApiError when none answers.

        Nothing is tried again once the first event is there: the client may have seen it.
        """
        last = len(model.deployments) - 1
        for place, deployment in enumerate(model.deployments):
            is_begun = False
            try:
                async with self._open_on(deployment, model, request) as answer:
                    is_begun = True
                    yield answer
                    return
            except ApiError as error:
                if is_begun or place == last or error.kind not in _WORTH_ANOTHER:
                    raise
        raise ApiError(ErrorKind.MODEL_NOT_FOUND, param=request.model)

    @asynccontextmanager
    async def _open_on(self, deployment: Deployment, model: Model, request: Request) -> AsyncGenerator[Answer]:
        if deployment.counter is not None:
            input_tokens = await deployment.counter.count(request)
            fitting = msgspec.structs.replace(request, max_output_tokens=fit(request, input_tokens, model.entry.card))
            turn = self._turn(deployment, fitting, input_tokens)
        else:
            fitting, turn = request, nullcontext()
        async with turn, _start(deployment, fitting) as events:
            first = await anext(events)
            yield Answer(deployment=deployment.name, events=_Resumed(first, events))

    def _turn(self, deployment: Deployment, request: Request, input_tokens: int) -> AbstractAsyncContextManager[None]:
        capacity = deployment.capacity
        if capacity.slots is None and capacity.kv_tokens is None:
            return nullcontext()
        need = Need(slots=request.n, kv_tokens=request.n * (input_tokens + (request.max_output_tokens or 0)))
        claim = Claim(account_id="", need=need)
        if capacity.has_seed_lane and request.sampling.seed is not None and "qwenbox.seeds" not in request.extensions:
            return self._turns.turn(seeds_of(deployment.name), SEEDS, claim)
        return self._turns.turn(deployment.name, capacity, claim)


def _start(deployment: Deployment, request: Request) -> Events:
    if isinstance(request, ChatRequest):
        return deployment.engine.chat(request)
    return deployment.engine.complete(request)


class _Resumed:
    """The events with the one already taken put back in front; a class, since a generator would need closing."""

    __slots__ = ("_first", "_rest")

    def __init__(self, first: ChatEvent, rest: AsyncIterator[ChatEvent]) -> None:
        self._first: ChatEvent | None = first
        self._rest = rest

    def __aiter__(self) -> AsyncIterator[ChatEvent]:
        return self

    async def __anext__(self) -> ChatEvent:
        first, self._first = self._first, None
        return first if first is not None else await anext(self._rest)
