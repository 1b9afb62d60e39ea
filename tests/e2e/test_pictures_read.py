"""Pictures on a box without vision weights: read by local tools, answered by the text model, said so, and over once weights are there."""

import base64
from collections.abc import Iterator
from pathlib import Path

import dashscope
import httpx
import openai
import pytest

import boxes
from boxes import Box
from qwenbox.clock import SystemClock
from qwenbox.engines.memory import MemoryBudget
from qwenbox.engines.reader.pictures import Pictures, ReadingConfig
from qwenbox.remote import Remote
from support import drawings
from support.drawings import Drawing
from support.tiny_vision import TinyVision, build

# Of the twenty: what is read must be right this often, what small weights answer from it a little less often.
LEAST_READ, LEAST_ANSWERED = 0.9, 0.75
CHINESE, ENGLISH = "这张图片中有什么？", "What is in this picture?"
APPLIED = "pictures=read-by-ocr"


def data_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def content(question: str, url: str) -> list[dict[str, object]]:
    return [{"role": "user", "content": [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": url}}]}]


def sdk(box: Box) -> openai.OpenAI:
    return openai.OpenAI(base_url=box.compatible, api_key=box.key, max_retries=0, timeout=300)


def answer(box: Box, question: str, data: bytes) -> str:
    reply = sdk(box).chat.completions.create(model="qwen-vl-plus", messages=content(question, data_url(data)), max_tokens=200)
    return reply.choices[0].message.content or ""


def share(title: str, drawings_: list[Drawing], right: list[bool]) -> float:
    """Printed by kind; of all."""
    for kind, chosen in (
        ("Chinese", [drawing.is_chinese for drawing in drawings_]),
        ("English", [not drawing.is_chinese for drawing in drawings_]),
        ("screens", [not drawing.is_photo for drawing in drawings_]),
        ("photographs", [drawing.is_photo for drawing in drawings_]),
    ):
        found = [ok for ok, is_chosen in zip(right, chosen, strict=True) if is_chosen]
        print(f"{title}: {kind} {sum(found)} of {len(found)}")
    missed = [drawing.name for drawing, ok in zip(drawings_, right, strict=True) if not ok]
    print(f"{title}: {sum(right)} of {len(right)} pictures named in full; missed: {', '.join(missed) or 'none'}")
    return sum(right) / len(right)


@pytest.fixture(scope="module", name="reading_box")
def _reading_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """The laptop's catalog with echo as its text models, and vision weights that lie nowhere yet."""
    home = tmp_path_factory.mktemp("reading")
    toml = f"""
{boxes.CATALOG_ON_ECHO}
{boxes.NO_CACHE}
[weights.coming]
title = "Tiny VL"
path = "{home}/tiny-vl.gguf"
projector = "mmproj-coming"
[weights.mmproj-coming]
title = "Tiny VL's projector"
path = "{home}/mmproj-tiny-vl.gguf"
[engine.vision]
weights = "coming"
slots = 1
kv_tokens = 2048
context_tokens = 2048
"""
    with boxes.serve(home, profile="laptop", toml=toml) as running:
        yield running


@pytest.mark.anyio
async def test_share_of_pictures_whose_text_is_read() -> None:
    pictures = drawings.twenty()
    async with Remote() as remote, Pictures(ReadingConfig(threads=2), remote, MemoryBudget(10**10), SystemClock()) as reader:
        right: list[bool] = []
        for drawing in pictures:
            reading = await reader.read(drawings.part(drawings.png(drawing.picture)))
            right.append(drawings.names(" ".join(line.text for line in reading.lines), drawing))
    assert share("read", pictures, right) >= LEAST_READ


def test_openai_names_the_text_and_tells_who_read_it(reading_box: Box) -> None:
    data = drawings.png(drawings.twenty()[0].picture)
    raw = sdk(reading_box).chat.completions.with_raw_response.create(model="qwen-vl-plus", messages=content(CHINESE, data_url(data)))
    reply = raw.parse()
    assert "确认删除文件" in (reply.choices[0].message.content or "")
    assert APPLIED == raw.headers["x-qwenbox-applied"]
    used = reply.usage.to_dict() if reply.usage else {}
    assert 0 < used["prompt_tokens_details"]["image_tokens"] < used["prompt_tokens"]


def test_openai_streams_what_was_read_and_counts_it_the_same(reading_box: Box) -> None:
    asked = {"model": "qwen-vl-plus", "messages": content(ENGLISH, data_url(drawings.png(drawings.twenty()[5].picture))), "temperature": 0}
    client = sdk(reading_box)
    whole = client.chat.completions.create(**asked)
    stream = client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert (whole.choices[0].message.content, whole.usage) == (text, chunks[-1].usage)
    assert "Delete this file?" in text


def test_dashscope_names_the_text_of_a_local_file(reading_box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashscope, "base_http_api_url", reading_box.native)
    file = tmp_path / "sign.png"
    file.write_bytes(drawings.png(drawings.twenty()[15].picture))
    messages = [{"role": "user", "content": [{"image": f"file://{file}"}, {"text": ENGLISH}]}]
    reply = dashscope.MultiModalConversation.call(model="qwen-vl-max", messages=messages, api_key=reading_box.key)
    assert reply.status_code == 200, reply
    assert "EMERGENCY EXIT" in reply.output.choices[0].message.content[0]["text"]
    assert reply.usage["image_tokens"] > 0


def test_json_and_tools_work_as_for_text(reading_box: Box) -> None:
    messages = content(ENGLISH, data_url(drawings.png(drawings.twenty()[9].picture)))
    client = sdk(reading_box)
    reply = client.chat.completions.create(model="qwen-vl-plus", messages=messages, response_format={"type": "json_object"})
    assert "Error 404" in (reply.choices[0].message.content or "")
    tool = {"type": "function", "function": {"name": "report", "parameters": {"type": "object", "properties": {}}}}
    reply = client.chat.completions.create(model="qwen-vl-plus", messages=messages, tools=[tool], tool_choice="required")
    assert "report" == (reply.choices[0].message.tool_calls or [])[0].function.name


def test_models_list_says_who_reads(reading_box: Box) -> None:
    reply = httpx.get(f"{reading_box.compatible}/models", headers={"authorization": f"Bearer {reading_box.key}"}, trust_env=False)
    assert "(pictures read by RapidOCR)" in reply.text


def test_text_alone_is_not_said_to_be_read(reading_box: Box) -> None:
    raw = sdk(reading_box).chat.completions.with_raw_response.create(model="qwen-vl-plus", messages=[{"role": "user", "content": "hi"}])
    assert "x-qwenbox-applied" not in raw.headers


@pytest.mark.parametrize("language", [CHINESE, ENGLISH])
def test_picture_without_text_is_told_honestly(reading_box: Box, language: str) -> None:
    told = answer(reading_box, language, drawings.png(drawings.wordless()[0][1]))
    wanted = ("没有识别到文字", "没有视觉模型", "480", "蓝色") if language == CHINESE else ("No text", "no vision model", "480", "blue")
    assert all(word in told for word in wanted), told


def test_weights_are_used_from_the_moment_they_are_there(reading_box: Box) -> None:
    """Last of this box: nothing is read out any more."""
    asked = content(ENGLISH, data_url(drawings.png(drawings.wordless()[1][1])))
    client = sdk(reading_box).chat.completions.with_raw_response
    before = client.create(model="qwen-vl-plus", messages=asked, max_tokens=2)
    assert APPLIED == before.headers["x-qwenbox-applied"]

    files: TinyVision = build(reading_box.home)
    assert files.model == reading_box.home / "tiny-vl.gguf"

    after = client.create(model="qwen-vl-plus", messages=asked, max_tokens=2)
    assert "x-qwenbox-applied" not in after.headers


@pytest.mark.e2e
def test_share_of_pictures_that_real_weights_name(weights_box: Box, is_full: bool) -> None:
    pictures = drawings.twenty() if is_full else drawings.twenty()[::5]
    right = [
        drawings.names(answer(weights_box, CHINESE if drawing.is_chinese else ENGLISH, drawings.png(drawing.picture)), drawing)
        for drawing in pictures
    ]
    assert share("answered", pictures, right) >= LEAST_ANSWERED


@pytest.mark.e2e
def test_real_weights_invent_nothing_where_there_is_no_text(weights_box: Box, is_full: bool) -> None:
    for _, picture in drawings.wordless() if is_full else drawings.wordless()[:1]:
        told = answer(weights_box, "描述一下图片里的人物和动物", drawings.png(picture))
        assert "没有识别到文字" in told and "没有视觉模型" in told, told
        assert not any(word in told for word in ("男", "女", "孩", "狗", "猫", "鸟", "穿着", "微笑")), told
