"""Links of README, docs and the other pages at the root: files are there, and so are anchors."""

import pytest

from support.markdown import ROOT, Page, pages, read

EXTRA = [read(ROOT / name) for name in ("CONTRIBUTING.md", "CHANGELOG.md", "STYLE.md")]
PAGES = {page.name: page for page in [*pages(), *EXTRA]}


def dead_links_of(page: Page) -> list[str]:
    dead: list[str] = []
    for link in page.links:
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.path.parent / path).resolve() if path else page.path
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in read(target).anchors):
            dead.append(link)
    return dead


@pytest.mark.parametrize("name", PAGES)
def test_links_of_a_page_lead_somewhere(name: str) -> None:
    assert [] == dead_links_of(PAGES[name])


def test_a_dead_link_is_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("pages") / "page.md"
    path.write_text("# One two\n\n[a](#one-two) [b](#three) [c](page.md) [d](none.md) `[e](none.md)`\n")
    assert ["#three", "none.md"] == dead_links_of(Page(path=path, text=path.read_text()))
