"""This is where answers go out on the OpenAI-compatible chat wire: whole, or as a stream.

Source: Model Studio, "OpenAI-compatible chat", sample answers and streams (2025-12).
"""

from collections.abc import Sequence
from typing import assert_never

import msgspec
from msgspec import UNSET, UnsetType

from qwenbox.dialects import sse
from qwenbox.dialects.base import Head, Reply, WireRequest
from qwenbox.dialects.openai import errors
from qwenbox.dialects.openai.schema import (
    AnswerChoice,
    AnswerMessage,
    CallPiece,
    Chunk,
    ChunkChoice,
    Delta,
    FunctionPiece,
    Logprobs,
    PromptTokens,
    ReasoningTokens,
    SamplingBody,
    Token,
    TopToken,
    WholeAnswer,
    WireUsage,
)
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.errors import ApiError
from qwenbox.terms.events import (
    ChatEvent,
    Choice,
    ChoiceFinished,
    Completed,
    Embedded,
    Fold,
    ImageMade,
    Ranked,
    ReasoningDelta,
    Started,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
)
from qwenbox.terms.usage import Usage

LOWEST_LOGPROB = -9999.0
DONE = sse.data(b"[DONE]")
KEEP_ALIVE = sse.comment("keep-alive")
JSON_HEAD = Head(status=200, media_type="application/json")
STREAM_HEAD = Head(status=200, media_type="text/event-stream", headers={"cache-control": "no-cache", "x-accel-buffering": "no"})

_ENCODER = msgspec.json.Encoder()


def chat(request: WireRequest, asked: ChatRequest, body: SamplingBody) -> Reply:
    """The reply the body asks for: one JSON, or a stream with or without usage."""
    if body.stream:
        return ChatStream(request, asked, is_usage_wanted=wants_usage(body))
    return WholeChat(request, asked)


def wants_usage(body: SamplingBody) -> bool:
    return body.stream_options is not None and bool(body.stream_options.include_usage)


class WholeChat:
    """One JSON answer, silent until Completed."""

    def __init__(self, request: WireRequest, asked: ChatRequest) -> None:
        self._request = request
        self._asked = asked
        self._fold = Fold()

    @property
    def head(self) -> Head:
        return JSON_HEAD

    def event(self, event: ChatEvent) -> bytes:
        self._fold.add(event)
        if not isinstance(event, Completed):
            return b""
        result = self._fold.result()
        has_logprobs = self._asked.top_logprobs is not None
        return _ENCODER.encode(
            WholeAnswer(
                choices=[_answer_choice(choice, has_logprobs) for choice in result.choices],
                usage=usage(result.usage),
                created=int(self._request.received_at),
                model=self._asked.model,
                id=f"chatcmpl-{self._request.id}",
            )
        )

    def error(self, error: ApiError) -> bytes:
        return errors.body(error, self._request.id)

    def heartbeat(self) -> bytes:
        return b""


class ChatStream:
    """Frames of chunks: a first one with the role for each choice, then deltas, finishes, usage if wanted, [DONE]."""

    def __init__(self, request: WireRequest, asked: ChatRequest, *, is_usage_wanted: bool) -> None:
        self._id = f"chatcmpl-{request.id}"
        self._request_id = request.id
        self._created = int(request.received_at)
        self._model = asked.model
        self._choices = asked.n
        self._has_logprobs = asked.top_logprobs is not None
        self._is_usage_wanted = is_usage_wanted

    @property
    def head(self) -> Head:
        return STREAM_HEAD

    def event(self, event: ChatEvent) -> bytes:
        match event:
            case TextDelta():
                if not event.text and not (event.logprobs and self._has_logprobs):
                    return b""
                return self._delta(Delta(content=event.text), event.index, event.logprobs)
            case ReasoningDelta():
                return self._delta(Delta(content=None, reasoning_content=event.text), event.index) if event.text else b""
            case ToolCallDelta():
                return self._call(event)
            case Started():
                return b"".join([self._delta(Delta(content="", role="assistant"), index) for index in range(self._choices)])
            case ChoiceFinished():
                choice = ChunkChoice(delta=Delta(content=""), index=event.index, finish_reason=event.reason.value)
                return self._chunk([choice])
            case Completed():
                return (self._chunk([], usage(event.usage)) if self._is_usage_wanted else b"") + DONE
            case Embedded() | Ranked() | ImageMade():
                return b""  # of other calls
            case _:
                assert_never(event)

    def error(self, error: ApiError) -> bytes:
        return sse.data(errors.body(error, self._request_id))

    def heartbeat(self) -> bytes:
        return KEEP_ALIVE

    def _call(self, event: ToolCallDelta) -> bytes:
        if not event.name and not event.arguments:
            return b""
        function = FunctionPiece(name=event.name or UNSET, arguments=event.arguments)
        return self._delta(Delta(content=None, tool_calls=[CallPiece(index=event.call, id=event.id, function=function)]), event.index)

    def _delta(self, delta: Delta, index: int, found: Sequence[TokenLogprob] = ()) -> bytes:
        said = logprobs(found) if found and self._has_logprobs else None
        return self._chunk([ChunkChoice(delta=delta, index=index, logprobs=said)])

    def _chunk(self, choices: list[ChunkChoice], used: WireUsage | None = None) -> bytes:
        return sse.data(_ENCODER.encode(Chunk(choices=choices, usage=used, created=self._created, model=self._model, id=self._id)))


def usage(used: Usage) -> WireUsage:
    return WireUsage(
        prompt_tokens=used.input_tokens,
        completion_tokens=used.output_tokens,
        total_tokens=used.total_tokens,
        prompt_tokens_details=_prompt_tokens(used),
        completion_tokens_details=UNSET if used.reasoning_tokens is None else ReasoningTokens(reasoning_tokens=used.reasoning_tokens),
    )


def _prompt_tokens(used: Usage) -> PromptTokens | UnsetType:
    if used.cached_tokens is None and used.image_tokens is None:
        return UNSET
    cached = UNSET if used.cached_tokens is None else used.cached_tokens
    if used.image_tokens is None:
        return PromptTokens(cached_tokens=cached)
    return PromptTokens(cached_tokens=cached, text_tokens=used.input_tokens - used.image_tokens, image_tokens=used.image_tokens)


def logprobs(found: Sequence[TokenLogprob]) -> Logprobs:
    return Logprobs(
        content=[
            Token(
                token=token.text,
                bytes=list(token.raw),
                logprob=finite(token.logprob),
                top_logprobs=[TopToken(token=rival.text, bytes=list(rival.raw), logprob=finite(rival.logprob)) for rival in token.rivals],
            )
            for token in found
        ]
    )


def finite(logprob: float) -> float:
    """JSON has no infinity; -9999 is what the wire says for "never"."""
    return max(logprob, LOWEST_LOGPROB)


def _answer_choice(choice: Choice, has_logprobs: bool) -> AnswerChoice:
    calls = [
        CallPiece(index=place, id=call.id, function=FunctionPiece(name=call.name, arguments=call.arguments))
        for place, call in enumerate(choice.tool_calls)
    ]
    return AnswerChoice(
        message=AnswerMessage(content=choice.text, reasoning_content=choice.reasoning or UNSET, tool_calls=calls or UNSET),
        finish_reason=choice.reason.value,
        index=choice.index,
        logprobs=logprobs(choice.logprobs) if has_logprobs else None,
    )
