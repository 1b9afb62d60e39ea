"""What the service has and the box has not, asked for through the official SDKs: a clear error, of the kind each of them raises."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import anthropic
import dashscope
import openai
import pytest
from dashscope.audio.http_tts.http_speech_synthesizer import HttpSpeechSynthesizer
from dashscope.v2.errors import NotFoundError

import wire
from boxes import Box
from qwenbox.dialects.registry import DIALECTS
from sdk import forms

FAMILIES = [(dialect, family) for dialect in DIALECTS for family in dialect.unserved]

ONE_X: dict[str, Callable[[], Any]] = {
    "Fine-tuning": lambda: dashscope.FineTunes.call(model="qwen-turbo", training_file_ids=["file-1"]),
    "Fine-tuning list": lambda: dashscope.FineTunes.list(),
    "Fine-tuning get": lambda: dashscope.FineTunes.get("job"),
    "Deployments": lambda: dashscope.Deployments.call(model="qwen-turbo", capacity=1),
    "Deployments list": lambda: dashscope.Deployments.list(),
    "Deployments delete": lambda: dashscope.Deployments.delete("a"),
    "Applications and agents": lambda: dashscope.Application.call(app_id="app", prompt="hi"),
    "Applications and agents stream": lambda: next(iter(dashscope.Application.call(app_id="app", prompt="hi", stream=True))),
    "Video generation": lambda: dashscope.VideoSynthesis.async_call(model="wanx2.1-t2v-turbo", prompt="a cat"),
    "Speech recognition": lambda: dashscope.audio.asr.Transcription.async_call(model="paraformer-v2", file_urls=["http://a/b.wav"]),
    "Speech synthesis": lambda: HttpSpeechSynthesizer.call(model="cosyvoice-v3-flash", text="hi", voice="longxiaochun"),
    "Language understanding (NLU)": lambda: dashscope.Understanding.call(model="opennlu-v1", sentence="hi", labels="a,b"),
    "Embeddings of pictures and videos": lambda: dashscope.MultiModalEmbedding.call(model="multimodal-embedding-v1", input=[{"text": "a"}]),
}

V2: dict[str, Callable[[dashscope.Client], Any]] = {
    "Fine-tuning": lambda client: client.fine_tunes.list(),
    "Deployments": lambda client: client.deployments.get("a"),
    "Applications and agents": lambda client: client.apps.completions.create(app_id="app", prompt="hi"),
    "Video generation": lambda client: client.videos.generate(model="wanx2.1-t2v-turbo", prompt="a cat"),
}

OPENAI: dict[str, Callable[[openai.OpenAI], Any]] = {
    "Audio": lambda client: client.audio.speech.create(model="tts", voice="a", input="hi"),
    "Audio transcription": lambda client: client.audio.transcriptions.create(model="asr", file=("a.wav", b"RIFF")),
    "Realtime and live sessions": lambda client: client.realtime.client_secrets.create(),
    "Videos": lambda client: client.videos.create(prompt="a cat"),
    "Edits and variations of pictures": lambda client: client.images.edit(image=("a.png", b"x"), prompt="a cat", model="qwen-image"),
    "Fine-tuning": lambda client: client.fine_tuning.jobs.create(model="qwen-turbo", training_file="file-1"),
    "Fine-tuning list": lambda client: client.fine_tuning.jobs.list(),
    "Moderations": lambda client: client.moderations.create(input="hi"),
    "Assistants and threads": lambda client: client.beta.threads.retrieve("thread_1"),
    "Conversations": lambda client: client.conversations.create(),
    "Stored chat completions": lambda client: client.chat.completions.retrieve("chatcmpl-1"),
    "Background and compacted responses": lambda client: client.responses.cancel("resp_1"),
    "Vector stores": lambda client: client.vector_stores.list(),
    "Uploads in parts": lambda client: client.uploads.create(bytes=1, filename="a", mime_type="text/plain", purpose="batch"),
    "Evaluations": lambda client: client.evals.list(),
    "Containers, skills and agents": lambda client: client.containers.list(),
}

ANTHROPIC: dict[str, Callable[[anthropic.Anthropic], Any]] = {
    "Message batches": lambda client: client.messages.batches.list(),
    "Files": lambda client: client.beta.files.list(),
}


def check(name: str, message: str) -> None:
    family = next(family.name for _, family in FAMILIES if name.startswith(family.name))
    assert message.startswith(f"{family} (")
    assert "qwenbox does not serve that" in message
    assert "docs/coverage.md" in message


@pytest.mark.parametrize("name", ONE_X)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_1x_returns_404_when_an_endpoint_is_not_served(box: Box, name: str) -> None:
    forms.point(box)
    response = ONE_X[name]()
    assert (HTTPStatus.NOT_FOUND, "NotFound") == (response.status_code, response.code)
    check(name, response.message)


@pytest.mark.parametrize("name", V2)
def test_v2_raises_not_found_when_an_endpoint_is_not_served(box: Box, name: str) -> None:
    with forms.v2_client(box) as client, pytest.raises(NotFoundError) as refused:
        V2[name](client)
    check(name, refused.value.message)


@pytest.mark.parametrize("name", OPENAI)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_openai_raises_not_found_when_an_endpoint_is_not_served(box: Box, name: str) -> None:
    with forms.openai_client(box) as client, pytest.raises(openai.NotFoundError) as refused:
        OPENAI[name](client)
    assert refused.value.code == "not_found"
    check(name, refused.value.body["message"])


@pytest.mark.parametrize("name", ANTHROPIC)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_anthropic_raises_not_found_when_an_endpoint_is_not_served(box: Box, name: str) -> None:
    with (
        anthropic.Anthropic(api_key=box.key, base_url=f"{box.base_url}/apps/anthropic", max_retries=0) as client,
        pytest.raises(anthropic.NotFoundError) as refused,
    ):
        ANTHROPIC[name](client)
    check(name, refused.value.body["error"]["message"])


def test_every_path_that_is_not_served_says_so_with_every_method(box: Box) -> None:
    for dialect, family in FAMILIES:
        for prefix in dialect.prefixes:
            for path in family.paths:
                for method, tail in (("POST", "/"), ("PUT", "/one/two?a=b"), ("GET", ""), ("DELETE", "/one")):
                    if method in ("GET", "DELETE") and path.startswith("/responses/"):
                        continue  # a response of that id, for all the box knows
                    heard = wire.call(box, method, f"{prefix}{path.replace('{id}', 'x')}{tail}", b"{")
                    assert heard.status == 404
                    check(family.name, heard.error["message"])


def test_no_served_route_is_said_to_be_none() -> None:
    for dialect in DIALECTS:
        for route in dialect.routes:
            # As a longer path of the route's own, an id may look like anything.
            covering = [family.name for family in dialect.unserved if family.has(route.path)]
            assert covering == [] or "{" in route.path, (route, covering)
