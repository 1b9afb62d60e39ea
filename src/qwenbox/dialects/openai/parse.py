"""This is where OpenAI-compatible chat requests come in: bytes → ChatRequest, and the reply that will answer."""

from collections.abc import Sequence

import msgspec

from qwenbox.dialects.base import Parsed, WireRequest
from qwenbox.dialects.openai import fields, messages, render, tools
from qwenbox.dialects.openai.schema import ChatBody
from qwenbox.terms.caller import Compat
from qwenbox.terms.chat import ChatRequest, JsonObject, Message, Role, Thinking
from qwenbox.terms.errors import ApiError, ErrorKind

MAX_TOP_LOGPROBS = 5

# Model Studio, "Deep thinking" (2026-08): reasoning tokens by effort.
EFFORT_TOKENS = {"minimal": 4096, "low": 4096, "medium": 16384, "high": 262144, "xhigh": 262144, "max": 262144}

_BODY = msgspec.json.Decoder(ChatBody)
_NO_THINKING_SAID = Thinking()
_NO_KEY = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
    "(i.e. Authorization: Bearer YOUR_KEY)."
)


def credential(request: WireRequest) -> str:
    """The key of `Authorization: Bearer …`. Raises ApiError(UNAUTHENTICATED)."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise ApiError(ErrorKind.UNAUTHENTICATED, _NO_KEY)
    return key


def chat(request: WireRequest, compat: Compat) -> Parsed[ChatRequest]:
    """A chat request at this level. Raises ApiError(INVALID_REQUEST) naming the field at fault."""
    body = fields.decode(_BODY, request.body)
    model = fields.model(body)
    conversation = messages.read(body.messages)
    _refuse_unsupported(body)
    stop, stop_tokens = fields.stop(body.stop)
    specs = tools.tools(body.tools, compat)
    asked = ChatRequest(
        model=model,
        messages=conversation,
        sampling=fields.sampling(body, compat),
        max_output_tokens=_max_output_tokens(body),
        stop=stop,
        stop_tokens=stop_tokens,
        n=fields.choices(body),
        top_logprobs=_top_logprobs(body),
        tools=specs,
        tool_choice=tools.choice(body, specs),
        is_parallel_tool_calls=bool(body.parallel_tool_calls),
        response_format=tools.response_format(body.response_format),
        thinking=_thinking(body),
        is_high_resolution=bool(body.vl_high_resolution_images),
    )
    if compat is Compat.STRICT:
        _refuse_as_live(body, asked)
    return Parsed(request=asked, reply=render.chat(request, asked, body))


def _refuse_unsupported(body: ChatBody) -> None:
    """What is known and cannot be honoured is never dropped in silence."""
    fields.refuse_logit_bias(body)
    if body.enable_search:
        raise fields.invalid("This model does not support enable_search.", "enable_search")
    if body.enable_code_interpreter:
        raise fields.invalid("This model does not support enable_code_interpreter.", "enable_code_interpreter")
    if body.modalities and any(modality != "text" for modality in body.modalities):
        raise fields.invalid("This model answers in text only: modalities must be ['text'].", "modalities")
    if body.functions:
        raise fields.invalid("functions is not supported: use tools.", "functions")


def _max_output_tokens(body: ChatBody) -> int | None:
    whole = fields.max_tokens(body.max_completion_tokens, "max_completion_tokens")
    answer = fields.max_tokens(body.max_tokens, "max_tokens")
    return answer if whole is None else whole


def _top_logprobs(body: ChatBody) -> int | None:
    if body.top_logprobs is not None and not 0 <= body.top_logprobs <= MAX_TOP_LOGPROBS:
        raise fields.invalid(f"Range of top_logprobs should be [0, {MAX_TOP_LOGPROBS}]", "top_logprobs")
    if body.logprobs:
        return body.top_logprobs or 0
    if body.top_logprobs:
        raise fields.invalid("top_logprobs needs logprobs to be true", "top_logprobs")
    return None


def _thinking(body: ChatBody) -> Thinking:
    enabled = body.enable_thinking
    if enabled is None and body.chat_template_kwargs is not None:
        enabled = body.chat_template_kwargs.enable_thinking
    budget = body.thinking_budget
    if budget is not None and not 1 <= budget <= fields.MAX_TOKEN_ID:
        raise fields.invalid("The thinking_budget parameter must be a positive integer", "thinking_budget")
    effort = body.reasoning_effort
    if effort == "none":
        enabled = False if enabled is None else enabled
    elif effort is not None:
        if effort not in EFFORT_TOKENS:
            known = ["none", *EFFORT_TOKENS]
            raise fields.invalid(f"'{fields.quoted(effort)}' is not one of {known} - 'reasoning_effort'", "reasoning_effort")
        budget = EFFORT_TOKENS[effort] if budget is None else budget
    return _NO_THINKING_SAID if enabled is None and budget is None else Thinking(is_enabled=enabled, budget_tokens=budget)


def _refuse_as_live(body: ChatBody, asked: ChatRequest) -> None:
    """What the live service refuses although its document does not say so."""
    if all(message.role is not Role.USER for message in asked.messages):
        raise fields.invalid("The input messages do not contain elements with the role of user.", "messages")
    if asked.thinking.is_enabled and not body.stream:
        raise fields.invalid("parameter.enable_thinking must be set to false for non-streaming calls", "enable_thinking")
    if isinstance(asked.response_format, JsonObject):
        if asked.thinking.is_enabled:
            raise fields.invalid("Json mode response is not supported when enable_thinking is true", "response_format")
        if not _says_json(asked.messages):
            raise fields.invalid(
                "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.", "messages"
            )


def _says_json(conversation: Sequence[Message]) -> bool:
    return any("json" in message.text.lower() for message in conversation)
