"""This is where Responses are answered: one JSON, or a stream of events that builds it item by item.

Source: the event order of the `openai` SDK's own accumulator (3.54).
"""

from collections.abc import Sequence

import msgspec

from qwenbox.dialects import sse
from qwenbox.dialects.base import Head, RecordingReply, StoredTurn, WireRequest
from qwenbox.dialects.openai import errors
from qwenbox.dialects.openai.render import JSON_HEAD, KEEP_ALIVE, STREAM_HEAD
from qwenbox.dialects.openai.responses.output import Output
from qwenbox.dialects.openai.responses.schema import Body, Item, WireFormat, WireText
from qwenbox.dialects.openai.responses.wire import (
    AskedReasoning,
    CompletedResponse,
    Created,
    Event,
    FailedResponse,
    Failure,
    Incomplete,
    IncompleteResponse,
    InProgress,
    InputDetails,
    OutputDetails,
    Response,
    WireUsage,
)
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, ChoiceFinished, Completed, FinishReason, Started
from qwenbox.terms.usage import Usage

_ENCODER = msgspec.json.Encoder()
_ANY_TEXT = WireText(format=WireFormat(type="text"))
_INCOMPLETE = {FinishReason.LENGTH: "max_output_tokens", FinishReason.CONTENT_FILTER: "content_filter"}
_FAILED = {ErrorKind.RATE_LIMITED: "rate_limit_exceeded", ErrorKind.INVALID_REQUEST: "invalid_prompt"}


def reply(request: WireRequest, asked: ChatRequest, body: Body, *, items: Sequence[Item], is_stored: bool) -> RecordingReply:
    """items: this turn's input as it is stored."""
    made = _Made(request, asked, body, is_stored=is_stored)
    recorded = _ENCODER.encode(items) if is_stored else b""
    return ResponseStream(made, recorded) if body.stream else WholeResponse(made, recorded)


class _Made:
    """The response as it grows."""

    def __init__(self, request: WireRequest, asked: ChatRequest, body: Body, *, is_stored: bool) -> None:
        self.id = f"resp_{request.id}"
        self.request_id = request.id
        self.output = Output(request.id)
        self.finish = FinishReason.STOP
        reasoning = body.reasoning
        self._first = Response(
            id=self.id,
            created_at=int(request.received_at),
            status="in_progress",
            error=None,
            incomplete_details=None,
            instructions=body.instructions,
            max_output_tokens=body.max_output_tokens,
            model=asked.model,
            output=[],
            parallel_tool_calls=asked.is_parallel_tool_calls,
            previous_response_id=body.previous_response_id,
            reasoning=AskedReasoning(effort=reasoning and reasoning.effort, summary=reasoning and reasoning.summary),
            store=is_stored,
            temperature=body.temperature,
            text=body.text if body.text is not None and body.text.format is not None else _ANY_TEXT,
            tool_choice=body.tool_choice or "auto",
            tools=body.tools or [],
            top_p=body.top_p,
            truncation=body.truncation or "disabled",
            usage=None,
            metadata=body.metadata or {},
        )

    @property
    def begun(self) -> Response:
        return self._first

    def ended(self, used: Usage) -> Response:
        reason = _INCOMPLETE.get(self.finish)
        return msgspec.structs.replace(
            self._first,
            status="completed" if reason is None else "incomplete",
            incomplete_details=None if reason is None else Incomplete(reason=reason),
            output=self.output.items,
            usage=usage(used),
        )

    def failed(self, error: ApiError) -> Response:
        failure = Failure(code=_FAILED.get(error.kind, "server_error"), message=errors.message(error))
        return msgspec.structs.replace(self._first, status="failed", error=failure, output=self.output.items)


class WholeResponse:
    """One JSON response, silent until Completed."""

    def __init__(self, made: _Made, recorded: bytes) -> None:
        self._made = made
        self._recorded = recorded

    @property
    def head(self) -> Head:
        return JSON_HEAD

    def event(self, event: ChatEvent) -> bytes:
        made = self._made
        if isinstance(event, ChoiceFinished):
            made.finish = event.reason
        made.output.add(event)
        return _ENCODER.encode(made.ended(event.usage)) if isinstance(event, Completed) else b""

    def record(self, event: Completed) -> StoredTurn:
        return StoredTurn(id=self._made.id, input=self._recorded, response=_ENCODER.encode(self._made.ended(event.usage)))

    def error(self, error: ApiError) -> bytes:
        return errors.body(error, self._made.request_id)

    def heartbeat(self) -> bytes:
        return b""


class ResponseStream:
    """Events, numbered: created, in progress, then item by item, then completed, incomplete or failed."""

    def __init__(self, made: _Made, recorded: bytes) -> None:
        self._made = made
        self._recorded = recorded
        self._count = 0

    @property
    def head(self) -> Head:
        return STREAM_HEAD

    def event(self, event: ChatEvent) -> bytes:
        made = self._made
        match event:
            case Started():
                return self._frame(Created(response=made.begun)) + self._frame(InProgress(response=made.begun))
            case Completed():
                response = made.ended(event.usage)
                is_whole = response.incomplete_details is None
                return self._frame(CompletedResponse(response=response) if is_whole else IncompleteResponse(response=response))
            case ChoiceFinished():
                made.finish = event.reason
            case _:
                pass
        return b"".join([self._frame(said) for said in made.output.add(event)])

    def record(self, event: Completed) -> StoredTurn:
        return StoredTurn(id=self._made.id, input=self._recorded, response=_ENCODER.encode(self._made.ended(event.usage)))

    def error(self, error: ApiError) -> bytes:
        return self._frame(FailedResponse(response=self._made.failed(error)))

    def heartbeat(self) -> bytes:
        return KEEP_ALIVE

    def _frame(self, event: Event) -> bytes:
        event.sequence_number = self._count
        self._count += 1
        name = event.__struct_config__.tag
        return b"event: " + str(name).encode() + b"\n" + sse.data(_ENCODER.encode(event))


def usage(used: Usage) -> WireUsage:
    return WireUsage(
        input_tokens=used.input_tokens,
        input_tokens_details=InputDetails(cached_tokens=used.cached_tokens or 0),
        output_tokens=used.output_tokens,
        output_tokens_details=OutputDetails(reasoning_tokens=used.reasoning_tokens or 0),
        total_tokens=used.total_tokens,
    )
