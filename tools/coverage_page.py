"""Write docs/coverage.md from the dialects' routes, what they do not serve, and their tests. `python tools/coverage_page.py`."""

import ast
import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from qwenbox.dialects.base import Dialect, Route, Verb
from qwenbox.dialects.registry import DIALECTS

_ROOT = Path(__file__).parent.parent
_DOCS = _ROOT / "docs"
_EVIDENCE = Path(__file__).with_name("coverage_evidence.toml")


class Evidence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a route is listed as working. call: what the test's file names it by. limits: "" where it works without any."""

    test: str
    call: str
    limits: str = ""
    limits_zh: str = ""


class _Words(msgspec.Struct, frozen=True, kw_only=True):
    title: str
    head: str
    matrix: str
    operation: str
    base_url: str
    row: str
    unserved: str
    unserved_head: str
    unserved_row: str
    works: str
    limited: str
    refused: str
    planned: str


_ENGLISH = _Words(
    title="Coverage",
    head="""Which endpoints this box serves, in which dialect. **works**: as the service does it; **with limits**: less than the service
has, the row says what; **refused by design** and **not yet**: 404 `not_found` (native: `NotFound`) with the reason; no SDK tries it again.
A path that nobody has is told the right base URL.

This page is made from the routes by `python tools/coverage_page.py`. A test fails when it is stale, and when a route has no test that names
it. WebSockets are not served: sound in real time needs them.""",
    matrix="Operations and dialects",
    operation="operation",
    base_url="Base URL",
    row="| endpoint | state | limits | proved by |",
    unserved="What is not served",
    unserved_head="Everything below these paths answers so.",
    unserved_row="| endpoints | dialect | state | paths | qwenbox does not serve that: |",
    works="works",
    limited="with limits",
    refused="refused by design",
    planned="not yet",
)
_CHINESE = _Words(
    title="覆盖范围",
    head="""本机提供哪些接口，各用哪种方言。**可用**：与官方一致；**有限制**：少于官方，见该行说明；**有意不提供**与**尚未提供**：返回 404
`not_found`（原生接口为 `NotFound`）并说明原因，SDK 不会重试。不存在的路径会得到正确的 base URL。

本页由 `python tools/coverage_page.py` 从路由生成。页面过期，或某个路由没有点名它的测试时，测试会失败。不提供 WebSocket：实时语音依赖它。
未提供的原因取自代码，为英文。""",
    matrix="操作与方言",
    operation="操作",
    base_url="Base URL",
    row="| 接口 | 状态 | 限制 | 证明 |",
    unserved="未提供的接口",
    unserved_head="这些路径及其下的一切都如此答复。",
    unserved_row="| 接口 | 方言 | 状态 | 路径 | qwenbox does not serve that: |",
    works="可用",
    limited="有限制",
    refused="有意不提供",
    planned="尚未提供",
)


def pages() -> dict[Path, str]:
    """Every page this writes, by where it lies."""
    found = evidence()
    return {_DOCS / "coverage.md": _page(_ENGLISH, found), _DOCS / "coverage.zh-CN.md": _page(_CHINESE, found)}


def evidence() -> dict[tuple[str, str], Evidence]:
    """By the dialect's name and the route as `name_of` has it."""
    told = msgspec.convert(tomllib.loads(_EVIDENCE.read_text("utf-8")), dict[str, dict[str, Evidence]])
    return {(dialect, route): one for dialect, routes in told.items() for route, one in routes.items()}


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"


def routes() -> list[tuple[Dialect, Route]]:
    return [(dialect, route) for dialect in DIALECTS for route in dialect.routes]


def faults(found: Mapping[tuple[str, str], Evidence], root: Path = _ROOT) -> list[str]:
    """What is wrong with the evidence: routes without any or evidence without a route, tests that are not there or name nothing."""
    known = {(dialect.name, name_of(route)) for dialect, route in routes()}
    wrong = [f"{dialect} {route} has no evidence" for dialect, route in sorted(known - found.keys())]
    wrong += [f"{dialect} {route} is no route" for dialect, route in sorted(found.keys() - known)]
    for (dialect, route), one in found.items():
        path, _, test = one.test.partition("::")
        text = (root / path).read_text("utf-8") if (root / path).is_file() else ""
        if test not in _tests(text):
            wrong.append(f"{dialect} {route}: there is no test {one.test}")
        elif not one.call or one.call not in text:
            wrong.append(f"{dialect} {route}: {path} does not name {one.call!r}")
    return wrong


def _tests(text: str) -> set[str]:
    """Names that pytest collects from a file and does not skip whatever the machine is."""
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {
        node.name
        for node in functions
        if node.name.startswith("test_") and not any("mark.skip" in ast.unparse(mark) for mark in node.decorator_list)
    }


def _page(words: _Words, found: Mapping[tuple[str, str], Evidence]) -> str:
    lines = [f"# {words.title}", "", words.head, "", f"## {words.matrix}", ""]
    lines += [f"| {words.operation} | {' | '.join(dialect.name for dialect in DIALECTS)} |", f"| --- |{' --- |' * len(DIALECTS)}"]
    lines += [f"| {verb.replace('_', ' ')} | {' | '.join(_cell(words, found, verb, dialect) for dialect in DIALECTS)} |" for verb in Verb]
    for dialect in DIALECTS:
        bases = ", ".join(f"`{prefix}`" for prefix in dialect.prefixes)
        lines += ["", f"## {dialect.name}", "", f"{words.base_url}: {bases}", "", words.row, "| --- | --- | --- | --- |"]
        for route in dialect.routes:
            one = found[dialect.name, name_of(route)]
            limits = one.limits_zh if words is _CHINESE else one.limits
            lines.append(f"| `{name_of(route)}` | {_state(words, one)} | {limits} | `{one.test}` |")
    lines += ["", f"## {words.unserved}", "", words.unserved_head, "", words.unserved_row, "| --- | --- | --- | --- | --- |"]
    for dialect in DIALECTS:
        for family in dialect.unserved:
            paths = " ".join(f"`{path}`" for path in family.paths)
            state = words.planned if family.is_planned else words.refused
            lines.append(f"| {family.name} | {dialect.name} | {state} | {paths} | {family.why} |")
    return "\n".join(lines) + "\n"


def _cell(words: _Words, found: Mapping[tuple[str, str], Evidence], verb: Verb, dialect: Dialect) -> str:
    states = {_state(words, found[dialect.name, name_of(route)]) for route in dialect.routes if route.verb is verb}
    return (words.limited if words.limited in states else words.works) if states else "–"


def _state(words: _Words, one: Evidence) -> str:
    return words.limited if one.limits else words.works


if __name__ == "__main__":
    if wrong := faults(evidence()):
        raise SystemExit("\n".join(wrong))
    for place, text in pages().items():
        place.write_text(text, "utf-8")
