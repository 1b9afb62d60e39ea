"""This is where a deployment is found that answers: chosen, asked again or left for another, until the first event."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from time import monotonic
from types import TracebackType
from typing import TypeVar

import msgspec

from qwenbox.gateway.attempts import choice, patience
from qwenbox.gateway.attempts.patience import Patient
from qwenbox.gateway.attempts.policy import Verdict, shown, verdict
from qwenbox.gateway.attempts.standing import AttemptsConfig, Standing, Standings
from qwenbox.gateway.attempts.tries import Tries
from qwenbox.gateway.catalog import Deployment, Model, Redacted, Request, fit
from qwenbox.gateway.counting import about_texts
from qwenbox.gateway.estimate import most_tokens
from qwenbox.gateway.scheduler import SEEDS, Claim, Need, Pools, SchedulerConfig, Turns, seeds_of
from qwenbox.terms.call import Lane
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.embedding import EmbeddingRequest
from qwenbox.terms.engine import CONNECT_EXTENSION, Events, TextCounter
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent
from qwenbox.terms.image import ImageRequest
from qwenbox.terms.limits import LimitState
from qwenbox.terms.model import Choice
from qwenbox.terms.rerank import RerankRequest
from qwenbox.terms.timeline import Timeline
from qwenbox.terms.wishes import NO_PATIENCE, Patience

T = TypeVar("T")


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
    """Who waits for a busy engine, with which weight, in which lane, and how patiently. timeline: of the call."""

    account_id: str
    weight: int = 1
    lane: Lane = Lane.INTERACTIVE
    patience: Patience = NO_PATIENCE
    timeline: Timeline = msgspec.field(default_factory=Timeline)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request on its way to a deployment."""

    request: Request
    prompt: Prompt
    party: Party


class Router:
    """Opens a request on a deployment that takes it; each deployment has one pool of turns and one standing."""

    def __init__(self, config: SchedulerConfig, turns: Turns | None = None, standings: Standings | None = None) -> None:
        self._turns: Turns = turns or Pools(config)
        self.standings = standings or Standings(AttemptsConfig())

    def waiting(self) -> int:
        """Calls that wait for a turn, over all engines."""
        return self._turns.waiting()

    async def count(self, model: Model, request: Request) -> Prompt:
        """The prompt's length, by the first deployment that can tell. Raises its ApiError when none of those that could, can."""
        if not isinstance(request, ChatRequest | CompletionRequest):
            return Prompt(input_tokens=await about_texts(model, request), deployment="")
        failure: ApiError | None = None
        for deployment in model.deployments:
            if deployment.counter is not None:
                try:
                    return Prompt(input_tokens=await deployment.counter.count(request), deployment=deployment.name)
                except ApiError as error:
                    if verdict(error) is Verdict.FINAL:
                        raise
                    failure = failure or error
        if failure is not None and all(deployment.counter is not None for deployment in model.deployments):
            raise failure
        return Prompt(input_tokens=most_tokens(request), deployment="")

    def open(self, model: Model, request: Request, prompt: Prompt, party: Party) -> AbstractAsyncContextManager[Answer]:
        """The answer, begun once entered, which raises the last ApiError when nobody answers.

        party: who waits, if it must. request: complete, its max_output_tokens fit for the prompt. Nothing is tried again once the
        first event is there: the client may have seen it.
        """
        return _Opening(self, model, Asked(request=request, prompt=prompt, party=party))

    def turn(
        self, deployment: Deployment, request: Request, need: Need, party: Party, longest_s: float | None = None
    ) -> AbstractAsyncContextManager[None]:
        """Entered when it is this party's turn on the deployment. longest_s: see Claim."""
        capacity = deployment.capacity
        if capacity.slots is None and capacity.kv_tokens is None:
            return nullcontext()
        claim = Claim(account_id=party.account_id, need=need, weight=party.weight, lane=party.lane, longest_s=longest_s)
        if (
            capacity.has_seed_lane
            and isinstance(request, ChatRequest | CompletionRequest)
            and request.sampling.seed is not None
            and "qwenbox.seeds" not in request.extensions
        ):
            return self._turns.turn(seeds_of(capacity.queue or deployment.name), SEEDS, claim)
        return self._turns.turn(capacity.queue or deployment.name, capacity, claim)


class _Opening:
    """One request's way to the deployment that answers it. Left, it ends the engine's answer first and then the turn."""

    __slots__ = ("_asked", "_events", "_has_turn", "_model", "_redacted", "_router", "_standing", "_turn", "_watch")

    def __init__(self, router: Router, model: Model, asked: Asked) -> None:
        self._router = router
        self._model = model
        self._asked = asked
        self._has_turn = False
        self._redacted: Redacted | None = None
        self._watch = patience.watch(asked.party.patience, model.entry.timeouts)

    async def __aenter__(self) -> Answer:
        try:
            return await self._open()
        except BaseException as error:
            if self._watch is not None:
                self._watch.close()
            if isinstance(error, ApiError) and (told := shown(error)) is not error:
                raise told from error
            raise

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._watch is not None:
            self._watch.close()
        await self._leave(kind, error, trace)

    async def _open(self) -> Answer:
        entry, deployments, standings = self._model.entry, self._model.deployments, self._router.standings
        if len(deployments) == 1 and not deployments[0].is_upstream:
            return await self._begin(standings.of(deployments[0]))
        order = [standings.of(deployment) for deployment in deployments]
        is_loyal = entry.choice is Choice.ORDERED
        if not is_loyal:
            order = choice.order(entry, order, self._asked.request, standings.draw)
        failure: ApiError | None = None
        if order[0].is_calm:
            # Nearly every call's only attempt: nothing is planned before it fails.
            order[0].budget.earn()
            is_spillable = len(order) > 1 and any(other.breaker.lets_in for other in order[1:])
            try:
                return await self._attempt(order[0], 1, is_spillable=is_spillable)
            except ApiError as error:
                failure = error
        tries = Tries(standings, order, is_loyal=is_loyal)
        if failure is not None:
            tries.begun()
            self._note(tries, failure)
        return await self._go_on(tries)

    async def _go_on(self, tries: Tries) -> Answer:
        while True:
            step = tries.next()
            if step.wait_s and not await self._wait(step.wait_s):
                raise tries.failure
            if tries.begin():
                try:
                    return await self._attempt(step.standing, tries.asked, is_spillable=step.is_spillable)
                except ApiError as error:
                    self._note(tries, error)

    def _note(self, tries: Tries, error: ApiError) -> None:
        """Raises it where no other attempt may follow."""
        if self._has_turn:
            tries.failed(error)
        else:
            tries.spilled(error)

    async def _wait(self, wait_s: float) -> bool:
        """Until the next attempt; False when the call's time is over before."""
        if self._watch is not None and self._watch.left_s <= wait_s:
            return False
        await self._router.standings.clock.sleep(wait_s)
        return True

    async def _attempt(self, standing: Standing, number: int, *, is_spillable: bool) -> Answer:
        """The deployment's breaker hears how it went, whatever happens."""
        breaker = standing.breaker
        standing.retries += number > 1
        longest_s = self._model.entry.spill_after_s if is_spillable else None
        try:
            answer = await self._begin(standing, longest_s)
        except ApiError as error:
            if error.is_final or not self._has_turn or not standing.deployment.is_upstream:
                breaker.left()
            elif verdict(error) is Verdict.FINAL:
                breaker.succeeded()  # it was well enough to find fault with the request
            else:
                breaker.failed()
            raise
        except BaseException:
            breaker.left()
            raise
        breaker.succeeded()
        return answer if number == 1 else msgspec.structs.replace(answer, attempts=number, notes={**answer.notes, "attempts": number})

    async def _begin(self, standing: Standing, longest_s: float | None = None) -> Answer:
        self._standing, self._has_turn = standing, False
        asked, deployment = self._asked, standing.deployment
        request, input_tokens = asked.request, asked.prompt.input_tokens
        if (
            deployment.counter is not None
            and deployment.name != asked.prompt.deployment
            and isinstance(request, ChatRequest | CompletionRequest)
        ):
            input_tokens = await deployment.counter.count(request)
            request = msgspec.structs.replace(request, max_output_tokens=fit(request, input_tokens, self._model.entry.card))
        # Pictures are drawn one after the other.
        slots = 1 if isinstance(request, ImageRequest) else request.n
        need = Need(slots=slots, kv_tokens=request.n * (input_tokens + (request.max_output_tokens or 0)))
        request = self._outgoing(deployment, request)
        self._turn = self._router.turn(deployment, request, need, asked.party, longest_s)
        timeline = asked.party.timeline
        timeline.queued_s = monotonic()
        await self._turn.__aenter__()
        timeline.turn_s = monotonic()
        timeline.attempts += 1
        self._has_turn = True
        standing.running += 1
        if self._watch is not None:
            self._watch.sent()
        try:
            self._events = _start(deployment, request)
            events = await self._held(self._events.__aenter__)
        except BaseException as error:
            standing.running -= 1
            standing.failed += isinstance(error, ApiError)
            await self._turn.__aexit__(type(error), error, error.__traceback__)
            raise
        return await self._heard(deployment, events)

    async def _heard(self, deployment: Deployment, events: AsyncIterator[ChatEvent]) -> Answer:
        """The answer, once its first event is there."""
        try:
            first = await self._held(events.__anext__)
        except BaseException as error:
            self._standing.failed += isinstance(error, ApiError)
            await self._leave(type(error), error, error.__traceback__)
            raise
        self._standing.answered += 1
        self._asked.party.timeline.first_s = monotonic()
        redacted = self._redacted
        watch, broke = self._watch, self._broke
        coming: AsyncIterator[ChatEvent] = _Resumed(first, events, broke) if watch is None else Patient(first, events, watch, broke)
        return Answer(
            deployment=deployment.name,
            events=coming if redacted is None else redacted.restore(coming),
            has_exact_counts=deployment.counter is not None,
            text_counter=deployment.text_counter,
            notes={} if redacted is None else redacted.notes,
            applied=deployment.done_to(self._asked.request),
        )

    def _broke(self, error: ApiError) -> None:
        """The answer failed after its first event: too late for another attempt, but the breaker hears of it."""
        if self._standing.deployment.is_upstream and verdict(error) is not Verdict.FINAL:
            self._standing.breaker.broke()

    def _outgoing(self, deployment: Deployment, request: Request) -> Request:
        """What this deployment gets to read."""
        self._redacted = None if deployment.redactor is None else deployment.redactor.redact(request)
        if self._redacted is not None:
            request = self._redacted.request
        if self._watch is not None and self._watch.connect_s is not None and deployment.is_upstream:
            connect = {CONNECT_EXTENSION: repr(self._watch.connect_s).encode()}
            request = msgspec.structs.replace(request, extensions={**request.extensions, **connect})
        return request

    async def _held(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` gives, as long as anybody is willing to wait."""
        if self._watch is None:
            return await work()
        try:
            return await self._watch.hold(work)
        except ApiError as error:
            raise self._watch.judged(error) from error.__cause__

    async def _leave(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            await self._events.__aexit__(kind, error, trace)
        finally:
            self._standing.running -= 1
            await self._turn.__aexit__(kind, error, trace)


def _start(deployment: Deployment, request: Request) -> Events:
    match request:
        case ChatRequest() if deployment.text is not None:
            return deployment.text.chat(request)
        case CompletionRequest() if deployment.text is not None:
            return deployment.text.complete(request)
        case EmbeddingRequest() if deployment.embedder is not None:
            return deployment.embedder.embed(request)
        case RerankRequest() if deployment.reranker is not None:
            return deployment.reranker.rerank(request)
        case ImageRequest() if deployment.image_maker is not None:
            return deployment.image_maker.make(request)
        case _:
            # The catalog names an engine that cannot do what the card says.
            raise ApiError(ErrorKind.WRONG_ENDPOINT, param=request.model)


class _Resumed:
    """The events with the one already taken put back in front; a class, since a generator would need closing. broke: hears of a failure."""

    __slots__ = ("_broke", "_first", "_rest")

    def __init__(self, first: ChatEvent, rest: AsyncIterator[ChatEvent], broke: Callable[[ApiError], None]) -> None:
        self._first: ChatEvent | None = first
        self._rest = rest
        self._broke = broke

    def __aiter__(self) -> AsyncIterator[ChatEvent]:
        return self

    async def __anext__(self) -> ChatEvent:
        first, self._first = self._first, None
        if first is not None:
            return first
        try:
            return await anext(self._rest)
        except ApiError as error:
            self._broke(error)
            raise
