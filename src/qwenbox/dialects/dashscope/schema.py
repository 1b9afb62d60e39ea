"""This is where the native chat request has its wire shape, as structs (wire reference 1.4, 2.1, 2.2, 3.1).

Unknown keys are ignored: SDKs forward any keyword into `parameters`. null means absent, except for top_k, where it switches the cut off.
"""

from typing import TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

NOTHING = Raw(b"")


class Item(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of a content list: exactly one of its modalities is there, what belongs to it beside it."""

    text: str | None = None
    image: str | None = None
    video: list[str] | str | None = None
    audio: Raw = NOTHING
    file: Raw = NOTHING
    fps: float | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    total_pixels: int | None = None
    max_frames: int | None = None
    cache_control: Raw = NOTHING


class CallFunction(msgspec.Struct, frozen=True):
    """arguments: JSON text in a string on the wire; an object is understood too."""

    name: str
    arguments: Raw = NOTHING


class Call(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    function: CallFunction
    index: int | None = None
    id: str | None = None
    type: str | None = None


Content: TypeAlias = str | list[Item]


class WireMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    role: str
    content: Content | None = None
    name: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    partial: bool | None = None


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange of the legacy `history`."""

    user: str
    bot: str


class Input(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """prompt: the SDK sends a text file as the list of its lines."""

    messages: list[WireMessage] | None = None
    prompt: str | list[str] | None = None
    history: list[Turn] | None = None


class Function(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    description: str | None = None
    parameters: Raw = NOTHING


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    type: str = "function"
    function: Function | None = None


class NamedFunction(msgspec.Struct, frozen=True, kw_only=True):
    name: str


class NamedTool(msgspec.Struct, frozen=True, kw_only=True):
    type: str = "function"
    function: NamedFunction


class NamedSchema(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str | None = None
    schema: Raw = NOTHING


class Format(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    type: str | None = None
    json_schema: NamedSchema | None = None


class Parameters(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The known parameters; those from `enable_search` on are known only to be refused where they would change the answer."""

    result_format: str | None = None
    incremental_output: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | UnsetType | None = UNSET
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    seed: int | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: str | list[str | int | list[int]] | None = None
    n: int | None = None
    tools: list[Tool] | None = None
    tool_choice: str | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: Format | None = None
    enable_thinking: bool | None = None
    thinking_budget: int | None = None
    reasoning_effort: str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    vl_high_resolution_images: bool | None = None
    vl_enable_image_hw_output: bool | None = None
    enable_search: Raw = NOTHING
    enable_code_interpreter: Raw = NOTHING
    preserve_thinking: Raw = NOTHING
    plugins: Raw = NOTHING
    logit_bias: Raw = NOTHING
    max_input_tokens: Raw = NOTHING
    translation_options: Raw = NOTHING
    skill: Raw = NOTHING
    ocr_options: Raw = NOTHING
    asr_options: Raw = NOTHING
    audio: Raw = NOTHING


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """The envelope. A string as input is an encrypted one (wire reference 1.7)."""

    model: str | None = None
    input: Input | str | None = None
    parameters: Parameters | None = None
