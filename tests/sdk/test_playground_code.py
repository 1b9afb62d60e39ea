"""The playground's "view code": every program that is shown sends exactly the request that the playground sends, and shows its answer."""

import contextlib
import io
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import dashscope
import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from boxes import Box
from qwenbox.client.chat import open_chat
from qwenbox.console.pages.playground.code import PictureFile, Snippet, file_name, snippets
from qwenbox.console.pages.playground.request import Body, Call, Picture, Question, Reply, Turn, Wishes, body
from qwenbox.terms.events import Fold
from qwenbox.terms.secret import Secret
from support.pictures import drawn

NASTY = (
    'it\'s "quoted" \\ back\\\\slash $HOME $(id) `id` ${x} %s {y} \n\ttab\r 你好 🦜 \u2028 \x7f </script> '
    "<<JSON\nJSON\n'''\"\"\" // /* # @@picture-0@@"
)
SCHEMA: Any = {"type": "object", "properties": {'city\'s "name"': {"type": "string"}, "__proto__": {"type": "integer"}}, "required": []}
TOOLS: Any = [{"name": "get_weather", "description": NASTY, "parameters": SCHEMA}, {"type": "function", "function": {"name": "now"}}]

STUB = """
export default class OpenAI {
  constructor({ apiKey, baseURL }) {
    const create = async (asked) => {
      const headers = { authorization: `Bearer ${apiKey}`, "content-type": "application/json" };
      const reply = await fetch(`${baseURL}/chat/completions`, { method: "POST", headers, body: JSON.stringify(asked) });
      if (!reply.ok) throw new Error(await reply.text());
      const lines = (await reply.text()).split("\\n").filter((line) => line.startsWith("data: {"));
      return lines.map((line) => JSON.parse(line.slice(6)));
    };
    this.chat = { completions: { create } };
  }
}
"""


class Recorder:
    """Stands before the box, notes what is asked."""

    def __init__(self, box: Box) -> None:
        self.asked: list[Any] = []
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["content-length"]))
                recorder.asked.append(json.loads(data))
                kept = {
                    name: value
                    for name, value in self.headers.items()
                    if name.lower() in ("authorization", "content-type", "accept") or name.lower().startswith("x-dashscope")
                }
                with urlopen(Request(box.base_url + self.path, data, kept)) as reply:
                    answer = reply.read()
                self.send_response(200)
                self.send_header("content-type", reply.headers["content-type"])
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.box = box


@pytest.fixture(scope="module")
def recorder(box: Box) -> Iterator[Recorder]:
    recorder = Recorder(box)
    thread = threading.Thread(target=recorder.server.serve_forever)
    thread.start()
    yield recorder
    recorder.server.shutdown()
    recorder.server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    package = folder / "node_modules" / "openai"
    package.mkdir(parents=True)
    (package / "package.json").write_text('{"name": "openai", "type": "module", "main": "index.js"}')
    (package / "index.js").write_text(STUB)
    return folder


@pytest.fixture
def folder(programs: Path, box: Box, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the programs run: with the visitor's pictures beside them, and what stands for npm's openai."""
    monkeypatch.setenv("DASHSCOPE_API_KEY", box.key)
    monkeypatch.setattr(dashscope, "base_http_api_url", "")
    monkeypatch.chdir(programs)
    return programs


CASES: dict[str, tuple[Wishes, list[Turn]]] = {
    "bare": (Wishes(model="qwen-turbo", temperature=0), [Question(text="hello")]),
    "nasty": (Wishes(model="qwen-turbo", system=NASTY, temperature=0), [Question(text=NASTY)]),
    "every number": (
        Wishes(
            model="qwen-plus",
            temperature=0.7,
            top_p=0.5,
            top_k=7,
            seed=2**53 - 1,
            max_tokens=40,
            presence_penalty=-1.5,
            repetition_penalty=1.05,
            stop=("\n\n", "'", '"', "\\"),
        ),
        [Question(text="count to ten")],
    ),
    "thinking": (Wishes(model="qwen-plus", temperature=0, enable_thinking=True, thinking_budget=12), [Question(text="why?")]),
    "not thinking": (Wishes(model="qwen-plus", temperature=0, enable_thinking=False, thinking_budget=12), [Question(text="why?")]),
    "json": (Wishes(model="qwen-turbo", temperature=0, format="json_object"), [Question(text="as json: " + NASTY)]),
    "schema": (Wishes(model="qwen-turbo", temperature=0, format="json_schema", schema=json.dumps(SCHEMA)), [Question(text="fill it")]),
    "tools": (Wishes(model="qwen-turbo", temperature=0, tools=json.dumps(TOOLS), tool_choice="required"), [Question(text="get_weather!")]),
    "tool results": (
        Wishes(model="qwen-turbo", temperature=0, tools=json.dumps(TOOLS)),
        [
            Question(text="the weather"),
            Reply(text="", calls=[Call(id="call_1", name="get_weather", arguments='{"city\'s \\"name\\"": "杭州"}', result=NASTY)]),
        ],
    ),
    "a conversation": (
        Wishes(model="qwen-turbo", temperature=0, seed=1),
        [Question(text="a"), Reply(text=NASTY), Question(text="b"), Reply(text=""), Question(text="c")],
    ),
    "pictures": (
        Wishes(model="qwen-vl-plus", system=NASTY, temperature=0, seed=3),
        [
            Question(
                text=NASTY,
                pictures=(
                    Picture(name="kätz\"chen' $(id).png", media_type="image/png", data=drawn(width=40)),
                    Picture(name="../../etc/passwd", media_type="image/png", data=drawn(width=31)),
                ),
            )
        ],
    ),
}


def _written(turns: list[Turn], folder: Path) -> dict[str, PictureFile]:
    files: dict[str, PictureFile] = {}
    for picture in (picture for turn in turns if isinstance(turn, Question) for picture in turn.pictures):
        name = file_name(picture.name, [file.name for file in files.values()])
        (folder / name).write_bytes(picture.data)
        files[picture.url] = PictureFile(name=name, media_type=picture.media_type)
    return files


async def _answer(box: Box, asked: Body) -> str:
    fold = Fold()
    async with open_chat(box.base_url, Secret(box.key)) as client, client.chat(msgspec.json.encode(asked)) as answer:
        async for event in answer.events:
            fold.add(event)
    choice = fold.result().choices[0]
    return choice.reasoning + choice.text + "".join(call.name + call.arguments for call in choice.tool_calls)


def _run(snippet: Snippet, folder: Path) -> str:
    if snippet.language == "python":
        with contextlib.redirect_stdout(io.StringIO()) as said:
            exec(compile(snippet.code, snippet.name, "exec"), {"__name__": "__main__"})
        return said.getvalue()
    if snippet.name == "javascript":
        (folder / "program.mjs").write_text(snippet.code, encoding="utf-8")
        command = ["node", "program.mjs"]
    else:
        command = ["bash", "-euc", snippet.code]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    assert not done.stderr and done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def _same(snippet: Snippet, heard: Any, asked: Body) -> None:
    if snippet.name != "dashscope":
        assert heard == asked
        return
    parameters = {name: value for name, value in asked.items() if name not in ("model", "messages", "stream", "stream_options")}
    assert asked["model"] == heard["model"]
    assert parameters == {name: value for name, value in heard["parameters"].items() if name not in ("result_format", "incremental_output")}


def _shown(recorder: Recorder, asked: Body, files: dict[str, PictureFile]) -> list[Snippet]:
    has_node = shutil.which("node") is not None
    return [snippet for snippet in snippets(asked, recorder.url, files) if snippet.name != "javascript" or has_node]


@pytest.mark.anyio
@pytest.mark.parametrize("name", CASES)
async def test_a_program_sends_the_same_request_and_shows_the_same_answer(recorder: Recorder, folder: Path, name: str) -> None:
    wishes, turns = CASES[name]
    asked = body(wishes, turns)
    expected = await _answer(recorder.box, asked) if wishes.temperature == 0 else None
    for snippet in _shown(recorder, asked, _written(turns, folder)):
        said = _run(snippet, folder)
        _same(snippet, recorder.asked[-1], asked)
        if snippet.name == "curl":
            assert said.rstrip().endswith("data: [DONE]")
        elif expected is not None:
            assert f"{expected}\n" == said, snippet.name


_TEXTS = st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=8)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_TEXTS)
@example(["\x00", "\ud800", "'", '"', "\\", "\n", "JSON", "\r\n"])
def test_whatever_is_written_arrives_as_it_is(recorder: Recorder, folder: Path, texts: list[str]) -> None:
    tool = {
        "name": "t",
        "parameters": {"type": "object", "description": texts[0], "properties": {text: {"type": "string"} for text in texts}},
    }
    wishes = Wishes(
        model="qwen-turbo", system=texts[-1], temperature=0, stop=tuple(texts[:4]), tools=json.dumps([tool], ensure_ascii=False)
    )
    asked = body(wishes, [turn for text in texts for turn in (Question(text=text), Reply(text=text))] + [Question(text="end")])
    for snippet in _shown(recorder, asked, {}):
        _run(snippet, folder)
        _same(snippet, recorder.asked[-1], asked)


def test_the_real_javascript_package_runs_the_same_program(recorder: Recorder, folder: Path, is_full: bool, tmp_path: Path) -> None:
    """Only where the longer evidence is asked for: it is fetched from the registry."""
    npm = shutil.which("npm")
    if not is_full or npm is None:
        pytest.skip("QWENBOX_FULL_COUNTS=1 and npm run it; else the program runs on a stand-in of the package")
    subprocess.run([npm, "install", "--no-audit", "--no-fund", "openai"], cwd=tmp_path, check=True, capture_output=True)
    for name, (wishes, turns) in CASES.items():
        asked = body(wishes, turns)
        snippet = next(one for one in snippets(asked, recorder.url, _written(turns, tmp_path)) if one.name == "javascript")
        _run(snippet, tmp_path)
        assert recorder.asked[-1] == asked, name
