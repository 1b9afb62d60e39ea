"""This is where a chat request is said in our own words, before any engine and after any wire."""

import base64
from collections.abc import Iterator
from enum import StrEnum
from typing import TypeAlias

import msgspec


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class TextPart(msgspec.Struct, frozen=True, kw_only=True, tag="text"):
    text: str


class ImagePart(msgspec.Struct, frozen=True, kw_only=True, tag="image"):
    """A picture by reference; below the gateway's media step it is also bytes.

    url: http(s) URL, data URL or oss:// name, as the caller sent it. min_pixels, max_pixels: the caller's wish for the
    number of pixels the model sees (width times height), None when they did not say.
    data: the file's bytes, b"" until fetched; media_type: what the bytes are (`image/png`), from the bytes themselves;
    width, height: pixels of the picture in `data`, 0 until fetched.
    """

    url: str
    min_pixels: int | None = None
    max_pixels: int | None = None
    data: bytes = b""
    media_type: str = ""
    width: int = 0
    height: int = 0

    @property
    def address(self) -> str:
        """What an engine is sent: a data URL of the bytes, so that it fetches nothing; before there are any, `url`."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode()}" if self.data else self.url

    def __repr__(self) -> str:
        """Says that there is a picture, never which: an address can hold a key or the picture itself."""
        return f"ImagePart({self.media_type or 'not fetched'}, {self.width}x{self.height}, {len(self.data)} bytes)"


class VideoPart(msgspec.Struct, frozen=True, kw_only=True, tag="video"):
    """A film as the list of its frames, in order. fps: frames per second of the film's own time; None: not said."""

    frames: tuple[ImagePart, ...]
    fps: float | None = None


Part: TypeAlias = TextPart | ImagePart | VideoPart


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call an assistant made. arguments: JSON text of an object, as the model wrote it."""

    id: str
    name: str
    arguments: str


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of the conversation.

    content: parts in order; () where the turn has none (an assistant's turn of tool calls).
    is_partial: the last assistant turn is a beginning to be continued; the answer holds only the continuation.
    """

    role: Role
    content: tuple[Part, ...] = ()
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: str | None = None
    is_partial: bool = False

    @property
    def text(self) -> str:
        """The text parts joined, nothing between them."""
        return "".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def pictures(self) -> Iterator[ImagePart]:
        """In order, frames of films among them."""
        for part in self.content:
            if isinstance(part, ImagePart):
                yield part
            elif isinstance(part, VideoPart):
                yield from part.frames


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How tokens are drawn. None means the caller did not say: the catalog fills it from the model's card.

    temperature: 0 is greedy. top_p: share of probability kept, 0–1. top_k: tokens kept; 0 keeps all.
    seed: only what the caller sent, never a default (a seed is a promise, docs/engines.md).
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None


class ToolSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A function the model may call. parameters: its JSON Schema as JSON text, b"{}" when it takes none."""

    name: str
    description: str = ""
    parameters: bytes = b"{}"


class ToolAuto(msgspec.Struct, frozen=True, tag="auto"):
    """The model decides."""


class ToolNone(msgspec.Struct, frozen=True, tag="none"):
    """No call, though there are tools."""


class ToolRequired(msgspec.Struct, frozen=True, tag="required"):
    """At least one call of any of the tools."""


class ToolNamed(msgspec.Struct, frozen=True, tag="named"):
    """A call of this tool."""

    name: str


ToolChoice: TypeAlias = ToolAuto | ToolNone | ToolRequired | ToolNamed


class AnyText(msgspec.Struct, frozen=True, tag="text"):
    """No promise about the answer's form."""


class JsonObject(msgspec.Struct, frozen=True, tag="json_object"):
    """The answer is one JSON object."""


class JsonSchema(msgspec.Struct, frozen=True, kw_only=True, tag="json_schema"):
    """The answer is JSON that validates against `schema` (JSON text)."""

    name: str = ""
    schema: bytes


ResponseFormat: TypeAlias = AnyText | JsonObject | JsonSchema


class Thinking(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the model may think before it answers. None: the caller did not say, the card decides.

    budget_tokens: reasoning tokens after which the model is cut over to answering.
    is_optional: a model that cannot think may answer without it.
    """

    is_enabled: bool | None = None
    budget_tokens: int | None = None
    is_optional: bool = False


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a model; how the answer is to be written is a Reply's business and never enters here.

    max_output_tokens: reasoning included; None until the catalog puts in the card's maximum.
    stop, stop_tokens: texts or token-id sequences that end the answer and are not part of it; at most one is non-empty.
    n: choices wanted, 1–4. top_logprobs: alternatives per token, None when no logprobs are wanted, 0 for the chosen only.
    is_high_resolution: pictures are seen as large as the model can; their max_pixels is not looked at.
    wants_picture_sizes: the answer is to say at which sizes they were seen.
    extensions: raw JSON by keys like `vllm.guided_json`, read only by the engine they name.
    defaults: what the catalog put in where the caller said nothing, by the field's name here (`temperature`, `max_output_tokens`,
    `is_enabled`); an engine whose server knows the model's own defaults leaves these to it.
    """

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    max_output_tokens: int | None = None
    stop: tuple[str, ...] = ()
    stop_tokens: tuple[tuple[int, ...], ...] = ()
    n: int = 1
    top_logprobs: int | None = None
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: ToolChoice = ToolAuto()
    is_parallel_tool_calls: bool = False
    response_format: ResponseFormat = AnyText()
    thinking: Thinking = Thinking()
    is_high_resolution: bool = False
    wants_picture_sizes: bool = False
    extensions: dict[str, bytes] = {}
    defaults: dict[str, float | bool] = {}

    @property
    def pictures(self) -> Iterator[ImagePart]:
        """Of all messages, in order, frames of films among them."""
        for message in self.messages:
            yield from message.pictures

    @property
    def has_pictures(self) -> bool:
        """Every call is asked, so no generator is made."""
        for message in self.messages:
            for part in message.content:
                if type(part) is not TextPart:
                    return True
        return False
