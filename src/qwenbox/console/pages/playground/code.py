"""This is where a request is shown as programs that send it: dashscope and openai in Python, openai in JavaScript, curl.

Each runs as it stands: the key comes from DASHSCOPE_API_KEY, pictures from the visitor's own files beside it.
"""

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence

import msgspec

from qwenbox.console.pages.playground.request import Body, Json, mapping, mappings

# What OpenAI's API does not know travels beside what it knows.
_EXTRA = frozenset({"top_k", "repetition_penalty", "enable_thinking", "thinking_budget"})
_LINE = 100
_SAFE_NAME = re.compile(r"[^\w.() -]", re.ASCII)
# Where the pieces of an answer are: calls, a call's name, its arguments.
_OPENAI_THOUGHT = 'getattr(delta, "reasoning_content", None)'
_OPENAI_CALLS = ("delta.tool_calls", "call.function.name", "call.function.arguments")
_NATIVE_THOUGHT = 'message.get("reasoning_content")'
_NATIVE_CALLS = ('message.get("tool_calls")', 'call["function"].get("name")', 'call["function"].get("arguments")')
_BREAKS = {0x2028: "\\u2028", 0x2029: "\\u2029"}


class Snippet(msgspec.Struct, frozen=True, kw_only=True):
    """name: of the tab's test id. install: what must be there first, "" for nothing. language: for colours."""

    name: str
    title: str
    language: str
    install: str
    code: str


class PictureFile(msgspec.Struct, frozen=True, kw_only=True):
    """Where a picture of the request lies for the programs that are shown."""

    name: str
    media_type: str


Pictures = Mapping[str, PictureFile]


def snippets(body: Body, base_url: str, pictures: Pictures) -> tuple[Snippet, ...]:
    """base_url: the box's. pictures: by their data URL as it stands in the body."""
    return (
        Snippet(
            name="dashscope",
            title="dashscope",
            language="python",
            install="pip install dashscope",
            code=_dashscope(body, base_url, pictures),
        ),
        Snippet(
            name="openai", title="openai · Python", language="python", install="pip install openai", code=_openai(body, base_url, pictures)
        ),
        Snippet(
            name="javascript",
            title="openai · JavaScript",
            language="javascript",
            install="npm install openai",
            code=_javascript(body, base_url, pictures),
        ),
        Snippet(name="curl", title="curl", language="bash", install="", code=_curl(body, base_url, pictures)),
    )


def file_name(name: str, taken: Sequence[str]) -> str:
    """A name for a picture's file that no shell or program stumbles over, and no other picture has."""
    plain = _SAFE_NAME.sub("_", name.rpartition("/")[2].rpartition("\\")[2]).strip(" .-")[-60:].strip(" .-") or "picture"
    if plain not in taken:
        return plain
    stem, dot, end = plain.rpartition(".")
    numbered = (f"{stem}-{number}.{end}" if dot else f"{plain}-{number}" for number in range(2, len(taken) + 3))
    return next(one for one in numbered if one not in taken)


def _openai(body: Body, base_url: str, pictures: Pictures) -> str:
    known = {name: value for name, value in body.items() if name not in _EXTRA}
    extra = {name: value for name, value in body.items() if name in _EXTRA}
    arguments = _arguments({**known, **({"extra_body": extra} if extra else {})}, pictures)
    return (
        f"{_imports(['os'], pictures)}\nfrom openai import OpenAI\n{_python_picture(pictures)}\n"
        f'client = OpenAI(api_key=os.environ["DASHSCOPE_API_KEY"], base_url={_python_text(base_url + "/compatible-mode/v1")})\n'
        f"stream = client.chat.completions.create(\n{arguments})\n"
        "for chunk in stream:\n"
        "    for choice in chunk.choices:\n"
        "        delta = choice.delta\n"
        f"{_python_reasoning(body, _OPENAI_THOUGHT)}"
        '        print(delta.content or "", end="", flush=True)\n'
        f"{_python_calls(body, _OPENAI_CALLS)}"
        "print()\n"
    )


def _dashscope(body: Body, base_url: str, pictures: Pictures) -> str:
    has_pictures = bool(pictures)
    call = "MultiModalConversation" if has_pictures else "Generation"
    native = {name: value for name, value in body.items() if name not in ("messages", "stream", "stream_options")}
    given: Body = {
        **{"model": native.pop("model"), "messages": _native_messages(body["messages"]) if has_pictures else body["messages"]},
        **native,
        **({} if has_pictures else {"result_format": "message"}),
        "stream": True,
        "incremental_output": True,
    }
    content = '"".join(part["text"] for part in message.content)' if has_pictures else 'message.content or ""'
    return (
        f"{_imports(['os'], pictures)}\nimport dashscope\nfrom dashscope import {call}\n{_python_picture(pictures)}\n"
        f"dashscope.base_http_api_url = {_python_text(base_url + '/api/v1')}\n"
        f'responses = {call}.call(\n    api_key=os.environ["DASHSCOPE_API_KEY"],\n{_arguments(given, pictures)})\n'
        "for response in responses:\n"
        "    if response.status_code != 200:\n"
        '        raise SystemExit(f"{response.code}: {response.message}")\n'
        "    for choice in response.output.choices:\n"
        "        message = choice.message\n"
        f"{_python_reasoning(body, _NATIVE_THOUGHT)}"
        f'        print({content}, end="", flush=True)\n'
        f"{_python_calls(body, _NATIVE_CALLS)}"
        "print()\n"
    )


def _javascript(body: Body, base_url: str, pictures: Pictures) -> str:
    reader = ""
    if pictures:
        reader = (
            'import { readFileSync } from "node:fs";\n\n'
            'const picture = (path, type) => `data:${type};base64,${readFileSync(path, "base64")}`;\n'
        )
    thinking = '    process.stdout.write(delta.reasoning_content ?? "");\n' if _thinks(body) else ""
    calls = ""
    if body.get("tools"):
        calls = (
            "    for (const call of delta.tool_calls ?? [])\n"
            '      process.stdout.write((call.function?.name ?? "") + (call.function?.arguments ?? ""));\n'
        )
    return (
        f'import OpenAI from "openai";\n{reader}\n'
        "const client = new OpenAI({\n  apiKey: process.env.DASHSCOPE_API_KEY,\n"
        f"  baseURL: {_script_text(base_url + '/compatible-mode/v1')},\n}});\n"
        f"const stream = await client.chat.completions.create({_script(body, pictures)});\n"
        "for await (const chunk of stream) {\n"
        "  for (const { delta } of chunk.choices) {\n"
        f"{thinking}"
        '    process.stdout.write(delta.content ?? "");\n'
        f"{calls}"
        "  }\n}\n"
        'process.stdout.write("\\n");\n'
    )


def _curl(body: Body, base_url: str, pictures: Pictures) -> str:
    # With pictures the shell fills the text in, and would take its own signs in it for orders.
    quote = "" if pictures else "'"
    text = _json(body, _shell_text if pictures else _script_text, pictures)
    return (
        f"curl -sSN {shlex.quote(base_url + '/compatible-mode/v1/chat/completions')} \\\n"
        '  -H "Authorization: Bearer $DASHSCOPE_API_KEY" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  --data-binary @- <<{quote}JSON{quote}\n{text}\nJSON\n"
    )


def _native_messages(messages: Json) -> Json:
    """Contents as lists of what they hold, as calls with pictures have them."""
    return [{**message, "content": _native_content(message["content"])} for message in mappings(messages)]


def _native_content(content: Json) -> Json:
    if isinstance(content, str):
        return [{"text": content}]
    images = [mapping(part.get("image_url")) for part in mappings(content)]
    return [{"image": image["url"]} if image else {"text": part["text"]} for part, image in zip(mappings(content), images, strict=True)]


def _imports(names: Sequence[str], pictures: Pictures) -> str:
    return "".join(f"import {name}\n" for name in sorted([*names, *(["base64"] if pictures else [])]))


def _python_picture(pictures: Pictures) -> str:
    if not pictures:
        return ""
    return (
        "\n\ndef picture(path, media_type):\n"
        '    with open(path, "rb") as file:\n'
        '        return f"data:{media_type};base64,{base64.b64encode(file.read()).decode()}"\n\n'
    )


def _thinks(body: Body) -> bool:
    return bool(body.get("enable_thinking")) or "thinking_budget" in body


def _python_reasoning(body: Body, where: str) -> str:
    return f'        print({where} or "", end="", flush=True)\n' if _thinks(body) else ""


def _python_calls(body: Body, where_name_arguments: tuple[str, str, str]) -> str:
    if not body.get("tools"):
        return ""
    where, name, arguments = where_name_arguments
    return f'        for call in {where} or []:\n            print({name} or "", {arguments} or "", sep="", end="", flush=True)\n'


class _Form(msgspec.Struct, frozen=True, kw_only=True):
    """How a language writes a value. step: one of indentation. pad: inside braces of one line. last: what ends the last of many lines."""

    text: Callable[[str], str]
    key: Callable[[str], str]
    words: Mapping[bool | None, str]
    step: str
    pad: str = ""
    last: str = ","

    def write(self, value: Json, depth: int = 0) -> str:
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, bool):
            return self.words[value]
        if isinstance(value, int | float):
            return repr(value)
        if isinstance(value, Mapping):
            return self._many([f"{self.key(name)}: {self.write(item, depth + 1)}" for name, item in value.items()], depth, "{}", self.pad)
        return self._many([self.write(item, depth + 1) for item in value], depth, "[]", "")

    def _many(self, items: Sequence[str], depth: int, ends: str, pad: str) -> str:
        line = ", ".join(items)
        if len(line) + len(self.step) * depth <= _LINE and "\n" not in line:
            return f"{ends[0]}{pad}{line}{pad}{ends[1]}" if items else ends
        inner = self.step * (depth + 1)
        lines = ",\n".join(f"{inner}{item}" for item in items)
        return f"{ends[0]}\n{lines}{self.last}\n{self.step * depth}{ends[1]}"


def _arguments(given: Mapping[str, Json], pictures: Pictures) -> str:
    def text(said: str) -> str:
        file = pictures.get(said)
        return _python_text(said) if file is None else f"picture({_python_text(file.name)}, {_python_text(file.media_type)})"

    form = _Form(text=text, key=_python_text, words={True: "True", False: "False", None: "None"}, step="    ")
    return "".join(f"    {name}={form.write(value, 1)},\n" for name, value in given.items())


def _python_text(text: str) -> str:
    """As repr, but in double quotes where that costs nothing."""
    written = repr(text)
    return f'"{written[1:-1]}"' if '"' not in text else written


def _script(value: Json, pictures: Pictures) -> str:
    def text(said: str) -> str:
        file = pictures.get(said)
        return _script_text(said) if file is None else f"picture({_script_text(file.name)}, {_script_text(file.media_type)})"

    return _Form(text=text, key=_script_key, words=_SCRIPT_WORDS, step="  ", pad=" ").write(value)


def _script_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).translate(_BREAKS)


def _script_key(name: str) -> str:
    # As a plain key this one would set the object's prototype.
    return f"[{_script_text(name)}]" if name == "__proto__" else name if name.isascii() and name.isidentifier() else _script_text(name)


def _json(value: Json, text: Callable[[str], str], pictures: Pictures) -> str:
    def picture_or_text(said: str) -> str:
        file = pictures.get(said)
        if file is None:
            return text(said)
        return f"\"data:{file.media_type};base64,$(base64 < {shlex.quote('./' + file.name)} | tr -d '\\n')\""

    return _Form(text=picture_or_text, key=text, words=_SCRIPT_WORDS, step="  ", last="").write(value)


def _shell_text(text: str) -> str:
    return _script_text(text).replace("\\", "\\\\").replace("$", "\\$").replace("`", "\\`")


_SCRIPT_WORDS = {True: "true", False: "false", None: "null"}
