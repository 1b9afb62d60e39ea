"""What the box tells of itself, and that nothing in it is a secret."""

import json
from pathlib import Path

import pytest

from mirrors import blob, settings_of
from qwenbox import __version__
from qwenbox.client.shapes import NewAccount, NewKey
from qwenbox.client.system import DatabaseState, EngineChild, Standing, System
from qwenbox.db import REVISION
from qwenbox.server.admin import findings
from support.administration import administration
from support.boxed import ADMIN_KEY, boxed, opened

pytestmark = pytest.mark.anyio

DATA = blob(10_000)
SECRETS = {"sk-very-secret-key", ADMIN_KEY, "engine.example", "hush"}
SETTINGS = f"""
api_key = "sk-very-secret-key"
{settings_of(DATA, "http://me:hush@127.0.0.1:9")}
[engine.away]
kind = "openai_server"
address = "http://engine.example:9/v1"
[[model]]
name = "mine"
deployments = ["own"]
card = {{ context_tokens = 4096 }}
"""


async def test_system_tells_of_calls_engines_and_database(tmp_path: Path) -> None:
    async with opened(tmp_path, "[engine.echo]\nslots = 3\n") as box:
        await box.admin.create_account(NewAccount(name="alice"))
        key = await box.admin.create_key(NewKey(account="alice", name="ci"))
        body = {"model": "qwen-turbo", "messages": [{"role": "user", "content": "one two"}]}
        assert 200 == (await box.post("/v1/chat/completions", body, key.secret)).status
        told = await box.admin.system()
    assert (__version__, "echo", str(tmp_path), 1, "off") == (told.version, told.profile, told.home, told.workers, told.valkey)
    assert ("sqlite", REVISION, True) == (told.database.kind, told.database.revision, told.database.is_open)
    assert told.database.bytes is not None
    assert told.database.bytes > 4_096
    (process,) = told.processes
    assert ("box", True) == (process.name, process.memory_bytes > 2**20)
    (queue,) = told.queues
    assert ("echo", 3, 0) == (queue.name, queue.slots, queue.slots_used)
    (standing,) = told.standings
    assert ("echo", 1, 0, 0) == (standing.deployment, standing.answered, standing.failed, standing.open_in)
    assert 0 <= told.uptime_s < 600
    assert 0 < told.disk_free_bytes <= told.disk_total_bytes
    assert (True, 0) == (told.cache.is_enabled, told.cache.hits)
    assert () == told.children


async def test_children_are_told_by_their_engines(tmp_path: Path) -> None:
    async with boxed(tmp_path, SETTINGS) as admin:
        told = await admin.system()
    assert {("own", "shared", False, 0, 0, 0), ("own", "exact", False, 0, 0, 0)} == {
        (child.engine, child.role, child.is_ready, child.starts, child.restarts, child.memory_bytes) for child in told.children
    }


async def test_findings_say_what_is_missing_before_what_is_well(tmp_path: Path) -> None:
    async with boxed(tmp_path, SETTINGS) as admin:
        found = await admin.findings()
    assert sorted(found, key=lambda one: ("failed", "warning", "ok").index(one.verdict)) == list(found)
    by_code = {one.code: one for one in found}
    missing = by_code["weights_missing"]
    assert ("warning", "qwenbox pull w", {"title": "W Q4", "models": "mine", "name": "w"}) == (missing.verdict, missing.todo, missing.facts)
    assert {"home_ok", "engine_ok", "database_ok", "model_ok", "model_missing"} <= by_code.keys()
    assert {""} == {one.todo for one in found if one.verdict == "ok"}
    assert "" not in {one.todo for one in found if one.verdict != "ok"}


def _system(**changed: object) -> System:
    known: dict[str, object] = {
        **dict.fromkeys(("version", "python", "platform", "profile", "home"), ""),
        **dict.fromkeys(
            ("started_at", "uptime_s", "workers", "in_progress", "memory_limit_bytes", "disk_free_bytes", "disk_total_bytes"), 0
        ),
        "valkey": "off",
        "database": DatabaseState(kind="sqlite", revision="1", bytes=1, is_open=True),
        "cache": None,
        **dict.fromkeys(("processes", "children", "queues", "standings"), ()),
    }
    return System(**{**known, **changed})  # type: ignore[arg-type]


def test_trouble_of_a_running_box_is_found() -> None:
    troubled = _system(
        valkey="down",
        database=DatabaseState(kind="postgresql", revision="1", bytes=1, is_open=False),
        children=(
            EngineChild(engine="small", role="shared", is_ready=True, starts=4, restarts=3, memory_bytes=1),
            EngineChild(engine="large", role="shared", is_ready=True, starts=4, restarts=0, memory_bytes=1),
        ),
        standings=(
            Standing(deployment="cloud", answered=1, failed=9, retries=0, open_in=2),
            Standing(deployment="echo", answered=1, failed=9, retries=0, open_in=0),
        ),
    )
    found = {one.code: one for one in findings.running(troubled)}
    assert {"database_closed", "valkey_down", "child_crashed", "deployment_resting"} == found.keys()
    assert {"engine": "small", "count": "3"} == found["child_crashed"].facts
    assert "" not in {one.todo for one in found.values()}
    assert ["database_ok"] == [one.code for one in findings.running(_system())]


async def test_settings_are_those_in_force_without_secrets(tmp_path: Path) -> None:
    async with boxed(tmp_path, SETTINGS) as admin:
        told = {one.name: one for one in await admin.settings()}
    text = json.dumps([(one.name, one.value) for one in told.values()])
    assert [] == [secret for secret in SECRETS if secret in text]
    assert ("…", True) == (told["api_key"].value, told["api_key"].is_hidden)
    assert told["admin.key"].is_hidden
    assert ("…", True) == (told["engine.away.address"].value, told["engine.away.address"].is_hidden)
    assert '"http://…@127.0.0.1:9"' == told["store.hub_endpoint"].value
    assert ("8000", True) == (told["server.port"].value, told["server.port"].is_default)
    assert ('["hub"]', False) == (told["store.sources"].value, told["store.sources"].is_default)
    assert "4096" == told["model.mine.card.context_tokens"].value
    assert "model.qwen-turbo.card.context_tokens" not in told, "it is as it ships"
    assert [] == [name for name in told if name.startswith("price.")]


async def test_system_is_only_told_by_a_running_box(tmp_path: Path) -> None:
    async with administration(f"sqlite+aiosqlite:///{tmp_path / 'box.db'}") as admin:
        for path in ("/system", "/system/findings", "/system/settings", "/models", "/pulls"):
            assert (path, 404) == (path, (await admin.call("GET", path)).status)
