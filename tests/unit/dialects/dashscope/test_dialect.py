import pytest

from qwenbox.dialects.base import Verb, WireRequest
from qwenbox.dialects.dashscope.dialect import DIALECT
from qwenbox.terms.errors import ApiError, ErrorKind


def with_header(value: str | None) -> WireRequest:
    headers = {} if value is None else {"authorization": value}
    return WireRequest(id="id", method="GET", path="/api/v1/models", received_at=0.0, headers=headers)


@pytest.mark.parametrize("header", ["Bearer sk-1", "bearer  sk-1 "])
def test_credential_is_the_bearer_key(header: str) -> None:
    assert "sk-1" == DIALECT.credential(with_header(header))


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (None, "No API-key provided."),
        ("", "No API-key provided."),
        ("Bearer ", "No API-key provided."),
        ("Basic abc", "Invalid API-key provided."),
    ],
)
def test_credential_says_what_is_missing(header: str | None, text: str) -> None:
    with pytest.raises(ApiError) as caught:
        DIALECT.credential(with_header(header))
    assert ErrorKind.UNAUTHENTICATED is caught.value.kind
    assert f'"message":"{text}"'.encode() in DIALECT.error_page(caught.value, "id").body


def test_routes_are_the_services_paths() -> None:
    assert ("/api/v1",) == DIALECT.prefixes
    assert {
        ("POST", "/services/aigc/text-generation/generation", Verb.CHAT),
        ("POST", "/services/aigc/multimodal-generation/generation", Verb.CHAT_OR_IMAGE),
        ("POST", "/services/aigc/code-generation/generation", Verb.CHAT),
        ("POST", "/services/aigc/text2image/image-synthesis", Verb.MAKE_IMAGE),
        ("POST", "/services/aigc/image2image/image-synthesis", Verb.MAKE_IMAGE),
        ("POST", "/services/aigc/image-generation/generation", Verb.MAKE_IMAGE),
        ("POST", "/services/embeddings/text-embedding/text-embedding", Verb.EMBED),
        ("POST", "/services/rerank/text-rerank/text-rerank", Verb.RERANK),
        ("POST", "/tokenizer", Verb.COUNT_TOKENS),
        ("GET", "/tasks", Verb.LIST_TASKS),
        ("GET", "/tasks/{id}", Verb.GET_TASK),
        ("POST", "/tasks/{id}/cancel", Verb.CANCEL_TASK),
        ("GET", "/models", Verb.LIST_MODELS),
        ("POST", "/tokens", Verb.SHORT_LIVED_KEY),
    } <= {(route.method, route.path, route.verb) for route in DIALECT.routes}
