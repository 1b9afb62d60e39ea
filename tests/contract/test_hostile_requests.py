"""Hostile requests with a valid key, over raw HTTP: no 5xx, no hang, nothing of our insides in any answer.

At least half of the generated ones are one mutation away from a valid request. QWENBOX_FULL_COUNTS=1 asks for the full count.
"""

import copy
import json
import random
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import wire
from boxes import Box
from qwenbox.dialects.base import Dialect, Route
from qwenbox.dialects.registry import DIALECTS
from qwenbox.server.asgi import Routes
from support.valid_requests import HISTORY, OTHERS, PARAMETERS, SCHEMA, TOOL, VALID

# No request of these may take longer; the slowest asks echo for its longest answer.
HANG_S = 20.0
# Of ordinary runs; full counts draw another one each time.
ITS_SEED = 20_261_124

# What only our insides would say: file names, our libraries, Python's and C++'s own words.
LEAKS = (
    b"Traceback",
    b"msgspec",
    b".py",
    b"site-packages",
    b"/work",
    b"/home/",
    b"/root",
    b"/usr/",
    b"NoneType",
    b"object has no attribute",
    b"KeyError",
    b"TypeError",
    b"ValueError",
    b"Exception",
    b"std::",
    b"nlohmann",
    b"json.exception",
    b"terminate called",
    b"0x7f",
    b"sqlite",
    b"jsonschema",
    b"Expected `",
)

# Values that break readers: each is a strange one for some field.
STRANGE: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400, 0.5, -0.0, 1e308, 5e-324,
    "", " ", "\0", "\ud800", "null", "NaN", "a" * 5_000, "你好", "💥", "‮", "../../etc/passwd", "<|im_start|>system", "{{7*7}}", "%s%n",
    "auto", "none", "required", "json_object", "text", "system", "assistant", "tool",
    [], [[]], [None], [0], [-1], ["a", 1], [1.5], ["a"] * 2_000, [[1, 2], [3]], [{}],
    {}, {"": ""}, {"type": "text"}, {"$ref": "#"}, {"$ref": "http://127.0.0.1:1/x.json"}, {"$ref": "file:///etc/passwd"},
    {"type": "function"}, {"__proto__": {"x": 1}}, {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    {"type": "object", "patternProperties": {"(a+)+$": {"type": "string"}}}, {"anyOf": []}, {"enum": []}, {"not": {}}, {"pattern": "["},
]  # fmt: skip
# JSON text that json.dumps can't write, put in by name below.
RAW = {
    "@nan": b"NaN", "@infinity": b"-Infinity", "@huge": b"1e999", "@digits": b"1" * 5_000, "@deep": b"[" * 3_000 + b"]" * 3_000,
    "@surrogate": b'"\\ud800"', "@pair": b'"\\udc00\\ud800"', "@badutf8": b'"\xff\xfe"', "@badescape": b'"\\x"', "@control": b'"\x01"',
    "@octal": b"007", "@trailing": b"[1,]", "@object": b'{"a":1,"a":2}', "@comment": b"1 /* x */", "@single": b"'a'", "@open": b'"abc',
}  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything in a body."""
    yield path
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _places(item, (*path, name))
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from _places(item, (*path, at))


def _mutated(body: Any, path: tuple[Any, ...], how: str, value: Any) -> Any:
    """The body with one thing changed at `path`: replaced, removed, doubled, renamed, wrapped or joined by a stranger."""
    if not path:
        return value if how == "replace" else [body] if how == "wrap" else body
    body = copy.deepcopy(body)
    parent = body
    for step in path[:-1]:
        parent = parent[step]
    last = path[-1]
    match how:
        case "replace":
            parent[last] = value
        case "remove":
            del parent[last]
        case "wrap":
            parent[last] = [parent[last]]
        case "rename" if isinstance(parent, dict):
            parent[f"{last}x"] = parent.pop(last)
        case "double" if isinstance(parent, list):
            parent.extend([copy.deepcopy(parent[last])] * 3)
        case _ if isinstance(parent, dict):
            parent["stranger"] = value
    return body


def _encoded(body: Any) -> bytes:
    data = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
    for name, raw in RAW.items():
        data = data.replace(f'"{name}"'.encode(), raw)
    return data


_EVERY: list[tuple[str, Any, dict[str, str]]] = [(path, body, {}) for path, body in VALID] + [row[:3] for row in OTHERS]


@st.composite
def near_valid(draw: st.DrawFn) -> tuple[str, str, bytes, dict[str, str]]:
    """One mutation away from a request that is answered with 200, or with what it asks for not being there."""
    path, body, headers = draw(st.sampled_from(_EVERY))
    if isinstance(body, bytes):
        return "POST", path, draw(cut_somewhere(body)), headers
    place = draw(st.sampled_from(list(_places(body))))
    how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "wrap", "rename", "double", "stranger"]))
    value = draw(
        st.one_of(st.sampled_from(STRANGE), st.sampled_from(list(RAW)), st.text(max_size=30), st.integers(), st.floats(allow_nan=False))
    )
    more = {"x-dashscope-sse": "enable"} if draw(st.booleans()) else {}
    return "POST", path, _encoded(_mutated(body, place, how, value)), headers | more


@st.composite
def broken_bytes(draw: st.DrawFn) -> tuple[str, str, bytes, dict[str, str]]:
    """A valid body with one byte-level mutation."""
    path, body, headers = draw(st.sampled_from(_EVERY))
    data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    return "POST", path, draw(cut_somewhere(data)), headers


@st.composite
def cut_somewhere(draw: st.DrawFn, body: bytes) -> bytes:
    """A body cut, flipped or stuffed somewhere."""
    data = bytearray(body)
    at = draw(st.integers(0, len(data) - 1))
    match draw(st.sampled_from(["cut", "flip", "insert", "bom", "tail"])):
        case "cut":
            del data[at:]
        case "flip":
            data[at] ^= draw(st.integers(1, 255))
        case "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
        case "bom":
            data[:0] = b"\xef\xbb\xbf"
        case _:
            data += draw(st.binary(min_size=1, max_size=8))
    return bytes(data)


# Each is fine by itself; together some make no sense, which must be said with a 400.
OPTIONS: list[tuple[str, list[Any]]] = [
    *(
        (name, [value])
        for name, value in PARAMETERS.items()
        if name not in ("thinking_budget", "enable_thinking", "n", "stop", "max_tokens")
    ),
    ("max_tokens", [1, 2, 7, 64]),
    ("n", [1, 3]),
    ("stop", ["E", ["a", '"'], [0], [[1, 2], [3]], "}"]),
    ("enable_thinking", [True, False]),
    ("thinking_budget", [1, 50]),
    ("tools", [[TOOL], [TOOL, {"type": "function", "function": {"name": "now"}}]]),
    ("tool_choice", ["auto", "none", "required", {"type": "function", "function": {"name": "get_weather"}}]),
    ("parallel_tool_calls", [True, False]),
    ("response_format", [{"type": "json_object"}, {"type": "json_schema", "json_schema": SCHEMA}, {"type": "text"}]),
]
CONVERSATIONS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "json: call get_weather and now"}],
    HISTORY,
    HISTORY[:4],
    [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "We", "partial": True}],
    [{"role": "user", "content": "json"}, {"role": "assistant", "content": '{"echo":', "partial": True}],
    [{"role": "user", "content": ""}],
]


@st.composite
def combined(draw: st.DrawFn) -> tuple[str, str, bytes, dict[str, str]]:
    """Some valid options together, on a valid conversation."""
    chosen = draw(st.lists(st.sampled_from(OPTIONS), min_size=1, max_size=5, unique_by=lambda option: option[0]))
    options = {name: draw(st.sampled_from(values)) for name, values in chosen}
    messages = draw(st.sampled_from(CONVERSATIONS))
    stream = draw(st.booleans())
    if draw(st.booleans()):
        return "POST", wire.COMPATIBLE_CHAT, _encoded(wire.compatible(**options, messages=messages, stream=stream)), {}
    shape = draw(st.sampled_from([{}, {"result_format": "text"}, {"result_format": "message"}, {"incremental_output": False}]))
    headers = {"x-dashscope-sse": "enable"} if stream else {}
    return "POST", wire.NATIVE_CHAT, _encoded(wire.native(options | shape, input={"messages": messages})), headers


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def wild(draw: st.DrawFn) -> tuple[str, str, bytes, dict[str, str]]:
    """Any method, any path near ours, any JSON or bytes, odd headers."""
    method = draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "BREW"]))
    known = ["/", "/health", "/ready", "/api/v1", "/api/v1/models", "/compatible-mode/v1/models", "/v1/chat/completions", "/api/v1/tasks/x"]
    known += [f"{wire.RESPONSES}/resp_x", f"{wire.RESPONSES}/resp_x/input_items", "/apps/anthropic/v1/models", "/apps/anthropic"]
    path = draw(st.sampled_from(known + [path for path, _ in VALID]))
    tail = draw(
        st.sampled_from(
            [
                "",
                "",
                "/",
                "/x",
                "//",
                "/..",
                "/%2e%2e/%2e%2e/etc/passwd",
                "/%00",
                "/%ff%fe",
                "?page_no=-1&page_size=x",
                "?a[]=%80",
                "/" + "a" * 3_000,
            ]
        )
    )
    body = draw(st.one_of(_json.map(_encoded), st.binary(max_size=200), st.just(b"")))
    headers = draw(
        st.dictionaries(
            st.sampled_from(
                [
                    "accept",
                    "content-type",
                    "x-dashscope-sse",
                    "x-dashscope-async",
                    "x-dashscope-plugin",
                    "content-encoding",
                    "x-request-id",
                    "expect",
                ]
            ),
            st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
            max_size=2,
        )
    )
    return method, path + tail, body, headers


def _sent(box: Box, method: str, path: str, body: bytes, headers: dict[str, str]) -> wire.Heard:
    # Waiting for a "100 Continue" is the client's business, not the box's.
    headers = {name: value for name, value in headers.items() if name != "expect"}
    return wire.call(box, method, path, body, headers=headers, timeout_s=HANG_S)


def _check(heard: wire.Heard, sent: bytes) -> None:
    assert heard.status < 500, heard.body[:2_000]
    for leak in LEAKS:
        # What the caller wrote may come back to him in the answer.
        assert leak not in heard.body or leak in sent, (leak, heard.body[:2_000])
    if heard.status == 400 and heard.body == b"Invalid HTTP request received.":
        return  # no HTTP at all: refused before there is a request to give an id to
    if heard.status >= 400 and heard.body:
        assert heard.headers["x-request-id"]
        error = heard.error
        assert error["message"]
        assert error.get("code") or error["type"]
    if heard.headers.get("content-type", "").startswith("text/event-stream"):
        assert b"HTTP_STATUS/5" not in heard.body
        assert b'"internal_error"' not in heard.body
        assert b'"api_error"' not in heard.body
        assert b'"response.failed"' not in heard.body


def test_generated_hostile_requests_are_answered_without_failure(box: Box, is_full: bool):
    """Half and more are one mutation away from valid; the seed is printed, so that a failure can be had again."""
    count, seed = (10_000, random.SystemRandom().randrange(2**32)) if is_full else (1_000, ITS_SEED)
    print(f"\nhostile requests: {count}, seed {seed}")
    statuses: Counter[int] = Counter()

    def hostile(request: tuple[str, str, bytes, dict[str, str]]) -> None:
        method, path, body, headers = request
        heard = _sent(box, method, path, body, headers)
        statuses[heard.status] += 1
        _check(heard, body + path.encode("utf-8", "replace"))

    for share, strategy in ((5, near_valid()), (2, combined()), (2, broken_bytes()), (1, wild())):
        run = settings(
            max_examples=count * share // 10,
            deadline=None,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        )(given(strategy)(hostile))
        run._hypothesis_internal_use_seed = seed
        run()
    print(f"answered: {dict(sorted(statuses.items()))}")
    assert box.process.poll() is None
    assert sum(statuses.values()) >= count
    assert statuses[200] > count // 20, "hardly any request came through: the mutations miss"


def test_valid_requests_are_answered_when_not_mutated(box: Box):
    """Else the mutations above would be mutations of nothing."""
    for path, body in VALID:
        heard = wire.post(box, path, body)
        assert heard.status == 200, (path, body, heard.body)
    for path, body, headers, status in OTHERS:
        heard = wire.post(box, path, body, headers=headers)
        assert heard.status == status, (path, body, heard.body)


def test_every_route_that_takes_a_body_has_a_valid_request():
    """A new route is told hostile requests from the day it is there."""
    asked = [path for path, *_ in VALID] + [path for path, *_ in OTHERS]
    routes = Routes(DIALECTS)
    found = [routes.find("POST", path) for path in asked]
    assert all(found), [path for path, mounted in zip(asked, found, strict=True) if not mounted]
    missing = [
        (dialect.name, route.path)
        for dialect in DIALECTS
        for route in dialect.routes
        if route.method not in ("GET", "DELETE") and not any(_is_of(path, dialect, route) for path in asked)
    ]
    assert missing == []


def _is_of(path: str, dialect: Dialect, route: Route) -> bool:
    shape = re.escape(route.path).replace(r"\{id\}", "[^/]+")
    return any(re.fullmatch(re.escape(prefix) + shape, path) for prefix in dialect.prefixes)


@pytest.mark.parametrize("path", [wire.NATIVE_CHAT, wire.COMPATIBLE_CHAT, wire.COMPATIBLE_COMPLETIONS, wire.ANTHROPIC, wire.RESPONSES])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b"5",
        b"null",
        b'"text"',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"model": NaN}',
        b'{"model": "qwen-turbo", "temperature": Infinity}',
        b"\x00" * 1_000,
        '{"model": "qwen-turbo"}'.encode("utf-16"),
        b'{"model": "\xff"}',
    ],
    ids=lambda body: repr(body[:24]),
)
def test_broken_bodies_are_refused_with_400(box: Box, path: str, body: bytes):
    heard = wire.post(box, path, body)

    assert heard.status == 400
    _check(heard, b"")


@pytest.mark.parametrize("path", [wire.NATIVE_CHAT, wire.COMPATIBLE_CHAT])
def test_huge_body_is_refused_with_413_when_it_has_100_mb(box: Box, path: str):
    body = b'{"model": "qwen-turbo", "messages": [{"role": "user", "content": "' + b"a" * 100_000_000 + b'"}]}'
    started = time.monotonic()

    heard = wire.post(box, path, body, timeout_s=60)

    assert heard.status == 413
    assert time.monotonic() - started < 30
    _check(heard, b"")


def test_endless_chunked_body_is_refused_or_cut_off(box: Box):
    """No content-length and no end: the box must neither fill its memory nor wait for ever."""
    with socket.create_connection(("127.0.0.1", box.port), timeout=60) as line:
        head = f"POST {wire.COMPATIBLE_CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {box.key}\r\ntransfer-encoding: chunked\r\n\r\n"
        line.sendall(head.encode())
        piece = b"100000\r\n" + b"a" * 0x100000 + b"\r\n"
        answer = b""
        try:
            for _ in range(600):
                line.sendall(piece)
            answer = line.recv(65_536)
        except OSError:
            line.settimeout(5)
            try:
                answer = line.recv(65_536)
            except OSError:
                answer = b""
    assert answer == b"" or answer.startswith(b"HTTP/1.1 413 ")
    assert wire.post(box, wire.COMPATIBLE_CHAT, wire.compatible()).status == 200


@pytest.mark.parametrize(
    ("path", "base", "prefix"),
    [
        ("/chat/completions", "/compatible-mode/v1", "openai"),
        ("/api/v1/chat/completions", "/compatible-mode/v1", "openai"),
        ("/compatible-mode/chat/completions", "/compatible-mode/v1", "openai"),
        ("/openai/v1/chat/completions", "/compatible-mode/v1", "openai"),
        ("/services/aigc/text-generation/generation", "/api/v1", "native"),
        ("/compatible-mode/v1/services/aigc/text-generation/generation", "/api/v1", "native"),
        ("/api/v2/services/aigc/text-generation/generation", "/api/v1", "native"),
        ("/nothing/at/all", "/api/v1", "any"),
        ("/nothing/at/all", "/compatible-mode/v1", "any"),
    ],
)
def test_wrong_prefix_gets_404_that_names_the_right_base_url(box: Box, path: str, base: str, prefix: str):
    heard = wire.post(box, path, wire.compatible())

    assert heard.status == 404
    assert f"{box.base_url}{base}" in heard.error["message"]
    assert ("error" in heard.json) is (prefix == "openai") or prefix == "any"
    _check(heard, path.encode())


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", wire.NATIVE_CHAT, "POST"),
        ("PUT", wire.COMPATIBLE_CHAT, "POST"),
        ("DELETE", wire.COMPATIBLE_COMPLETIONS, "POST"),
        ("PATCH", wire.NATIVE_MULTIMODAL, "POST"),
        ("GET", wire.ANTHROPIC, "POST"),
        ("PUT", f"{wire.ANTHROPIC}/count_tokens", "POST"),
        ("GET", wire.RESPONSES, "POST"),
        ("PUT", f"{wire.RESPONSES}/x/input_items", "GET"),
        ("POST", "/compatible-mode/v1/models", "GET"),
        ("POST", "/api/v1/models", "GET"),
    ],
)
def test_wrong_method_gets_405_that_names_the_right_one(box: Box, method: str, path: str, allowed: str):
    heard = wire.call(box, method, path, wire.compatible())

    assert (heard.status, heard.headers["allow"]) == (405, allowed)
    assert allowed in heard.error["message"]
    _check(heard, path.encode())


def test_request_is_answered_when_the_client_sends_it_byte_by_byte(box: Box):
    body = json.dumps(wire.compatible()).encode()
    head = (
        f"POST {wire.COMPATIBLE_CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {box.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", box.port), timeout=HANG_S) as line:
        for at in range(0, len(head + body), 3):
            line.sendall((head + body)[at : at + 3])
        assert line.recv(65_536).startswith(b"HTTP/1.1 200 ")


def test_garbage_on_the_line_does_not_end_the_box(box: Box):
    source = random.Random(7)
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", box.port), timeout=HANG_S) as line:
            line.sendall(source.randbytes(200) + b"\r\n\r\n")
            line.settimeout(HANG_S)
            try:
                line.recv(4_096)
            except ConnectionError:
                continue
    assert wire.call(box, "GET", "/health", key=None).status == 200


def test_deep_and_wide_schemas_are_refused_or_answered(box: Box):
    deep: dict[str, Any] = {"type": "object"}
    for _ in range(min(400, sys.getrecursionlimit() // 3)):
        deep = {"type": "object", "properties": {"a": deep}, "required": ["a"]}
    wide = {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(20_000)}}
    twins: dict[str, Any] = {"$defs": {"0": {"type": "object"}}}
    for number in range(1, 40):
        twins["$defs"][str(number)] = {"anyOf": [{"$ref": f"#/$defs/{number - 1}"}, {"$ref": f"#/$defs/{number - 1}"}]}
    twins["$ref"] = "#/$defs/39"
    for schema in (deep, wide, twins):
        for body in (
            wire.compatible(response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}),
            wire.compatible(tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}], tool_choice="required"),
        ):
            heard = wire.post(box, wire.COMPATIBLE_CHAT, body)
            assert heard.status in (200, 400)
            _check(heard, json.dumps(body).encode())
