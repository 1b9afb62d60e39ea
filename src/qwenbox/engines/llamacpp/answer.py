"""This is where a job is sent to a child and its chunks come back as events, in the order `terms/events.py` promises."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import msgspec

from qwenbox.clock import Clock
from qwenbox.engines.llamacpp import wire
from qwenbox.engines.llamacpp.config import Endpoint, Lane, LlamaCppConfig
from qwenbox.engines.llamacpp.job import Job
from qwenbox.remote import Remote, RemoteAnswer, RemoteRequest
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Completed, Started
from qwenbox.terms.usage import Usage

# Between a child's death and our noticing it, its port refuses or hangs up.
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
        async with lane.use(job.weights.loading) as endpoint, AsyncExitStack() as stack:
            first = await stack.enter_async_context(self._exchange(job, asked[0], lane, endpoint))
            yield await stack.enter_async_context(aclosing(self._events(job, first, asked[1:], endpoint)))

    async def _events(self, job: Job, first: RemoteAnswer, later: list[wire.Completion], endpoint: Endpoint) -> AsyncGenerator[ChatEvent]:
        tally = _Tally(job)
        async with aclosing(_chunks(first)) as chunks:
            async for chunk in chunks:
                for event in tally.hear(chunk):
                    yield event
                if tally.is_over or tally.voices[0].is_spent:
                    break
        async with aclosing(self._rest(job, tally, later, endpoint)) as events:
            async for event in events:
                yield event
        yield tally.completed()

    async def _rest(self, job: Job, tally: "_Tally", later: list[wire.Completion], endpoint: Endpoint) -> AsyncGenerator[ChatEvent]:
        """Choices asked for one by one, and those that thought too long and must be asked again."""
        bodies = [None, *later]
        for index, body in enumerate(bodies):
            voice = tally.voices[index]
            asked = body
            while asked is not None or voice.is_spent:
                if asked is None:
                    for delta in voice.cut():
                        yield delta
                    asked = job.after_thoughts(index, voice)
                async with aclosing(self._one(tally, index, asked, endpoint)) as events:
                    async for event in events:
                        yield event
                asked = None

    async def _one(self, tally: "_Tally", index: int, body: wire.Completion, endpoint: Endpoint) -> AsyncGenerator[ChatEvent]:
        voice = tally.voices[index]
        async with self._remote.stream(self._request(body, endpoint)) as answer, aclosing(_chunks(await _accepted(answer))) as chunks:
            async for chunk in chunks:
                for event in tally.hear(msgspec.structs.replace(chunk, index=index)):
                    yield event
                if voice.is_over or voice.is_spent:
                    return

    @asynccontextmanager
    async def _exchange(self, job: Job, body: wire.Completion, lane: Lane, endpoint: Endpoint) -> AsyncGenerator[RemoteAnswer]:
        async with AsyncExitStack() as stack:
            try:
                answer = await stack.enter_async_context(self._remote.stream(self._request(body, endpoint)))
            except ApiError as error:
                if error.kind not in (ErrorKind.OVERLOADED, ErrorKind.ENGINE_FAILED):
                    raise
                # The child may have died just now, before it took the call. Once more, to the one that follows it.
                await self._clock.sleep(NOTICE_S)
                again = await lane.endpoint(job.weights.loading)
                if again == endpoint:
                    raise
                answer = await stack.enter_async_context(self._remote.stream(self._request(body, again)))
            yield await _accepted(answer)

    def _request(self, body: wire.Completion, endpoint: Endpoint) -> RemoteRequest:
        return RemoteRequest(
            method="POST",
            url=f"{endpoint.address}/completion",
            body=wire.encode(body, endpoint.marker),
            headers={"authorization": f"Bearer {endpoint.key.reveal()}", "content-type": "application/json"},
            timeouts=self._config.timeouts,
            peer=self._peer,
        )


def _bodies(job: Job, slots: int) -> list[wire.Completion]:
    """One body for all choices where they may run side by side (they share the reading of the prompt), else one for each."""
    if job.n == 1:
        return [job.completion]
    if job.is_exact or job.n > slots or job.thinking_budget is not None:
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
        self.voices = [job.voice(index) for index in range(job.n)]
        self._is_started = False
        self._cached_tokens: int | None = None
        self._input_tokens = job.input_tokens

    @property
    def is_over(self) -> bool:
        return all(voice.is_over for voice in self.voices)

    @property
    def _image_tokens(self) -> int | None:
        prompt = self._job.prompt
        return self._input_tokens - len(prompt.ids) if prompt.pictures else None

    def hear(self, chunk: wire.Chunk) -> list[ChatEvent]:
        started: list[ChatEvent] = []
        if not self._is_started:
            self._is_started = True
            if chunk.prompt_progress:
                self._cached_tokens = chunk.prompt_progress.cache
                # What the engine made of the pictures, which is what was counted beforehand.
                self._input_tokens = chunk.prompt_progress.total or self._input_tokens
            started.append(Started(input_tokens=self._input_tokens, cached_tokens=self._cached_tokens, image_tokens=self._image_tokens))
        if not 0 <= chunk.index < len(self.voices):
            return started
        return started + self.voices[chunk.index].hear(chunk)

    def completed(self) -> Completed:
        """Raises ApiError(ENGINE_FAILED) when the child stopped in the middle without a word."""
        if not self.is_over:
            raise ApiError(ErrorKind.ENGINE_FAILED, "The engine broke off in the middle of its answer.")
        reasoning = [voice.reasoning_tokens for voice in self.voices if voice.reasoning_tokens is not None]
        usage = Usage(
            input_tokens=self._input_tokens,
            output_tokens=sum(voice.output_tokens for voice in self.voices),
            cached_tokens=self._cached_tokens,
            reasoning_tokens=sum(reasoning) if reasoning else None,
            image_tokens=self._image_tokens,
        )
        return Completed(usage=usage, picture_sizes=self._job.picture_sizes)
