"""This is where we are the client: requests written for any OpenAI-compatible server, and its answers heard as events."""

from collections.abc import Mapping, Sequence
from typing import assert_never

import msgspec
from msgspec import UNSET, Raw

from qwenbox.dialects import sse
from qwenbox.dialects.openai import heard
from qwenbox.dialects.openai.completions import CompletionBody
from qwenbox.dialects.openai.heard import (
    HeardAnswer,
    HeardCall,
    HeardChoice,
    HeardError,
    HeardFunction,
    HeardText,
)
from qwenbox.dialects.openai.schema import (
    ChatBody,
    ImageUrl,
    StreamOptions,
    TemplateArguments,
    WireCall,
    WireFormat,
    WireFunction,
    WireFunctionCall,
    WireMessage,
    WirePart,
    WireSchema,
    WireTool,
    WireToolChoice,
    WireToolName,
)
from qwenbox.terms.chat import (
    AnyText,
    ChatRequest,
    ImagePart,
    JsonObject,
    JsonSchema,
    Message,
    Part,
    ResponseFormat,
    TextPart,
    ToolAuto,
    ToolChoice,
    ToolNamed,
    ToolNone,
    ToolRequired,
    ToolSpec,
    VideoPart,
)
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import (
    ChatEvent,
    ChoiceFinished,
    Completed,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
)
from qwenbox.terms.usage import Usage

_ENCODER = msgspec.json.Encoder()
_ANSWER = msgspec.json.Decoder(HeardAnswer)
_STREAM_OPTIONS = StreamOptions(include_usage=True)


def chat(request: ChatRequest, model: str, *, is_model_studio: bool = False) -> bytes:
    """The body of a streamed chat call with usage. model: the server's own name for it.

    The thinking switch goes both ways in use: Model Studio's field and the template argument of vLLM, SGLang and llama.cpp.
    is_model_studio: say it in the first way only, and nothing that is the default there.
    """
    sampling = request.sampling
    thinks = request.thinking.is_enabled
    has_choice = (bool(request.tools) and not is_model_studio) or not isinstance(request.tool_choice, ToolAuto)
    has_parallel = (bool(request.tools) and not is_model_studio) or request.is_parallel_tool_calls
    return _ENCODER.encode(
        ChatBody(
            model=model,
            messages=[_message(message) for message in request.messages],
            stream=True,
            stream_options=_STREAM_OPTIONS,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=UNSET if sampling.top_k is None else sampling.top_k,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            repetition_penalty=sampling.repetition_penalty,
            seed=sampling.seed,
            max_tokens=request.max_output_tokens,
            stop=_stop(request.stop, request.stop_tokens),
            n=None if request.n == 1 else request.n,
            logprobs=None if request.top_logprobs is None else True,
            top_logprobs=request.top_logprobs,
            tools=[_tool(tool) for tool in request.tools] or None,
            tool_choice=_tool_choice(request.tool_choice) if has_choice else None,
            parallel_tool_calls=request.is_parallel_tool_calls if has_parallel else None,
            response_format=_response_format(request.response_format),
            vl_high_resolution_images=True if request.is_high_resolution else None,
            enable_thinking=thinks,
            thinking_budget=request.thinking.budget_tokens,
            chat_template_kwargs=None if thinks is None or is_model_studio else TemplateArguments(enable_thinking=thinks),
        )
    )


def completion(request: CompletionRequest, model: str) -> bytes:
    """The body of a streamed legacy completion with usage."""
    sampling = request.sampling
    return _ENCODER.encode(
        CompletionBody(
            model=model,
            prompt=request.prompt,
            suffix=request.suffix,
            stream=True,
            stream_options=_STREAM_OPTIONS,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=UNSET if sampling.top_k is None else sampling.top_k,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            repetition_penalty=sampling.repetition_penalty,
            seed=sampling.seed,
            max_tokens=request.max_output_tokens,
            stop=_stop(request.stop, ()),
            n=None if request.n == 1 else request.n,
            logprobs=request.top_logprobs,
        )
    )


def headers(key: str | None) -> Mapping[str, str]:
    """What goes with a body. key: the server's, None where it wants none."""
    base = {"content-type": "application/json", "accept": "text/event-stream"}
    return base if key is None else {**base, "authorization": f"Bearer {key}"}


def _stop(texts: Sequence[str], tokens: Sequence[Sequence[int]]) -> list[str | int | list[int]] | None:
    return [*texts, *(list(sequence) for sequence in tokens)] or None


def _message(message: Message) -> WireMessage:
    return WireMessage(
        role=message.role.value,
        content=_content(message.content),
        name=message.name,
        tool_calls=[
            WireCall(id=call.id, function=WireFunctionCall(name=call.name, arguments=call.arguments)) for call in message.tool_calls
        ]
        or None,
        tool_call_id=message.tool_call_id,
        reasoning_content=message.reasoning,
        partial=True if message.is_partial else None,
    )


def _content(parts: Sequence[Part]) -> str | list[WirePart]:
    """One text as a string, which every server takes; text-only models of many servers refuse parts."""
    if not parts:
        return ""
    if len(parts) == 1 and isinstance(parts[0], TextPart):
        return parts[0].text
    return [_part(part) for part in parts]


def _part(part: Part) -> WirePart:
    match part:
        case TextPart():
            return WirePart(type="text", text=part.text)
        case ImagePart():
            return WirePart(type="image_url", image_url=ImageUrl(url=part.address), min_pixels=part.min_pixels, max_pixels=part.max_pixels)
        case VideoPart():
            return WirePart(
                type="video",
                video=[frame.address for frame in part.frames],
                fps=part.fps,
                min_pixels=part.frames[0].min_pixels,
                max_pixels=part.frames[0].max_pixels,
            )
        case _:
            assert_never(part)


def _tool(tool: ToolSpec) -> WireTool:
    return WireTool(function=WireFunction(name=tool.name, description=tool.description or None, parameters=Raw(tool.parameters)))


def _tool_choice(choice: ToolChoice) -> str | WireToolChoice:
    match choice:
        case ToolAuto():
            return "auto"
        case ToolNone():
            return "none"
        case ToolRequired():
            return "required"
        case ToolNamed():
            return WireToolChoice(function=WireToolName(name=choice.name))
        case _:
            assert_never(choice)


def _response_format(wanted: ResponseFormat) -> WireFormat | None:
    match wanted:
        case AnyText():
            return None
        case JsonObject():
            return WireFormat(type="json_object")
        case JsonSchema():
            return WireFormat(type="json_schema", json_schema=WireSchema(name=wanted.name, schema=Raw(wanted.schema), strict=True))
        case _:
            assert_never(wanted)


class Listener:
    """Hears one streamed answer, chat or completion: `feed` every piece as it comes, then `finish`.

    The events do not depend on how the bytes were cut. Deltas count one token unless logprobs say how many; the usage is the
    server's, counted by us if it sent none. `[DONE]` may be missing, an unfinished choice may not.
    input_tokens: what Started says unless the first chunk brings a usage, e.g. counted beforehand.
    Raises ApiError from both methods: an error the server sent within the stream, ENGINE_FAILED for an answer cut short or unreadable.
    """

    def __init__(self, *, input_tokens: int = 0) -> None:
        self._frames = sse.Frames()
        self._input_tokens = input_tokens
        self._output_tokens = 0
        self._usage: Usage | None = None
        self._is_started = False
        self._is_completed = False
        self._open: set[int] = set()
        self._finished: set[int] = set()
        self._calls: set[tuple[int, int]] = set()

    def feed(self, chunk: bytes) -> list[ChatEvent]:
        return self._hear(self._frames.feed(chunk))

    def finish(self) -> list[ChatEvent]:
        """The body is over."""
        events = self._hear(self._frames.finish())
        return events if self._is_completed else [*events, self._complete()]

    def whole(self, body: bytes) -> list[ChatEvent]:
        """A whole JSON answer, from a server that does not stream, as the same events."""
        events: list[ChatEvent] = []
        self._answer(_read(body), events)
        return [*events, self._complete()]

    def _hear(self, frames: Sequence[sse.Frame]) -> list[ChatEvent]:
        events: list[ChatEvent] = []
        for frame in frames:
            if self._is_completed:
                break
            if frame.data == b"[DONE]":
                events.append(self._complete())
            else:
                self._answer(_read(frame.data), events)
        return events

    def _answer(self, answer: HeardAnswer, events: list[ChatEvent]) -> None:
        """Added to `events`: most chunks hold one delta, for which a list on every level costs more than the rest."""
        if answer.error is not None:
            raise heard.failed(answer)
        if answer.usage is not None:
            self._usage = heard.usage(answer.usage)
        if not self._is_started and answer.choices:
            self._is_started = True
            said = self._usage
            started = Started(input_tokens=self._input_tokens)
            if said is not None:
                started = Started(input_tokens=said.input_tokens, cached_tokens=said.cached_tokens, image_tokens=said.image_tokens)
            events.append(started)
        for choice in answer.choices or ():
            if choice.index not in self._finished:
                self._choice(choice, events)

    def _choice(self, choice: HeardChoice, events: list[ChatEvent]) -> None:
        index = choice.index
        self._open.add(index)
        said = choice.delta or choice.message or HeardText(content=choice.text)
        if reasoning := said.reasoning_content or said.reasoning:
            self._output_tokens += 1
            events.append(ReasoningDelta(text=reasoning, index=index, tokens=1))
        found = heard.logprobs(choice.logprobs)
        if said.content or found:
            tokens = len(found) or 1
            self._output_tokens += tokens
            events.append(TextDelta(text=said.content or "", index=index, tokens=tokens, logprobs=found))
        if said.tool_calls:
            self._output_tokens += len(said.tool_calls)
            events += [self._call(call, place, index) for place, call in enumerate(said.tool_calls)]
        if choice.finish_reason:
            self._open.discard(index)
            self._finished.add(index)
            events.append(ChoiceFinished(reason=heard.reason(choice.finish_reason), index=index))

    def _call(self, call: HeardCall, place: int, index: int) -> ToolCallDelta:
        number = place if call.index is None else call.index
        is_first = (index, number) not in self._calls
        self._calls.add((index, number))
        function = call.function or HeardFunction()
        return ToolCallDelta(
            call=number,
            # Some servers repeat id and name in every piece; ours come once.
            id=(call.id or "") if is_first else "",
            name=(function.name or "") if is_first else "",
            arguments=function.arguments or "",
            index=index,
            tokens=1,
        )

    def _complete(self) -> Completed:
        if self._open or not self._finished:
            raise ApiError(ErrorKind.ENGINE_FAILED, "The model's server ended its answer too early.")
        self._is_completed = True
        if self._usage is None:
            return Completed(usage=Usage(input_tokens=self._input_tokens, output_tokens=self._output_tokens, is_counted=True))
        return Completed(usage=self._usage)


def failure(status: int, body: bytes, headers: Mapping[str, str], *, is_model_studio: bool = False) -> ApiError:
    """What a server's refusal means for our caller. headers: names in lower case; `retry-after` in seconds is kept.

    is_model_studio: its texts are those that callers of this API know, and pass unchanged.
    Its credentials, quotas and model names are the box's, not the caller's, so 401, 403, 404 and 429 do not pass as themselves.
    """
    try:
        answer = _ANSWER.decode(body)
    except (ValueError, RecursionError):
        answer = HeardAnswer()
    error = answer.error if isinstance(answer.error, HeardError) else HeardError(message=answer.error)
    found = heard.failure(status, error, _retry_after_s(headers))
    if is_model_studio and status != 404:
        return heard.in_its_own_words(found, error)
    if is_model_studio and error.code in ("model_not_found", "model_not_supported"):
        return ApiError(ErrorKind.MODEL_NOT_FOUND, error.message or "")
    return found


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    text = headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else None


def _read(data: bytes) -> HeardAnswer:
    try:
        return _ANSWER.decode(data)
    except (ValueError, RecursionError) as error:
        raise ApiError(ErrorKind.ENGINE_FAILED, "The model's server sent an answer that cannot be read.") from error
