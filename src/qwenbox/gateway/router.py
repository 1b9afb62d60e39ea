"""This is where a deployment is found that answers: in order of preference, falling back until the first event."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from types import TracebackType

import msgspec

from qwenbox.gateway.catalog import Deployment, Model, Request, fit
from qwenbox.gateway.estimate import most_tokens
from qwenbox.gateway.scheduler import SEEDS, Claim, Need, Pools, SchedulerConfig, Turns, seeds_of
from qwenbox.terms.call import Lane
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.engine import Events, TextCounter
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent
from qwenbox.terms.limits import LimitState
from qwenbox.terms.wishes import NO_PATIENCE, Patience

# What another deployment may do better; everything else is the request's own fault.
_WORTH_ANOTHER = frozenset({ErrorKind.OVERLOADED, ErrorKind.ENGINE_FAILED, ErrorKind.TIMEOUT, ErrorKind.MODEL_NOT_FOUND})


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What is known before the first event, and the events.

    has_exact_counts: the deltas say truly how many tokens they hold, since the engine knows its vocabulary. text_counter: of one that
    does not, but can count texts.
    notes: facts for the call's row and receipt, as JSON values by name. cache: "hit", "miss" or "" where the cache has no part in it.
    applied: policies that changed the prompt, for people. attempts: how often engines were asked, this one included.
    is_named: the caller asked who answers.
    limits: what the caller has left; output_limit_tokens: set when the answer may be shorter than the model could make it, because
    less than that was left of a limit or of the money (docs/limits.md).
    """

    deployment: str
    events: AsyncIterator[ChatEvent]
    has_exact_counts: bool = True
    text_counter: TextCounter | None = None
    notes: Mapping[str, object] = {}
    cache: str = ""
    applied: tuple[str, ...] = ()
    attempts: int = 1
    is_named: bool = False
    limits: LimitState | None = None
    output_limit_tokens: int | None = None


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """How long a request's prompt is. deployment: whose engine counted it; "" for an upper bound, where none can count."""

    input_tokens: int
    deployment: str


class Party(msgspec.Struct, frozen=True, kw_only=True):
    """Who waits for a busy engine, with which weight, in which lane, and how patiently."""

    account_id: str
    weight: int = 1
    lane: Lane = Lane.INTERACTIVE
    patience: Patience = NO_PATIENCE


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request on its way to a deployment."""

    request: Request
    prompt: Prompt
    party: Party


class Router:
    """Opens a request on the first deployment that takes it; each deployment has one pool of turns."""

    def __init__(self, config: SchedulerConfig, turns: Turns | None = None) -> None:
        self._turns: Turns = turns or Pools(config)

    def waiting(self) -> int:
        """Calls that wait for a turn, over all engines."""
        return self._turns.waiting()

    async def count(self, model: Model, request: Request) -> Prompt:
        """The prompt's length, by the first deployment that can tell. Raises its ApiError when none of those that could, can."""
        failure: ApiError | None = None
        for deployment in model.deployments:
            if deployment.counter is not None:
                try:
                    return Prompt(input_tokens=await deployment.counter.count(request), deployment=deployment.name)
                except ApiError as error:
                    if error.kind not in _WORTH_ANOTHER:
                        raise
                    failure = failure or error
        if failure is not None and all(deployment.counter is not None for deployment in model.deployments):
            raise failure
        return Prompt(input_tokens=most_tokens(request), deployment="")

    def open(self, model: Model, request: Request, prompt: Prompt, party: Party) -> AbstractAsyncContextManager[Answer]:
        """The answer, begun once entered, which raises the last deployment's ApiError when none answers.

        party: who waits, if it must. request: complete, its max_output_tokens fit for the prompt. Nothing is tried again once the
        first event is there: the client may have seen it.
        """
        return _Opening(self, model, Asked(request=request, prompt=prompt, party=party))

    def turn(self, deployment: Deployment, request: Request, need: Need, party: Party) -> AbstractAsyncContextManager[None]:
        """Entered when it is this party's turn on the deployment."""
        capacity = deployment.capacity
        if capacity.slots is None and capacity.kv_tokens is None:
            return nullcontext()
        claim = Claim(account_id=party.account_id, need=need, weight=party.weight, lane=party.lane)
        if capacity.has_seed_lane and request.sampling.seed is not None and "qwenbox.seeds" not in request.extensions:
            return self._turns.turn(seeds_of(deployment.name), SEEDS, claim)
        return self._turns.turn(deployment.name, capacity, claim)


class _Opening:
    """One request's way to the deployment that answers it. Left, it ends the engine's answer first and then the turn."""

    __slots__ = ("_asked", "_events", "_model", "_router", "_turn")

    def __init__(self, router: Router, model: Model, asked: Asked) -> None:
        self._router = router
        self._model = model
        self._asked = asked

    async def __aenter__(self) -> Answer:
        last = len(self._model.deployments) - 1
        for place, deployment in enumerate(self._model.deployments):
            try:
                return await self._begin(deployment)
            except ApiError as error:
                if place == last or error.kind not in _WORTH_ANOTHER:
                    raise
        raise ApiError(ErrorKind.MODEL_NOT_FOUND, param=self._asked.request.model)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            await self._events.__aexit__(kind, error, trace)
        finally:
            await self._turn.__aexit__(kind, error, trace)

    async def _begin(self, deployment: Deployment) -> Answer:
        asked = self._asked
        request, input_tokens = asked.request, asked.prompt.input_tokens
        if deployment.counter is not None and deployment.name != asked.prompt.deployment:
            input_tokens = await deployment.counter.count(request)
            request = msgspec.structs.replace(request, max_output_tokens=fit(request, input_tokens, self._model.entry.card))
        need = Need(slots=request.n, kv_tokens=request.n * (input_tokens + (request.max_output_tokens or 0)))
        self._turn = self._router.turn(deployment, request, need, asked.party)
        await self._turn.__aenter__()
        try:
            self._events = _start(deployment, request)
            events = await self._events.__aenter__()
        except BaseException as error:
            await self._turn.__aexit__(type(error), error, error.__traceback__)
            raise
        try:
            first = await anext(events)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return Answer(
            deployment=deployment.name,
            events=_Resumed(first, events),
            has_exact_counts=deployment.counter is not None,
            text_counter=deployment.text_counter,
        )


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
