"""The admin API under hostile requests: whatever a client with the right credential sends is answered, and never a failure of ours."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwenbox.server.admin.api import OPERATIONS
from support.administration import Administration, administration

# A body that each operation takes; one field at a time is then made hostile.
GOOD = {
    "POST /accounts": {"name": "bob", "role": "member", "tier": "free", "time_zone": "UTC", "is_prepaid": True, "budget_micros": 1},
    "PATCH /accounts/{account}": {
        "name": "alice",
        "role": "member",
        "tier": "",
        "time_zone": "UTC",
        "is_prepaid": False,
        "budget_micros": None,
    },
    "POST /accounts/{account}/top-ups": {"amount_micros": 1, "note": "n", "reference": "r"},
    "POST /accounts/{account}/adjustments": {"amount_micros": 1, "note": "n", "reference": "r"},
    "POST /keys": {
        "account": "alice",
        "name": "k",
        "models": ["m"],
        "expires_at": 2e9,
        "budget_micros": 1,
        "rpm": 1,
        "tpm": 1,
        "concurrency": 1,
    },
    "PATCH /keys/{key}": {"name": "ci", "models": None, "expires_at": None, "budget_micros": 1, "rpm": 1, "tpm": None, "compat": "strict"},
    "POST /receipts/{request_id}/refund": {"note": "n"},
    "POST /batches": {
        "key": "ci",
        "input_file_id": "file-batch-1",
        "endpoint": "/v1/chat/completions",
        "window": "24h",
        "name": "n",
        "description": "d",
    },
    "POST /clock": {"advance_s": 1},
    "POST /console/sessions": {"address": "127.0.0.1", "link": "", "account": "alice", "password": "long enough"},
    "POST /console/sessions/check": {"token": "t"},
    "POST /console/sessions/end": {"token": "t"},
}
NAMES = {"account": "alice", "key": "ci", "request_id": "call-1", "model": "qwen-turbo", "batch": "batch_1"}
NASTY: list[Any] = [
    "\x00", "a\x00b", "a\n", "\u202e", "\uffff", "'; DROP TABLE usage; --", "x" * 60_000, "", " ", -1, 0, 2**31, 2**63, -(2**63), 10**30,
    1e300, -0.5, True, None, [], [[]], ["\x00"], {}, {"a": 1},
]  # fmt: skip
NASTY_TEXTS = [text for text in NASTY if isinstance(text, str)] + [
    "nan",
    "1e999",
    "-1",
    "9" * 30,
    "2026-99-99",
    "AA",
    "MX5hYg",
    "bmFufmE",
    "MX4AYQ",
]

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
_TEXTS = st.text(max_size=40) | st.sampled_from(["alice", "ci", "call-1", "%00", "\x00", "..", "a" * 300, "2026-11-23"])


def _hostile_bodies(wanted: type[Any]) -> st.SearchStrategy[bytes]:
    """Bodies with the right fields and wild values, and bodies that are nothing at all."""
    fields = dict.fromkeys(wanted.__struct_fields__, _VALUES | _TEXTS)
    shaped = st.fixed_dictionaries({}, optional={**fields, "unknown": _VALUES}).map(lambda value: json.dumps(value).encode())
    return shaped | st.binary(max_size=60) | _VALUES.map(lambda value: json.dumps(value).encode())


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    is_postgres = request.param == "postgres"
    return request.getfixturevalue("postgres").new_database() if is_postgres else f"sqlite+aiosqlite:///{tmp_path / 'box.db'}"


async def _furnish(admin: Administration) -> None:
    """An account, a key and a call, so that there is something to harm."""
    account = (await admin.call("POST", "/accounts", {"name": "alice"})).json
    await admin.call("POST", "/keys", {"account": "alice", "name": "ci"})
    await admin.used(account["id"])


@pytest.mark.anyio
async def test_one_hostile_value_never_makes_it_fail_wherever_it_stands(url: str) -> None:
    assert set(GOOD) == {f"{one.method} {one.path}" for one in OPERATIONS if one.body.__struct_fields__ and "password" not in one.path}
    failed: list[tuple[object, ...]] = []
    async with administration(url, is_testing=True) as admin:
        await _furnish(admin)

        async def send(method: str, path: str, query: str = "", body: Any = None) -> None:
            try:
                with anyio.fail_after(20):
                    status = (await admin.call(method, path, body, query=query)).status
            except TimeoutError:
                status = 999
            if status >= 500:
                failed.append((status, method, path, query, str(body)[:300]))

        for one in OPERATIONS:
            route, path = f"{one.method} {one.path}", one.path.format_map(NAMES)
            for field in GOOD.get(route, {}):
                for value in NASTY:
                    await send(one.method, path, body={**GOOD[route], field: value})
            for text in NASTY_TEXTS:
                for field in one.query.__struct_fields__:
                    await send(one.method, path, query=urlencode({field: text[:2_000]}))
                if "{" in one.path:
                    await send(one.method, one.path.format_map(dict.fromkeys(NAMES, text[:2_000] or "x")), body=GOOD.get(route))
    assert [] == failed


def test_nothing_a_client_sends_makes_it_fail(url: str, is_full: bool) -> None:
    seen: set[int] = set()
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(administration(url, is_testing=True)) as admin:
        portal.call(_furnish, admin)

        @given(st.data(), st.sampled_from([one for one in OPERATIONS if "password" not in one.path]))
        @settings(max_examples=2_000 if is_full else 100, deadline=None, suppress_health_check=list(HealthCheck))
        def attack(data: st.DataObject, one: Any) -> None:
            path = re.sub(r"{\w+}", lambda _: data.draw(_TEXTS).replace("/", "") or "x", one.path)
            fields = [*one.query.__struct_fields__, "unknown"]
            query = data.draw(st.dictionaries(st.sampled_from(fields), _TEXTS, max_size=3))
            body = data.draw(_hostile_bodies(one.body))

            async def send() -> int:
                answer = await admin.call(one.method, path, body, query=urlencode(query, errors="replace"))
                return answer.status

            status = portal.call(send)
            seen.add(status)
            assert status < 500, (one.method, path, query, body)

        attack()
    assert {200, 400, 404} <= seen
