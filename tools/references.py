"""Write the pages that are made from the code: the settings and the errors, in both languages. `python tools/references.py`."""

import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path

import msgspec

from qwenbox import config
from qwenbox.config import Config, profiles
from qwenbox.dialects.anthropic import errors as anthropic
from qwenbox.dialects.dashscope import errors as dashscope
from qwenbox.dialects.openai import errors as openai
from qwenbox.terms.errors import ErrorKind
from qwenbox.terms.secret import Secret

_DOCS = Path(__file__).parent.parent / "docs"

_PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false", Secret: "text (secret)", Path: "path", object: "any"}
_MORE_VARIABLES = {
    "QWENBOX_HOME": "the data folder (`~/.qwenbox`)",
    "HF_ENDPOINT, MODELSCOPE_DOMAIN, HF_HUB_OFFLINE": "`[store]`: where weights come from",
}


class _Words(msgspec.Struct, frozen=True):
    """What a page of the reference says in one language."""

    title: str
    head: str
    variables: str
    variable_row: str
    tables: str
    setting_row: str


_ENGLISH = _Words(
    title="Configuration",
    head="""Settings come from four places, later ones win: the profile ({profiles}), `qwenbox.toml` in the data folder (`qwenbox init`
writes one), `QWENBOX_*` variables, flags of `qwenbox serve`. They are read once, at the start. A name that does not exist is an error that
says where. Tables merge setting by setting, `[[model]]` by `name`.

This page is made from the code by `python tools/references.py`, and a test fails when it is stale.""",
    variables="Variables",
    variable_row="| variable | sets |",
    tables="Top level",
    setting_row="| setting | kind | default |",
)
_CHINESE = _Words(
    title="配置",
    head="""设置有四个来源，后者优先：profile（{profiles}）、数据目录里的 `qwenbox.toml`（可由 `qwenbox init` 生成）、`QWENBOX_*` 环境变量、
`qwenbox serve` 的参数。启动时读取一次。不存在的名字会报错，并指出位置。表逐项合并，`[[model]]` 按 `name` 合并。

本页由 `python tools/references.py` 从代码生成，过期时测试会失败。各表的说明取自代码，为英文。""",
    variables="环境变量",
    variable_row="| 变量 | 设置 |",
    tables="顶层",
    setting_row="| 设置 | 类型 | 默认值 |",
)


def configuration(words: _Words) -> str:
    """Every table and setting there is, with its default and what its struct says of it."""
    named = ", ".join(f"`{name}`" for name in profiles())
    lines = [
        f"# {words.title}",
        "",
        words.head.format(profiles=named),
        "",
        f"## {words.variables}",
        "",
        words.variable_row,
        "| --- | --- |",
    ]
    lines += [f"| `{name}` | `{'.'.join(path)}` |" for name, path in config._ENVIRONMENT.items()]
    lines += [f"| {_quoted(name)} | {says} |" for name, says in _MORE_VARIABLES.items()]
    lines += ["", *_section(f"## {words.tables}", Config, words)]
    seen: set[tuple[str, type]] = set()
    for heading, struct in _nested("", Config):
        if (heading, struct) not in seen:
            seen.add((heading, struct))
            lines += ["", *_section(f"## `{heading}`", struct, words)]
    return "\n".join(lines) + "\n"


def _section(heading: str, struct: type[msgspec.Struct], words: _Words) -> list[str]:
    lines = [heading, "", _said(struct), "", words.setting_row, "| --- | --- | --- |"]
    return lines + [f"| `{field.encode_name}` | {_kind(field.type)} | {_default(field)} |" for field in _fields(struct)]


def _fields(struct: type[msgspec.Struct]) -> list[msgspec.structs.FieldInfo]:
    return [field for field in msgspec.structs.fields(struct) if not (struct is Config and field.name == "home")]


def _nested(path: str, struct: type[msgspec.Struct]) -> Iterator[tuple[str, type[msgspec.Struct]]]:
    """Headings and structs below one, in the order in which they are told."""
    for field in _fields(struct):
        name = f"{path}.{field.encode_name}" if path else field.encode_name
        for suffix, inner in _structs(field.type):
            tag = inner.__struct_config__.tag
            yield _heading(name, suffix) + (f' kind = "{tag}"' if tag else ""), inner
            yield from _nested(f"{name}{'.NAME' if suffix == 'dict' else ''}", inner)


def _heading(name: str, suffix: str) -> str:
    if suffix == "list":
        return f"[[{name}]]"
    return f"[{name}.NAME]" if suffix == "dict" else f"[{name}]"


def _structs(kind: object, suffix: str = "") -> Iterator[tuple[str, type[msgspec.Struct]]]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield suffix, kind
        return
    origin = typing.get_origin(kind)
    own = "list" if origin in (tuple, list) else "dict" if origin in (dict, Mapping) else suffix
    for inner in typing.get_args(kind):
        yield from _structs(inner, own)


def _said(struct: type[msgspec.Struct]) -> str:
    """The docstring. A paragraph that names several settings becomes a line for each sentence that begins with one."""
    whole = re.sub(r"docs/([\w/-]+)\.md", r"[\1](\1.md)", inspect.cleandoc(struct.__doc__ or ""))
    text = re.sub(r"^`\[+[\w.]+\]+`\. ", "", whole)
    names = "|".join(re.escape(field.encode_name) for field in _fields(struct))
    # "…; 0 picks a free port. body_limit_bytes: the largest …": a setting's name and a colon begin a new line.
    listed = re.sub(rf"(?:(?<=\. )|(?<=\.\n)|^)((?:{names})(?:, (?:{names}))*): ", r"\n- \1: ", text, flags=re.M)
    listed = re.sub(rf"^- ((?:{names})(?:, (?:{names}))*): ", lambda found: f"- {_quoted(found.group(1))}: ", listed, flags=re.M)
    lines = [re.sub(r"[ \t]+$", "", line) for line in listed.splitlines()]
    # A continued item is indented, so that a list stays a list.
    out: list[str] = []
    is_item = False
    for line in lines:
        is_item = line.startswith("- ") or (is_item and bool(line))
        if line.startswith("- ") and out and out[-1] and not out[-1].startswith(("- ", "  ")):
            out.append("")
        if line or (out and out[-1] and not out[-1].startswith(("- ", "  "))):
            out.append(line if line.startswith("- ") or not is_item else f"  {line}")
    return "\n".join(_settled(out)).strip()


def _settled(lines: list[str]) -> Iterator[str]:
    """With an empty line where a list ends."""
    was_item = False
    for line in lines:
        is_item = line.startswith(("- ", "  "))
        if was_item and not is_item and line:
            yield ""
        was_item = is_item
        yield line


def _kind(kind: object) -> str:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " · ".join(f"`{one.value}`" for one in kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return "table"
    if kind in _PLAIN:
        return _PLAIN[typing.cast(type, kind)]
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return " · ".join(f"`{one}`" for one in inner)
    if origin in (tuple, list, frozenset, set):
        return f"list of: {_kind(inner[0])}"
    if origin in (dict, Mapping):
        return f"table of: {_kind(inner[1])}"
    if origin in (typing.Union, types.UnionType):
        # An engine's kinds have sections of their own.
        return " or ".join(dict.fromkeys(_kind(one) for one in inner if one not in (type(None), msgspec.UnsetType)))
    return getattr(kind, "__name__", str(kind))


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "needed"
    value = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, Secret):
        value = value.reveal()
    if value is None or value is msgspec.UNSET or isinstance(value, msgspec.Struct) or value in ("", (), {}, frozenset()):
        return ""
    if isinstance(value, frozenset):
        is_whole = value == frozenset(type(next(iter(value))))
        return "all" if is_whole else ", ".join(sorted(f"`{one}`" for one in value))
    return f"`{msgspec.json.encode(value).decode()}`"


def _quoted(names: str) -> str:
    return ", ".join(f"`{name}`" for name in names.split(", "))


_ERRORS_IN_ENGLISH = (
    "Errors",
    """What a failure looks like in each dialect, made from the tables that answer it (`python tools/references.py`; a test fails when this
page is stale). The text stands where an error brings none of its own: most say exactly what was wrong. `{param}` is what the error names.
Statuses 429 and 503 carry `Retry-After` and `retry-after-ms` when the box knows how long. Once a stream has begun, the same error comes as
its last frame. Every error has a request id; the box's log has more under it.""",
)
_ERRORS_IN_CHINESE = (
    "错误",
    """每种失败在各协议中的样子，由产生回答的表生成（`python tools/references.py`，过期时测试会失败）。错误没有自己的文字时使用表中的文字；
多数错误会准确说明问题所在。`{param}` 是错误所指的名字。box 知道要等多久时，429 和 503 带有 `Retry-After` 和 `retry-after-ms`。
流开始之后，同样的错误作为最后一帧出现。每个错误都有请求 id，box 的日志里可用它查到更多。""",
)


def errors(title: str, head: str) -> str:
    """One table per dialect, one row per kind of failure."""
    lines = [f"# {title}", "", head]
    lines += ["", "## DashScope", "", "| kind | status | code | message |", "| --- | --- | --- | --- |"]
    lines += [f"| `{kind}` | {row.status} | `{row.code}` | {row.text} |" for kind, row in _in_order(dashscope.TABLE)]
    lines += ["", "## OpenAI", "", "| kind | status | code | type | message |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| `{kind}` | {row.status} | `{row.code}` | `{row.type}` | {row.text} |" for kind, row in _in_order(openai.TABLE)]
    lines += ["", "## Anthropic", "", "| kind | status | type | message |", "| --- | --- | --- | --- |"]
    lines += [f"| `{kind}` | {row.status} | `{row.type}` | {row.text} |" for kind, row in _in_order(anthropic.TABLE)]
    return "\n".join(lines) + "\n"


Row = typing.TypeVar("Row")


def _in_order(table: Mapping[ErrorKind, Row]) -> Iterator[tuple[ErrorKind, Row]]:
    return ((kind, table[kind]) for kind in ErrorKind)


def pages() -> dict[Path, str]:
    """Every page that is made, and its text."""
    return {
        _DOCS / "configuration.md": configuration(_ENGLISH),
        _DOCS / "configuration.zh-CN.md": configuration(_CHINESE),
        _DOCS / "errors.md": errors(*_ERRORS_IN_ENGLISH),
        _DOCS / "errors.zh-CN.md": errors(*_ERRORS_IN_CHINESE),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, "utf-8")
        print(path)
