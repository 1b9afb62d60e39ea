"""This is where a job is sent to a child and its chunks come back as events, in the order `terms/events.py` promises."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import msgspec

from qwenbox.clock import Clock
from qwenbox.engines.llamacpp import wire
from qwenbox.engines.llamacpp.config import LlamaCppConfig
from qwenbox.engines.llamacpp.job import Job
from qwenbox.engines.llamacpp.lane import Endpoint, Lane
from qwenbox.engines.llamacpp.pieces import Piece, PieceReader
from qwenbox.remote import Remote, RemoteAnswer, RemoteRequest
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, ChoiceFinished, Completed, Started, TextDelta, TokenLogprob
from qwenbox.terms.usage import Usage

# Between a child's death and our noticing it, its port refuses.
NOTICE_S = 0.2


class Answers:
    """Asks children for answers. title: of the weights, for people."""

    def __init__(self, config: LlamaCppConfig, remote: Remote, clock: Clock, title: str) -> None:
        self._config = config
        self._remote = remote
        self._clock = clock
        self._peer = f"The engine of {title}"

    @asynccontextmanager
    async def open(self, job: Job, lane: Lane) -> AsyncGenerator[AsyncIterator[ChatEvent]]:
        """Entered once the child has taken the call; leaving it hangs up, which frees the slot."""
        asked = _bodies(job, self._config.slots)
        async with lane.use(job.weights.gguf) as endpoint, AsyncExitStack() as stack:
            first = await stack.enter_async_context(self._exchange(job, asked[0], lane, endpoint))
            yield await stack.enter_async_context(aclosing(self._events(job, first, asked[1:], endpoint)))

    async def _events(self, job: Job, first: RemoteAnswer, later: list[wire.Completion], endpoint: Endpoint) -> AsyncGenerator[ChatEvent]:
        tally = _Tally(job)
        async with aclosing(_chunks(first)) as chunks:
            async for chunk in chunks:
                for event in tally.hear(chunk):
                    yield event
                if tally.is_over:
                    break
        for place, body in enumerate(later, 1):
            async with self._remote.stream(self._request(body, endpoint)) as answer, aclosing(_chunks(await _accepted(answer))) as chunks:
                async for chunk in chunks:
                    for event in tally.hear(msgspec.structs.replace(chunk, index=place)):
                        yield event
        yield tally.completed()

    @asynccontextmanager
    async def _exchange(self, job: Job, body: wire.Completion, lane: Lane, endpoint: Endpoint) -> AsyncGenerator[RemoteAnswer]:
        async with AsyncExitStack() as stack:
            try:
                answer = await stack.enter_async_context(self._remote.stream(self._request(body, endpoint)))
            except ApiError as error:
                if error.kind is not ErrorKind.OVERLOADED:
                    raise
                # Nobody was there and nothing was sent: the child died just now. Once more, to the one that follows it.
                await self._clock.sleep(NOTICE_S)
                endpoint = await lane.endpoint(job.weights.gguf)
                answer = await stack.enter_async_context(self._remote.stream(self._request(body, endpoint)))
            yield await _accepted(answer)

    def _request(self, body: wire.Completion, endpoint: Endpoint) -> RemoteRequest:
        return RemoteRequest(
            method="POST",
            url=f"{endpoint.address}/completion",
            body=wire.encode(body),
            headers={"authorization": f"Bearer {endpoint.key}", "content-type": "application/json"},
            timeouts=self._config.timeouts,
            peer=self._peer,
        )


def _bodies(job: Job, slots: int) -> list[wire.Completion]:
    """One body for all choices where they may run side by side (they share the reading of the prompt), else one for each."""
    if job.n == 1:
        return [job.completion]
    if job.is_exact or job.n > slots:
        return [msgspec.structs.replace(job.completion, seed=wire.seed(job.seed, index)) for index in range(job.n)]
    return [msgspec.structs.replace(job.completion, n_cmpl=job.n)]


async def _accepted(answer: RemoteAnswer) -> RemoteAnswer:
    if answer.status != 200:
        raise wire.refusal(answer.status, await answer.read())
    return answer


async def _chunks(answer: RemoteAnswer) -> AsyncGenerator[wire.Chunk]:
    async for chunk in wire.chunks(answer):
        yield chunk


class _Tally:
    """All choices of one call: what was heard, what was counted."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._readers = [PieceReader(job.weights.tokenizer, job.stop_tokens, job.top_logprobs) for _ in range(job.n)]
        self._waiting: list[tuple[int, tuple[TokenLogprob, ...]]] = [(0, ())] * job.n
        self._open = set(range(job.n))
        self._is_started = False
        self._cached_tokens: int | None = None

    @property
    def is_over(self) -> bool:
        return not self._open

    def hear(self, chunk: wire.Chunk) -> list[ChatEvent]:
        events: list[ChatEvent] = []
        if not self._is_started:
            self._is_started = True
            self._cached_tokens = chunk.prompt_progress.cache if chunk.prompt_progress else None
            events.append(Started(input_tokens=self._job.input_tokens, cached_tokens=self._cached_tokens))
        index = chunk.index
        if index not in self._open:
            return events
        heard = self._readers[index].hear(chunk)
        for piece in heard.pieces:
            events.extend(self._delta(index, piece))
        if heard.finish is not None:
            self._open.discard(index)
            events.append(ChoiceFinished(reason=heard.finish, index=index, tokens=self._waiting[index][0]))
        return events

    def completed(self) -> Completed:
        """Raises ApiError(ENGINE_FAILED) when the child stopped in the middle without a word."""
        if self._open:
            raise ApiError(ErrorKind.ENGINE_FAILED, "The engine broke off in the middle of its answer.")
        output_tokens = sum(reader.output_tokens for reader in self._readers)
        return Completed(usage=Usage(input_tokens=self._job.input_tokens, output_tokens=output_tokens, cached_tokens=self._cached_tokens))

    def _delta(self, index: int, piece: Piece) -> list[ChatEvent]:
        """Tokens without text (held back, or an end-of-turn token) are counted with the next text, or at the end."""
        tokens, logprobs = self._waiting[index]
        tokens += piece.tokens
        logprobs = (*logprobs, *piece.logprobs)
        if not piece.text:
            self._waiting[index] = (tokens, logprobs)
            return []
        self._waiting[index] = (0, ())
        return [TextDelta(text=piece.text, index=index, tokens=tokens, logprobs=logprobs)]
