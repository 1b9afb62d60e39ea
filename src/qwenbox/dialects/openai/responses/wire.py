"""This is where what OpenAI's Responses answer is written down: the response, its items, and the events of a stream."""

from typing import TypeAlias

import msgspec
from msgspec import Raw

from qwenbox.dialects.openai.responses.schema import WireText, WireTool, WireToolChoice


class OutputText(msgspec.Struct, kw_only=True, tag="output_text", tag_field="type"):
    text: str
    annotations: list[Raw] = []
    logprobs: list[Raw] = []


class SummaryText(msgspec.Struct, kw_only=True, tag="summary_text", tag_field="type"):
    text: str


class MessageItem(msgspec.Struct, kw_only=True, tag="message", tag_field="type"):
    id: str
    status: str
    role: str = "assistant"
    content: list[OutputText]


class ReasoningItem(msgspec.Struct, kw_only=True, tag="reasoning", tag_field="type"):
    """Thoughts go out as a summary, which SDKs and tools show; they are the whole text."""

    id: str
    status: str
    summary: list[SummaryText]
    encrypted_content: None = None


class CallItem(msgspec.Struct, kw_only=True, tag="function_call", tag_field="type"):
    id: str
    status: str
    call_id: str
    name: str
    arguments: str


OutputItem: TypeAlias = MessageItem | ReasoningItem | CallItem


class InputDetails(msgspec.Struct, kw_only=True):
    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(msgspec.Struct, kw_only=True):
    reasoning_tokens: int


class WireUsage(msgspec.Struct, kw_only=True):
    """The SDK wants both details; what an engine does not say is 0 here."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class Failure(msgspec.Struct, kw_only=True):
    code: str
    message: str


class Incomplete(msgspec.Struct, kw_only=True):
    reason: str


class AskedReasoning(msgspec.Struct, kw_only=True):
    effort: str | None
    summary: str | None


class Response(msgspec.Struct, kw_only=True):
    """A response, whole or at some moment of its making."""

    id: str
    object: str = "response"
    created_at: int
    status: str
    background: bool = False
    error: Failure | None
    incomplete_details: Incomplete | None
    instructions: str | None
    max_output_tokens: int | None
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    previous_response_id: str | None
    reasoning: AskedReasoning
    store: bool
    temperature: float | None
    text: WireText
    tool_choice: str | WireToolChoice
    tools: list[WireTool]
    top_p: float | None
    truncation: str
    usage: WireUsage | None
    metadata: dict[str, str]


class Event(msgspec.Struct, kw_only=True, tag_field="type"):
    """sequence_number: from 0, one more with each event of a stream."""

    sequence_number: int = 0


class Created(Event, kw_only=True, tag="response.created"):
    response: Response


class InProgress(Event, kw_only=True, tag="response.in_progress"):
    response: Response


class CompletedResponse(Event, kw_only=True, tag="response.completed"):
    response: Response


class IncompleteResponse(Event, kw_only=True, tag="response.incomplete"):
    response: Response


class FailedResponse(Event, kw_only=True, tag="response.failed"):
    response: Response


class ItemAdded(Event, kw_only=True, tag="response.output_item.added"):
    output_index: int
    item: OutputItem


class ItemDone(Event, kw_only=True, tag="response.output_item.done"):
    output_index: int
    item: OutputItem


class _OfItem(Event, kw_only=True):
    item_id: str
    output_index: int


class _OfContent(_OfItem, kw_only=True):
    content_index: int = 0


class _OfSummary(_OfItem, kw_only=True):
    summary_index: int = 0


class PartAdded(_OfContent, kw_only=True, tag="response.content_part.added"):
    part: OutputText


class PartDone(_OfContent, kw_only=True, tag="response.content_part.done"):
    part: OutputText


class TextDelta(_OfContent, kw_only=True, tag="response.output_text.delta"):
    delta: str
    logprobs: list[Raw] = []


class TextDone(_OfContent, kw_only=True, tag="response.output_text.done"):
    text: str
    logprobs: list[Raw] = []


class SummaryAdded(_OfSummary, kw_only=True, tag="response.reasoning_summary_part.added"):
    part: SummaryText


class SummaryDone(_OfSummary, kw_only=True, tag="response.reasoning_summary_part.done"):
    part: SummaryText


class SummaryTextDelta(_OfSummary, kw_only=True, tag="response.reasoning_summary_text.delta"):
    delta: str


class SummaryTextDone(_OfSummary, kw_only=True, tag="response.reasoning_summary_text.done"):
    text: str


class ArgumentsDelta(_OfItem, kw_only=True, tag="response.function_call_arguments.delta"):
    delta: str


class ArgumentsDone(_OfItem, kw_only=True, tag="response.function_call_arguments.done"):
    name: str
    arguments: str


class Deleted(msgspec.Struct, kw_only=True):
    id: str
    object: str = "response"
    deleted: bool = True


class Counted(msgspec.Struct, kw_only=True):
    object: str = "response.input_tokens"
    input_tokens: int


class ItemsPage(msgspec.Struct, kw_only=True):
    object: str = "list"
    data: list[Raw]
    first_id: str | None
    last_id: str | None
    has_more: bool
