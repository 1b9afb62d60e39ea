"""Golden cases of the Anthropic dialect.

A case is a folder: request.http; terms.json with its provenance, what the request means, and the events of the answer, the models listed,
or the error that cuts a stream; reply.json or reply.sse. JSON is compared by value, streams byte by byte.
"""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from qwenbox.dialects.anthropic.dialect import DIALECT
from qwenbox.dialects.base import ListedModel, Page, Parsed, WireRequest
from qwenbox.terms.caller import Compat
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent

REQUEST_ID = "6ada9ed2-7f33-9de2-8bb0-78bd4035025a"
FOLDER = Path(__file__).parents[3] / "golden" / "anthropic"
CASES = sorted(path.parent.name for path in FOLDER.glob("*/terms.json"))


def read_request(case: str) -> WireRequest:
    """An HTTP message as text: request line, headers, a blank line, the body."""
    head, _, body = (FOLDER / case / "request.http").read_bytes().partition(b"\n\n")
    first, *lines = head.decode().split("\n")
    method, path, _ = first.split(" ")
    model = path.partition("/models/")[2]
    return WireRequest(
        id=REQUEST_ID,
        method=method,
        path=path,
        received_at=1735120033.25,
        headers={name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)},
        path_params={"model": model} if model else {},
        body=body.rstrip(b"\n"),
    )


def read_terms(case: str) -> dict[str, Any]:
    return json.loads((FOLDER / case / "terms.json").read_text())


def shown(value: Any) -> Any:
    """A request as JSON people can read: schemas as JSON, and nothing that was not said."""
    if isinstance(value, bytes):
        return json.loads(value)
    if isinstance(value, msgspec.Struct):
        tag = value.__struct_config__.tag
        named = {field.name: getattr(value, field.name) for field in msgspec.structs.fields(value) if not _is_default(value, field)}
        return ({"type": tag} if tag else {}) | {name: shown(item) for name, item in named.items()}
    if isinstance(value, tuple | list):
        return [shown(item) for item in value]
    return {name: shown(item) for name, item in value.items()} if isinstance(value, dict) else value


def parse(request: WireRequest, compat: Compat) -> Parsed[ChatRequest]:
    DIALECT.credential(request)
    assert DIALECT.parse_chat is not None
    return DIALECT.parse_chat(request, compat)


def list_models(request: WireRequest, terms: dict[str, Any]) -> Page:
    assert DIALECT.parse_models is not None
    assert DIALECT.render_models is not None
    return DIALECT.render_models(msgspec.convert(terms["models"], tuple[ListedModel, ...]), DIALECT.parse_models(request), request.id)


def answer(request: WireRequest, compat: Compat, terms: dict[str, Any]) -> tuple[int, bytes]:
    """Status and body."""
    try:
        if request.method == "GET":
            page = list_models(request, terms)
            return page.head.status, page.body
        reply = parse(request, compat).reply
    except ApiError as error:
        page = DIALECT.error_page(error, request.id)
        return page.head.status, page.body
    body = b"".join([reply.event(event) for event in msgspec.convert(terms["events"], list[ChatEvent])])
    if "error" in terms:
        body += reply.error(ApiError(ErrorKind(terms["error"])))
    return reply.head.status, body


@pytest.mark.parametrize("case", CASES)
def test_reply_is_the_recorded_one(case: str) -> None:
    terms = read_terms(case)
    status, body = answer(read_request(case), Compat.DOCUMENTED, terms)
    wanted = next(path for path in (FOLDER / case / "reply.sse", FOLDER / case / "reply.json") if path.exists())
    assert terms.get("documented", {}).get("status", 200) == status
    if wanted.suffix == ".sse":
        assert wanted.read_bytes() == body
    else:
        assert json.loads(wanted.read_bytes()) == json.loads(body)


@pytest.mark.parametrize("case", [case for case in CASES if "models" not in read_terms(case)])
@pytest.mark.parametrize("compat", list(Compat))
def test_request_means_the_recorded_terms(case: str, compat: Compat) -> None:
    meaning = read_terms(case)["documented"]
    if "status" in meaning:
        with pytest.raises(ApiError) as caught:
            parse(read_request(case), compat)
        assert (meaning["kind"], meaning.get("param")) == (caught.value.kind, caught.value.param)
    else:
        assert meaning == shown(parse(read_request(case), compat).request)


@pytest.mark.parametrize("case", CASES)
def test_case_says_where_it_comes_from(case: str) -> None:
    assert any(word in read_terms(case)["provenance"] for word in ("capture", "sample", "wire reference", "document"))


def _is_default(value: msgspec.Struct, field: msgspec.structs.FieldInfo) -> bool:
    default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    return getattr(value, field.name) == default
