"""What is looked at on every page by script: nothing scrolls sideways, no text is cut off, plots are readable, nobody is shut out."""

from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

_SCRIPT = (Path(__file__).with_suffix(".js")).read_text("utf-8")
_GRAVE = frozenset({"serious", "critical"})


def troubles(page: Page) -> list[str]:
    """What a reader would stumble over."""
    # Plots are drawn, letters are there.
    page.evaluate("document.fonts.ready")
    page.wait_for_function("[...document.querySelectorAll('.q-loading-bar')].every((bar) => getComputedStyle(bar).opacity === '0')")
    page.wait_for_timeout(300)
    return page.evaluate(_SCRIPT)


def barriers(page: Page, *rules: str) -> list[str]:
    """axe's serious and critical violations, with the elements. rules: only those of axe's."""
    # axe takes the colour of Quasar's fixed body under a dialog, and a button's content with a layer of its own, out of their order.
    page.add_style_tag(content="body.q-body--prevent-scroll { position: static !important; } .q-btn__content { z-index: auto !important; }")
    options = {"runOnly": {"type": "rule", "values": list(rules)}} if rules else None
    found = Axe().run(page, options=options).response["violations"]
    return [
        f"{one['impact']}: {one['id']}: {one['help']}: {node['html'][:160]} ({str(node.get('failureSummary', ''))[:160]})"
        for one in found
        if one["impact"] in _GRAVE
        for node in one["nodes"]
    ]


def assert_readable(page: Page) -> None:
    """Nobody stumbles and nobody is shut out."""
    found = [*troubles(page), *barriers(page)]
    assert not found, "\n".join([page.url, *found])


def assert_colours_are_readable(page: Page) -> None:
    """What a page whose theme was just changed can have broken."""
    page.wait_for_timeout(300)
    found = barriers(page, "color-contrast")
    assert not found, "\n".join([page.url, *found])
