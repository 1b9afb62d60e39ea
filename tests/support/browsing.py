"""A browser that looks at consoles: the system's Chromium or Playwright's own, and pages that allow no trouble and no way out."""

import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, Playwright, Request, Response

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP, PHONE = (1280, 800), (390, 844)
_OURS = frozenset({"127.0.0.1", "localhost"})
_INSIDE = ("data:", "blob:", "about:", "chrome-error:")


def executable(playwright: Playwright) -> Path | None:
    """Where a Chromium lies, the system's first."""
    for name in NAMES:
        if found := shutil.which(name):
            return Path(found)
    own = Path(playwright.chromium.executable_path)
    return own if own.is_file() else None


@contextmanager
def launched(playwright: Playwright, path: Path) -> Generator[Browser]:
    # Root has no sandbox, and a container's /dev/shm is small.
    arguments = ["--disable-dev-shm-usage", "--force-color-profile=srgb", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    browser = playwright.chromium.launch(executable_path=path, args=arguments)
    try:
        yield browser
    finally:
        browser.close()


@dataclass(frozen=True)
class Look:
    """How a visitor looks at it. theme: light, dark or "" for the machine's."""

    language: str = "en"
    theme: str = "light"
    size: tuple[int, int] = DESKTOP
    is_touch: bool = False


@dataclass
class Guard:
    """Notes whatever no page of ours may do; `check` tells all of it. allowed: (status, part of the URL) that a test provokes."""

    offences: list[str] = field(default_factory=list)
    allowed: list[tuple[int, str]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def watch(self, context: BrowserContext) -> None:
        context.on("request", self._request)
        context.on("requestfailed", self._failed)
        context.on("response", self._response)
        context.on("page", self._page)
        context.on("weberror", lambda error: self.offences.append(f"error in the page: {error.error}"))

    def allow(self, status: int, part: str) -> None:
        """A failure that the test is about."""
        self.allowed.append((status, part))

    def check(self) -> None:
        assert [] == self.offences

    def _page(self, page: Page) -> None:
        page.on("console", lambda message: self._console(message.type, message.text, message.location.get("url", "")))
        page.on("dialog", lambda dialog: (self.offences.append(f"a dialog opened: {dialog.message}"), dialog.dismiss()))
        page.on("websocket", lambda socket: self._goes_to(socket.url))

    def _request(self, request: Request) -> None:
        self._goes_to(request.url)

    def _goes_to(self, url: str) -> None:
        if url.startswith(_INSIDE):
            return
        host = urlsplit(url).hostname or ""
        self.seen.add(host)
        if host not in _OURS:
            self.offences.append(f"a request leaves the box: {url}")

    def _failed(self, request: Request) -> None:
        # Whoever goes to another page hangs up on what this one still asks for.
        if request.failure != "net::ERR_ABORTED":
            self.offences.append(f"a request failed: {request.method} {request.url}: {request.failure}")

    def _response(self, response: Response) -> None:
        if response.status >= 400 and not self._is_allowed(response.status, response.url):
            self.offences.append(f"an answer of {response.status}: {response.request.method} {response.url}")

    def _console(self, kind: str, text: str, url: str) -> None:
        is_provoked = "Failed to load resource" in text and any(part in url for _, part in self.allowed)
        if kind == "error" and not is_provoked:
            self.offences.append(f"the page complains: {text} ({url})")

    def _is_allowed(self, status: int, url: str) -> bool:
        return any(status == one and part in url for one, part in self.allowed)


@contextmanager
def visitor(browser: Browser, look: Look, state: Path | None = None, prepare: Callable[[Guard], None] | None = None) -> Generator[Page]:
    """A page of a context of its own; its guard is checked at the end. state: of somebody who is logged in."""
    context = browser.new_context(
        viewport={"width": look.size[0], "height": look.size[1]},
        locale="zh-CN" if look.language == "zh-CN" else "en-US",
        color_scheme="dark" if look.theme == "dark" else "light",
        timezone_id="UTC",
        reduced_motion="reduce",
        has_touch=look.is_touch,
        storage_state=state,
    )
    context.set_default_timeout(60_000)
    guard = Guard()
    guard.watch(context)
    if prepare:
        prepare(guard)
    try:
        page = context.new_page()
        page.guard = guard  # type: ignore[attr-defined]
        yield page
        guard.check()
    finally:
        context.close()
