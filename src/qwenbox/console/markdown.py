"""This is where a model's Markdown becomes HTML that can do no harm, whatever stands in it.

What a text says as HTML stays text. Links lead to http, https and mail addresses only, open beside the page and show where; a picture is
told and never fetched. Code is coloured by classes (assets/markdown.css). A growing text is cut into blocks; only the last changes.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name  # pyright: ignore[reportUnknownVariableType]  (its options are untyped)
from pygments.util import ClassNotFound

# What no reader gets through, and no browser lays out in time.
MOST_CHARACTERS = 1_000_000
# Parsing takes about 10 s per million characters; beyond this a text is shown as it is.
_MOST_PARSED = 100_000
_MOST_LINE = 20_000
_MOST_COLOURED = 50_000
_MOST_NESTING = 20
_SCHEMES = frozenset({"http", "https", "mailto"})
_REL = "noopener noreferrer nofollow"
_LANGUAGE = re.compile(r"[A-Za-z0-9+#_.-]{1,30}")
_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")
# Lists, quotes, tables and indented lines go on after a blank line; links may be defined anywhere.
_GOES_ON = (" ", "\t", ">", "-", "*", "+", "|", "[")


def render(text: str) -> str:
    """HTML of these tags only: p h3–h6 strong em s code pre span a ul ol li blockquote hr br table and its parts; all else is text."""
    if len(text) > MOST_CHARACTERS:
        text = text[:MOST_CHARACTERS] + "\n\n…"
    if _is_too_much(text):
        return _as_it_is(text)
    try:
        return _parser().render(text)
    except (RecursionError, ValueError):
        return _as_it_is(text)


def code(text: str, language: str) -> str:
    """A text as code in that language, whatever stands in it."""
    return _code(text[:MOST_CHARACTERS], language)


def split(text: str) -> tuple[list[str], str]:
    """Blocks that stay as they are however the text goes on, and the rest: rendered one by one they look as the whole does.

    A block ends at a blank line outside code after which something new begins at the margin.
    """
    blocks: list[str] = []
    lines = text.split("\n")
    fence, begin = "", 0
    for number, line in enumerate(lines):
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
        elif mark:
            fence = mark[1]
        elif not line.strip() and number > begin and number + 2 < len(lines) and _begins(lines[number + 1]):
            blocks.append("\n".join(lines[begin:number]))
            begin = number + 1
    return blocks, "\n".join(lines[begin:])


def _begins(line: str) -> bool:
    return bool(line.strip()) and not line.startswith(_GOES_ON) and not line[:1].isdigit()


def _is_too_much(text: str) -> bool:
    return len(text) > _MOST_PARSED or (len(text) > _MOST_LINE and max(map(len, text.split("\n"))) > _MOST_LINE)


def _as_it_is(text: str) -> str:
    return f'<pre class="code" tabindex="0">{escape(text)}</pre>'


class _Renderer(RendererHTML):
    """The library's, but for links, pictures, code and headings."""

    def fence(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: object) -> str:
        return _code(tokens[idx].content, tokens[idx].info.strip().partition(" ")[0])

    def code_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: object) -> str:
        return _code(tokens[idx].content, "")

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: object) -> str:
        token = tokens[idx]
        told = _plain(token.children or ())
        return f'<span class="picture">{escape(told)} ({escape(str(token.attrs.get("src", "")))})</span>'

    def link_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: object) -> str:
        address = escape(str(tokens[idx].attrs.get("href", "")))
        return f'<a href="{address}" title="{address}" target="_blank" rel="{_REL}">'

    def link_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: object) -> str:
        return f"</a>{_address(tokens, idx)}"


def _address(tokens: Sequence[Token], close: int) -> str:
    """Where a link leads, in sight, unless its own text says so."""
    depth, begin = 0, close
    while begin >= 0:
        depth += -tokens[begin].nesting if tokens[begin].type in ("link_open", "link_close") else 0
        if depth == 0:
            break
        begin -= 1
    href = str(tokens[begin].attrs.get("href", ""))
    said = _plain(tokens[begin + 1 : close])
    host = urlsplit(href).netloc or href
    return "" if said.strip() and (said.strip() in href and host in said) else f' <span class="address">({escape(host)})</span>'


def _plain(tokens: Sequence[Token]) -> str:
    """The text alone."""
    return "".join(_plain(token.children) if token.children else token.content for token in tokens)


def _code(text: str, language: str) -> str:
    name = language if _LANGUAGE.fullmatch(language) else ""
    label = f'<span class="language">{escape(name)}</span>' if name else ""
    return f'<pre class="code" tabindex="0">{label}<code>{_coloured(text, name)}</code></pre>'


def _coloured(text: str, language: str) -> str:
    lexer = _lexer(language) if language and len(text) <= _MOST_COLOURED else None
    return escape(text) if lexer is None else highlight(text, lexer, _FORMATTER)


@lru_cache(maxsize=64)
def _lexer(language: str) -> Lexer | None:
    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None


# Classes only, nothing around: what the stylesheet knows.
_FORMATTER: HtmlFormatter[str] = HtmlFormatter(nowrap=True, classprefix="hl-")


def _is_fine(url: str) -> bool:
    """Whether a link may lead there."""
    try:
        return urlsplit(url.strip()).scheme.lower() in _SCHEMES
    except ValueError:
        return False


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": _MOST_NESTING}, renderer_cls=_Renderer)
    parser.enable(["table", "strikethrough"])
    parser.validateLink = _is_fine
    parser.core.ruler.push("headings", lambda state: _lower(state.tokens))
    return parser


def _lower(tokens: Sequence[Token]) -> None:
    """A page has its own h1 and h2."""
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + 2)}"
