"""This is where the wire of Anthropic's Messages is written down: requests read, answers and stream events rendered.

Source: the `anthropic` SDK's types (2.12). Requests ignore unknown fields, such as cache_control: prompts are cached here by themselves.
"""

from typing import TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where a picture or document comes from. type: base64, url, text, content or file."""

    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    content: "str | list[Block] | None" = None


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A content block of any type, flat. source: a search result's is its address."""

    type: str
    text: str | None = None
    source: Source | str | None = None
    id: str | None = None
    name: str | None = None
    input: Raw = Raw()
    tool_use_id: str | None = None
    content: "str | list[Block] | None" = None
    is_error: bool | None = None
    thinking: str | None = None
    title: str | None = None
    context: str | None = None


Content: TypeAlias = str | list[Block]


class WireMessage(msgspec.Struct, frozen=True, kw_only=True):
    role: str
    content: Content


class WireTool(msgspec.Struct, frozen=True, kw_only=True):
    """type: absent, null or "custom" for a tool of the caller's own."""

    name: str | None = None
    type: str | None = None
    description: str | None = None
    input_schema: Raw = Raw()


class WireToolChoice(msgspec.Struct, frozen=True, kw_only=True):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class WireThinking(msgspec.Struct, frozen=True, kw_only=True):
    type: str
    budget_tokens: int | None = None


class WireFormat(msgspec.Struct, frozen=True, kw_only=True):
    type: str
    schema: Raw = Raw()


class OutputConfig(msgspec.Struct, frozen=True, kw_only=True):
    format: WireFormat | None = None
    effort: str | None = None


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    user_id: str | None = None


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """A request to create a message or to count its tokens. seed: ours, as on the other wires."""

    model: str | None = None
    messages: list[WireMessage] | None = None
    max_tokens: int | None = None
    system: Content | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    tools: list[WireTool] | None = None
    tool_choice: WireToolChoice | None = None
    thinking: WireThinking | None = None
    output_config: OutputConfig | None = None
    output_format: WireFormat | None = None
    metadata: Metadata | None = None
    mcp_servers: list[Raw] | None = None
    container: Raw = Raw()


class TextBlock(msgspec.Struct, kw_only=True, tag="text", tag_field="type"):
    text: str


class ThinkingBlock(msgspec.Struct, kw_only=True, tag="thinking", tag_field="type"):
    """signature: always empty: nothing checks thoughts that come back."""

    thinking: str
    signature: str = ""


class ToolUseBlock(msgspec.Struct, kw_only=True, tag="tool_use", tag_field="type"):
    id: str
    name: str
    input: Raw


AnswerBlock: TypeAlias = TextBlock | ThinkingBlock | ToolUseBlock


class OutputDetails(msgspec.Struct, kw_only=True):
    thinking_tokens: int


class WireUsage(msgspec.Struct, kw_only=True):
    """input_tokens: those that were not read from a cache; the whole prompt is the sum of the three."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: OutputDetails | UnsetType = UNSET


class WireAnswer(msgspec.Struct, kw_only=True, tag="message", tag_field="type"):
    """A message, whole or as a stream begins it."""

    id: str
    role: str = "assistant"
    model: str
    content: list[AnswerBlock]
    stop_reason: str | None
    stop_sequence: str | None
    usage: WireUsage


class MessageStart(msgspec.Struct, kw_only=True, tag="message_start", tag_field="type"):
    message: WireAnswer


class BlockStart(msgspec.Struct, kw_only=True, tag="content_block_start", tag_field="type"):
    index: int
    content_block: AnswerBlock


class TextPiece(msgspec.Struct, kw_only=True, tag="text_delta", tag_field="type"):
    text: str


class ThinkingPiece(msgspec.Struct, kw_only=True, tag="thinking_delta", tag_field="type"):
    thinking: str


class InputPiece(msgspec.Struct, kw_only=True, tag="input_json_delta", tag_field="type"):
    partial_json: str


class BlockDelta(msgspec.Struct, kw_only=True, tag="content_block_delta", tag_field="type"):
    index: int
    delta: TextPiece | ThinkingPiece | InputPiece


class BlockStop(msgspec.Struct, kw_only=True, tag="content_block_stop", tag_field="type"):
    index: int


class Ending(msgspec.Struct, kw_only=True):
    stop_reason: str
    stop_sequence: str | None


class MessageDelta(msgspec.Struct, kw_only=True, tag="message_delta", tag_field="type"):
    delta: Ending
    usage: WireUsage


class MessageStop(msgspec.Struct, kw_only=True, tag="message_stop", tag_field="type"):
    """The end of a stream."""


class Counted(msgspec.Struct, kw_only=True):
    input_tokens: int


class WireModel(msgspec.Struct, kw_only=True, tag="model", tag_field="type"):
    id: str
    display_name: str
    created_at: str
    lifecycle: str = "active"
    max_input_tokens: int
    max_tokens: int


class WireModels(msgspec.Struct, kw_only=True):
    data: list[WireModel]
    has_more: bool
    first_id: str | None
    last_id: str | None
