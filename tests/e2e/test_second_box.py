"""A second box as a server of the OpenAI dialect behind the first: its answers, its health, and a model it does not have."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import openai
import pytest

import boxes
from boxes import Box
from qwenbox.engines.openai_server import OpenAiServer, OpenAiServerConfig
from qwenbox.remote import Remote
from qwenbox.terms.engine import Health, HealthState
from sdk import forms
from sdk.forms import Refused
from support.ports import free_port

ASKED = [{"role": "system", "content": "你是一个有帮助的助手。"}, {"role": "user", "content": "请介绍一下 NLP 🙂\n谢谢。"}]
TOML = """
[engine.second]
kind = "openai_server"
address = "{address}"
key_env = "SECOND_KEY"
[[model]]
name = "qwen-turbo"
deployments = ["second"]
card = {{ context_tokens = 131072, max_output_tokens = 8192, capabilities = ["chat", "tools", "json", "logprobs"] }}
[[model]]
name = "gone"
deployments = ["second"]
card = {{ context_tokens = 131072, max_output_tokens = 8192 }}
"""


@pytest.fixture(scope="module")
def first(catalog_box: Box, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    toml = TOML.format(address=catalog_box.compatible) + boxes.NO_CACHE
    with boxes.serve(tmp_path_factory.mktemp("first"), toml=toml, environment={"SECOND_KEY": boxes.KEY}) as running:
        yield running


@pytest.mark.parametrize("name", ["Generation", "Generation stream", "OpenAI", "OpenAI stream"])
@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": 1.0, "seed": 7, "n": 2}, {"temperature": 0.0, "max_tokens": 5}])
def test_the_second_boxes_answer_comes_through_with_its_counts(first: Box, catalog_box: Box, name: str, options: dict[str, Any]) -> None:
    direct, through = [forms.EVERY[name](box, ASKED, model="qwen-turbo", **options) for box in (catalog_box, first)]
    assert (direct.choices, direct.pieces and "".join(direct.pieces)) == (through.choices, through.pieces and "".join(through.pieces))
    if not (name == "Generation stream" and "n" in options):  # the compatible dialect tells usage once, at a stream's end
        assert (direct.input_tokens, direct.output_tokens) == (through.input_tokens, through.output_tokens)


def test_a_model_the_second_box_does_not_have_is_the_boxes_mistake_and_says_so(first: Box) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        forms.openai_client(first).chat.completions.create(model="gone", messages=ASKED)  # type: ignore[arg-type]
    with pytest.raises(Refused) as native:
        forms.EVERY["Generation"](first, ASKED, model="gone")
    assert (500, 500) == (refused.value.status_code, native.value.status)
    assert "does not know" in refused.value.message


def test_health_is_the_second_boxes_own(catalog_box: Box, tmp_path: Path) -> None:
    def health(address: str, key: str) -> Health:
        file = tmp_path / "key"
        file.write_text(key)

        async def ask() -> Health:
            async with Remote() as remote:
                return await OpenAiServer(OpenAiServerConfig(address=address, key_file=str(file)), remote).health()

        return anyio.run(ask)

    assert HealthState.READY is health(catalog_box.compatible, boxes.KEY).state
    assert "refuses the key" in health(catalog_box.compatible, "sk-wrong").detail
    assert HealthState.DOWN is health(f"http://127.0.0.1:{free_port()}/v1", boxes.KEY).state
