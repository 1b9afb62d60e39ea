"""This is where answers of other OpenAI-compatible servers are written down as loosely as they come, and read as terms.

Whole answers, chunks and legacy completions share one shape here: a choice has a message, a delta or a text.
"""

import msgspec

from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import FinishReason, TokenLogprob
from qwenbox.terms.usage import Usage

_LONGEST_REFUSAL = 400
_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}
_TOO_LONG_SIGNS = ("context_length", "context_size", "context length", "context window", "range of input length")
_REJECTED_SIGNS = ("data_inspection_failed", "datainspectionfailed", "content_filter", "content_policy")
_KIND_OF_STATUS = {
    408: ErrorKind.TIMEOUT,
    413: ErrorKind.TOO_LARGE,
    429: ErrorKind.OVERLOADED,
    503: ErrorKind.OVERLOADED,
    504: ErrorKind.TIMEOUT,
    529: ErrorKind.OVERLOADED,
}
# Between the server and this box: the gateway shows none of these as the caller's own.
_KIND_OF_THE_BOX = {401: ErrorKind.UNAUTHENTICATED, 402: ErrorKind.OUT_OF_FUNDS, 403: ErrorKind.FORBIDDEN}
_ABOUT_THE_BOX = {
    ErrorKind.UNAUTHENTICATED: "The model's server refuses this box's API key. Whoever runs the box: check it.",
    ErrorKind.FORBIDDEN: "The model's server does not serve this box's account. Whoever runs the box: look into its console there.",
    ErrorKind.OUT_OF_FUNDS: "This box's account at the model's server is in arrears. Whoever runs the box: settle its bill there.",
}
# Said by services that count their callers; a bare 429 is a server that has no room.
_KIND_OF_CODE = {
    "limit_requests": ErrorKind.RATE_LIMITED,
    "limit_burst_rate": ErrorKind.RATE_LIMITED,
    "rate_limit_exceeded": ErrorKind.RATE_LIMITED,
    "insufficient_quota": ErrorKind.QUOTA_EXHAUSTED,
}
_FOR_CALLERS = frozenset(
    {
        ErrorKind.INVALID_REQUEST,
        ErrorKind.CONTEXT_TOO_LONG,
        ErrorKind.CONTENT_REJECTED,
        ErrorKind.RATE_LIMITED,
        ErrorKind.QUOTA_EXHAUSTED,
        ErrorKind.OVERLOADED,
    }
)
_STATUS_OF_CODE = {
    "invalid_parameter_error": 400,
    "invalid_request_error": 400,
    "invalid_api_key": 401,
    "limit_requests": 429,
    "limit_burst_rate": 429,
    "insufficient_quota": 429,
    "rate_limit_exceeded": 429,
    "model_unavailable": 503,
    "ServiceUnavailable": 503,
    "request_timeout": 504,
}


class HeardFunction(msgspec.Struct, frozen=True, kw_only=True):
    name: str | None = None
    arguments: str | None = None


class HeardCall(msgspec.Struct, frozen=True, kw_only=True):
    index: int | None = None
    id: str | None = None
    function: HeardFunction | None = None


class HeardText(msgspec.Struct, frozen=True, kw_only=True):
    """A message or a delta. reasoning: what vLLM and OpenRouter call reasoning_content."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[HeardCall] | None = None


class HeardRival(msgspec.Struct, frozen=True, kw_only=True):
    token: str
    logprob: float
    bytes: list[int] | None = None


class HeardToken(HeardRival, frozen=True, kw_only=True):
    top_logprobs: list[HeardRival] | None = None


class HeardLogprobs(msgspec.Struct, frozen=True, kw_only=True):
    """content: of chats; the parallel lists: of completions."""

    content: list[HeardToken] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class HeardChoice(msgspec.Struct, frozen=True, kw_only=True):
    index: int = 0
    delta: HeardText | None = None
    message: HeardText | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: HeardLogprobs | None = None


class HeardPrompt(msgspec.Struct, frozen=True, kw_only=True):
    cached_tokens: int | None = None
    image_tokens: int | None = None


class HeardReasoning(msgspec.Struct, frozen=True, kw_only=True):
    reasoning_tokens: int | None = None


class HeardUsage(msgspec.Struct, frozen=True, kw_only=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: HeardPrompt | None = None
    completion_tokens_details: HeardReasoning | None = None


class HeardError(msgspec.Struct, frozen=True, kw_only=True):
    message: str | None = None
    type: str | None = None
    code: str | int | None = None
    param: object = None


class HeardAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, a chunk, or an error in place of either."""

    choices: list[HeardChoice] | None = None
    usage: HeardUsage | None = None
    error: HeardError | str | None = None
    request_id: str | None = None


def reason(text: str) -> FinishReason:
    """Raises ApiError(ENGINE_FAILED) for words like "abort": the server broke off."""
    known = _REASONS.get(text)
    if known is None:
        raise ApiError(ErrorKind.ENGINE_FAILED, "The model's server gave up on its answer.")
    return known


def usage(said: HeardUsage) -> Usage:
    """Buckets the server did not name stay unknown."""
    prompt = said.prompt_tokens_details or HeardPrompt()
    return Usage(
        input_tokens=said.prompt_tokens or 0,
        output_tokens=said.completion_tokens or 0,
        cached_tokens=prompt.cached_tokens,
        image_tokens=prompt.image_tokens,
        reasoning_tokens=said.completion_tokens_details.reasoning_tokens if said.completion_tokens_details else None,
    )


def logprobs(said: HeardLogprobs | None) -> tuple[TokenLogprob, ...]:
    """Of a chat or a completion. Completions know no bytes: they are the text's."""
    if said is None:
        return ()
    if said.content:
        return tuple(
            [
                TokenLogprob(
                    text=token.token,
                    raw=_raw(token),
                    logprob=token.logprob,
                    rivals=tuple(
                        [TokenLogprob(text=rival.token, raw=_raw(rival), logprob=rival.logprob) for rival in token.top_logprobs or ()]
                    ),
                )
                for token in said.content
            ]
        )
    rivals = said.top_logprobs or [None] * len(said.tokens or ())
    return tuple(
        [
            TokenLogprob(
                text=text,
                raw=text.encode(),
                logprob=logprob or 0.0,
                rivals=tuple([TokenLogprob(text=other, raw=other.encode(), logprob=value) for other, value in (top or {}).items()]),
            )
            for text, logprob, top in zip(said.tokens or (), said.token_logprobs or (), rivals, strict=False)
        ]
    )


def _raw(token: HeardRival) -> bytes:
    return token.token.encode() if token.bytes is None else bytes([byte & 0xFF for byte in token.bytes])


def failed(answer: HeardAnswer) -> ApiError:
    """An error inside a stream: the status is told by its code, if at all."""
    error = answer.error if isinstance(answer.error, HeardError) else HeardError(message=answer.error)
    status = error.code if isinstance(error.code, int) else _STATUS_OF_CODE.get(error.code or error.type or "", 500)
    return failure(status, error, None)


def failure(status: int, error: HeardError, retry_after_s: float | None) -> ApiError:
    """What the server's refusal means for our caller (see `speak.failure`)."""
    words = f"{error.code} {error.type} {error.message}".lower()
    if any(sign in words for sign in _TOO_LONG_SIGNS):
        return ApiError(ErrorKind.CONTEXT_TOO_LONG)
    if any(sign in words for sign in _REJECTED_SIGNS):
        return ApiError(ErrorKind.CONTENT_REJECTED)
    if status in (400, 422) and "arrearage" not in words:
        return ApiError(ErrorKind.INVALID_REQUEST, _refusal(error))
    kind = _KIND_OF_STATUS.get(status, ErrorKind.ENGINE_FAILED)
    if kind is ErrorKind.OVERLOADED:
        kind = _KIND_OF_CODE.get(str(error.code or error.type), kind)
    if status in _KIND_OF_THE_BOX or "arrearage" in words:
        kind = _KIND_OF_THE_BOX.get(status, ErrorKind.OUT_OF_FUNDS)
        return ApiError(kind, _ABOUT_THE_BOX[kind])
    if kind is ErrorKind.ENGINE_FAILED and status == 404:
        return ApiError(kind, "The model's server does not know the model or the path.")
    return ApiError(kind, retry_after_s=retry_after_s)


def in_its_own_words(found: ApiError, error: HeardError) -> ApiError:
    """The same error with the service's text, where it is one for callers."""
    if found.kind not in _FOR_CALLERS or not error.message:
        return found
    param = error.param if isinstance(error.param, str) else None
    return ApiError(found.kind, error.message[:_LONGEST_REFUSAL], param=param, retry_after_s=found.retry_after_s)


def _refusal(error: HeardError) -> str:
    """The server's own words where they were written for callers: llama.cpp's, known by a numeric code, are C++ exceptions."""
    is_for_callers = not isinstance(error.code, int) or error.type == "BadRequestError"
    text = error.message or ""
    if is_for_callers and 0 < len(text) <= _LONGEST_REFUSAL and text.isprintable():
        return f"The model's server refused the request: {text}"
    return "The model's server refused the request."
