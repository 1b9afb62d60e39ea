"""A box's console as a browser meets it: entered by the banner's link, one session shared by the contexts of many tests."""

import json
import subprocess
import sys
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
    """A one-time link as the box makes them."""
    key = admin_key(box)
    asked = urllib.request.Request(
        f"{box.base_url}/admin/v1/console/links", method="POST", headers={"authorization": f"Bearer {key}"}, data=b""
    )
    with urllib.request.urlopen(asked) as answer:
        return json.load(answer)["token"]


@contextmanager
def opened(box: Box, browser: Browser) -> Generator[Console]:
    """The console, with one person in it."""
    process = subprocess.Popen([sys.executable, "-P", "-m", "qwenbox.console"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout
    try:
        told = {"box": box.base_url, "admin_key": admin_key(box), "host": "127.0.0.1", "port": 0, "base_url": box.base_url}
        process.stdin.write(json.dumps(told).encode() + b"\n")
        process.stdin.flush()
        address = json.loads(process.stdout.readline())["address"]
        state = Path(tempfile.mkdtemp(prefix="console-")) / "state.json"
        with visitor(browser, Look(), prepare=lambda guard: guard.allow(404, "/")) as page:
            page.goto(f"{address}/link?token={login_link(box)}")
            page.wait_for_url(f"{address}/**")
            page.context.storage_state(path=state)
        yield Console(box=box, address=address, state=state)
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()
