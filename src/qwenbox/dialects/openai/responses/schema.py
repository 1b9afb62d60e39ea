"""This is where the wire of OpenAI's Responses is written down, requests and stored items; answers are in wire.py.

Source: the `openai` SDK's types (3.54); Model Studio, "OpenAI compatible - Responses" (2026-03). Unknown fields are ignored.
"""

from typing import TypeAlias

import msgspec
from msgspec import Raw

from qwenbox.dialects.openai.schema import SamplingBody


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of a message, a summary or a tool's output."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    file_id: str | None = None


Content: TypeAlias = str | list[Part]


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One item of a conversation, of any type, flat. type: absent for a message."""

    type: str | None = None
    id: str | None = None
    role: str | None = None
    content: Content | None = None
    status: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: Content | None = None
    summary: list[Part] | None = None


class WireTool(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    type: str
    name: str | None = None
    description: str | None = None
    parameters: Raw = Raw()
    strict: bool | None = None


class WireToolChoice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    type: str
    name: str | None = None


class WireFormat(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    type: str
    name: str | None = None
    schema: Raw = Raw()
    strict: bool | None = None


class WireText(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    format: WireFormat | None = None


class WireReasoning(msgspec.Struct, frozen=True, kw_only=True):
    effort: str | None = None
    summary: str | None = None


class Body(SamplingBody, frozen=True, kw_only=True, omit_defaults=True):
    input: str | list[Item] | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    tools: list[WireTool] | None = None
    tool_choice: str | WireToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: WireText | None = None
    reasoning: WireReasoning | None = None
    enable_thinking: bool | None = None
    thinking_budget: int | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    metadata: dict[str, str] | None = None
    truncation: str | None = None
    include: list[str] | None = None
    top_logprobs: int | None = None
    background: bool | None = None
    conversation: Raw = Raw()
    prompt: Raw = Raw()


class StoredOutput(msgspec.Struct, frozen=True, kw_only=True):
    """What of a stored response a later turn needs."""

    output: list[Item]
