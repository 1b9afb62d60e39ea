"""This is where a file of prompts is read: plain text, request bodies of either dialect, messages, or lines of them."""

import msgspec

from qwenbox.dialects.base import WireRequest
from qwenbox.dialects.dashscope import parse as dashscope_parse
from qwenbox.dialects.openai import completions
from qwenbox.dialects.openai import parse as openai_parse
from qwenbox.gateway.catalog import TextRequest
from qwenbox.terms.caller import Compat
from qwenbox.terms.chat import ChatRequest, Message, Role, TextPart
from qwenbox.terms.errors import ApiError, ErrorKind

# Fields that tell a request body from a JSON text somebody wants to ask about.
_BODY_FIELDS = frozenset({"messages", "input", "prompt", "body"})


_NO_MODEL = (b"null", b'""')


class _Turn(msgspec.Struct, frozen=True):
    role: str


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """model: whom to ask where a prompt does not say. is_model_forced: also where it does. compat: as requests are read."""

    model: str
    is_model_forced: bool
    compat: Compat


def read(data: bytes, reading: Reading) -> list[TextRequest]:
    """The requests of a file, at least one. Raises ApiError(INVALID_REQUEST), which names the line where there are several."""
    whole = _request(data, reading)
    if whole is not None:
        return [whole]
    lines = [(number, line) for number, line in enumerate(data.splitlines(), 1) if line.strip()]
    if len(lines) > 1 and all(line.lstrip()[:1] in (b"{", b"[") for _, line in lines):
        found = [(number, _line(number, line, reading)) for number, line in lines]
        if all(request is not None for _, request in found):
            return [request for _, request in found if request is not None]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ApiError(ErrorKind.INVALID_REQUEST, "The prompt is not UTF-8 text.") from error
    return [ChatRequest(model=reading.model, messages=(Message(role=Role.USER, content=(TextPart(text=text),)),))]


def _line(number: int, line: bytes, reading: Reading) -> TextRequest | None:
    try:
        return _request(line, reading)
    except ApiError as error:
        raise ApiError(error.kind, f"Line {number}: {error.message}", param=error.param) from error


def _request(data: bytes, reading: Reading) -> TextRequest | None:
    """None for what is no request: a text, though it may be one that looks like JSON."""
    # Tools keep the very bytes they were written in, as they do on the wire: an engine may show them to its model like that.
    try:
        body: dict[str, msgspec.Raw] | list[msgspec.Raw] = msgspec.json.decode(data, type=dict[str, msgspec.Raw] | list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    fields: dict[str, msgspec.Raw] = body if isinstance(body, dict) else {"messages": msgspec.Raw(data)} if _is_messages(data) else {}
    if not _BODY_FIELDS.intersection(fields):
        return None
    # A line of a batch file has its request inside.
    if "body" in fields:
        return _request(bytes(fields["body"]), reading)
    if reading.is_model_forced or bytes(fields.get("model", msgspec.Raw(b"null"))) in _NO_MODEL:
        fields = {**fields, "model": msgspec.Raw(msgspec.json.encode(reading.model))}
    wire = WireRequest(id="", method="POST", path="", received_at=0.0, body=msgspec.json.encode(fields))
    if "input" in fields:
        return dashscope_parse.chat(wire, reading.compat).request
    if "messages" in fields:
        return openai_parse.chat(wire, reading.compat).request
    return completions.parse(wire, reading.compat).request


def _is_messages(data: bytes) -> bool:
    try:
        return bool(msgspec.json.decode(data, type=list[_Turn]))
    except msgspec.DecodeError:
        return False
