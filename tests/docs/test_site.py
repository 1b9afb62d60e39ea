"""The documentation's site, built as `make docs` does."""

import html.parser
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from support.markdown import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    # No proxy and no name server would help it: what is built without a network is read without one.
    command = [sys.executable, str(ROOT / "tools" / "docs.py"), str(folder)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


class References(html.parser.HTMLParser):
    """What a page loads, and where its links lead."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "a":
            self.links.append(values.get("href") or "")
        elif tag == "link" and values.get("rel") not in ("index", "search", "next", "prev", "canonical"):
            self.loaded.append(values.get("href") or "")
        elif tag in ("script", "img", "source", "iframe"):
            self.loaded.append(values.get("src") or "")


def references_of(page: Path) -> References:
    found = References()
    found.feed(page.read_text("utf-8"))
    return found


def test_site_has_every_page_in_its_language(site: Path) -> None:
    for source in (ROOT / "docs").rglob("*.md"):
        name = source.relative_to(ROOT / "docs").with_suffix(".html")
        assert (site / ("zh-CN" if source.stem.endswith(".zh-CN") else "") / name).is_file(), name


def test_site_loads_nothing_from_elsewhere(site: Path) -> None:
    foreign = {source for page in site.rglob("*.html") for source in references_of(page).loaded if urlsplit(source).netloc}
    assert set() == foreign
    styles = [*site.rglob("*.css")]
    assert styles
    assert [] == [style.name for style in styles if re.search(r"(@import|url\()\s*['\"]?(https?:)?//", style.read_text("utf-8", "replace"))]


def test_links_of_the_site_lead_to_its_pages(site: Path) -> None:
    dead: set[str] = set()
    for page in site.rglob("*.html"):
        for link in references_of(page).links:
            parts = urlsplit(link)
            if parts.path and not parts.netloc and not parts.scheme and not (page.parent / unquote(parts.path)).exists():
                dead.add(f"{page.relative_to(site)} → {link}")
    assert set() == dead


def test_pages_lead_to_their_twin(site: Path) -> None:
    assert "zh-CN/quickstart.zh-CN.html" in references_of(site / "quickstart.html").links
    assert "../quickstart.html" in references_of(site / "zh-CN" / "quickstart.zh-CN.html").links
    assert 2 <= references_of(site / "zh-CN" / "index.zh-CN.html").links.count("../index.html")
    assert 2 <= references_of(site / "index.html").links.count("zh-CN/index.zh-CN.html")
    assert "../zh-CN/practices/cache.zh-CN.html" in references_of(site / "practices" / "cache.html").links


def test_search_knows_chinese_by_pairs_of_characters(site: Path) -> None:
    index = (site / "zh-CN" / "searchindex.js").read_text("utf-8")
    assert '"缓存"' in index or "缓存:" in index or '"\\u7f13\\u5b58"' in index
    script = (site / "zh-CN" / "_static" / "language_data.js").read_text("utf-8")
    assert "length === 1" in script
    # The browser's words are stemmed by a class that is there.
    stemmers = re.findall(r"window\.Stemmer = (.*);", script)
    assert 1 == len(stemmers)
    assert f"{stemmers[0]}=function" in script or f"class {stemmers[0]}" in script or f"{stemmers[0]} = function" in script


def test_a_dead_link_fails_the_build(tmp_path: Path) -> None:
    for name in ("conf.py", "theme"):
        (tmp_path / name).symlink_to(ROOT / "docs" / name)
    (tmp_path / "index.md").write_text("# One\n\n[nowhere](nowhere.md)\n")
    command = [sys.executable, "-m", "sphinx", "--builder", "html", "--fail-on-warning", "--quiet", str(tmp_path), str(tmp_path / "out")]
    built = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert built.returncode != 0
    assert "nowhere" in built.stderr
