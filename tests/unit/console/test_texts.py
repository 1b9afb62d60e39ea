"""The console's two languages: every English text that a page says has its Chinese, and nothing else is translated.

Texts are found in the sources. What a page says must be seen there: a text given to `t`, one of the two of an `if`, a local variable's,
the values of a table (a module's dict or tuple) that the function with the call uses, what a `Wrong` is told, a room's title. Where the
text comes from elsewhere, SPOKEN says which texts there are.
"""

import ast
import string
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple, get_args

import pytest

import qwenbox
from qwenbox.client.usage import OutcomeName
from qwenbox.console.texts import Texts, wanted

SOURCES = Path(qwenbox.__file__).parent
CONSOLE = SOURCES / "console"
TRANSLATIONS = sorted((CONSOLE / "texts" / "zh-CN").glob("*.toml"))
MODULES = [*sorted(CONSOLE.rglob("*.py")), SOURCES / "client" / "batch_input.py"]

SPOKEN = {
    "call.outcome": frozenset(get_args(OutcomeName)),
    # gateway/prices.py: the classes of a receipt's lines.
    "line.kind": frozenset({"input", "cached input", "image input", "output", "reasoning output", "pictures"}),
    "turn.role": frozenset({"system", "user", "assistant", "tool", "query", "document", "prompt", "text"}),
    "receipt: name": frozenset({"read, counted, let in", "waiting for its turn", "until the first token", "until the last token"}),
    # A room's title and what a Wrong is told are found where they are made.
    "room.title": frozenset[str](),
    "one.title": frozenset[str](),
    "fault.told": frozenset[str](),
    "wrong.told": frozenset[str](),
}


class Around(NamedTuple):
    """Where a call stands: the innermost function, and the comprehensions in it."""

    function: ast.AST
    comprehensions: tuple[ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp, ...]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@cache
def translations() -> dict[str, str]:
    return {english: chinese for path in TRANSLATIONS for english, chinese in tomllib.loads(path.read_text("utf-8")).items()}


def constants(node: ast.AST) -> set[str]:
    return {one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)}


def tables(path: Path) -> dict[str, ast.expr]:
    """What a module knows by a name of its own, or by one that it took from another page."""
    found: dict[str, ast.expr] = {}
    for node in tree(path).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("qwenbox.console"):
            source = SOURCES.parent / f"{(node.module or '').replace('.', '/')}.py"
            if source.exists() and source != path:
                known = tables(source)
                found |= {alias.asname or alias.name: known[alias.name] for alias in node.names if alias.name in known}
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(target, ast.Name) and isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            found[target.id] = node.value
    return found


def of_table(node: ast.expr) -> set[str]:
    """The texts of a table: its values, or of values with several parts those that are written for people."""
    values = node.values if isinstance(node, ast.Dict) else node.elts if isinstance(node, ast.Tuple | ast.List) else []
    found: set[str] = set()
    for value in values:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            found.add(value.value)
        elif isinstance(value, ast.Tuple | ast.Call):
            found |= {text for text in constants(value) if text[:1].isupper() or " " in text}
    return found


def reachable(expression: ast.expr, around: Around) -> list[ast.expr]:
    """The expressions an argument's value comes from, through the function's variables: names of tables, texts of its own."""
    found: list[ast.expr] = []
    followed: set[str] = set()
    waiting = [expression]
    while waiting:
        node = waiting.pop()
        match node:
            case ast.Constant() | ast.Name():
                found.append(node)
            case ast.IfExp(body=one, orelse=other):
                waiting += [one, other]
            case ast.Subscript(value=table) | ast.Attribute(value=table) | ast.Call(func=ast.Attribute(value=table)):
                waiting.append(table)
            case ast.Tuple(elts=parts):
                waiting += parts
            case _:
                pass
        if isinstance(node, ast.Name) and node.id not in followed:
            followed.add(node.id)
            waiting += [value for target, value in assigned(around) if node.id in names(target)]
    return found


def assigned(around: Around) -> Iterator[tuple[ast.expr, ast.expr]]:
    """What variables are, or run over, as seen from a call."""
    for comprehension in around.comprehensions:
        yield from ((one.target, one.iter) for one in comprehension.generators)
    for node in ast.walk(around.function):
        if isinstance(node, ast.For):
            yield node.target, node.iter
        elif isinstance(node, ast.Assign):
            yield from ((target, node.value) for target in node.targets)


def names(target: ast.expr) -> set[str]:
    return {one.id for one in ast.walk(target) if isinstance(one, ast.Name)}


def said(expression: ast.expr, around: Around, path: Path) -> set[str]:
    """Every text that this argument of `t` may be."""
    match expression:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.IfExp(body=one, orelse=other):
            return said(one, around, path) | said(other, around, path)
        case _:
            pass
    shown = ast.unparse(expression)
    if texts := SPOKEN.get(shown, SPOKEN.get(f"{path.stem}: {shown}")):
        return set(texts)
    if shown in SPOKEN:
        return set()
    known, reached, texts = tables(path), reachable(expression, around), set[str]()
    for node in reached:
        if isinstance(node, ast.Name) and node.id in known:
            texts |= of_table(known[node.id])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value:
            texts.add(node.value)
    where = f"{path.relative_to(SOURCES)}:{expression.lineno}"
    assert texts, f"{where}: nobody can see which texts t({shown}) says; use a table or a constant, or name them in SPOKEN"
    return texts


def calls(path: Path) -> Iterator[tuple[Around, ast.Call]]:
    """Every call of a module."""

    def walk(node: ast.AST, around: Around) -> Iterator[tuple[Around, ast.Call]]:
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    inside = Around(child, ())
                case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                    inside = Around(around.function, (*around.comprehensions, child))
                case _:
                    inside = around
            if isinstance(child, ast.Call):
                yield inside, child
            yield from walk(child, inside)

    yield from walk(tree(path), Around(tree(path), ()))


def spoken() -> dict[str, str]:
    """Every English text, and one place where it is said."""
    found: dict[str, str] = {}
    for path in MODULES:
        for around, call in calls(path):
            name = call.func.id if isinstance(call.func, ast.Name) else call.func.attr if isinstance(call.func, ast.Attribute) else ""
            is_wrong = name in ("Wrong", "_Wrong") and call.args
            if (name in ("t", "_t") and call.args and path.is_relative_to(CONSOLE)) or is_wrong:
                texts = said(call.args[0], around, path)
            elif name == "Room":
                texts = constants(call.args[1])
            else:
                continue
            found |= dict.fromkeys(texts, f"{path.relative_to(SOURCES)}:{call.lineno}")
    return found


def test_every_text_has_its_chinese():
    known = translations()
    missing = {text: where for text, where in spoken().items() if text not in known and any(letter.isalpha() for letter in text)}
    assert {} == missing


def test_nothing_is_translated_that_no_page_says():
    texts = {text for path in MODULES for text in constants(tree(path))} | {text for known in SPOKEN.values() for text in known}
    assert [] == [text for text in translations() if text not in texts]


def test_no_two_files_translate_a_text_differently():
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for path in TRANSLATIONS:
        for english, chinese in tomllib.loads(path.read_text("utf-8")).items():
            found[english][path.stem] = chinese
    assert {} == {english: by_file for english, by_file in found.items() if len(set(by_file.values())) > 1}


def fields(text: str) -> list[str]:
    return sorted({name for _, name, _, _ in string.Formatter().parse(text) if name is not None})


@pytest.mark.parametrize("path", TRANSLATIONS, ids=lambda path: path.stem)
def test_both_languages_have_the_same_placeholders(path: Path):
    known = tomllib.loads(path.read_text("utf-8"))
    assert {} == {english: chinese for english, chinese in known.items() if fields(english) != fields(chinese)}
    assert [] == [english for english, chinese in known.items() if not chinese.strip()]


def test_text_is_in_the_visitors_language_with_its_values():
    assert "创建密钥" == Texts("zh-CN")("Create key")
    assert "Create key" == Texts("en")("Create key")
    assert "并发 3" == Texts("zh-CN")("{count} at once", count=3)
    assert "of no page: 3" == Texts("zh-CN")("of no page: {count}", count=3)


@pytest.mark.parametrize(
    ("cookie", "accepted", "language"),
    [
        ("", "", "en"),
        ("", "zh-CN,zh;q=0.9,en;q=0.8", "zh-CN"),
        ("", " ZH", "zh-CN"),
        ("", "en-US,zh;q=0.5", "en"),
        ("en", "zh-CN", "en"),
        ("zh-CN", "en", "zh-CN"),
        ("fr", "zh", "zh-CN"),
    ],
)
def test_language_is_as_chosen_else_as_the_browser_asks(cookie: str, accepted: str, language: str):
    assert language == wanted(cookie, accepted)
