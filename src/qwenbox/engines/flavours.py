"""This is where servers of the OpenAI dialect differ: what each takes, refuses and calls otherwise, as data."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeAlias

import msgspec

from qwenbox.terms.chat import ChatRequest, JsonSchema
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.errors import ApiError, ErrorKind

Scalar: TypeAlias = str | int | float | bool
Fields: TypeAlias = dict[str, msgspec.Raw]

# Body fields whose value in the request's terms has another name.
_TERMS = {"max_tokens": "max_output_tokens", "enable_thinking": "is_enabled"}
_HARMLESS = {"tool_choice": (b'"auto"', b'"none"')}

_FIELDS = msgspec.json.Decoder(Fields)
_ENCODER = msgspec.json.Encoder()


class Partial(StrEnum):
    """How a server is told to continue the last assistant turn."""

    FIELD = "field"  # `partial: true` in the message: Model Studio, qwenbox
    CONTINUE = "continue"  # continue_final_message beside the messages: vLLM, SGLang
    REFUSED = "refused"


class SchemaField(StrEnum):
    """Where a server looks for the JSON Schema an answer must keep."""

    RESPONSE_FORMAT = "response_format"
    GUIDED_JSON = "guided_json"  # vLLM before 0.6


class Quirks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a server's body differs from Model Studio's compatible dialect.

    leave_out: fields it needs not be told. refuse: fields it would ignore though they change the answer: left out while they hold the
    catalog's defaults, refused when a caller asks for them. rename: our field → its own. add: fields every call carries.
    thinking_on, thinking_off: fields that carry the thinking switch. top_k_all: what it calls "all tokens", 0 here.
    takes_stop_tokens: whether `stop` may hold token ids. stop_ids_field: takes single ids, in a field of this name.
    """

    leave_out: frozenset[str] = frozenset()
    refuse: frozenset[str] = frozenset()
    rename: dict[str, str] = {}
    add: dict[str, Scalar] = {}
    thinking_on: dict[str, Scalar] = {}
    thinking_off: dict[str, Scalar] = {}
    top_k_all: int | None = None
    partial: Partial = Partial.FIELD
    schema_field: SchemaField = SchemaField.RESPONSE_FORMAT
    takes_stop_tokens: bool = True
    stop_ids_field: str = ""


class Told(StrEnum):
    """Where a server tells what it has."""

    MODELS = "models"  # GET /v1/models: max_model_len, context_length
    PROPS = "props"  # llama-server's GET /props
    SHOW = "show"  # Ollama's POST /api/show


class Flavour(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of server. alive_path: from its root, answers 200 when it can generate; "" asks its models list."""

    quirks: Quirks = Quirks()
    alive_path: str = ""
    told: Told = Told.MODELS


# Model Studio's own switches, which these servers do not know; their templates take chat_template_kwargs.
_NOT_THEIRS = frozenset({"enable_thinking"})
_SCALE_OUT = Quirks(
    leave_out=_NOT_THEIRS,
    refuse=frozenset({"thinking_budget"}),
    top_k_all=-1,
    partial=Partial.CONTINUE,
    takes_stop_tokens=False,
    stop_ids_field="stop_token_ids",
)

FLAVOURS: Mapping[str, Flavour] = {
    "": Flavour(),
    # docs.vllm.ai "OpenAI-Compatible Server" (2026): extra parameters at the top level, /health is 503 once the engine is dead.
    "vllm": Flavour(quirks=_SCALE_OUT, alive_path="/health"),
    # docs.sglang.ai "OpenAI APIs" (2026): as vLLM; refuses a top_k of 0.
    "sglang": Flavour(quirks=_SCALE_OUT, alive_path="/health"),
    # docs.ollama.com "OpenAI compatibility" (2026): ignores what it does not list.
    "ollama": Flavour(
        quirks=Quirks(
            leave_out=frozenset({"enable_thinking", "chat_template_kwargs", "parallel_tool_calls"}),
            refuse=frozenset({"top_k", "repetition_penalty", "n", "tool_choice", "thinking_budget"}),
            thinking_off={"reasoning_effort": "none"},
            partial=Partial.REFUSED,
            takes_stop_tokens=False,
        ),
        told=Told.SHOW,
    ),
    # llama.cpp, tools/server/README.md (2026); that its chat ignores tool_choice and closes a partial turn was measured (docs/engines.md).
    "llama-server": Flavour(
        quirks=Quirks(
            leave_out=frozenset({"enable_thinking"}),
            refuse=frozenset({"n", "tool_choice", "thinking_budget"}),
            rename={"repetition_penalty": "repeat_penalty"},
            partial=Partial.REFUSED,
            takes_stop_tokens=False,
        ),
        alive_path="/health",
        told=Told.PROPS,
    ),
    # platform.openai.com API reference (2026): refuses fields it does not know.
    "openai": Flavour(
        quirks=Quirks(
            leave_out=frozenset({"enable_thinking", "chat_template_kwargs"}),
            refuse=frozenset({"top_k", "repetition_penalty", "thinking_budget"}),
            rename={"max_tokens": "max_completion_tokens"},
            partial=Partial.REFUSED,
            takes_stop_tokens=False,
        )
    ),
}


def check(request: ChatRequest | CompletionRequest, quirks: Quirks) -> None:
    """Raises ApiError(INVALID_REQUEST) for what cannot even be written to this server."""
    if isinstance(request, CompletionRequest):
        return
    singles = all(len(sequence) == 1 for sequence in request.stop_tokens)
    if request.stop_tokens and not quirks.takes_stop_tokens and not (quirks.stop_ids_field and singles):
        raise ApiError(ErrorKind.INVALID_REQUEST, "This model's server takes no such token ids in stop: use texts.", param="stop")
    if is_partial(request) and quirks.partial is Partial.REFUSED:
        raise ApiError(ErrorKind.INVALID_REQUEST, "This model's server cannot continue a partial message.", param="messages")


def bend(body: bytes, request: ChatRequest | CompletionRequest, quirks: Quirks) -> bytes:
    """The body as this server wants it; untouched for most. Raises ApiError(INVALID_REQUEST) for a field it would ignore."""
    is_continued = isinstance(request, ChatRequest) and is_partial(request) and quirks.partial is Partial.CONTINUE
    if quirks == _NONE and not is_continued:
        return body
    fields = _FIELDS.decode(body)
    _refuse(fields, request, quirks)
    added: dict[str, object] = {**quirks.add}
    if quirks.top_k_all is not None and fields.get("top_k") == msgspec.Raw(b"0"):
        added["top_k"] = quirks.top_k_all
    if isinstance(request, ChatRequest):
        added |= _chat_fields(fields, request, quirks)
    if is_continued:
        added |= {"continue_final_message": True, "add_generation_prompt": False}
    kept = {quirks.rename.get(name, name): value for name, value in fields.items() if name not in quirks.leave_out}
    return _ENCODER.encode({**kept, **added})


def is_partial(request: ChatRequest) -> bool:
    return bool(request.messages) and request.messages[-1].is_partial


def _refuse(fields: Fields, request: ChatRequest | CompletionRequest, quirks: Quirks) -> None:
    """Take out what it would ignore; nobody may have asked for it."""
    for name in quirks.refuse & fields.keys():
        value = bytes(fields.pop(name))
        if name == "tool_choice" and value == b'"none"':
            fields.pop("tools", None)
        if _TERMS.get(name, name) not in request.defaults and value not in _HARMLESS.get(name, ()):
            text = f"This model's server would ignore {name}: leave it out, or use another model."
            raise ApiError(ErrorKind.INVALID_REQUEST, text, param=name)


def _chat_fields(fields: Fields, request: ChatRequest, quirks: Quirks) -> dict[str, object]:
    added: dict[str, object] = {}
    if request.thinking.is_enabled is not None:
        added |= quirks.thinking_on if request.thinking.is_enabled else quirks.thinking_off
    if request.stop_tokens and quirks.stop_ids_field:
        fields.pop("stop", None)
        added[quirks.stop_ids_field] = [sequence[0] for sequence in request.stop_tokens]
    if quirks.schema_field is SchemaField.GUIDED_JSON and isinstance(request.response_format, JsonSchema):
        fields.pop("response_format", None)
        added["guided_json"] = msgspec.Raw(request.response_format.schema)
    return added


_NONE = Quirks()
