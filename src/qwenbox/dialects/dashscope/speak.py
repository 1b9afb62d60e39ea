"""This is where we are the client: a chat request as native bytes, the service's stream as events, its failures as ours.

We always ask for message format and incremental frames, whatever our own caller asked of us.
"""

from collections.abc import Iterator, Mapping
from typing import assert_never

import msgspec
from msgspec import UNSET, Raw

from qwenbox.dialects import sse
from qwenbox.dialects.dashscope import refusals, schema
from qwenbox.dialects.dashscope.heard import HeardChoice, HeardFrame, HeardUsage
from qwenbox.terms.chat import (
    AnyText,
    ChatRequest,
    ImagePart,
    JsonObject,
    JsonSchema,
    Message,
    Part,
    ResponseFormat,
    Role,
    TextPart,
    ToolAuto,
    ToolChoice,
    ToolNamed,
    ToolNone,
    ToolRequired,
    ToolSpec,
    VideoPart,
)
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import (
    ChatEvent,
    ChoiceFinished,
    Completed,
    FinishReason,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
)
from qwenbox.terms.usage import Usage

TEXT_PATH = "/services/aigc/text-generation/generation"
MULTIMODAL_PATH = "/services/aigc/multimodal-generation/generation"
STREAM_HEADERS: Mapping[str, str] = {
    "content-type": "application/json",
    "accept": "text/event-stream",
    "x-dashscope-sse": "enable",
}
CUT_OFF = "The model's server ended its stream before the answer was complete."
NOT_UNDERSTOOD = "The model's server answered in a way this API does not know."

_encoder = msgspec.json.Encoder()


def chat(request: ChatRequest, model: str, *, is_multimodal: bool | None = None) -> bytes:
    """The body of a chat call, to be answered by a stream. model: the service's own name for it.

    is_multimodal: whether it goes to the multimodal path, where content is a list; None: if there are pictures in it.
    `extensions` are not sent: they belong to other engines.
    """
    is_multimodal = has_pictures(request) if is_multimodal is None else is_multimodal
    body = schema.Body(
        model=model,
        input=schema.Input(messages=[_message(message, is_multimodal) for message in request.messages]),
        parameters=_parameters(request),
    )
    return _encoder.encode(body)


def path(request: ChatRequest, *, is_multimodal: bool | None = None) -> str:
    """Where the body goes, below the service's base address."""
    return MULTIMODAL_PATH if is_multimodal or (is_multimodal is None and has_pictures(request)) else TEXT_PATH


def headers(key: str | None, workspace: str = "") -> Mapping[str, str]:
    """What goes with a body. key: the service's, None where it wants none. workspace: an id of it, "" for the account's default one."""
    named = {"x-dashscope-workspace": workspace} if workspace else {}
    return {**STREAM_HEADERS, **named} if key is None else {**STREAM_HEADERS, **named, "authorization": f"Bearer {key}"}


def has_pictures(request: ChatRequest) -> bool:
    return request.has_pictures


def _message(message: Message, is_multimodal: bool) -> schema.WireMessage:
    calls = [
        schema.Call(id=call.id, type="function", function=schema.CallFunction(call.name, Raw(_encoder.encode(call.arguments))))
        for call in message.tool_calls
    ]
    return schema.WireMessage(
        role=message.role.value,
        content=_content(message, is_multimodal),
        name=message.name,
        tool_calls=calls or None,
        tool_call_id=message.tool_call_id,
        reasoning_content=message.reasoning if message.role is Role.ASSISTANT else None,
        partial=True if message.is_partial else None,
    )


def _content(message: Message, is_multimodal: bool) -> str | list[schema.Item]:
    """A plain string where it can be one: text models take nothing else."""
    if not is_multimodal:
        return message.text
    return [_item(part) for part in message.content]


def _item(part: Part) -> schema.Item:
    match part:
        case TextPart():
            return schema.Item(text=part.text)
        case ImagePart():
            return schema.Item(image=part.address, min_pixels=part.min_pixels, max_pixels=part.max_pixels)
        case VideoPart():
            one = part.frames[0]
            urls = [frame.address for frame in part.frames]
            return schema.Item(video=urls, fps=part.fps, min_pixels=one.min_pixels, max_pixels=one.max_pixels)
        case _:
            assert_never(part)


def _parameters(request: ChatRequest) -> schema.Parameters:
    sampling = request.sampling
    stop: list[str | int | list[int]] = [*request.stop, *(list(sequence) for sequence in request.stop_tokens)]
    return schema.Parameters(
        result_format="message",
        incremental_output=True,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        # null keeps all tokens on this wire, an absent top_k takes the model's default.
        top_k=UNSET if sampling.top_k is None else sampling.top_k or None,
        max_tokens=request.max_output_tokens,
        seed=sampling.seed,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        stop=stop or None,
        n=request.n if request.n > 1 else None,
        tools=[_tool(tool) for tool in request.tools] or None,
        tool_choice=_choice(request.tool_choice),
        parallel_tool_calls=True if request.is_parallel_tool_calls else None,
        response_format=_format(request.response_format),
        enable_thinking=request.thinking.is_enabled,
        thinking_budget=request.thinking.budget_tokens,
        vl_high_resolution_images=True if request.is_high_resolution else None,
        vl_enable_image_hw_output=True if request.wants_picture_sizes else None,
        logprobs=None if request.top_logprobs is None else True,
        top_logprobs=request.top_logprobs,
    )


def _tool(tool: ToolSpec) -> schema.Tool:
    return schema.Tool(
        function=schema.Function(name=tool.name, description=tool.description or None, parameters=Raw(tool.parameters)),
    )


def _choice(choice: ToolChoice) -> str | schema.NamedTool | None:
    match choice:
        case ToolAuto():
            return None
        case ToolNone():
            return "none"
        case ToolRequired():
            return "required"
        case ToolNamed():
            return schema.NamedTool(function=schema.NamedFunction(name=choice.name))


def _format(form: ResponseFormat) -> schema.Format | None:
    match form:
        case AnyText():
            return None
        case JsonObject():
            return schema.Format(type="json_object")
        case JsonSchema():
            return schema.Format(type="json_schema", json_schema=schema.NamedSchema(name=form.name or None, schema=Raw(form.schema)))


class Listener:
    """Hears the service's stream: `feed` every piece as it comes, then `finish`. The events do not depend on how the bytes were cut.

    n: choices asked for.
    Raises ApiError, from either: the service's own error frame, or ENGINE_FAILED for a stream that is cut off or not this wire's.
    """

    def __init__(self, n: int = 1) -> None:
        self._n = n
        self._frames = sse.Frames()
        self._usage: HeardUsage | None = None
        self._choices: dict[int, _Progress] = {}
        self._sizes: tuple[tuple[int, int], ...] = ()
        self._is_complete = False
        self._is_total_told = False

    def feed(self, chunk: bytes) -> list[ChatEvent]:
        return [event for frame in self._frames.feed(chunk) for event in self._hear(frame)]

    def finish(self) -> list[ChatEvent]:
        events = [event for frame in self._frames.finish() for event in self._hear(frame)]
        if self._is_complete:
            return events
        if self._usage is None or not self._are_finished():
            raise ApiError(ErrorKind.ENGINE_FAILED, CUT_OFF)
        # Fewer choices than were asked for, all of them whole.
        self._is_complete = True
        return [*events, self._completed(self._usage)]

    def whole(self, body: bytes) -> list[ChatEvent]:
        """A whole JSON answer, from a service that did not stream, as the same events."""
        events = list(self._hear_answer(_read(body)))
        return events if self._is_complete else [*events, *self.finish()]

    def _hear(self, frame: sse.Frame) -> Iterator[ChatEvent]:
        if self._is_complete:
            return
        yield from self._hear_answer(_heard(frame))

    def _hear_answer(self, heard: HeardFrame) -> Iterator[ChatEvent]:
        if self._usage is None:
            cached = heard.usage.prompt_tokens_details.cached_tokens if heard.usage.prompt_tokens_details else None
            yield Started(input_tokens=heard.usage.input_tokens, cached_tokens=cached, image_tokens=heard.usage.pictures())
        self._usage = heard.usage
        pieces = heard.output.choices or [heard.output.as_choice()]
        # With one choice in a frame its usage is that choice's own, with several it is the sum.
        self._is_total_told = self._is_total_told or len(pieces) > 1
        for at, piece in enumerate(pieces):
            index = at if piece.index is None else piece.index
            yield from self._piece(index, piece)
        if self._are_finished() and len(self._choices) >= self._n:
            self._is_complete = True
            yield self._completed(heard.usage)

    def _completed(self, last: HeardUsage) -> Completed:
        return Completed(usage=self._total(last), picture_sizes=self._sizes)

    def _are_finished(self) -> bool:
        return all(choice.is_finished for choice in self._choices.values())

    def _piece(self, index: int, piece: HeardChoice) -> Iterator[ChatEvent]:
        usage = self._usage or HeardUsage()
        choice = self._choices.setdefault(index, _Progress())
        choice.note(usage)
        message = piece.message
        self._sizes = message.sizes() or self._sizes
        if message.reasoning_content:
            yield ReasoningDelta(text=message.reasoning_content, index=index, tokens=choice.take_tokens())
        text = message.text()
        logprobs = piece.tokens()
        if text or logprobs:
            yield TextDelta(text=text, index=index, tokens=choice.take_tokens(), logprobs=logprobs)
        for at, call in enumerate(message.tool_calls or ()):
            choice.has_calls = True
            yield ToolCallDelta(
                call=at if call.index is None else call.index,
                id=call.id or "",
                name=call.function.name or "",
                arguments=call.function.arguments or "",
                index=index,
                tokens=choice.take_tokens(),
            )
        if piece.finish_reason and piece.finish_reason != "null" and not choice.is_finished:
            choice.is_finished = True
            yield ChoiceFinished(reason=_reason(piece.finish_reason, choice.has_calls), index=index, tokens=choice.take_tokens())

    def _total(self, last: HeardUsage) -> Usage:
        thoughts = [choice.reasoning_tokens for choice in self._choices.values() if choice.reasoning_tokens is not None]
        return Usage(
            input_tokens=last.input_tokens,
            output_tokens=last.output_tokens if self._is_total_told else sum(choice.output_tokens for choice in self._choices.values()),
            cached_tokens=last.prompt_tokens_details.cached_tokens if last.prompt_tokens_details else None,
            reasoning_tokens=(max(thoughts) if self._is_total_told else sum(thoughts)) if thoughts else None,
            image_tokens=last.pictures(),
        )


class _Progress:
    """What one choice has used, as its own frames say, and how much of that an event already carries."""

    def __init__(self) -> None:
        self.output_tokens = 0
        self.reasoning_tokens: int | None = None
        self.has_calls = False
        self.is_finished = False
        self._taken = 0

    def note(self, usage: HeardUsage) -> None:
        self.output_tokens = max(self.output_tokens, usage.output_tokens)
        if usage.output_tokens_details and usage.output_tokens_details.reasoning_tokens is not None:
            self.reasoning_tokens = usage.output_tokens_details.reasoning_tokens

    def take_tokens(self) -> int:
        tokens = self.output_tokens - self._taken
        self._taken = self.output_tokens
        return tokens


_heard_decoder = msgspec.json.Decoder(HeardFrame)


def _heard(frame: sse.Frame) -> HeardFrame:
    if frame.event == "error":
        raise refusals.framed(frame)
    return _read(frame.data)


def _read(data: bytes) -> HeardFrame:
    try:
        return _heard_decoder.decode(data)
    except (ValueError, RecursionError) as wrong:
        raise ApiError(ErrorKind.ENGINE_FAILED, NOT_UNDERSTOOD) from wrong


def _reason(word: str, has_calls: bool) -> FinishReason:
    """A forced call ends with "stop" on this wire; inside, calls always end with TOOL_CALLS."""
    if word == "stop" and has_calls:
        return FinishReason.TOOL_CALLS
    try:
        return FinishReason(word)
    except ValueError as wrong:
        raise ApiError(ErrorKind.ENGINE_FAILED, NOT_UNDERSTOOD) from wrong
