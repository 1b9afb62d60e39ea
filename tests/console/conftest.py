"""The browser suite's own: Chromium, boxes with their consoles, visitors who are logged in.

Without a Chromium nothing of it runs, and the last lines of the run say so.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

from boxes import Box
from support import browsing
from support.browsing import Look
from support.consoles import Console, opened

_MISSING = pytest.StashKey[str]()
Visit = Callable[..., Page]


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    # A busy machine is no failure.
    expect.set_options(timeout=60_000)
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="session")
def browser(playwright: Playwright, request: pytest.FixtureRequest) -> Iterator[Browser]:
    path = browsing.executable(playwright)
    if path is None:
        told = f"no Chromium here (looked for {', '.join(browsing.NAMES)}; Playwright's own: `playwright install chromium`)"
        request.config.stash[_MISSING] = told
        pytest.skip(told)
    with browsing.launched(playwright, path) as running:
        yield running


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """After pytest's own last line, so that nobody overlooks it."""
    if told := config.stash.get(_MISSING, ""):
        line = "!" * 100
        print(f"\n{line}\n!!! THE BROWSER SUITE DID NOT RUN: {told}\n!!! Nothing of the console was looked at.\n{line}", flush=True)
        if note := os.environ.get("QWENBOX_BROWSER_NOTE"):
            Path(note).write_text(told, "utf-8")


@pytest.fixture(scope="session")
def console(box: Box, browser: Browser) -> Iterator[Console]:
    """The echo box's, somebody logged in by the link of its banner."""
    with opened(box, browser) as running:
        yield running


@pytest.fixture
def visit(browser: Browser, console: Console) -> Iterator[Visit]:
    """visit(path="/", look=Look(…)) → a page of a context of its own, logged in and guarded."""
    with ExitStack() as stack:

        def visited(path: str = "/", look: Look | None = None) -> Page:
            page = stack.enter_context(console.visitor(browser, look or Look()))
            console.go(page, path)
            return page

        yield visited
