"""The states of engines over the admin API: of servers that answer only once all of them were asked."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from support.boxed import boxed

pytestmark = pytest.mark.anyio

MODELS = b'{"object":"list","data":[{"id":"m","object":"model"}]}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(MODELS), MODELS)
SERVER = """
[engine.{name}]
kind = "openai_server"
address = "http://127.0.0.1:{port}/v1"
model = "m"
[[model]]
name = "{name}"
deployments = ["{name}"]
card = {{ context_tokens = 4096 }}
"""


@asynccontextmanager
async def two_servers() -> AsyncIterator[str]:
    """Settings of a box in front of them. Each says nothing before the other was asked, too, and hangs up if that takes long."""
    asked = {"one": anyio.Event(), "two": anyio.Event()}

    async def answer(name: str, stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            asked[name].set()
            with anyio.move_on_after(3):
                for event in asked.values():
                    await event.wait()
                await stream.send(ANSWER)

    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        settings = ""
        for name in asked:
            listener = await stack.enter_async_context(await anyio.create_tcp_listener(local_host="127.0.0.1"))
            settings += SERVER.format(name=name, port=listener.extra(SocketAttribute.local_port))
            tasks.start_soon(listener.serve, partial(answer, name))
        yield settings
        tasks.cancel_scope.cancel()


async def test_engines_are_asked_at_the_same_time_for_their_states(tmp_path: Path):
    async with two_servers() as settings, boxed(tmp_path, settings) as admin:
        told = {model.model: model.deployments[0].state for model in await admin.engines()}
    assert {"one": "ready", "two": "ready"} == {name: told[name] for name in ("one", "two")}


async def test_findings_ask_engines_at_the_same_time_too(tmp_path: Path):
    async with two_servers() as settings, boxed(tmp_path, settings) as admin:
        verdicts = {finding.check: finding.verdict for finding in await admin.findings()}
    assert {"one": "ok", "two": "ok"} == {name: verdicts[name] for name in ("one", "two")}
