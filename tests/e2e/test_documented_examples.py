"""Every example of the document runs as printed: as a program of its own, only base URL and key replaced and `//` comments made Python's.

The document is tests/golden/documents/qwen-api.zh.md, a copy. Its image example points at a picture on the internet; here a picture of this
test's own stands at that place.
"""

import ast
import base64
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import boxes
from boxes import Box
from support import drawings

DOCUMENT = Path(__file__).parents[1] / "golden" / "documents" / "qwen-api.zh.md"
RUN_S = 580

IMAGE_EXAMPLE = "qwen-vl-plus"
DOCUMENTED_PICTURE = "https://example.com/image.jpg"
DOCUMENTED_BASE = "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"
DOCUMENTED_KEYS = ("your_dashscope_api_key", "your_api_key")


@dataclass(frozen=True)
class Example:
    """A code block of the document. title: the heading it stands under."""

    title: str
    language: str
    code: str


def _examples() -> list[Example]:
    title = ""
    found: list[Example] = []
    for match in re.finditer(
        r"^#+ (?P<title>[^\n]+)$|^ *```(?P<language>\w+)\n(?P<code>.*?)^ *```$", DOCUMENT.read_text("utf-8"), re.M | re.S
    ):
        if match["title"]:
            title = match["title"]
        else:
            found.append(Example(title, match["language"], match["code"]))
    return found


EXAMPLES = _examples()
PYTHON = [example for example in EXAMPLES if example.language == "python" and IMAGE_EXAMPLE not in example.code]
DASHSCOPE, OPENAI, STREAM, JSON, RETRY = PYTHON
IMAGE = next(example for example in EXAMPLES if example.language == "python" and IMAGE_EXAMPLE in example.code)


def pythonic(code: str) -> str:
    """`//` is the document's slip for Python's comment; a URL's slashes are followed by no space."""
    return re.sub(r"//(?=\s)", "#", code)


def opening(code: str) -> str:
    """What an example sets up before it asks: imports, key, client. Later examples of the document go on from there."""
    tree = ast.parse(pythonic(code))
    asks = next(at for at, node in enumerate(tree.body) if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "response")
    return "\n".join(ast.unparse(node) for node in tree.body[:asks])


def run(box: Box, *parts: str, key: str | None = None) -> str:
    """The program's output; it must end well and say nothing on its standard error."""
    code = pythonic("\n\n".join(parts)).replace(DOCUMENTED_BASE, box.compatible)
    for printed in DOCUMENTED_KEYS:
        code = code.replace(printed, key or box.key)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**boxes.clean_environment(), "DASHSCOPE_HTTP_BASE_URL": box.native, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        timeout=RUN_S,
        check=False,
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")
    return done.stdout.decode()


@pytest.fixture(params=["echo", pytest.param("weights", marks=pytest.mark.e2e)])
def answering(request: pytest.FixtureRequest) -> Box:
    return request.getfixturevalue("box" if request.param == "echo" else "weights_box")


def is_answer(text: str, question: str, box: Box) -> bool:
    """Echo says the question again; real weights say something of their own, in Chinese."""
    if box.profile == "echo":
        return re.fullmatch(f"Echo [0-9a-f]{{4}}: {question}\n?", text) is not None
    return len(re.findall(r"[\u4e00-\u9fff]", text)) >= 10


def answers(box: Box, question: str, *parts: str) -> bool:
    """Small weights without a seed may say very little once, or say it in English: they have three tries, echo has one."""
    tries = 1 if box.profile == "echo" else 3
    return any(is_answer(run(box, *parts), question, box) for _ in range(tries))


def test_document_has_the_examples_these_tests_run():
    assert [example.title for example in PYTHON] == [
        "方式一：使用 DashScope SDK（官方推荐）",
        "方式二：使用 OpenAI 兼容接口",
        "流式响应",
        "JSON 格式响应",
        "错误处理示例",
    ]
    assert IMAGE.title == "多模态输入"
    left_out = [example for example in EXAMPLES if example not in (*PYTHON, IMAGE)]
    assert [example.language for example in left_out] == ["bash", "bash", "bash", "json"]


def test_dashscope_example_answers(answering: Box):
    assert answers(answering, "请介绍一下自然语言处理技术。", DASHSCOPE.code)


def test_openai_example_answers(answering: Box):
    assert answers(answering, "请介绍一下自然语言处理技术。", OPENAI.code)


def test_stream_example_prints_each_story_once(answering: Box):
    """Half of it at a time, so that what each SDK printed can be told apart; then the whole block as it stands."""
    native, compatible = pythonic(STREAM.code).split("# 使用 OpenAI 兼容接口\n")

    assert answers(answering, "讲个故事", opening(DASHSCOPE.code), native)
    assert answers(answering, "讲个故事", opening(OPENAI.code), compatible)


def test_stream_example_runs_as_one_block(box: Box):
    told = run(box, opening(DASHSCOPE.code), opening(OPENAI.code), STREAM.code)

    assert re.fullmatch("(Echo [0-9a-f]{4}: 讲个故事){2}", told)


def test_json_example_gives_an_object(answering: Box):
    told = run(answering, opening(OPENAI.code), JSON.code, "print(response.choices[0].message.content)")

    assert isinstance(json.loads(told), dict)


def test_image_example_names_what_stands_in_the_picture(answering: Box):
    """Without vision weights, as on a fresh box, the text is read by local tools; echo says the question and what it was sent."""
    drawing = drawings.twenty()[4]
    picture = base64.b64encode(drawings.jpeg(drawing.picture)).decode()
    code = IMAGE.code.replace(DOCUMENTED_PICTURE, f"data:image/jpeg;base64,{picture}")

    told = run(answering, opening(OPENAI.code), code, "print(response.choices[0].message.content)")

    if answering.profile == "echo":
        assert re.fullmatch(r"Echo[^:]*: 这张图片中有什么？\[picture 480x200 image/jpeg [0-9a-f]{8}\]\s*", told)
    else:
        assert drawings.names(told, drawing), told


def test_retry_example_answers(answering: Box):
    told = run(answering, opening(OPENAI.code), RETRY.code, "print(call_with_retry().choices[0].message.content)")

    assert told.strip()
    assert "错误" not in told


def test_examples_say_what_is_wrong_when_the_key_is(box: Box):
    native = run(box, DASHSCOPE.code, key="sk-wrong")
    compatible = run(box, opening(OPENAI.code), RETRY.code, "print(call_with_retry())", key="sk-wrong")

    assert native == "错误: InvalidApiKey, Invalid API-key provided.\n"
    assert compatible == "错误: Error code: 401 - Incorrect API key provided. \nNone\n"


def test_key_comes_from_the_documented_variable(box: Box):
    variable = next(example.code for example in EXAMPLES if "export" in example.code)
    name, value = re.search(r'export (\w+)="(\w+)"', variable).groups()
    keyless = DASHSCOPE.code.replace('dashscope.api_key = "your_api_key"', "")

    told = run(box, f'import os\nos.environ["{name}"] = "{value}"', keyless)

    assert is_answer(told, "请介绍一下自然语言处理技术。", box)


def test_message_format_example_is_a_message(box: Box):
    message = json.loads(re.sub(r" //.*", "", next(example.code for example in EXAMPLES if example.language == "json")))

    asking = f"response = client.chat.completions.create(model='qwen-turbo', messages=[{message!r}])"
    told = run(box, opening(OPENAI.code), asking, "print(response.choices[0].message.content)")

    assert is_answer(told, "你好，请介绍一下自己。", box)
