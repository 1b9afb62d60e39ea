"""Whether the suite of hostile texts would notice: holes are dug into a page, and what gets through them is seen."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from support.browsing import Look
from support.consoles import Console
from support.payloads import ALIVE, HOSTILE

# Ways in which a page could take a text for code, each a hole that is dug for the test: it renders the text into the element
# `there`; and how many of HOSTILE get through it at least.
HOLES = {
    "HTML": ("(text, there) => { there.innerHTML = text }", 20),
    "HTML whose scripts run": ("(text, there) => { there.append(document.createRange().createContextualFragment(text)) }", 25),
    "an attribute": ("""(text, there) => { there.innerHTML = `<b title="${text}">x</b>` }""", 6),
    "an attribute in single quotes": ("(text, there) => { there.innerHTML = `<b title='${text}'>x</b>` }", 4),
    "an attribute without quotes": ("(text, there) => { there.innerHTML = `<b title=${text}>x</b>` }", 20),
    "the address of a link": (
        """(text, there) => {
      const link = document.createElement("a"); link.setAttribute("href", /\\((.*)\\)/.exec(text)?.[1] ?? text); there.append(link);
    }""",
        12,
    ),
    "a script's text in single quotes": ("(text) => { try { (0, eval)(`('${text}')`) } catch {} }", 1),
    "a script's text in double quotes": ("""(text) => { try { (0, eval)(`("${text}")`) } catch {} }""", 1),
    "a script's template": ("(text) => { try { (0, eval)('(`' + text + '`)') } catch {} }", 2),
    "a template of Vue": (
        """async (text, there) => {
      const { createApp } = await import("vue");
      try { createApp({ template: `<p>${text}</p>` }).mount(there) } catch {}
    }""",
        10,
    ),
}
_PLANT = f"""async ([dig, text]) => {{
  const there = document.createElement("div");
  document.querySelector(".page").append(there);
  await eval(dig)(text, there);
  await new Promise(requestAnimationFrame);
  const found = ({ALIVE})();
  there.remove();
  delete window.__pwned;
  return found;
}}"""


def noticed(page: Page, hole: str, text: str) -> bool:
    """Whether what a hole lets through is seen in the page, or by the guard around it."""
    page.guard.offences.clear()
    found = page.evaluate(_PLANT, [hole, text])
    return bool([*found, *page.guard.offences])


@pytest.fixture(scope="module")
def page(console: Console, browser: Browser) -> Iterator[Page]:
    with console.visitor(browser, Look()) as opened:
        # Whoever is sent there stays here: there is no content.
        opened.route("http://evil.example/**", lambda route: route.fulfill(status=204))
        console.go(opened, "/limits")
        yield opened
        opened.guard.offences.clear()


@pytest.mark.parametrize("hole", HOLES)
def test_what_gets_through_a_hole_is_noticed(page: Page, hole: str):
    dig, least = HOLES[hole]
    seen = [text for text in HOSTILE if noticed(page, dig, text)]
    assert len(seen) >= least, seen
    assert not noticed(page, dig, "harmless")


def test_texts_that_are_only_shown_are_not_noticed(page: Page):
    assert [] == [text for text in HOSTILE if noticed(page, "(text, there) => { there.textContent = text }", text)]


def test_what_opens_a_dialog_or_asks_another_host_is_noticed(page: Page):
    assert noticed(page, "() => alert(1)", "")
    assert noticed(page, "() => fetch('http://evil.example/').catch(() => {})", "")
