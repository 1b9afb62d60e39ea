"""This is where answers go out on Anthropic's wire: one message, or a stream of events that builds one.

Source: Anthropic, "Streaming Messages" (2026), and what the SDK's own accumulator accepts.
"""

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, Raw

from qwenbox.dialects.anthropic import errors, fields
from qwenbox.dialects.anthropic.schema import (
    AnswerBlock,
    BlockDelta,
    BlockStart,
    BlockStop,
    Counted,
    Ending,
    InputPiece,
    MessageDelta,
    MessageStart,
    MessageStop,
    OutputDetails,
    TextBlock,
    TextPiece,
    ThinkingBlock,
    ThinkingPiece,
    ToolUseBlock,
    WireAnswer,
    WireUsage,
)
from qwenbox.dialects.base import Head, Page, Reply, WireRequest
from qwenbox.terms.chat import ChatRequest, ToolCall
from qwenbox.terms.errors import ApiError
from qwenbox.terms.events import (
    ChatEvent,
    ChoiceFinished,
    Completed,
    FinishReason,
    Fold,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
)
from qwenbox.terms.usage import Usage

PING = b'event: ping\ndata: {"type":"ping"}\n\n'

_REASONS = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.TOOL_CALLS: "tool_use",
    FinishReason.CONTENT_FILTER: "refusal",
}
_NO_INPUT = Raw(b"{}")
_ENCODER = msgspec.json.Encoder()


def chat(request: WireRequest, asked: ChatRequest, *, is_streamed: bool) -> Reply:
    return MessageStream(request, asked) if is_streamed else WholeMessage(request, asked)


def counted(tokens: int, request_id: str) -> Page:
    return Page(head=json_head(request_id), body=_ENCODER.encode(Counted(input_tokens=tokens)))


def json_head(request_id: str) -> Head:
    # The SDK's `_request_id` comes from this header.
    return Head(status=200, media_type="application/json", headers={"request-id": request_id})


class WholeMessage:
    """One JSON message, silent until Completed."""

    def __init__(self, request: WireRequest, asked: ChatRequest) -> None:
        self._request = request
        self._asked = asked
        self._fold = Fold()
        self._finish: ChoiceFinished | None = None

    @property
    def head(self) -> Head:
        return json_head(self._request.id)

    def event(self, event: ChatEvent) -> bytes:
        self._fold.add(event)
        if isinstance(event, ChoiceFinished):
            self._finish = event
        if not isinstance(event, Completed):
            return b""
        choice = self._fold.result().choices[0]
        ending = _ending(self._finish, has_calls=bool(choice.tool_calls))
        return _ENCODER.encode(
            WireAnswer(
                id=f"msg_{self._request.id}",
                model=self._asked.model,
                content=_content(choice.reasoning, choice.text, choice.tool_calls),
                stop_reason=ending.stop_reason,
                stop_sequence=ending.stop_sequence,
                usage=usage(event.usage),
            )
        )

    def error(self, error: ApiError) -> bytes:
        return errors.body(error, self._request.id)

    def heartbeat(self) -> bytes:
        return b""


class MessageStream:
    """Events: message_start, blocks one after the other (start, deltas, stop), message_delta with the reason and usage, message_stop."""

    def __init__(self, request: WireRequest, asked: ChatRequest) -> None:
        self._id = request.id
        self._model = asked.model
        self._blocks = 0
        # What the open block holds: thinking, text or the number of a call; None before the first and after the last.
        self._open: str | int | None = None
        self._places: dict[int, int] = {}
        self._finish: ChoiceFinished | None = None

    @property
    def head(self) -> Head:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no", "request-id": self._id}
        return Head(status=200, media_type="text/event-stream", headers=headers)

    def event(self, event: ChatEvent) -> bytes:
        match event:
            case TextDelta():
                return self._text("text", TextBlock(text=""), TextPiece(text=event.text)) if event.text else b""
            case ReasoningDelta():
                return self._text("thinking", ThinkingBlock(thinking=""), ThinkingPiece(thinking=event.text)) if event.text else b""
            case ToolCallDelta():
                return self._call(event)
            case Started():
                used = Usage(input_tokens=event.input_tokens, output_tokens=0, cached_tokens=event.cached_tokens)
                start = WireAnswer(
                    id=f"msg_{self._id}", model=self._model, content=[], stop_reason=None, stop_sequence=None, usage=usage(used)
                )
                return _frame("message_start", MessageStart(message=start))
            case ChoiceFinished():
                self._finish = event
                return self._close()
            case Completed():
                ending = _ending(self._finish, has_calls=bool(self._places))
                delta = _frame("message_delta", MessageDelta(delta=ending, usage=usage(event.usage)))
                return delta + _frame("message_stop", MessageStop())
            case _:
                return b""

    def error(self, error: ApiError) -> bytes:
        return b"event: error\ndata: " + errors.body(error, self._id) + b"\n\n"

    def heartbeat(self) -> bytes:
        return PING

    def _text(self, kind: str, block: AnswerBlock, piece: TextPiece | ThinkingPiece) -> bytes:
        begun = b"" if self._open == kind else self._begin(kind, block)
        return begun + _frame("content_block_delta", BlockDelta(index=self._blocks - 1, delta=piece))

    def _call(self, event: ToolCallDelta) -> bytes:
        begun = b""
        if event.call not in self._places:
            begun = self._begin(event.call, ToolUseBlock(id=event.id, name=event.name, input=_NO_INPUT))
            self._places[event.call] = self._blocks - 1
        if not event.arguments:
            return begun
        # A call that another one has interrupted is still told by its place.
        place = self._places[event.call]
        return begun + _frame("content_block_delta", BlockDelta(index=place, delta=InputPiece(partial_json=event.arguments)))

    def _begin(self, kind: str | int, block: AnswerBlock) -> bytes:
        closed = self._close()
        self._open = kind
        self._blocks += 1
        return closed + _frame("content_block_start", BlockStart(index=self._blocks - 1, content_block=block))

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return _frame("content_block_stop", BlockStop(index=self._blocks - 1))


def usage(used: Usage) -> WireUsage:
    cached = used.cached_tokens or 0
    return WireUsage(
        input_tokens=used.input_tokens - cached,
        cache_read_input_tokens=cached,
        output_tokens=used.output_tokens,
        output_tokens_details=UNSET if used.reasoning_tokens is None else OutputDetails(thinking_tokens=used.reasoning_tokens),
    )


def _ending(finish: ChoiceFinished | None, *, has_calls: bool) -> Ending:
    reason = FinishReason.STOP if finish is None else finish.reason
    if reason is FinishReason.STOP and has_calls:
        reason = FinishReason.TOOL_CALLS
    if reason is FinishReason.STOP and finish is not None and finish.stop:
        return Ending(stop_reason="stop_sequence", stop_sequence=finish.stop)
    return Ending(stop_reason=_REASONS[reason], stop_sequence=None)


def _content(reasoning: str, text: str, calls: Sequence[ToolCall]) -> list[AnswerBlock]:
    blocks: list[AnswerBlock] = [ThinkingBlock(thinking=reasoning)] if reasoning else []
    if text:
        blocks.append(TextBlock(text=text))
    for call in calls:
        raw = call.arguments.encode()
        # Arguments that were cut off by max_tokens are no object, and there is no other place for them.
        blocks.append(ToolUseBlock(id=call.id, name=call.name, input=Raw(raw) if fields.is_object(raw) else _NO_INPUT))
    return blocks


def _frame(name: str, event: msgspec.Struct) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + _ENCODER.encode(event) + b"\n\n"
