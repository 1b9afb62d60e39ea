"""Bodies one step away from valid ones: an ApiError that renders, or a request. Nothing else comes out."""

import copy
import json

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenbox.dialects.base import Parsed, WireRequest
from qwenbox.dialects.dashscope.dialect import DIALECT
from qwenbox.terms.caller import Compat
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.errors import ApiError, ErrorKind

PATHS = [f"/api/v1{route.path}" for route in DIALECT.routes if route.method == "POST"]
CALL = {"id": "c1", "type": "function", "index": 0, "function": {"name": "now", "arguments": '{"a": 1}'}}
TOOL = {"type": "function", "function": {"name": "now", "description": "d", "parameters": {"type": "object", "properties": {}}}}
FULL = {
    "model": "qwen-plus",
    "input": {
        "prompt": "again",
        "history": [{"user": "a", "bot": "b"}],
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"text": "x", "cache_control": {"type": "ephemeral"}}]},
            {"role": "assistant", "content": "", "tool_calls": [CALL], "reasoning_content": "r"},
            {"role": "tool", "content": "noon", "tool_call_id": "c1", "name": "now"},
        ],
    },
    "parameters": {
        "result_format": "message",
        "incremental_output": True,
        "temperature": 0.5,
        "top_p": 0.5,
        "top_k": 5,
        "max_tokens": 5,
        "max_completion_tokens": 6,
        "seed": 5,
        "stop": [[1, 2]],
        "repetition_penalty": 1.1,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.1,
        "n": 1,
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "now"}},
        "parallel_tool_calls": True,
        "response_format": {"type": "json_schema", "json_schema": {"name": "j", "schema": {"type": "object"}}},
        "enable_thinking": True,
        "thinking_budget": 5,
        "logprobs": True,
        "top_logprobs": 2,
        "enable_search": False,
        "is_async": True,
    },
}
SMALL = {"model": "qwen-plus", "input": {"prompt": "hi"}, "parameters": {"stop": "a"}}
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
    st.sampled_from([10**400, -(2**63), 2**64, "", "json", [], {}, [[]], [None], {"a": {}}, "x" * 5000]),
    st.recursive(
        st.integers() | st.just("a"), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("text"), inner), max_leaves=5
    ),
)


def places(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    found = [path] if path else []
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(inner, (*path, key))
    return found


def mutated(body: dict, path: tuple[object, ...], change: object, kind: str) -> dict:
    copied = copy.deepcopy(body)
    holder = copied
    for key in path[:-1]:
        holder = holder[key]
    if kind == "replace":
        holder[path[-1]] = change
    elif kind == "drop":
        del holder[path[-1]]
    elif isinstance(holder, list):
        holder.append(change)
    else:
        holder[str(change)[:20]] = change
    return copied


mutations = st.sampled_from([FULL, SMALL]).flatmap(
    lambda body: st.builds(mutated, st.just(body), st.sampled_from(places(body)), values, st.sampled_from(["replace", "drop", "add"]))
)


def outcome(body: bytes, path: str, compat: Compat) -> Parsed[ChatRequest] | None:
    """The request, or None for a refusal that is fit to be shown."""
    request = WireRequest(id="id", method="POST", path=path, received_at=0.0, headers={"accept": "text/event-stream"}, body=body)
    try:
        return DIALECT.parse_chat(request, compat)
    except ApiError as error:
        assert ErrorKind.INVALID_REQUEST is error.kind
        page = DIALECT.error_page(error, "id")
        message = msgspec.json.decode(page.body)["message"]
        assert 400 == page.head.status
        assert message
        assert not any(word in message for word in ("msgspec", "Expected `", "`$", "Traceback", "codec"))
        return None


def dumped(body: dict) -> bytes:
    """Python's own writer: it also writes integers past 64 bits."""
    return json.dumps(body).encode()


@settings(max_examples=400)
@given(mutations, st.sampled_from(PATHS), st.sampled_from(list(Compat)))
def test_one_step_from_valid_never_breaks_the_parser(body: dict, path: str, compat: Compat) -> None:
    parsed = outcome(dumped(body), path, compat)
    if parsed is not None:
        assert 1 <= parsed.request.n <= 4
        assert parsed.request.model


@settings(max_examples=300)
@given(st.integers(0, 10_000), st.binary(max_size=6), st.integers(0, 6), st.sampled_from(list(Compat)))
def test_damaged_bytes_never_break_the_parser(at: int, inserted: bytes, dropped: int, compat: Compat) -> None:
    valid = msgspec.json.encode(FULL)
    at %= len(valid)
    outcome(valid[:at] + inserted + valid[at + dropped :], PATHS[0], compat)


@given(st.binary(max_size=200))
def test_any_bytes_never_break_the_parser(body: bytes) -> None:
    assert outcome(body, PATHS[0], Compat.DOCUMENTED) is None


def test_the_full_body_is_valid_itself() -> None:
    full = copy.deepcopy(FULL)
    assert outcome(msgspec.json.encode(full), PATHS[1], Compat.DOCUMENTED) is not None
    assert outcome(msgspec.json.encode(SMALL), PATHS[0], Compat.STRICT) is not None
