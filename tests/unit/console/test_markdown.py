"""Whatever a model says, its HTML holds only what cannot act; and it looks as Markdown should."""

from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qwenbox.console import markdown

_PLAIN_TAGS = (
    "p",
    "h3",
    "h4",
    "h5",
    "h6",
    "strong",
    "em",
    "s",
    "code",
    "ul",
    "li",
    "blockquote",
    "hr",
    "br",
    "table",
    "thead",
    "tbody",
    "tr",
)
_TAGS = {
    **dict.fromkeys(_PLAIN_TAGS, frozenset[str]()),
    "a": frozenset({"href", "title", "target", "rel"}),
    "span": frozenset({"class"}),
    "pre": frozenset({"class", "tabindex"}),
    "ol": frozenset({"start"}),
    "td": frozenset({"style"}),
    "th": frozenset({"style"}),
}
_VALUES = {
    "target": {"_blank"},
    "rel": {"noopener noreferrer nofollow"},
    "tabindex": {"0"},
    "style": {"text-align:left", "text-align:right", "text-align:center"},
}

ATTACKS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><a xlink:href='javascript:alert(1)'><text>x</text></a></svg>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    "<iframe src=javascript:alert(1)></iframe>",
    "<body onload=alert(1)>",
    "<a href=javascript:alert(1)>x</a>",
    "<details open ontoggle=alert(1)>",
    "<template><script>alert(1)</script></template>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<style>@import 'http://evil/';</style>",
    "<link rel=stylesheet href=http://evil/>",
    "<meta http-equiv=refresh content='0;url=http://evil/'>",
    "<base href=http://evil/>",
    "<form action=http://evil/><input name=x autofocus onfocus=alert(1)>",
    "<object data=javascript:alert(1)>",
    "<!--><script>alert(1)</script>-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<?xml-stylesheet href='javascript:alert(1)'?>",
    "</p></div><script>alert(1)</script>",
    "<scr\0ipt>alert(1)</scr\0ipt>",
    "\u003cscript\u003ealert(1)\u003c/script\u003e",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x]( javascript:alert(1))",
    "[x](java\tscript:alert(1))",
    "[x](<java\nscript:alert(1)>)",
    "[x](java&#10;script:alert(1))",
    "[x](&#x6A;avascript:alert(1))",
    "[x](javascript&colon;alert(1))",
    "[x](%6Aavascript:alert(1))",
    "[x](\x01javascript:alert(1))",
    "[x](vbscript:msgbox(1))",
    "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[x](file:///etc/passwd)",
    "[x](blob:http://evil/1)",
    "[x](view-source:javascript:alert(1))",
    "[x](//evil/)",
    "[x](/keys)",
    '[x](https://evil" onmouseover="alert(1))',
    "[x](https://evil 'x\" onmouseover=alert(1) y=\"')",
    '[x](https://evil "\\" onmouseover=alert(1) x=\\"")',
    '[x](<https://evil"><img src=x onerror=alert(1)>>)',
    "[<img src=x onerror=alert(1)>](https://evil)",
    "[![x](javascript:alert(1))](javascript:alert(2))",
    '[![a"onerror=alert(1)](https://evil/x.png)](https://evil)',
    "![x](https://evil/track.png)",
    "![x](javascript:alert(1))",
    '![" onerror="alert(1)](x)',
    '![x](https://evil/x.png "t" onerror=alert(1))',
    "![<script>alert(1)</script>](https://evil/x.png)",
    "<javascript:alert(1)>",
    '<https://evil/"onmouseover=alert(1)>',
    "<data:text/html,alert(1)>",
    "[x]\n\n[x]: javascript:alert(1)",
    "[x]\n\n[x]: <javascript:alert(1)> 'x'",
    "[x]: data:text/html,<script>alert(1)</script>\n\n[x]",
    '```"><script>alert(1)</script>\nx\n```',
    "```<img src=x onerror=alert(1)>\nx\n```",
    "```html onload=alert(1)\n<script>alert(1)</script>\n```",
    "```../../../etc/passwd\nx\n```",
    "~~~js\n</code></pre><script>alert(1)</script>\n~~~",
    "    </code></pre><script>alert(1)</script>",
    "`</code><script>alert(1)</script>`",
    "| <script>alert(1)</script> |\n|---|\n| <img src=x onerror=alert(1)> |",
    '| a |\n|:-:" onmouseover=alert(1)|\n| b |',
    "# <svg/onload=alert(1)>",
    "> <script>\n> alert(1)\n> </script>",
    "1. <script>alert(1)</script>",
    '99999999999999999999. x\n1" onmouseover=alert(1). y',
    "[" * 5_000 + "](javascript:x)" * 5_000,
    ">" * 5_000 + "<script>",
    "*" * 10_000 + "<b>",
    "- " * 2_000 + "x",
    "{{7*7}} ${alert(1)} {{constructor.constructor('alert(1)')()}}",
)

_PIECES = st.lists(
    st.sampled_from(
        [*(attack for attack in ATTACKS if len(attack) < 200), "\n", "\n\n", " ", "`", "```", "**", "> ", "- ", "\\", "&", "![", "]("]
    )
    | st.text(max_size=20),
    max_size=12,
).map("".join)


class _Reader(HTMLParser):
    """What a browser is told, as far as it can act."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.text: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _TAGS, tag
        assert {name for name, _ in attrs} <= _TAGS[tag], attrs
        for name, value in attrs:
            assert value is not None and value in _VALUES.get(name, {value}), (name, value)
            if name == "href":
                assert urlsplit(value).scheme in ("http", "https", "mailto"), value
                self.links.append(value)
        if tag not in ("br", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag in ("br", "hr") or tag == self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    def handle_decl(self, decl: str) -> None:
        raise AssertionError(decl)

    def handle_pi(self, data: str) -> None:
        raise AssertionError(data)

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(data)


def _read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert not reader.open
    return reader


@pytest.mark.parametrize("attack", ATTACKS, ids=range(len(ATTACKS)))
def test_an_attack_is_inert(attack: str) -> None:
    for text in (attack, f"before {attack} after", f"- {attack}\n\n> {attack}", f"**{attack}**"):
        _read(markdown.render(text))


@given(_PIECES)
@example("[x](https://a.b/'onclick=alert)")
def test_whatever_is_said_becomes_harmless_html_whole_and_in_blocks(text: str) -> None:
    _read(markdown.render(text))
    blocks, rest = markdown.split(text)
    for block in (*blocks, rest):
        _read(markdown.render(block))


@given(_PIECES)
def test_blocks_stay_as_they_are_while_a_text_grows(text: str) -> None:
    before: list[str] = []
    for end in range(0, len(text) + 1, max(1, len(text) // 20)):
        blocks, rest = markdown.split(text[:end])
        assert blocks[: len(before)] == before
        assert "\n".join([*blocks, rest]).replace("\n", "") == text[:end].replace("\n", "")
        before = blocks


def test_blocks_rendered_alone_look_as_the_whole_does() -> None:
    text = (
        "# One\n\ntwo **three**\n\n```py\na = 1\n\n\nb\n```\n\nand\n\n- x\n\n- y\n\n  z\n\nend\n\n"
        "1. a\n\n2. b\n\nsay\n\n> q\n\n| a |\n|---|\n| b |\n\nlast"
    )
    blocks, rest = markdown.split(text)
    assert 5 == len(blocks)
    assert markdown.render(text) == "".join(map(markdown.render, [*blocks, rest]))


def test_links_lead_out_beside_the_page_and_show_where() -> None:
    html = markdown.render("[good.com](https://evil.example/good.com) <https://a.b/c> [mail](mailto:x@y.z)")
    reader = _read(html)
    assert ["https://evil.example/good.com", "https://a.b/c", "mailto:x@y.z"] == reader.links
    assert "good.com (evil.example) https://a.b/c mail (mailto:x@y.z)" == "".join(reader.text).strip()
    assert 3 == html.count('target="_blank" rel="noopener noreferrer nofollow"')


def test_a_picture_is_told_and_not_fetched() -> None:
    html = markdown.render("![a *cat*](https://evil.example/cat.png?secret)")
    assert "a cat (https://evil.example/cat.png?secret)" == "".join(_read(html).text).strip()


def test_code_is_coloured_by_classes_where_its_language_is_known() -> None:
    assert '<span class="hl-k">def</span>' in markdown.render("```python\ndef f(): ...\n```")
    assert "hl-" not in markdown.render("```nonsense\ndef f(): ...\n```")
    assert '<span class="language">python</span>' in markdown.render("```python\nx\n```")


def test_headings_leave_the_first_two_levels_to_the_page() -> None:
    assert "<h3>a</h3>\n<h4>b</h4>\n<h6>c</h6>" == markdown.render("# a\n\n## b\n\n###### c").strip()


def test_texts_without_end_are_cut_and_lines_without_end_stay_plain() -> None:
    assert markdown.render("word\n" * 300_000).endswith("word\n\n\n…</pre>")
    assert markdown.render("<b>" * 10_000).startswith('<pre class="code" tabindex="0">&lt;b&gt;')
