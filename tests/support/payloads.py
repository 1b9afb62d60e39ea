"""Texts that act where a page takes them for code: each sets window.__pwned, opens a dialog or asks another host when it does."""

from playwright.sync_api import Page

HOSTILE: tuple[str, ...] = (
    "<script>window.__pwned=1</script>",
    "</script><script>window.__pwned=1</script>",
    "</textarea></title></style></script><img src=x onerror=window.__pwned=1>",
    "<img src=x onerror=window.__pwned=1>",
    "<img src=http://evil.example/pixel.png>",
    "<svg onload=window.__pwned=1><circle/></svg>",
    "<svg><script href=data:,window.__pwned=1 /></svg>",
    "<math><mtext></table><mglyph><style><!--</style><img title='--><img src=1 onerror=window.__pwned=1>'>",
    "<iframe srcdoc='<script>parent.__pwned=1</script>'></iframe>",
    "<iframe src=javascript:parent.__pwned=1>",
    "<details open ontoggle=window.__pwned=1>",
    "<body onload=window.__pwned=1>",
    "<link rel=stylesheet href=http://evil.example/style.css>",
    "<style>@import 'http://evil.example/style.css';</style>",
    "<base href=http://evil.example/>",
    "<meta http-equiv=refresh content='0;url=http://evil.example/'>",
    "<form action=http://evil.example/><input autofocus onfocus=window.__pwned=1>",
    "<object data=http://evil.example/x></object><embed src=http://evil.example/y>",
    "<a href=javascript:window.__pwned=1>click</a>",
    "[click](javascript:window.__pwned=1)",
    "[click](JaVaScRiPt:window.__pwned=1)",
    "[click](data:text/html,<script>opener.__pwned=1</script>)",
    "![picture](http://evil.example/pixel.png)",
    '![picture](x" onerror="window.__pwned=1)',
    "&lt;img src=x onerror=window.__pwned=1&gt;",
    "&#60;script&#62;window.__pwned=1&#60;/script&#62;",
    "%3Cscript%3Ewindow.__pwned=1%3C/script%3E",
    "\\u003cscript\\u003ewindow.__pwned=1\\u003c/script\\u003e",
    "{{7*7}}",
    "{{constructor.constructor('window.__pwned=1')()}}",
    "{{_c.constructor('window.__pwned=1')()}}",
    "<div v-html=\"'<img src=x onerror=window.__pwned=1>'\"></div>",
    "<component :is=\"'script'\">window.__pwned=1</component>",
    "${window.__pwned=1}",
    "`${window.__pwned=1}`",
    "`); window.__pwned=1; (`",
    "');window.__pwned=1;('",
    '");window.__pwned=1;("',
    "\\');window.__pwned=1;//",
    '" onmouseover="window.__pwned=1" autofocus onfocus="window.__pwned=1',
    "' onmouseover='window.__pwned=1' x='",
    'x" innerHTML="<img src=x onerror=window.__pwned=1>',
    '" v-html="\'<img src=x onerror=window.__pwned=1>\'" :x="window.__pwned=1',
    "a :innerHTML=<img/src=x/onerror=window.__pwned=1> onclick=window.__pwned=1",
    '{"tag":"script","text":"window.__pwned=1","props":{"innerHTML":"<img src=x onerror=window.__pwned=1>"}}',
    '"},"999":{"tag":"div","props":{"innerHTML":"<img src=x onerror=window.__pwned=1>"},"children":[]},"x":{"a":"',
    "<!--<script>window.__pwned=1//-->",
    "<![CDATA[<script>window.__pwned=1</script>]]>",
    "{a|<img src=x onerror=window.__pwned=1>}{b}{c}",
    '=HYPERLINK("http://evil.example/","click")',
    "\u2028window.__pwned=1\u2029//",
    "\u202e<tpircs/>1=denwp__.wodniw<tpircs>",
)


# What a model may write around it: Markdown's own places for links, languages of code, titles, tables, HTML.
HOSTILE_MARKDOWN: tuple[str, ...] = (
    *HOSTILE,
    "```<img src=x onerror=window.__pwned=1>\ncode\n```",
    "```html\n<script>window.__pwned=1</script>\n```",
    "`<img src=x onerror=window.__pwned=1>`",
    "<javascript:window.__pwned=1>",
    '[a](http://127.0.0.1/ "x\\" onmouseover=\\"window.__pwned=1")',
    "[a]: javascript:window.__pwned=1\n\n[a]",
    "| a |\n| --- |\n| <img src=x onerror=window.__pwned=1> |",
    "# <svg onload=window.__pwned=1>",
    "1. <iframe src=javascript:parent.__pwned=1>\n2. [x](vbscript:window.__pwned=1)",
    "<details open ontoggle=window.__pwned=1><summary>x</summary></details>",
    "$$\\href{javascript:window.__pwned=1}{x}$$",
    "![a](javascript:window.__pwned=1) ![b](data:image/svg+xml,<svg/onload=window.__pwned=1>)",
)

# Names have printable characters only.
HOSTILE_NAMES = tuple(text for text in HOSTILE if text.isprintable())

# Tells what came alive in the page.
ALIVE = r"""() => {
  const isLive = ({ name, value }) =>
    /^on|^v-|^:/i.test(name) || (/^(href|src|action)$/i.test(name) && /^\s*(javascript|data:text)|evil/i.test(value));
  const alive = [...document.querySelectorAll("*")].flatMap((element) => [...element.attributes].filter(isLive));
  const foreign = document.querySelectorAll("iframe, object, embed, base, meta[http-equiv], form[action]:not([action='/logout'])");
  return [
    ...(window.__pwned === undefined ? [] : ["window.__pwned is set"]),
    ...alive.map(({ name, value }) => `${name}=${value}`),
    ...[...foreign].map((element) => element.outerHTML.slice(0, 200)),
  ];
}"""


def acted(page: Page) -> list[str]:
    """What came alive; empty for a page that only shows texts."""
    return page.evaluate(ALIVE)
