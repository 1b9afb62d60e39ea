"""Pictures through the official SDKs into real (if meaningless) vision weights, directly and by way of a second box in front."""

import asyncio
import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dashscope
import openai
import pytest
from dashscope.aigc.multimodal_conversation import AioMultiModalConversation
from dashscope.api_entities.aio_session import close_shared_aio_session

import boxes
from boxes import Box
from sdk import forms
from support.sights import draw
from support.tiny_vision import build

SEEING = """
[weights.tiny-vl]
title = "Tiny VL"
path = "{folder}/tiny-vl.gguf"
projector = "tiny-mmproj"
[weights.tiny-mmproj]
title = "Tiny VL projector"
path = "{folder}/mmproj-tiny-vl.gguf"
[engine.tiny]
kind = "llamacpp"
weights = "tiny-vl"
kv_tokens = 8192
context_tokens = 8192
[[model]]
name = "qwen-vl-plus"
deployments = ["tiny"]
card = {{ context_tokens = 8192, max_output_tokens = 2048, capabilities = ["chat", "vision", "json", "logprobs"] }}
"""
IN_FRONT = """
[engine.native]
kind = "cloud"
address = "{root}"
[engine.compatible]
kind = "cloud"
protocol = "openai"
address = "{root}"
[engine.server]
kind = "openai_server"
address = "{root}/compatible-mode/v1"
key_env = "DASHSCOPE_API_KEY"
model = "qwen-vl-plus"
"""
MODEL = """
[[model]]
name = "{0}"
deployments = ["{0}"]
[model.card]
context_tokens = 8192
max_output_tokens = 2048
capabilities = ["chat", "vision", "json", "logprobs"]
sampling = {{ repetition_penalty = 1.2 }}
"""
# 300 by 200 pixels: 11 by 7 units of 28, and two marks.
TOKENS = 79
PICTURE = "data:image/png;base64," + base64.b64encode(draw(300, 200)).decode()
NATIVE: list[dict[str, Any]] = [{"role": "user", "content": [{"image": PICTURE}, {"text": "hello"}]}]
COMPATIBLE: list[Any] = [
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PICTURE, "detail": "high"}}, {"type": "text", "text": "hello"}]}
]
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 12}


@dataclass(frozen=True)
class Street:
    """near: has the weights. front: has none, and asks near."""

    near: Box
    front: Box


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    folder = tmp_path_factory.mktemp("tiny-vl")
    build(folder)
    toml = boxes.NO_CACHE + SEEING.format(folder=folder)
    with boxes.serve(tmp_path_factory.mktemp("near"), toml=toml) as near:
        engines = IN_FRONT.format(root=near.base_url)
        # A cloud engine sends the caller's own name on; so each has a model of its own, said to the near box as qwen-vl-plus.
        engines = engines.replace('kind = "cloud"', 'kind = "cloud"\nmodel = "qwen-vl-plus"')
        models = "".join(MODEL.format(name) for name in ("native", "compatible", "server"))
        environment = {"DASHSCOPE_API_KEY": near.key}
        with boxes.serve(tmp_path_factory.mktemp("front"), toml=boxes.NO_CACHE + engines + models, environment=environment) as front:
            yield Street(near, front)


def conversed(box: Box, messages: list[dict[str, Any]] = NATIVE, **options: Any) -> Any:
    forms.point(box)
    response = dashscope.MultiModalConversation.call(**{"model": "qwen-vl-plus", "messages": messages, **GREEDY, **options})
    assert 200 == response.status_code, response
    return response


def test_native_call_says_what_the_picture_took(street: Street) -> None:
    response = conversed(street.near, seed=7)
    usage = response.usage

    assert (TOKENS, TOKENS, usage["input_tokens"] - TOKENS) == (
        usage["image_tokens"],
        usage["input_tokens_details"]["image_tokens"],
        usage["input_tokens_details"]["text_tokens"],
    )
    assert usage["input_tokens"] + usage["output_tokens"] == usage["total_tokens"]
    assert ["text"] == [key for item in response.output.choices[0].message.content for key in item]


def test_native_streams_add_up_to_the_whole_answer(street: Street) -> None:
    whole = conversed(street.near, seed=7).output.choices[0].message.content[0]["text"]
    for is_incremental in (True, False):
        frames = list(conversed_stream(street.near, seed=7, incremental_output=is_incremental))
        texts = ["".join(item.get("text", "") for item in frame.output.choices[0].message.content) for frame in frames]

        assert whole == ("".join(texts) if is_incremental else texts[-1])
        assert {TOKENS} == {frame.usage["image_tokens"] for frame in frames}


def conversed_stream(box: Box, **options: Any) -> Iterator[Any]:
    forms.point(box)
    yield from dashscope.MultiModalConversation.call(model="qwen-vl-plus", messages=NATIVE, stream=True, **GREEDY, **options)


def test_async_class_answers_as_the_other(street: Street) -> None:
    forms.point(street.near)

    async def ask() -> Any:
        try:
            return await AioMultiModalConversation.call(model="qwen-vl-plus", messages=NATIVE, seed=7, **GREEDY)
        finally:
            await close_shared_aio_session()

    assert conversed(street.near, seed=7).output == asyncio.run(ask()).output


def test_local_file_is_seen_as_the_same_picture(street: Street, tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    file.write_bytes(draw(300, 200))
    inline = conversed(street.near, seed=7).output
    for path in (f"file://{file}", str(file)):
        messages = [{"role": "user", "content": [{"image": path}, {"text": "hello"}]}]

        assert inline == conversed(street.near, messages, seed=7).output


def test_compatible_call_says_what_the_picture_took_whole_and_streamed(street: Street) -> None:
    client = forms.openai_client(street.near)
    whole = client.chat.completions.create(model="qwen-vl-plus", messages=COMPATIBLE, seed=7, **GREEDY)
    chunks = list(
        client.chat.completions.create(
            model="qwen-vl-plus", messages=COMPATIBLE, seed=7, stream=True, stream_options={"include_usage": True}, **GREEDY
        )
    )

    assert whole.choices[0].message.content == "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    for usage in (whole.usage, chunks[-1].usage):
        assert (TOKENS, usage.prompt_tokens - TOKENS) == (
            usage.prompt_tokens_details.image_tokens,
            usage.prompt_tokens_details.text_tokens,
        )


def test_one_picture_and_seed_give_one_text_in_every_dialect_and_through_every_upstream(street: Street) -> None:
    native = conversed(street.near, seed=7).output.choices[0].message.content[0]["text"]
    texts, tokens = {native}, {TOKENS}
    client = forms.openai_client(street.front)
    for model in ("native", "compatible", "server"):
        response = conversed(street.front, model=model, seed=7)
        texts.add(response.output.choices[0].message.content[0]["text"])
        tokens.add(response.usage["image_tokens"])
        answer = client.chat.completions.create(model=model, messages=COMPATIBLE, seed=7, **GREEDY)
        texts.add(answer.choices[0].message.content)
        tokens.add(answer.usage.prompt_tokens_details.image_tokens)

    assert ({native}, {TOKENS}) == (texts, tokens)


def test_v2_clients_send_pictures(street: Street) -> None:
    whole = conversed(street.near, seed=7).output.choices[0].message.content[0]["text"]
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PICTURE}}, {"type": "text", "text": "hello"}]}]
    for protocol in ("native", "openai"):
        with forms.v2_client(street.near, protocol) as client:
            completion = client.chat.completions.create(model="qwen-vl-plus", messages=messages, seed=7, **GREEDY)

            assert whole == completion.output_text


def test_sizes_of_pictures_are_told_when_asked_for(street: Street) -> None:
    asked = {"vl_enable_image_hw_output": True, "seed": 7}
    for box, model in ((street.near, "qwen-vl-plus"), (street.front, "native")):
        content = conversed(box, model=model, **asked).output.choices[0].message.content
        last = list(conversed_stream(box, **asked))[-1] if box is street.near else None

        assert [[196, 308]] == content[-1]["image_hw"]
        assert last is None or [[196, 308]] == last.output.choices[0].message.content[-1]["image_hw"]


def test_pixels_that_a_caller_wishes_are_those_the_model_sees_through_every_upstream(street: Street) -> None:
    for box, model in ((street.near, "qwen-vl-plus"), (street.front, "native"), (street.front, "compatible"), (street.front, "server")):
        few = [{"role": "user", "content": [{"image": PICTURE, "max_pixels": 28 * 28 * 6}, {"text": "hello"}]}]
        film = [{"role": "user", "content": [{"video": [PICTURE] * 4, "fps": 2, "total_pixels": 28 * 28 * 24}, {"text": "hello"}]}]

        # 3 by 2 units; four frames of at most six units each.
        assert (8, 32) == tuple(conversed(box, messages, model=model).usage["image_tokens"] for messages in (few, film))


def test_model_that_reads_text_refuses_a_picture_in_the_services_words(street: Street) -> None:
    client = forms.openai_client(street.near)
    with pytest.raises(openai.BadRequestError, match=r"The image length and width do not meet the model restrictions\."):
        content = [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(draw(300, 9)).decode()}}]
        client.chat.completions.create(model="qwen-vl-plus", messages=[{"role": "user", "content": content}])  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match=r"input content must be a string\."):
        client.chat.completions.create(model="qwen-turbo", messages=COMPATIBLE)
    forms.point(street.near)
    refused = dashscope.MultiModalConversation.call(model="qwen-turbo", messages=NATIVE)
    assert (400, "InvalidParameter") == (refused.status_code, refused.code)
    assert refused.message.startswith("input content must be a string.")
