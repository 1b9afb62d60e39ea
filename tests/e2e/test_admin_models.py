"""Models administered on a box of two workers with weights of its own: pulled from a folder, loaded, measured, unloaded, all without a
restart."""

import json
from pathlib import Path

import anyio
import pytest

import wire
from boxes import Box, serve
from qwenbox.client.admin import AdminClient, open_remote
from qwenbox.client.catalog import Model
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret
from support.admin_calls import TESTING
from support.tiny_vision import build

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]

ADMIN_KEY = TESTING["QWENBOX_ADMIN_KEY"]
QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": "hello world"}], "max_tokens": 400}


def settings(folder: Path, workers: int) -> str:
    return f"""
[server]
workers = {workers}
[limits]
approximate = true
[cache]
enabled = false
[store]
folders = ["{folder}"]
sources = ["local"]
[weights.tiny]
title = "Tiny"
file = "tiny-vl.gguf"
url = "http://127.0.0.1:9/tiny-vl.gguf"
[engine.tiny]
kind = "llamacpp"
weights = "tiny"
kv_tokens = 2048
context_tokens = 1024
batch_tokens = 32
[[model]]
name = "tiny"
deployments = ["tiny"]
card = {{ context_tokens = 1024, capabilities = ["chat"] }}
"""


def ask(box: Box, **more: object) -> wire.Heard:
    return wire.call(box, "POST", "/v1/chat/completions", {**QUESTION, **more})


async def state(admin: AdminClient) -> str:
    return (await admin.model("tiny")).deployments[0].state


async def pulled(admin: AdminClient) -> Model:
    await admin.pull("tiny")
    with anyio.fail_after(60):
        while (told := await admin.pull_state("tiny")).state == "running":  # noqa: ASYNC110 (another process, which no event tells)
            await anyio.sleep(0.02)
    assert ("done", "") == (told.state, told.reason)
    return await admin.model("tiny")


@pytest.mark.parametrize("workers", [1, 2])
async def test_model_is_pulled_loaded_measured_and_unloaded_without_a_restart(tmp_path: Path, workers: int) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    build(folder)
    with serve(tmp_path / "home", toml=settings(folder, workers), environment=TESTING) as box:
        async with open_remote(box.base_url, Secret(ADMIN_KEY)) as admin:
            assert "missing" == await state(admin)
            assert 404 == (await anyio.to_thread.run_sync(ask, box)).status
            model = await pulled(admin)
            assert (True, "idle") == (model.deployments[0].files[0].is_here, model.deployments[0].state)
            assert "ready" == (await admin.load("tiny")).deployments[0].state
            told = await admin.system()
            assert (workers, {"box"} if workers == 1 else {"parent", "worker-1", "worker-2"}) == (
                told.workers,
                {process.name for process in told.processes},
            )
            assert [("shared", True)] == [(child.role, child.memory_bytes > 2**20) for child in told.children if child.is_ready]
            assert 0 < told.uptime_s < 600
            speed = await admin.measure("tiny")
            assert speed == (await admin.model("tiny")).speed
            assert ("tiny", True) == (speed.deployment, speed.output_tokens > 0)
            assert 200 == (await anyio.to_thread.run_sync(lambda: ask(box, max_tokens=4))).status
            assert "idle" == (await admin.unload("tiny")).deployments[0].state
            answer = await anyio.to_thread.run_sync(lambda: ask(box, max_tokens=4))
            assert 200 == answer.status
            assert json.loads(answer.body)["usage"]["completion_tokens"] > 0


async def test_model_in_use_is_not_unloaded(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    build(folder)
    with serve(tmp_path / "home", toml=settings(folder, 2), environment=TESTING) as box:
        async with open_remote(box.base_url, Secret(ADMIN_KEY)) as admin, anyio.create_task_group() as tasks:
            await pulled(admin)
            await admin.load("tiny")
            statuses: list[int] = []

            async def long() -> None:
                # Words that these weights never end by themselves.
                heard = await anyio.to_thread.run_sync(lambda: ask(box, max_tokens=900, logit_bias={}))
                statuses.append(heard.status)

            tasks.start_soon(long)
            refused: ApiError | None = None
            with anyio.fail_after(30):
                while refused is None and not statuses:
                    try:
                        await admin.unload("tiny")
                    except ApiError as error:
                        refused = error
            assert refused is not None
            assert ErrorKind.CONFLICT is refused.kind
            assert "tiny is in use" in refused.message
        assert [200] == statuses
