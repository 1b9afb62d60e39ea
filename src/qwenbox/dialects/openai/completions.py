"""This is where legacy completions live: a raw prompt in, text out, whole or as a stream.

Source: Model Studio, "Qwen-Coder", completions (2025-12); OpenAI API reference, "Completions (legacy)" (2026-08).
"""

from collections.abc import Sequence
from typing import assert_never

import msgspec

from qwenbox.dialects import sse
from qwenbox.dialects.base import Head, Parsed, Reply, WireRequest
from qwenbox.dialects.openai import errors, fields, render
from qwenbox.dialects.openai.schema import SamplingBody, WireUsage
from qwenbox.terms.caller import Compat
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.errors import ApiError
from qwenbox.terms.events import (
    ChatEvent,
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

MAX_LOGPROBS = 5


class CompletionBody(SamplingBody, frozen=True, kw_only=True, omit_defaults=True):
    prompt: str | list[str | int | list[int]] | None = None
    suffix: str | None = None
    logprobs: int | None = None
    echo: bool | None = None
    best_of: int | None = None


class LegacyLogprobs(msgspec.Struct, kw_only=True):
    """Parallel lists, one entry a token. text_offset: characters into this choice's text."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class TextChoice(msgspec.Struct, kw_only=True):
    text: str
    index: int
    logprobs: LegacyLogprobs | None = None
    finish_reason: str | None = None


class TextAnswer(msgspec.Struct, kw_only=True):
    """A whole answer and a chunk look alike here."""

    id: str
    object: str = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: WireUsage | None = None


_BODY = msgspec.json.Decoder(CompletionBody)
_ENCODER = msgspec.json.Encoder()


def parse(request: WireRequest, compat: Compat) -> Parsed[CompletionRequest]:
    """A completion request at this level. Raises ApiError(INVALID_REQUEST) naming the field at fault."""
    body = fields.decode(_BODY, request.body)
    model = fields.model(body)
    prompt = _prompt(body)
    _refuse_unsupported(body)
    stop, stop_tokens = fields.stop(body.stop)
    if stop_tokens:
        raise fields.invalid('The "stop" parameter of a completion must be of type "str" or "list[str]".', "stop")
    asked = CompletionRequest(
        model=model,
        prompt=prompt,
        # An empty suffix is what forms send for none; only text after the hole makes it a hole.
        suffix=body.suffix or None,
        sampling=fields.sampling(body, compat),
        max_output_tokens=fields.max_tokens(body.max_tokens, "max_tokens"),
        stop=stop,
        n=fields.choices(body),
        top_logprobs=body.logprobs,
    )
    return Parsed(request=asked, reply=_reply(request, asked, body))


def _prompt(body: CompletionBody) -> str:
    if isinstance(body.prompt, str):
        return body.prompt
    if body.prompt is None:
        raise fields.invalid("Required parameter(prompt) missing or invalid, please check the request parameters.", "prompt")
    if not body.prompt:
        raise fields.invalid("[] is too short - 'prompt'", "prompt")
    first = body.prompt[0]
    if not isinstance(first, str):
        raise fields.invalid("Token ids are not supported as a prompt: send its text.", "prompt")
    if len(body.prompt) > 1:
        raise fields.invalid("Send one prompt a call: 'prompt' must be a String or an Array of one String.", "prompt")
    return first


def _refuse_unsupported(body: CompletionBody) -> None:
    fields.refuse_logit_bias(body)
    if body.echo:
        raise fields.invalid("This model does not support echo.", "echo")
    if body.best_of is not None and body.best_of > fields.choices(body):
        raise fields.invalid("This model does not support a best_of greater than n.", "best_of")
    if body.logprobs is not None and not 0 <= body.logprobs <= MAX_LOGPROBS:
        raise fields.invalid(f"Range of logprobs should be [0, {MAX_LOGPROBS}]", "logprobs")


def _reply(request: WireRequest, asked: CompletionRequest, body: CompletionBody) -> Reply:
    if body.stream:
        return CompletionStream(request, asked, is_usage_wanted=render.wants_usage(body))
    return WholeCompletion(request, asked)


class WholeCompletion:
    """One JSON answer, silent until Completed."""

    def __init__(self, request: WireRequest, asked: CompletionRequest) -> None:
        self._request = request
        self._asked = asked
        self._fold = Fold()

    @property
    def head(self) -> Head:
        return render.JSON_HEAD

    def event(self, event: ChatEvent) -> bytes:
        self._fold.add(event)
        if not isinstance(event, Completed):
            return b""
        result = self._fold.result()
        choices = [
            TextChoice(
                text=choice.text,
                index=choice.index,
                logprobs=_logprobs(choice.logprobs, self._asked.top_logprobs, 0),
                finish_reason=choice.reason.value,
            )
            for choice in result.choices
        ]
        return _ENCODER.encode(
            TextAnswer(
                id=f"cmpl-{self._request.id}",
                created=int(self._request.received_at),
                model=self._asked.model,
                choices=choices,
                usage=render.usage(result.usage),
            )
        )

    def error(self, error: ApiError) -> bytes:
        return errors.body(error, self._request.id)

    def heartbeat(self) -> bytes:
        return b""


class CompletionStream:
    """Frames of chunks: text, finishes, usage if wanted, [DONE]."""

    def __init__(self, request: WireRequest, asked: CompletionRequest, *, is_usage_wanted: bool) -> None:
        self._request_id = request.id
        self._created = int(request.received_at)
        self._asked = asked
        self._is_usage_wanted = is_usage_wanted
        self._offsets = [0] * asked.n

    @property
    def head(self) -> Head:
        return render.STREAM_HEAD

    def event(self, event: ChatEvent) -> bytes:
        match event:
            case TextDelta():
                return self._text(event)
            case Started():
                # Tells the client at once that the prompt was taken, as a chat's first chunk does.
                return b"".join([self._chunk([TextChoice(text="", index=index)]) for index in range(self._asked.n)])
            case ReasoningDelta() | ToolCallDelta() | Embedded() | Ranked() | ImageMade():
                return b""
            case ChoiceFinished():
                return self._chunk([TextChoice(text="", index=event.index, finish_reason=event.reason.value)])
            case Completed():
                last = self._chunk([], render.usage(event.usage)) if self._is_usage_wanted else b""
                return last + render.DONE
            case _:
                assert_never(event)

    def error(self, error: ApiError) -> bytes:
        return sse.data(errors.body(error, self._request_id))

    def heartbeat(self) -> bytes:
        return render.KEEP_ALIVE

    def _text(self, event: TextDelta) -> bytes:
        found = _logprobs(event.logprobs, self._asked.top_logprobs, self._offsets[event.index]) if event.logprobs else None
        self._offsets[event.index] += len(event.text)
        if not event.text and found is None:
            return b""
        return self._chunk([TextChoice(text=event.text, index=event.index, logprobs=found)])

    def _chunk(self, choices: list[TextChoice], used: WireUsage | None = None) -> bytes:
        answer = TextAnswer(id=f"cmpl-{self._request_id}", created=self._created, model=self._asked.model, choices=choices, usage=used)
        return sse.data(_ENCODER.encode(answer))


def _logprobs(found: Sequence[TokenLogprob], wanted: int | None, offset: int) -> LegacyLogprobs | None:
    """wanted: rivals asked for; None for no logprobs at all, 0 for the chosen tokens only."""
    if wanted is None:
        return None
    offsets: list[int] = []
    for token in found:
        offsets.append(offset)
        offset += len(token.text)
    return LegacyLogprobs(
        tokens=[token.text for token in found],
        token_logprobs=[render.finite(token.logprob) for token in found],
        top_logprobs=[{rival.text: render.finite(rival.logprob) for rival in token.rivals} for token in found] if wanted else None,
        text_offset=offsets,
    )
