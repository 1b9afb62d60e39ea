"""Every page, as each visitor sees it: readable in both languages, themes and widths, and nobody shut out (axe)."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from console.conftest import Visit
from support.browsing import DESKTOP, PHONE, Look, visitor
from support.consoles import Console, opened, settled
from support.lively import admin, lively
from support.page_check import assert_colours_are_readable, assert_readable

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
    with lively(tmp_path_factory.mktemp("lively") / "home", calls=150) as box:
        admin(box).told("POST", "/admin/v1/accounts", {"name": "keeper", "role": "admin"})
        with opened(box, browser) as running:
            yield running


@pytest.fixture(params=[pytest.param(look, id=name) for name, look in LOOKS.items()])
def look(request: pytest.FixtureRequest) -> Look:
    return request.param


def test_navigation_lists_the_pages_that_are_looked_at(visit: Visit):
    links = visit("/keys").locator("nav a")
    assert {*PATHS, "/password"} == {*(link.get_attribute("href") for link in links.all()), "/password"}


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_page_asks_nothing_of_a_browser_that_may_have_left(visit: Visit, size: tuple[int, int]):
    page = visit("/limits", Look(size=size))
    heard: list[str] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: heard.append(str(frame))))
    page.goto(page.url.replace("/limits", "/keys"))
    settled(page)
    # Once an answer comes to what is done later, whatever was sent at the start is there.
    page.get_by_test_id("create-key").click()
    expect(page.get_by_test_id("key-name")).to_be_visible()
    assert any("key-name" in frame for frame in heard)
    assert [] == [frame for frame in heard if "request_id" in frame]


def test_drawer_is_open_where_there_is_room_and_opens_and_closes_where_there_is_not(visit: Visit):
    page = visit("/keys")
    drawer, menu = page.locator("nav"), page.locator(".menu-button")
    expect(drawer).to_be_in_viewport()
    expect(menu).to_be_hidden()
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    expect(drawer).not_to_be_in_viewport()
    for _ in range(2):
        menu.click()
        expect(drawer).to_be_in_viewport()
        page.locator(".q-drawer__backdrop").click(position={"x": 350, "y": 400})
        expect(drawer).not_to_be_in_viewport()
    page.reload()
    settled(page)
    expect(drawer).not_to_be_in_viewport()
    menu.click()
    expect(drawer).to_be_in_viewport()
    page.keyboard.press("Escape")
    drawer.get_by_role("link", name="Limits", exact=True).click()
    expect(page.locator("h1")).to_have_text("Limits")
    expect(drawer).not_to_be_in_viewport()


@pytest.mark.parametrize("path", PATHS)
def test_page_is_readable_and_shuts_nobody_out(busy: Console, browser: Browser, path: str, look: Look):
    with busy.visitor(browser, look) as page:
        busy.go(page, path)
        assert_readable(page)
        assert look.language == page.locator("html").get_attribute("lang").replace("en-US", "en")
        assert (look.theme == "dark") == page.locator("body.body--dark").is_visible()


# As long as figures become, in the letters of the widest of fonts.
FIGURES = ("¥0.009368", "¥12,345.67", "-¥99.1234", "999,999", "2 min 59 s")
_LINES = """(figure, text) => {
  figure.textContent = text;
  const range = document.createRange(); range.selectNodeContents(figure);
  return new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size;
}"""


@pytest.mark.parametrize("path", ["/", "/usage"])
def test_figures_fit_into_one_line_on_a_phone(busy: Console, browser: Browser, path: str):
    with busy.visitor(browser, Look(size=PHONE, is_touch=True)) as page:
        busy.go(page, path)
        page.add_style_tag(content="body { font-family: Verdana, 'DejaVu Sans', sans-serif !important; }")
        figures = page.locator(".figure-value").all()
        assert len(figures) >= 5
        assert [] == [text for figure in figures for text in FIGURES if figure.evaluate(_LINES, text) != 1]


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


def opens_a_batch(page: Page) -> None:
    page.get_by_test_id("new-batch").click()
    table = b"question,language\nWhat is the capital of France?,English\n"
    page.locator("[data-testid=batch-file] input[type=file]").set_input_files({"name": "a.csv", "mimeType": "text/csv", "buffer": table})
    expect(page.get_by_test_id("batch-send")).to_be_enabled()
    page.locator("[role=dialog] .more .q-item").click()
    expect(page.get_by_test_id("batch-template")).to_be_visible()


def opens_a_batch_that_cannot_be_sent(page: Page) -> None:
    page.get_by_test_id("new-batch").click()
    broken = b"{\n" * 9
    page.locator("[data-testid=batch-file] input[type=file]").set_input_files(
        {"name": "a.jsonl", "mimeType": "text/plain", "buffer": broken}
    )
    expect(page.get_by_test_id("batch-fault").first).to_be_visible()


def opens_results(page: Page) -> None:
    page.get_by_test_id("batch").filter(has_text="questions of this week").get_by_test_id("batch-results").click()
    expect(page.get_by_test_id("result").first).to_be_visible()


def opens_downloads(page: Page) -> None:
    page.get_by_test_id("batch").filter(has_text="questions of this week").get_by_test_id("batch-download").click()
    expect(page.get_by_test_id("download-answers.csv")).to_be_visible()


def is_asked_before_a_batch_stops(page: Page) -> None:
    page.get_by_test_id("batch").filter(has_text="nightly evaluation").get_by_test_id("batch-cancel").click()
    expect(page.get_by_test_id("confirm")).to_be_visible()


def opens_a_call(page: Page) -> None:
    page.get_by_test_id("live").click()
    page.get_by_test_id("calls").get_by_role("button").first.click()
    expect(page.get_by_test_id("receipt-lines")).to_be_visible()


def opens_an_account(page: Page) -> None:
    page.get_by_test_id("tab-accounts").click()
    page.get_by_test_id("accounts").locator("tbody button").first.click()
    expect(page.get_by_test_id("account-submit")).to_be_visible()


def opens_a_top_up(page: Page) -> None:
    page.get_by_test_id("tab-accounts").click()
    page.get_by_test_id("accounts").locator("tbody tr").first.locator("button").nth(1).click()
    expect(page.get_by_test_id("top-up-submit")).to_be_visible()


def opens_a_password(page: Page) -> None:
    page.get_by_test_id("tab-accounts").click()
    page.get_by_test_id("accounts").locator("tbody tr").filter(has_text="keeper").locator("button").nth(2).click()
    expect(page.get_by_test_id("account-password-set")).to_be_visible()


def opens_a_key(page: Page) -> None:
    page.get_by_test_id("keys").locator("tbody button").first.click()
    expect(page.get_by_test_id("key-submit")).to_be_visible()


def sees_code(page: Page) -> None:
    page.get_by_test_id("view-code").click()
    expect(page.get_by_test_id("snippet-dashscope")).to_be_visible()


def unfolds_a_model(page: Page) -> None:
    page.locator("[data-testid^=details-]").first.click()
    expect(page.locator("[data-testid=models] table").first).to_be_visible()


def opens_the_drawer(page: Page) -> None:
    button = page.locator(".menu-button")
    if button.is_visible():
        button.click()
    expect(page.locator("nav")).to_be_in_viewport()


def hears_an_answer(page: Page) -> None:
    page.get_by_test_id("model-picker").click()
    page.get_by_role("option", name="qwen-max", exact=True).click()
    page.get_by_test_id("prompt").fill("# A title\n\n- [a link](http://127.0.0.1/)\n\n```python\nprint(1)  # and\n```\n\n" + "so on " * 900)
    page.get_by_test_id("send").click()
    expect(page.get_by_test_id("answer").locator("pre.code")).to_be_visible()
    expect(page.get_by_test_id("stop")).to_be_visible()


OPENED: dict[Callable[[Page], None], str] = {
    opens_a_batch: "/batches",
    opens_a_batch_that_cannot_be_sent: "/batches",
    opens_results: "/batches",
    opens_downloads: "/batches",
    is_asked_before_a_batch_stops: "/batches",
    opens_a_call: "/logs",
    opens_a_key: "/keys",
    opens_an_account: "/keys",
    opens_a_top_up: "/keys",
    opens_a_password: "/keys",
    sees_code: "/playground",
    hears_an_answer: "/playground",
    unfolds_a_model: "/models",
    opens_the_drawer: "/limits",
}


@pytest.mark.parametrize("opens", OPENED, ids=lambda opens: opens.__name__)
def test_what_opens_over_a_page_shuts_nobody_out(busy: Console, browser: Browser, opens: Callable[[Page], None], is_full: bool):
    for look in (Look("zh-CN"), LOOKS["phone-light-zh"], LOOKS["phone-dark-en"]) if is_full else (LOOKS["phone-dark-en"],):
        with busy.visitor(browser, look) as page:
            busy.go(page, OPENED[opens])
            opens(page)
            assert_readable(page)
            page.evaluate("(isDark) => Quasar.Dark.set(!isDark)", look.theme == "dark")
            assert_colours_are_readable(page)
            if opens is hears_an_answer:
                assert page.get_by_test_id("stop").is_visible(), "the answer was over before it was looked at"
