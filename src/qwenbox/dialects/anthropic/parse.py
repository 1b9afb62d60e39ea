"""This is where Anthropic Messages requests come in: bytes → ChatRequest, and the reply that will answer."""

from qwenbox.dialects.anthropic import fields, messages, render, tools
from qwenbox.dialects.anthropic.schema import Body
from qwenbox.dialects.base import Parsed, WireRequest
from qwenbox.terms.caller import Compat
from qwenbox.terms.chat import ChatRequest, Thinking
from qwenbox.terms.errors import ApiError, ErrorKind

# Reasoning tokens by effort, as on the OpenAI-compatible wire.
EFFORT_TOKENS = {"minimal": 4096, "low": 4096, "medium": 16384, "high": 262144, "xhigh": 262144, "max": 262144}

_NO_KEY = "x-api-key header is required (or Authorization: Bearer YOUR_KEY)"


def credential(request: WireRequest) -> str:
    """The key of `x-api-key`, else of `Authorization: Bearer …`. Raises ApiError(UNAUTHENTICATED)."""
    if key := request.headers.get("x-api-key", "").strip():
        return key
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise ApiError(ErrorKind.UNAUTHENTICATED, _NO_KEY)
    return key


def chat(request: WireRequest, compat: Compat) -> Parsed[ChatRequest]:
    """A message to create, at this level. Raises ApiError(INVALID_REQUEST) naming the field at fault."""
    body = fields.decode(request.body)
    asked = _asked(body, compat, fields.max_tokens(body))
    return Parsed(request=asked, reply=render.chat(request, asked, is_streamed=bool(body.stream)))


def count(request: WireRequest, compat: Compat) -> ChatRequest:
    """A message whose tokens are to be counted; raises as `chat`. max_tokens may be missing."""
    return _asked(fields.decode(request.body), compat, None)


def _asked(body: Body, compat: Compat, max_output_tokens: int | None) -> ChatRequest:
    model = fields.model(body)
    conversation = messages.read(body.messages, body.system)
    _refuse_unsupported(body)
    specs = tools.tools(body.tools)
    return ChatRequest(
        model=model,
        messages=conversation,
        sampling=fields.sampling(body, compat),
        max_output_tokens=max_output_tokens,
        stop=fields.stop(body),
        tools=specs,
        tool_choice=tools.choice(body, specs),
        is_parallel_tool_calls=tools.is_parallel(body),
        response_format=tools.response_format(body),
        thinking=_thinking(body),
    )


def _refuse_unsupported(body: Body) -> None:
    """What is known and cannot be honoured is never dropped in silence."""
    if body.mcp_servers:
        raise fields.invalid("mcp_servers", "this box calls no MCP servers: call them on your side and send their tools")
    if bytes(body.container) not in (b"", b"null"):
        raise fields.invalid("container", "this box has no containers")


def _thinking(body: Body) -> Thinking:
    """Thinking that is asked for here is a leave, not a demand: coding tools ask every model for it, also those that cannot."""
    wire = body.thinking
    effort = body.output_config.effort if body.output_config is not None else None
    if effort is not None and effort not in EFFORT_TOKENS:
        raise fields.invalid("output_config.effort", f"'{fields.quoted(effort)}' is not one of {list(EFFORT_TOKENS)}")
    if wire is None:
        return Thinking()
    match wire.type:
        case "disabled":
            return Thinking(is_enabled=False)
        case "enabled":
            if wire.budget_tokens is None:
                raise fields.invalid("thinking.budget_tokens", "Field required")
            if wire.budget_tokens < 1:
                raise fields.invalid("thinking.budget_tokens", "Input should be greater than or equal to 1")
            return Thinking(is_enabled=True, is_optional=True, budget_tokens=wire.budget_tokens)
        case "adaptive":
            return Thinking(is_enabled=True, is_optional=True, budget_tokens=EFFORT_TOKENS[effort] if effort else None)
        case kind:
            raise fields.invalid("thinking.type", f"'{fields.quoted(kind)}' is not one of 'enabled', 'disabled', 'adaptive'")
