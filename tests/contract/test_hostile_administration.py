"""The admin API under hostile requests: whatever a client with the right credential sends is answered, and never a failure of ours."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwenbox.server.admin.api import OPERATIONS
from support.administration import administration

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


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_nothing_a_client_sends_makes_it_fail(kind: str, tmp_path: Path, request: pytest.FixtureRequest, is_full: bool) -> None:
    url = request.getfixturevalue("postgres").new_database() if kind == "postgres" else f"sqlite+aiosqlite:///{tmp_path / 'box.db'}"
    seen: set[int] = set()
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(administration(url, is_testing=True)) as admin:
        account = portal.call(admin.call, "POST", "/accounts", {"name": "alice"}).json
        portal.call(admin.call, "POST", "/keys", {"account": "alice", "name": "ci"})
        portal.call(admin.used, account["id"])

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
