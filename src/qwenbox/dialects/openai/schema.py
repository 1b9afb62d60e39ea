"""This is where the wire of OpenAI-compatible chat is written down: requests read and spoken, answers rendered and heard.

Source: Model Studio, "OpenAI-compatible chat" (2025-12, 2026-08). Requests and heard answers ignore unknown fields.
"""

from typing import TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

WireStop: TypeAlias = str | list[str | int | list[int]]


class SamplingBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What chat and completions have in common. top_k: null and absent differ, null switches it off."""

    model: str | None = None
    stream: bool | None = None
    stream_options: "StreamOptions | None" = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | UnsetType | None = UNSET
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: WireStop | None = None
    n: int | None = None
    logit_bias: dict[str, Raw] | None = None


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    include_usage: bool | None = None


class ImageUrl(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """detail: OpenAI's hint at a size; this API goes by pixels and, like the service, does nothing with it."""

    url: str
    detail: str | None = None


class WirePart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One part of a message; parts of other types than text, image_url and video are known by their type alone."""

    type: str
    text: str | None = None
    image_url: ImageUrl | str | None = None
    video: list[str] | str | None = None
    fps: float | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    total_pixels: int | None = None


class WireFunctionCall(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    arguments: str


class WireCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call in the history."""

    function: WireFunctionCall
    id: str
    type: str = "function"


class WireMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    role: str
    content: str | list[WirePart] | None = None
    name: str | None = None
    tool_calls: list[WireCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    partial: bool | None = None
    function_call: WireFunctionCall | None = None


class WireFunction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    description: str | None = None
    parameters: Raw = Raw()


class WireTool(msgspec.Struct, frozen=True, kw_only=True):
    function: WireFunction
    type: str = "function"


class WireToolName(msgspec.Struct, frozen=True, kw_only=True):
    name: str


class WireToolChoice(msgspec.Struct, frozen=True, kw_only=True):
    function: WireToolName
    type: str = "function"


class WireSchema(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str | None = None
    schema: Raw = Raw()
    strict: bool | None = None


class WireFormat(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    type: str
    json_schema: WireSchema | None = None


class TemplateArguments(msgspec.Struct, frozen=True, kw_only=True):
    """`chat_template_kwargs`, as vLLM, SGLang and llama.cpp take the thinking switch."""

    enable_thinking: bool | None = None


class ChatBody(SamplingBody, frozen=True, kw_only=True, omit_defaults=True):
    messages: list[WireMessage] | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[WireTool] | None = None
    tool_choice: str | WireToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: WireFormat | None = None
    enable_thinking: bool | None = None
    thinking_budget: int | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: TemplateArguments | None = None
    vl_high_resolution_images: bool | None = None
    enable_search: bool | None = None
    enable_code_interpreter: bool | None = None
    modalities: list[str] | None = None
    functions: list[Raw] | None = None


class TopToken(msgspec.Struct, kw_only=True):
    token: str
    bytes: list[int]
    logprob: float


class Token(TopToken, kw_only=True):
    top_logprobs: list[TopToken]


class Logprobs(msgspec.Struct, kw_only=True):
    content: list[Token]


class FunctionPiece(msgspec.Struct, kw_only=True):
    name: str | UnsetType = UNSET
    arguments: str


class CallPiece(msgspec.Struct, kw_only=True):
    """A call in an answer, whole or a piece. id: "" and name: absent in all pieces but the first."""

    index: int
    id: str
    type: str = "function"
    function: FunctionPiece


class Delta(msgspec.Struct, kw_only=True):
    content: str | UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[CallPiece] | UnsetType = UNSET
    role: str | UnsetType = UNSET


class ChunkChoice(msgspec.Struct, kw_only=True):
    delta: Delta
    index: int
    logprobs: Logprobs | None = None
    finish_reason: str | None = None


class PromptTokens(msgspec.Struct, kw_only=True):
    """text_tokens, image_tokens: with pictures only."""

    cached_tokens: int | UnsetType = UNSET
    text_tokens: int | UnsetType = UNSET
    image_tokens: int | UnsetType = UNSET


class ReasoningTokens(msgspec.Struct, kw_only=True):
    reasoning_tokens: int


class WireUsage(msgspec.Struct, kw_only=True):
    """Details are absent when the engine did not say."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokens | UnsetType = UNSET
    completion_tokens_details: ReasoningTokens | UnsetType = UNSET


class Chunk(msgspec.Struct, kw_only=True):
    """One frame of a chat stream; the keys' order is the service's."""

    choices: list[ChunkChoice]
    object: str = "chat.completion.chunk"
    usage: WireUsage | None = None
    created: int
    system_fingerprint: None = None
    model: str
    id: str


class AnswerMessage(msgspec.Struct, kw_only=True):
    role: str = "assistant"
    content: str
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[CallPiece] | UnsetType = UNSET


class AnswerChoice(msgspec.Struct, kw_only=True):
    message: AnswerMessage
    finish_reason: str
    index: int
    logprobs: Logprobs | None = None


class WholeAnswer(msgspec.Struct, kw_only=True):
    choices: list[AnswerChoice]
    object: str = "chat.completion"
    usage: WireUsage
    created: int
    system_fingerprint: None = None
    model: str
    id: str
