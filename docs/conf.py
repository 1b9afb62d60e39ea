"""This is where the documentation's site is set (Sphinx): one tree of pages per language, nothing fetched from elsewhere.

`make docs` builds the English tree into site/ and, with the tag `zh`, the Chinese one into site/zh-CN/. A Chinese page lies beside its
English twin as NAME.zh-CN.md.
"""

import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish

_HERE = Path(__file__).parent
_CHINESE = ".zh-CN"
_IS_CHINESE = tags.has("zh")  # noqa: F821  # Sphinx puts it here
_SUFFIX = _CHINESE if _IS_CHINESE else ""

# The order of the sidebar; a page that is not named here comes last.
_CHAPTERS = {
    "First hour": ("quickstart", "stories", "configuration"),
    "Best practices": tuple(f"practices/{name}" for name in ("prompts", "batches", "retries", "cache", "privacy", "testing", "upstreams")),
    "What answers": ("vision", "media", "images", "embeddings", "responses", "anthropic", "engines"),
    "Running it": ("operations", "metrics", "security", "admin", "limits", "money"),
    "Exactly": ("errors", "coverage", "dialects", "benchmarks", "request-life", "glossary"),
    "Decisions": tuple(sorted(f"decisions/{file.stem}" for file in (_HERE / "decisions").glob("*.md"))),
}
_CHAPTERS_IN_CHINESE = ("第一个小时", "最佳实践", "谁来回答", "运行", "精确定义", "决策记录")

project = "qwenbox"
author = "the qwenbox authors"
copyright = "the qwenbox authors"  # Sphinx's name
language = "zh_CN" if _IS_CHINESE else "en"
extensions = ["myst_parser"]
root_doc = f"index{_SUFFIX}"
include_patterns = [f"**{_CHINESE}.md"] if _IS_CHINESE else ["**.md"]
exclude_patterns = ["theme"] if _IS_CHINESE else [f"**{_CHINESE}.md", "theme"]
templates_path = ["theme"]
myst_heading_anchors = 4
# A page is worth a warning, which fails the build, when a link leads nowhere; shell that the highlighter can't read is not.
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = "qwenbox"
html_copy_source = False
html_show_sphinx = False
html_search_language = language
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "languages.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:\s]+?)\.md(#[^)\s]*)?\)")


class SearchBoth(SearchEnglish):
    """Chinese by pairs of neighbouring characters, in the index and in what is typed, beside English words."""

    lang = "zh_CN"
    # Sphinx takes the class of the stemmer in the browser from this name.
    language_name = "English"
    js_splitter_code = """
var splitQuery = (query) => {
  const words = query.match(/[a-zA-Z0-9_]+/g) || [];
  for (const run of query.match(/[\\u4e00-\\u9fff]+/g) || []) {
    if (run.length === 1) words.push(run);
    for (let at = 0; at + 1 < run.length; at++) words.push(run.slice(at, at + 2));
  }
  return words;
};
"""

    def split(self, input: str) -> list[str]:  # the name Sphinx calls it by
        words = re.findall(r"[a-zA-Z0-9_]+", input)
        for run in re.findall(r"[\u4e00-\u9fff]+", input):
            words += [run] if len(run) == 1 else [run[at : at + 2] for at in range(len(run) - 1)]
        return words

    def word_filter(self, word: str) -> bool:
        # A pair of characters is short and no stop word.
        return "\u4e00" <= word[:1] <= "\u9fff" or super().word_filter(word)


def _with_contents(_app: Sphinx, page: str, source: list[str]) -> None:
    """The list of pages goes into the first page here, so that the file reads well where it lies, too."""
    if page == root_doc:
        names = _CHAPTERS_IN_CHINESE if _IS_CHINESE else _CHAPTERS
        named = {name for pages in _CHAPTERS.values() for name in (*pages, "index")}
        every = {file.relative_to(_HERE).as_posix().removesuffix(".md").removesuffix(_CHINESE) for file in _HERE.rglob("*.md")}
        chapters = [*zip(names, _CHAPTERS.values(), strict=True), ("其他" if _IS_CHINESE else "More", sorted(every - named))]
        for caption, pages in chapters:
            here = [f"{name}{_SUFFIX}" for name in pages if (_HERE / f"{name}{_SUFFIX}.md").is_file()]
            if here:
                source[0] += f"\n\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(here) + "\n```\n"
    source[0] = _LINK.sub(lambda found: _across(page, found), source[0])


def _across(page: str, link: re.Match[str]) -> str:
    """A link into the other language leads out of this tree; Chinese pages link to the Chinese twin where there is one."""
    text, target, anchor = link.group(1), link.group(2), link.group(3) or ""
    is_own_twin = f"{target}{_CHINESE}" == page.rpartition("/")[2]
    if _IS_CHINESE and not is_own_twin and (_HERE / page).parent.joinpath(f"{target}{_CHINESE}.md").is_file():
        return f"[{text}]({target}{_CHINESE}.md{anchor})"
    if target.endswith(_CHINESE) == _IS_CHINESE:
        return link.group(0)
    out = "../" * page.count("/") + ("../" if _IS_CHINESE else "zh-CN/")
    reached = (_HERE / page).parent.joinpath(target).resolve().relative_to(_HERE)
    return f'<a href="{out}{reached.as_posix()}.html{anchor}">{text}</a>'


def _name_the_twin(_app: Sphinx, page: str, _template: str, context: dict[str, object], _tree: nodes.document | None) -> None:
    """For the switch: the same page in the other language, or its first page."""
    up = "../" * page.count("/")
    name = page.removesuffix(_CHINESE)
    if _IS_CHINESE:
        other = name if (_HERE / f"{name}.md").is_file() else "index"
        context["twin"] = f"{up}../{other}.html"
    else:
        other = name if (_HERE / f"{name}{_CHINESE}.md").is_file() else "index"
        context["twin"] = f"{up}zh-CN/{other}{_CHINESE}.html"
    context["is_chinese"] = _IS_CHINESE


def setup(app: Sphinx) -> None:
    app.add_search_language(SearchBoth)
    app.connect("source-read", _with_contents)
    app.connect("html-page-context", _name_the_twin)
