"""This is where a line of a batch's output or error file is read: what became of one request."""

import msgspec
from msgspec import UNSET, UnsetType

from qwenbox.terms.usage import Usage

# Raw takes no part in unions: absent is null.
_NULL = msgspec.Raw(b"null")


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    message: str


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one request. line: of the input, from 1. usage: as the service told it.

    answers: all of them where several were asked for (n). cost_micros: in millionths of the currency, left out when nobody told.
    """

    line: int
    custom_id: str
    answer: str | None
    answers: tuple[str | None, ...] | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: msgspec.Raw | UnsetType = UNSET
    embedding: msgspec.Raw | UnsetType = UNSET
    finish_reason: str | None
    usage: msgspec.Raw = _NULL
    cost_micros: int | UnsetType = UNSET
    currency: str | UnsetType = UNSET
    request_id: str
    error: Problem | None


class _Message(msgspec.Struct, frozen=True, kw_only=True):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: msgspec.Raw = _NULL


class _Choice(msgspec.Struct, frozen=True, kw_only=True):
    index: int = 0
    text: str | None = None
    message: _Message | None = None
    finish_reason: str | None = None

    @property
    def said(self) -> str | None:
        return self.message.content if self.message is not None else self.text


class _Vector(msgspec.Struct, frozen=True, kw_only=True):
    embedding: msgspec.Raw


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    choices: tuple[_Choice, ...] = ()
    data: tuple[_Vector, ...] = ()
    usage: msgspec.Raw = _NULL


class _Error(msgspec.Struct, frozen=True, kw_only=True):
    code: str | int | None = None
    message: str | None = None


class _ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    error: _Error = _Error()


class _Response(msgspec.Struct, frozen=True, kw_only=True):
    status_code: int = 0
    request_id: str | None = None
    body: msgspec.Raw = _NULL


class _Result(msgspec.Struct, frozen=True, kw_only=True):
    response: _Response | None = None
    error: _Error | None = None


class _Details(msgspec.Struct, frozen=True, kw_only=True):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _WireUsage(msgspec.Struct, frozen=True, kw_only=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


_RESULT = msgspec.json.Decoder(_Result)
_BODY = msgspec.json.Decoder(_Body)
_ERROR_BODY = msgspec.json.Decoder(_ErrorBody)
_USAGE = msgspec.json.Decoder(_WireUsage)


def row(line: int, custom_id: str, result: bytes) -> Row:
    """What a result line says. An answer in no form that is known has an error, so that nothing is silently empty."""
    try:
        found = _RESULT.decode(result)
        response = found.response or _Response()
        if found.error is not None or found.response is None or response.status_code >= 400:
            return _failed(line, custom_id, found)
        body = _BODY.decode(response.body)
    except msgspec.DecodeError as error:
        problem = Problem(code="unreadable_result", message=f"The result is not in a form that is known: {error}")
        return _bare(line, custom_id, "", problem)
    if not body.choices and not body.data:
        return _bare(line, custom_id, response.request_id or "", Problem(code="unreadable_result", message="The result has no answer."))
    return _answered(line, custom_id, response.request_id or "", body)


class _Named(msgspec.Struct, frozen=True):
    custom_id: str = ""


def custom_id(result: bytes) -> str:
    """Whose result a line is; "" where it does not say."""
    try:
        return msgspec.json.decode(result, type=_Named).custom_id
    except msgspec.DecodeError:
        return ""


def usage(of: Row) -> Usage | None:
    """The tokens of a row, None where none were told."""
    try:
        told = _USAGE.decode(of.usage)
    except msgspec.DecodeError:
        return None
    return Usage(
        input_tokens=told.prompt_tokens,
        output_tokens=told.completion_tokens,
        cached_tokens=(told.prompt_tokens_details or _Details()).cached_tokens,
        reasoning_tokens=(told.completion_tokens_details or _Details()).reasoning_tokens,
    )


def _answered(line: int, custom_id: str, request_id: str, body: _Body) -> Row:
    choices = sorted(body.choices, key=lambda choice: choice.index)
    first = choices[0] if choices else _Choice()
    message = first.message or _Message()
    return Row(
        line=line,
        custom_id=custom_id,
        answer=first.said,
        answers=tuple(choice.said for choice in choices) if len(choices) > 1 else UNSET,
        reasoning=message.reasoning_content or UNSET,
        tool_calls=message.tool_calls if bytes(message.tool_calls) not in (b"null", b"[]") else UNSET,
        embedding=body.data[0].embedding if body.data else UNSET,
        finish_reason=first.finish_reason,
        usage=body.usage,
        request_id=request_id,
        error=None,
    )


def _failed(line: int, custom_id: str, found: _Result) -> Row:
    response = found.response or _Response()
    error = found.error
    if error is None:
        try:
            error = _ERROR_BODY.decode(response.body).error
        except msgspec.DecodeError:
            error = _Error()
    code = str(error.code) if error.code is not None else str(response.status_code or "failed")
    return _bare(line, custom_id, response.request_id or "", Problem(code=code, message=error.message or ""))


def _bare(line: int, custom_id: str, request_id: str, error: Problem) -> Row:
    return Row(
        line=line,
        custom_id=custom_id,
        answer=None,
        finish_reason=None,
        request_id=request_id,
        error=error,
    )
