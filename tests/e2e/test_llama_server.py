"""llama.cpp's own server, with real weights, as a model's server behind the box: what its flavour promises is true of it.

It was not made by us: what the box hears of it is compared with what it says to a plain HTTP client.
"""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import openai
import pytest

import boxes
from boxes import Box
from e2e.engines import weights_file
from qwenbox.engines.openai_server import OpenAiServer, OpenAiServerConfig
from qwenbox.remote import Remote
from qwenbox.terms.engine import EngineFacts, Health, HealthState
from qwenbox.terms.model import Capability
from sdk import forms
from sdk.forms import Form, Refused
from support import llama_server
from support.llama_server import LlamaServer

pytestmark = pytest.mark.e2e

ASKED = [{"role": "user", "content": "Name three colours."}]
GREEDY: dict[str, Any] = {"temperature": 0.0, "max_tokens": 4}
TOML = """
[engine.peer]
kind = "openai_server"
flavour = "llama-server"
address = "{address}/v1"
key_env = "PEER_KEY"
[[model]]
name = "peer"
deployments = ["peer"]
card = {{ context_tokens = 32768, capabilities = ["chat", "completion", "tools", "json", "logprobs"] }}
[retries]
base_s = 0.05
"""


@pytest.fixture(scope="module")
def peer(weights_folder: Path) -> Iterator[LlamaServer]:
    with llama_server.serve(weights_file(weights_folder)) as running:
        yield running


@pytest.fixture(scope="module")
def through(peer: LlamaServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box in front of it."""
    toml = TOML.format(address=peer.address) + boxes.NO_CACHE
    with boxes.serve(tmp_path_factory.mktemp("peer"), toml=toml, environment={"PEER_KEY": llama_server.KEY}) as running:
        yield running


def directly(peer: LlamaServer, **body: Any) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {llama_server.KEY}"}
    url = f"{peer.address}/v1/chat/completions"
    return httpx.post(url, json={"messages": ASKED, **GREEDY, **body}, headers=headers, timeout=120, trust_env=False).json()


def learned(address: str, key_file: Path) -> tuple[Health, EngineFacts]:
    async def ask() -> tuple[Health, EngineFacts]:
        async with Remote() as remote:
            config = OpenAiServerConfig(flavour="llama-server", address=f"{address}/v1", key_file=str(key_file))
            engine = OpenAiServer(config, remote)
            return await engine.health(), engine.facts

    return anyio.run(ask)


@pytest.mark.parametrize("name", ["Generation", "Generation stream", "OpenAI", "OpenAI stream"])
def test_every_style_says_what_the_server_says_and_counts_what_it_counts(peer: LlamaServer, through: Box, name: str) -> None:
    said = directly(peer)
    heard = forms.EVERY[name](through, ASKED, model="peer", **GREEDY)
    choice, usage = said["choices"][0], said["usage"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (heard.first.text, heard.first.reason)
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (heard.input_tokens, heard.output_tokens)
    if "stream" in name:
        assert len([piece for piece in heard.pieces or () if piece]) > 1


def test_json_schemas_tools_and_logprobs_are_the_servers_own(peer: LlamaServer, through: Box) -> None:
    schema = {"type": "object", "properties": {"city": {"enum": ["Rome"]}}, "required": ["city"], "additionalProperties": False}
    form: Form = forms.EVERY["OpenAI"]
    json_form = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema, "strict": True}}
    asked = [{"role": "user", "content": 'Answer with JSON only, as {"city": …}: what is the capital of France?'}]
    answered = form(through, asked, model="peer", temperature=0.0, max_tokens=24, response_format=json_form)
    assert {"city": "Rome"} == json.loads(answered.first.text)

    told = form(through, ASKED, model="peer", logprobs=True, top_logprobs=2, **GREEDY)
    said = directly(peer, logprobs=True, top_logprobs=2)["choices"][0]["logprobs"]["content"]
    assert [each["token"] for each in said] == told.first.tokens

    tool = {"type": "function", "function": {"name": "get_weather", "description": "Weather of a city", "parameters": schema}}
    asked = [{"role": "user", "content": "Use get_weather for Rome."}]
    said = directly(peer, messages=asked, tools=[tool], max_tokens=32)["choices"][0]["message"]
    heard = form(through, asked, model="peer", tools=[tool], temperature=0.0, max_tokens=32).first
    assert (said.get("content") or "") == heard.text
    calls = [[call["function"]["name"], call["function"]["arguments"]] for call in said.get("tool_calls") or ()]
    assert calls == [call[1:] for call in heard.calls]


@pytest.mark.parametrize(
    ("options", "status", "told"),
    [
        ({"tool_choice": "required"}, 400, "tool_choice"),
        ({"n": 2}, 400, "would ignore n"),
        ({"messages": [{"role": "user", "content": "hi " * 4_000}]}, 400, "input length"),
    ],
    ids=["forced tool", "n", "too long"],
)
def test_what_the_server_cannot_do_is_refused_and_not_forgotten(through: Box, options: dict[str, Any], status: int, told: str) -> None:
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
    body = {"model": "peer", "messages": ASKED, "tools": [tool], **GREEDY, **options}
    with pytest.raises(openai.APIStatusError) as refused:
        forms.openai_client(through).chat.completions.create(**body)
    assert status == refused.value.status_code
    assert told in refused.value.message


def test_health_tells_what_the_server_tells_of_itself(peer: LlamaServer, tmp_path: Path) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text(llama_server.KEY)
    wrong.write_text("sk-wrong")
    health, facts = learned(peer.address, right)
    assert (HealthState.READY, llama_server.CONTEXT_TOKENS) == (health.state, facts.context_tokens)
    assert {Capability.CHAT, Capability.TOOLS, Capability.JSON} <= facts.capabilities
    assert Capability.VISION not in facts.capabilities
    health, _ = learned(peer.address, wrong)
    assert (HealthState.DOWN, True) == (health.state, "refuses the key" in health.detail)


def test_a_server_killed_in_the_middle_ends_in_an_error_and_is_down(peer: LlamaServer, through: Box, tmp_path: Path) -> None:
    """The last test here: nobody starts it again."""
    client = forms.openai_client(through)
    # Greedy, for one answer in eight that is drawn at random is a number and no more.
    stream = client.chat.completions.create(
        model="peer", messages=[{"role": "user", "content": "Count from 1 to 500."}], stream=True, max_tokens=1_500, temperature=0.0
    )
    chunks = iter(stream)
    while not next(chunks).choices[0].delta.content:
        pass
    threading.Thread(target=peer.kill).start()
    with pytest.raises(openai.APIError):
        list(chunks)
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="peer", messages=ASKED)  # type: ignore[arg-type]
    with pytest.raises(Refused) as refused:
        forms.EVERY["Generation"](through, ASKED, model="peer")
    assert 500 <= (refused.value.status or 0)
    key = tmp_path / "key"
    key.write_text(llama_server.KEY)
    assert HealthState.DOWN is learned(peer.address, key)[0].state
