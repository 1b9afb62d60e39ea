"""Every page, as each visitor sees it: readable in both languages, themes and widths, and nobody shut out (axe)."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from console.conftest import Visit
from support.browsing import PHONE, Look, visitor
from support.consoles import Console, opened
from support.lively import lively
from support.page_check import assert_readable

LOOKS = {
    "desktop-light-en": Look(),
    "desktop-dark-zh": Look("zh-CN", "dark"),
    "phone-light-zh": Look("zh-CN", "light", PHONE, is_touch=True),
    "phone-dark-en": Look("en", "dark", PHONE, is_touch=True),
}
PATHS = ("/", "/playground", "/keys", "/models", "/usage", "/logs", "/batches", "/limits", "/health", "/password")


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Console]:
    """A console over a box with a lot to show."""
    with lively(tmp_path_factory.mktemp("lively") / "home", calls=150) as box, opened(box, browser) as running:
        yield running


@pytest.fixture(params=[pytest.param(look, id=name) for name, look in LOOKS.items()])
def look(request: pytest.FixtureRequest) -> Look:
    return request.param


def test_navigation_lists_the_pages_that_are_looked_at(visit: Visit):
    links = visit("/keys").locator("nav a")
    assert {*PATHS, "/password"} == {*(link.get_attribute("href") for link in links.all()), "/password"}


@pytest.mark.parametrize("path", PATHS)
def test_page_is_readable_and_shuts_nobody_out(busy: Console, browser: Browser, path: str, look: Look):
    with busy.visitor(browser, look) as page:
        busy.go(page, path)
        assert_readable(page)
        assert look.language == page.locator("html").get_attribute("lang").replace("en-US", "en")
        assert (look.theme == "dark") == page.locator("body.body--dark").is_visible()


def test_login_page_is_readable_and_shuts_nobody_out(busy: Console, browser: Browser, look: Look):
    with visitor(browser, look) as page:
        page.goto(f"{busy.address}/keys")
        page.wait_for_url("**/login")
        assert_readable(page)


def test_dialogs_of_keys_shut_nobody_out(visit: Visit, look: Look):
    page = visit("/keys", look)
    page.get_by_test_id("create-key").click()
    expect(page.get_by_test_id("key-name")).to_be_visible()
    for fold in page.locator(".q-expansion-item .q-item").all():
        fold.click()
    assert_readable(page)
    page.get_by_test_id("key-name").fill(f"seen by {look.language} {look.theme}")
    page.get_by_test_id("key-submit").click()
    expect(page.get_by_test_id("new-key")).to_be_visible()
    assert_readable(page)
    page.get_by_test_id("key-copied").click()
    page.locator("[data-testid=keys] tbody tr").first.locator("button").last.click()
    expect(page.get_by_test_id("confirm")).to_be_visible()
    assert_readable(page)
