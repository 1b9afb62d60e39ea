"""Golden cases of the native dialect, every one at both levels.

A case is a folder: request.http; terms.json with its provenance, the events of the answer (or the models listed, or the error that cuts
a stream), and what the request means; reply.json or reply.sse. Where level `strict` differs, `strict` in terms.json says how (a request
of its own, or `fails`), and its reply lies in reply.strict.json or reply.strict.sse. Frames are compared line by line, JSON by value.
"""

import json
from pathlib import Path

import msgspec
import pytest

from qwenbox.dialects.base import ListedModel, WireRequest
from qwenbox.dialects.dashscope import speak
from qwenbox.dialects.dashscope.dialect import DIALECT
from qwenbox.terms.caller import Compat
from qwenbox.terms.chat import ChatRequest, ImagePart, Message, TextPart
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent

REQUEST_ID = "902fee3b-f7f0-9a8c-96a1-6b4ea25af114"
FOLDER = Path(__file__).parents[3] / "golden" / "dashscope"
CASES = sorted(path.parent.name for path in FOLDER.glob("*/terms.json"))
LEVELS = [Compat.DOCUMENTED, Compat.STRICT]


def read_request(path: Path) -> WireRequest:
    """An HTTP message as text: request line, headers, a blank line, the body."""
    head, _, body = path.read_bytes().partition(b"\n\n")
    first, *lines = head.decode().split("\n")
    method, target, _ = first.split(" ")
    where, _, query = target.partition("?")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    pairs = dict(pair.split("=") for pair in query.split("&") if pair)
    return WireRequest(id=REQUEST_ID, method=method, path=where, received_at=0.0, headers=headers, query=pairs, body=body.rstrip(b"\n"))


def shown(value: object) -> object:
    """A value as JSON people can read: bytes as text, nothing that is absent or empty."""
    built = msgspec.to_builtins(value, builtin_types=(bytes,))

    def clean(item: object) -> object:
        if isinstance(item, bytes):
            return item.decode()
        if isinstance(item, dict):
            cleaned = {key: clean(entry) for key, entry in item.items()}
            return {key: entry for key, entry in cleaned.items() if entry not in (None, "", [], {}, False)}
        return [clean(entry) for entry in item] if isinstance(item, list | tuple) else item

    return clean(built)


def comparable(data: bytes, is_stream: bool) -> object:
    """Bytes so that key order does not matter and every byte of the framing does."""
    if not is_stream:
        return json.loads(data)
    lines = data.decode().split("\n")
    return [json.loads(line[5:]) if line.startswith("data:") else line for line in lines]


def answer(request: WireRequest, compat: Compat, terms: dict) -> tuple[bytes, bool]:
    """What this dialect answers, and whether it is a stream."""
    try:
        if request.method == "GET":
            page = DIALECT.parse_models(request)
            models = msgspec.convert(terms["models"], tuple[ListedModel, ...])
            return DIALECT.render_models(models, page, request.id).body, False
        parsed = DIALECT.parse_chat(request, compat)
    except ApiError as error:
        return DIALECT.error_page(error, request.id).body, False
    data = b"".join(parsed.reply.event(event) for event in msgspec.convert(terms["events"], list[ChatEvent]))
    if "error" in terms:
        data += parsed.reply.error(ApiError(ErrorKind(terms["error"])))
    return data, parsed.reply.head.media_type.startswith("text/event-stream")


def expected(folder: Path, compat: Compat) -> tuple[bytes, bool]:
    middles = [".strict", ""] if compat is Compat.STRICT else [""]
    for middle in middles:
        for ending in ("json", "sse"):
            path = folder / f"reply{middle}.{ending}"
            if path.exists():
                return path.read_bytes(), ending == "sse"
    raise AssertionError(f"{folder} has no reply")


@pytest.mark.parametrize("compat", LEVELS)
@pytest.mark.parametrize("case", CASES)
def test_reply_is_the_recorded_one(case: str, compat: Compat) -> None:
    folder = FOLDER / case
    terms = json.loads((folder / "terms.json").read_text())
    data, is_stream = answer(read_request(folder / "request.http"), compat, terms)
    wanted, wants_stream = expected(folder, compat)
    assert wants_stream == is_stream
    assert comparable(wanted, wants_stream) == comparable(data, is_stream)


@pytest.mark.parametrize("compat", LEVELS)
@pytest.mark.parametrize("case", CASES)
def test_request_means_the_recorded_terms(case: str, compat: Compat) -> None:
    folder = FOLDER / case
    terms = json.loads((folder / "terms.json").read_text())
    request = read_request(folder / "request.http")
    if request.method == "GET":
        assert terms["page"] == shown(DIALECT.parse_models(request))
        return
    level = terms.get("strict", terms["documented"]) if compat is Compat.STRICT else terms["documented"]
    if "fails" in level:
        with pytest.raises(ApiError) as caught:
            DIALECT.parse_chat(request, compat)
        assert level["fails"] == caught.value.param
    else:
        assert level == shown(DIALECT.parse_chat(request, compat).request)


@pytest.mark.parametrize("case", CASES)
def test_every_case_says_where_it_comes_from(case: str) -> None:
    provenance = json.loads((FOLDER / case / "terms.json").read_text())["provenance"]
    assert any(word in provenance for word in ("capture", "wire reference", "document"))


@pytest.mark.parametrize("case", CASES)
def test_spoken_request_is_parsed_back(case: str) -> None:
    """What we would send upstream means the same when it comes in again."""
    request = read_request(FOLDER / case / "request.http")
    if request.method == "GET":
        return
    try:
        meant: ChatRequest = DIALECT.parse_chat(request, Compat.DOCUMENTED).request
    except ApiError:
        return
    sent = WireRequest(
        id=REQUEST_ID,
        method="POST",
        path="/api/v1" + speak.path(meant),
        received_at=0.0,
        headers=speak.headers("key"),
        body=speak.chat(meant, meant.model),
    )
    assert joined(meant) == joined(DIALECT.parse_chat(sent, Compat.DOCUMENTED).request)


def joined(request: ChatRequest) -> ChatRequest:
    """Neighbouring texts as one: without pictures a content travels as one string."""

    def one(message: Message) -> Message:
        if not message.text or any(isinstance(part, ImagePart) for part in message.content):
            return message
        return msgspec.structs.replace(message, content=(TextPart(text=message.text),))

    return msgspec.structs.replace(request, messages=tuple(one(message) for message in request.messages))


def test_cases_are_there() -> None:
    assert len(CASES) >= 25
