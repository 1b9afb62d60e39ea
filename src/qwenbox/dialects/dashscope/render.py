"""This is where events become native bytes: one JSON object, or SSE frames, incremental or cumulative (wire reference 2.3–2.6, 3.3).

Texts are escaped once, when they come: a cumulative frame repeats bytes, it does not escape the whole answer again.
"""

from collections.abc import Sequence
from enum import Enum
from typing import TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

from qwenbox.dialects.base import Head
from qwenbox.dialects.dashscope import errors, usage
from qwenbox.dialects.dashscope.usage import WireUsage
from qwenbox.terms.errors import ApiError
from qwenbox.terms.events import (
    ChatEvent,
    ChatResult,
    Choice,
    ChoiceFinished,
    Completed,
    Embedded,
    FinishReason,
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

RUNNING = "null"  # the string: native streams never send JSON null here
STREAM_DEFAULT_HEADER = "x-qwenbox-stream-default"
HEARTBEAT = b":keep-alive\n\n"

Sizes: TypeAlias = tuple[tuple[int, int], ...]

_encoder = msgspec.json.Encoder()


class Shape(Enum):
    """How an answer's text lies in the output: `text`, a message, or a message with a content list (the multimodal path)."""

    TEXT = "text"
    MESSAGE = "message"
    PARTS = "parts"


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """How a reply is to be written.

    is_incremental: stream frames hold the new piece only, not all so far. is_default: nobody asked for that, it is the default.
    is_call_forced: the request named the function to call; such an answer finishes with "stop" on this wire.
    n: choices asked for.
    """

    shape: Shape
    is_incremental: bool = True
    is_default: bool = False
    is_call_forced: bool = False
    n: int = 1


class _Function(msgspec.Struct, frozen=True, kw_only=True):
    name: str | UnsetType = UNSET
    arguments: Raw


class _Call(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    id: str
    type: str = "function"
    function: _Function


class _Message(msgspec.Struct, frozen=True, kw_only=True):
    role: str = "assistant"
    content: Raw
    reasoning_content: Raw | UnsetType = UNSET
    tool_calls: list[_Call] | UnsetType = UNSET


class _Token(msgspec.Struct, frozen=True):
    token: str
    bytes: list[int]
    logprob: float


class _RankedToken(msgspec.Struct, frozen=True):
    token: str
    bytes: list[int]
    logprob: float
    top_logprobs: list[_Token]


class _Logprobs(msgspec.Struct, frozen=True):
    content: Raw


class _Choice(msgspec.Struct, frozen=True, kw_only=True):
    finish_reason: str
    index: int
    message: _Message
    logprobs: _Logprobs | UnsetType = UNSET


class _MessageOutput(msgspec.Struct, frozen=True):
    choices: list[_Choice]


class _TextOutput(msgspec.Struct, frozen=True):
    finish_reason: str
    text: Raw


class _Body(msgspec.Struct, frozen=True):
    output: _MessageOutput | _TextOutput
    usage: WireUsage
    request_id: str


class WholeReply:
    """The answer as one JSON object; silent until Completed."""

    def __init__(self, request_id: str, manner: Manner) -> None:
        self._request_id = request_id
        self._manner = manner
        self._fold = Fold()

    @property
    def head(self) -> Head:
        return Head(status=200, media_type="application/json")

    def event(self, event: ChatEvent) -> bytes:
        self._fold.add(event)
        if not isinstance(event, Completed):
            return b""
        result = self._fold.result()
        return _encoder.encode(_Body(self._output(result, event.picture_sizes), usage.render(result.usage), self._request_id))

    def error(self, error: ApiError) -> bytes:
        return errors.body(error, self._request_id)

    def heartbeat(self) -> bytes:
        return b""

    def _output(self, result: ChatResult, sizes: Sizes) -> _MessageOutput | _TextOutput:
        if self._manner.shape is Shape.TEXT:
            choice = result.choices[0]
            return _TextOutput(_reason_word(choice.reason, self._manner), Raw(_encoder.encode(choice.text)))
        return _MessageOutput([self._choice(choice, sizes) for choice in result.choices])

    def _choice(self, choice: Choice, sizes: Sizes) -> _Choice:
        calls = [
            _Call(index=at, id=call.id, function=_Function(name=call.name, arguments=Raw(_encoder.encode(call.arguments))))
            for at, call in enumerate(choice.tool_calls)
        ]
        return _Choice(
            finish_reason=_reason_word(choice.reason, self._manner),
            index=choice.index,
            message=_Message(
                content=_content(_escaped(choice.text), self._manner.shape, sizes),
                reasoning_content=Raw(_encoder.encode(choice.reasoning)) if choice.reasoning else UNSET,
                tool_calls=calls or UNSET,
            ),
            logprobs=_logprobs(_ranked(choice.logprobs)),
        )


class _Progress:
    """How far one choice has come. Texts are escaped JSON without their quotes; logprobs are the entries of their list."""

    def __init__(self) -> None:
        self.text = bytearray()
        self.reasoning = bytearray()
        self.has_reasoning = False
        self.calls: dict[int, _CallProgress] = {}
        self.logprobs = bytearray()
        self.tokens = 0
        self.reasoning_tokens = 0


class _CallProgress:
    def __init__(self, call_id: str, name: str) -> None:
        self.id = call_id
        self.name = name
        self.arguments = bytearray()


class StreamReply:
    """The answer as SSE frames.

    A frame holds one choice and that choice's own output tokens, as the SDK's merge expects of n > 1. The last frame waits for
    Completed, so that its usage is the true one.
    """

    def __init__(self, request_id: str, manner: Manner) -> None:
        self._request_id = request_id
        self._manner = manner
        self._id = 0
        self._prompt = Usage(input_tokens=0, output_tokens=0)
        self._sizes: Sizes = ()
        self._choices: dict[int, _Progress] = {}
        self._finished: dict[int, FinishReason] = {}

    @property
    def head(self) -> Head:
        headers: dict[str, str] = {}
        if self._manner.is_default:
            headers[STREAM_DEFAULT_HEADER] = "incremental" if self._manner.is_incremental else "cumulative"
        return Head(status=200, media_type="text/event-stream;charset=UTF-8", headers=headers)

    def event(self, event: ChatEvent) -> bytes:
        match event:
            case TextDelta() | ReasoningDelta() | ToolCallDelta():
                return self._delta(event)
            case Started():
                self._prompt = Usage(
                    input_tokens=event.input_tokens, output_tokens=0, cached_tokens=event.cached_tokens, image_tokens=event.image_tokens
                )
                return b""
            case ChoiceFinished():
                return self._finish(event)
            case Completed():
                self._sizes = event.picture_sizes
                return self._complete(event.usage)
            case Embedded() | Ranked() | ImageMade():
                return b""  # of other calls

    def error(self, error: ApiError) -> bytes:
        self._id += 1
        status = errors.wire(error).status
        return b"id:%d\nevent:error\n:HTTP_STATUS/%d\ndata:%b\n\n" % (self._id, status, errors.body(error, self._request_id))

    def heartbeat(self) -> bytes:
        return HEARTBEAT

    def _progress(self, index: int) -> _Progress:
        progress = self._choices.get(index)
        if progress is None:
            progress = self._choices[index] = _Progress()
        return progress

    def _delta(self, event: TextDelta | ReasoningDelta | ToolCallDelta) -> bytes:
        progress = self._progress(event.index)
        progress.tokens += event.tokens
        text = reasoning = b""
        calls: list[_Call] = []
        match event:
            case TextDelta():
                text = _escaped(event.text)
                is_silent = not text and not event.logprobs
            case ReasoningDelta():
                progress.reasoning_tokens += event.tokens
                reasoning = _escaped(event.text)
                progress.has_reasoning = progress.has_reasoning or bool(reasoning)
                is_silent = not reasoning or self._manner.shape is Shape.TEXT
            case ToolCallDelta():
                calls = [_call_piece(progress, event)]
                is_silent = self._manner.shape is Shape.TEXT
        ranked = _ranked(event.logprobs) if isinstance(event, TextDelta) and event.logprobs else b""
        if not self._manner.is_incremental:
            text, reasoning, calls, ranked = _so_far(progress, text, reasoning, ranked)
        if is_silent:
            return b""
        return self._frame(event.index, RUNNING, self._message(progress, text, reasoning, calls), ranked)

    def _message(self, progress: _Progress, text: bytes, reasoning: bytes, calls: list[_Call]) -> _Message:
        """Once a choice has thought, its text frames say that nothing is being thought; lists of parts leave that out."""
        is_thought_shown = bool(reasoning) or (progress.has_reasoning and self._manner.shape is Shape.MESSAGE)
        return _Message(
            content=_content(text, self._manner.shape, self._sizes),
            reasoning_content=Raw(b'"%b"' % reasoning) if is_thought_shown else UNSET,
            tool_calls=calls or UNSET,
        )

    def _finish(self, event: ChoiceFinished) -> bytes:
        self._progress(event.index).tokens += event.tokens
        self._finished[event.index] = event.reason
        if len(self._finished) >= self._manner.n:
            return b""
        return self._last_frame(event.index)

    def _complete(self, used: Usage) -> bytes:
        """The frame of the choice that finished last, with the tokens that make all choices add up to the whole."""
        known = self._prompt
        self._prompt = msgspec.structs.replace(
            used,
            cached_tokens=known.cached_tokens if used.cached_tokens is None else used.cached_tokens,
            image_tokens=known.image_tokens if used.image_tokens is None else used.image_tokens,
        )
        index = next(reversed(self._finished))
        last = self._choices[index]
        others = [progress for at, progress in self._choices.items() if at != index]
        last.tokens = max(0, used.output_tokens - sum(progress.tokens for progress in others))
        if used.reasoning_tokens is not None:
            last.reasoning_tokens = max(0, used.reasoning_tokens - sum(progress.reasoning_tokens for progress in others))
        return self._last_frame(index)

    def _last_frame(self, index: int) -> bytes:
        progress = self._choices[index]
        text = reasoning = ranked = b""
        calls: list[_Call] = []
        if not self._manner.is_incremental:
            text, reasoning, calls, ranked = _so_far(progress, b"", b"", b"")
        word = _reason_word(self._finished[index], self._manner)
        return self._frame(index, word, self._message(progress, text, reasoning, calls), ranked)

    def _frame(self, index: int, reason: str, message: _Message, ranked: bytes) -> bytes:
        output: _MessageOutput | _TextOutput
        if self._manner.shape is Shape.TEXT:
            output = _TextOutput(reason, message.content)
        else:
            output = _MessageOutput([_Choice(finish_reason=reason, index=index, message=message, logprobs=_logprobs(ranked))])
        progress = self._choices[index]
        used = msgspec.structs.replace(self._prompt, output_tokens=progress.tokens, reasoning_tokens=progress.reasoning_tokens or None)
        self._id += 1
        data = _encoder.encode(_Body(output, usage.render(used), self._request_id))
        return b"id:%d\nevent:result\n:HTTP_STATUS/200\ndata:%b\n\n" % (self._id, data)


def _so_far(progress: _Progress, text: bytes, reasoning: bytes, ranked: bytes) -> tuple[bytes, bytes, list[_Call], bytes]:
    """Add what came to what was there, and give all of it."""
    progress.text += text
    progress.reasoning += reasoning
    if ranked:
        progress.logprobs += b"," + ranked if progress.logprobs else ranked
    calls = [
        _Call(index=at, id=call.id, function=_Function(name=call.name, arguments=Raw(b'"%b"' % call.arguments)))
        for at, call in sorted(progress.calls.items())
    ]
    return bytes(progress.text), bytes(progress.reasoning), calls, bytes(progress.logprobs)


def _call_piece(progress: _Progress, event: ToolCallDelta) -> _Call:
    """The piece as an incremental frame shows it: later ones have an empty id and no name, because clients join what repeats."""
    arguments = _escaped(event.arguments)
    known = progress.calls.get(event.call)
    if known is None:
        known = progress.calls[event.call] = _CallProgress(event.id, event.name)
        piece = _Call(index=event.call, id=event.id, function=_Function(name=event.name, arguments=Raw(b'"%b"' % arguments)))
    else:
        piece = _Call(index=event.call, id="", function=_Function(arguments=Raw(b'"%b"' % arguments)))
    known.arguments += arguments
    return piece


def _reason_word(reason: FinishReason, manner: Manner) -> str:
    if reason is FinishReason.TOOL_CALLS and manner.is_call_forced:
        return FinishReason.STOP.value
    return reason.value


def _escaped(text: str) -> bytes:
    return _encoder.encode(text)[1:-1]


def _content(escaped: bytes, shape: Shape, sizes: Sizes) -> Raw:
    """sizes: of pictures, as their own item at the end; a plain string has no place for them."""
    if shape is not Shape.PARTS:
        return Raw(b'"%b"' % escaped)
    items = [b'{"text":"%b"}' % escaped] if escaped else []
    if sizes:
        items.append(_encoder.encode({"image_hw": [[height, width] for width, height in sizes]}))
    return Raw(b"[%b]" % b",".join(items))


def _ranked(tokens: Sequence[TokenLogprob]) -> bytes:
    """The entries of a logprobs list, without its brackets."""
    entries = [_RankedToken(t.text, list(t.raw), t.logprob, [_Token(r.text, list(r.raw), r.logprob) for r in t.rivals]) for t in tokens]
    return _encoder.encode(entries)[1:-1]


def _logprobs(ranked: bytes) -> _Logprobs | UnsetType:
    return _Logprobs(Raw(b"[%b]" % ranked)) if ranked else UNSET
