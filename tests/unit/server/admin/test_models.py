"""Models over the admin API: what is told of them, and pulls from a hub of the test's own."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from mirrors import Hub, blob, hub, settings_of
from qwenbox.client.catalog import Pull
from qwenbox.terms.errors import ApiError, ErrorKind
from support.boxed import boxed

pytestmark = pytest.mark.anyio

DATA = blob(1_500_000)
MODELS = """
[engine.read]
kind = "reader"
text = "own"
[engine.away]
kind = "openai_server"
address = "http://127.0.0.1:9/v1"
model = "secret-name"
[[model]]
name = "mine"
aliases = ["my/own"]
deployments = ["own", "away"]
[model.card]
context_tokens = 4096
max_output_tokens = 512
capabilities = ["chat", "vision"]
description = "Mine."
[[model]]
name = "seeing"
deployments = ["read"]
card = { context_tokens = 4096 }
[[price]]
model = "mine"
from = 2024-01-01
currency = "CNY"
tiers = [{ input_micros = 300_000, output_micros = 600_000 }]
"""


def settings(it: Hub) -> str:
    """A model of one file that is nowhere but at `it`, behind echo; and one that somebody else's server answers."""
    return settings_of(DATA, it.url) + MODELS


async def until(ask: Callable[[], Awaitable[Pull]], is_so: Callable[[Pull], bool]) -> Pull:
    with anyio.fail_after(20):
        while not is_so(told := await ask()):  # noqa: ASYNC110 (what a client of the API can do)
            await anyio.sleep(0.02)
    return told


async def test_model_tells_what_it_is_and_nothing_of_where_servers_are(tmp_path: Path) -> None:
    with hub(DATA) as it:
        async with boxed(tmp_path, settings(it)) as admin:
            told = {model.name: model for model in await admin.catalog()}
            assert told["mine"] == await admin.model("mine") == await admin.model("my/own")
            assert "none" == (await admin.pull_state("my/own")).state
    mine = told["mine"]
    assert (("my/own",), "Mine.", ("chat", "vision"), 4096, 512) == (
        mine.aliases,
        mine.description,
        mine.capabilities,
        mine.context_tokens,
        mine.max_output_tokens,
    )
    assert mine.price is not None
    assert ("mine", 300_000) == (mine.price.model, mine.price.tiers[0].input_micros)
    own, away = mine.deployments
    assert (("own", "llamacpp", "W Q4", "missing", True), ("away", "openai_server", "down", False)) == (
        (own.name, own.kind, own.weights, own.state, own.can_load),
        (away.name, away.kind, away.state, away.can_load),
    )
    (file,) = own.files
    assert ("w", "W Q4", "w.gguf", "apache-2.0", 0, len(DATA), False) == (
        file.name,
        file.title,
        file.file,
        file.licence,
        file.bytes_here,
        file.bytes_total,
        file.is_here,
    )
    assert () == away.files
    assert own.files == told["seeing"].deployments[0].files, "whatever reads pictures needs what answers them"
    assert ("ready", "none") == (told["qwen-turbo"].deployments[0].state, told["qwen-turbo"].pull)
    assert told["seeing"].price is None


async def test_answer_has_no_address_of_an_engine(tmp_path: Path) -> None:
    with hub(DATA) as it:
        async with boxed(tmp_path, settings(it)) as admin:
            text = json.dumps([str(model) for model in await admin.catalog()])
    assert "127.0.0.1" not in text


async def test_pull_is_told_while_it_runs_and_when_it_is_done(tmp_path: Path) -> None:
    with hub(DATA) as it:
        it.pause_s = 0.02
        async with boxed(tmp_path, settings(it)) as admin:
            assert ("none", ()) == ((await admin.pull_state("mine")).state, await admin.pulls())
            begun = await admin.pull("mine")
            assert ("mine", "running", len(DATA)) == (begun.model, begun.state, begun.bytes_total)
            some = await until(lambda: admin.pull_state("mine"), lambda told: told.bytes_done > 0)
            assert "running" == some.state
            assert {"mine", "seeing"} == {one.model for one in await admin.pulls()}, "both need the one file"
            await admin.pull("seeing")
            done = await until(lambda: admin.pull_state("mine"), lambda told: told.state != "running")
            assert ("done", len(DATA), "") == (done.state, done.bytes_done, done.reason)
            model = await admin.model("mine")
            assert ("done", True, "idle") == (model.pull, model.deployments[0].files[0].is_here, model.deployments[0].state)
            assert () == await admin.pulls()
    assert 1 == len(it.asked)


async def test_pull_can_be_cancelled_and_goes_on(tmp_path: Path) -> None:
    with hub(DATA) as it:
        it.pause_s = 0.1
        async with boxed(tmp_path, settings(it)) as admin:
            await admin.pull("mine")
            await until(lambda: admin.pull_state("mine"), lambda told: told.bytes_done > 0)
            stopped = await admin.cancel_pull("mine")
            assert "cancelled" == stopped.state
            assert 0 < stopped.bytes_done < len(DATA)
            it.pause_s = 0.0
            await admin.pull("mine")
            await until(lambda: admin.pull_state("mine"), lambda told: told.state == "done")


async def test_pull_that_fails_says_why(tmp_path: Path) -> None:
    with hub(DATA) as it:
        it.statuses = [404] * 5
        async with boxed(tmp_path, settings(it)) as admin:
            await admin.pull("mine")
            failed = await until(lambda: admin.pull_state("mine"), lambda told: told.state == "failed")
            assert "it has no such file (HTTP 404)" in failed.reason
            assert ["failed", "failed"] == [one.state for one in await admin.pulls()]


@pytest.mark.parametrize(
    ("operation", "model", "kind"),
    [
        ("pull", "qwen-turbo", ErrorKind.INVALID_REQUEST),
        ("load", "qwen-turbo", ErrorKind.INVALID_REQUEST),
        ("unload", "qwen-turbo", ErrorKind.INVALID_REQUEST),
        ("measure", "text-embedding-v4", ErrorKind.INVALID_REQUEST),
        ("pull", "nothing", ErrorKind.NOT_FOUND),
        ("model", "nothing", ErrorKind.NOT_FOUND),
        ("measure", "nothing", ErrorKind.MODEL_NOT_FOUND),
        ("load", "mine", ErrorKind.MODEL_NOT_FOUND),
    ],
)
async def test_operation_is_refused_where_it_makes_no_sense(tmp_path: Path, operation: str, model: str, kind: ErrorKind) -> None:
    with hub(DATA) as it:
        async with boxed(tmp_path, settings(it)) as admin:
            with pytest.raises(ApiError) as refused:
                await getattr(admin, operation)(model)
            assert kind is refused.value.kind
            assert refused.value.message


async def test_measurement_is_shown_with_its_model_afterwards(tmp_path: Path) -> None:
    async with boxed(tmp_path) as admin:
        assert (await admin.model("qwen-turbo")).speed is None
        speed = await admin.measure("qwen-turbo-latest")
        assert (64, "echo") == (speed.output_tokens, speed.deployment)
        assert speed == (await admin.model("qwen-turbo")).speed
    async with boxed(tmp_path) as admin:
        assert speed == (await admin.model("qwen-turbo")).speed


async def test_unload_of_what_is_not_loaded_does_nothing(tmp_path: Path) -> None:
    with hub(DATA) as it:
        async with boxed(tmp_path, settings(it)) as admin:
            assert "missing" == (await admin.unload("mine")).deployments[0].state
