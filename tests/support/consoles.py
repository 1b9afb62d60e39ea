"""A box's console as a browser meets it: entered by the banner's link, one session shared by the contexts of many tests."""

import json
import re
import tempfile
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page

from boxes import Box
from support.browsing import Look, visitor


@dataclass(frozen=True)
class Console:
    """address: of the console. state: Playwright's storage of who is logged in."""

    box: Box
    address: str
    state: Path

    @contextmanager
    def visitor(self, browser: Browser, look: Look) -> Generator[Page]:
        """A guarded page in a context of its own, logged in, with the wishes of `look`."""
        with visitor(browser, look, self.state) as page:
            wishes = {"qwenbox_language": look.language, "qwenbox_theme": look.theme}
            page.context.add_cookies([{"name": name, "value": value, "url": self.address} for name, value in wishes.items() if value])
            yield page

    def go(self, page: Page, path: str) -> None:
        """Open a page and wait until it is connected and shows something."""
        page.goto(f"{self.address}{path}")
        settled(page)


def settled(page: Page) -> None:
    """Until NiceGUI's socket is there: an earlier click would be lost."""
    page.wait_for_function("window.socket?.connected && window.did_handshake === true")
    page.wait_for_selector("h1")


def admin_key(box: Box) -> str:
    return (box.home / "admin.key").read_text("utf-8").strip()


def login_link(box: Box) -> str:
    """A one-time link as the box makes them, besides that of its banner."""
    asked = urllib.request.Request(
        f"{box.base_url}/admin/v1/console/links", method="POST", headers={"authorization": f"Bearer {admin_key(box)}"}, data=b""
    )
    with urllib.request.urlopen(asked) as answer:
        return f"{box.base_url}/console?token={json.load(answer)['token']}"


def banner_link(box: Box) -> str:
    """The one-time link that `serve` prints."""
    found = re.search(r"http://\S+/console\?token=\S+", box.log)
    assert found, box.log
    return found[0]


@contextmanager
def opened(box: Box, browser: Browser) -> Generator[Console]:
    """The console with one person in it, who came by the banner's link; the box starts and ends it."""
    with (
        tempfile.TemporaryDirectory(prefix="console-") as folder,
        visitor(browser, Look()) as page,
    ):
        page.goto(banner_link(box))
        address = page.url.rstrip("/")
        assert address.count("/") == 2, page.url
        settled(page)
        state = Path(folder) / "state.json"
        page.context.storage_state(path=state)
        yield Console(box=box, address=address, state=state)
