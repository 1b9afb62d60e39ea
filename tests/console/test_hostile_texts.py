"""Texts that would act in a page, wherever users and models put them: shown as they are, and nothing else."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from playwright.sync_api import Browser, Page, expect

import boxes
from console.test_pages import PATHS
from support.browsing import Look
from support.consoles import Console, opened
from support.lively import Caller, admin, new_key
from support.payloads import HOSTILE_MARKDOWN, HOSTILE_NAMES, acted


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Console]:
    """A console over an echo box whose keys, accounts, files, models and prompts all carry such texts."""
    with boxes.serve(tmp_path_factory.mktemp("attacked") / "home", toml="[recording]\nenabled = true\n") as box:
        for text in HOSTILE_NAMES:
            admin(box).told("POST", "/admin/v1/accounts", {"name": text})
        with ThreadPoolExecutor(4) as pool:
            keys = list(pool.map(lambda text: new_key(box, text, text), HOSTILE_NAMES))
            list(pool.map(lambda text: new_key(box, "default", "limited", models=[text]), HOSTILE_NAMES))
            called = pool.map(lambda pair: Caller(box, pair[0]).chat(pair[1], pair[1]), zip(keys, HOSTILE_NAMES, strict=True))
            assert {200} == {*called}
            list(pool.map(lambda pair: Caller(box, pair[0]).batch(f"{pair[1]}.jsonl", 1), zip(keys[::4], HOSTILE_NAMES[::4], strict=True)))
        with opened(box, browser) as running:
            yield running


def text_of(page: Page) -> str:
    return flat(page.locator("body").inner_text())


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("path", PATHS)
def test_page_only_shows_hostile_texts(attacked: Console, browser: Browser, path: str):
    with attacked.visitor(browser, Look()) as page:
        attacked.go(page, path)
        page.wait_for_timeout(500)
        assert [] == acted(page)
        # Tooltips and the like come to life when somebody points at them.
        for button in page.locator("main button, .page button").all()[:6]:
            if button.is_visible() and button.is_enabled():
                button.hover()
        assert [] == acted(page)


def test_key_names_are_shown_letter_by_letter(attacked: Console, browser: Browser):
    with attacked.visitor(browser, Look()) as page:
        attacked.go(page, "/keys")
        shown = text_of(page.locator("[data-testid=keys]").page)
        assert [] == [text for text in HOSTILE_NAMES if flat(text) not in shown]
        names = {button.get_attribute("aria-label") for button in page.locator("[data-testid=keys] button").all()}
        assert {f"Revoke {text}" for text in HOSTILE_NAMES} <= names
        page.get_by_role("button", name=f"Revoke {HOSTILE_NAMES[-10]}", exact=True).click()
        page.get_by_test_id("confirm").wait_for()
        assert HOSTILE_NAMES[-10] in page.locator("[role=dialog]").inner_text()
        assert [] == acted(page)


def test_model_that_writes_them_is_only_shown(attacked: Console, browser: Browser):
    with attacked.visitor(browser, Look()) as page:
        attacked.go(page, "/playground")
        for start in range(0, len(HOSTILE_MARKDOWN), 6):
            said = HOSTILE_MARKDOWN[start : start + 6]
            page.get_by_test_id("prompt").fill("\n\n".join(said))
            page.get_by_test_id("send").click()
            expect(page.get_by_test_id("usage").last).to_contain_text("¥")
            assert [] == acted(page)
        answers = flat(" ".join(page.get_by_test_id("answer").all_inner_texts()))
        # Others have letters that Markdown reads as its own.
        assert sum(flat(text) in answers for text in HOSTILE_NAMES) > 20
        page.get_by_test_id("view-code").click()
        for name in ("openai", "javascript", "curl", "dashscope"):
            page.get_by_test_id(f"tab-{name}").click()
            expect(page.get_by_test_id(f"snippet-{name}")).to_be_visible()
            assert [] == acted(page)


def test_call_of_a_hostile_model_is_only_shown(attacked: Console, browser: Browser):
    with attacked.visitor(browser, Look()) as page:
        attacked.go(page, "/logs")
        shown = text_of(page)
        expect(page.get_by_test_id("older")).to_be_enabled()
        while page.get_by_test_id("older").is_enabled():
            before = page.get_by_test_id("calls").inner_text()
            page.get_by_test_id("older").click()
            expect(page.get_by_test_id("calls")).not_to_have_text(before)
            page.wait_for_timeout(300)
            shown += text_of(page)
        assert [] == [text for text in HOSTILE_NAMES if flat(text) not in shown]
        page.get_by_test_id("live").click()
        page.get_by_test_id("newest").click()
        expect(page.get_by_test_id("newest")).to_be_disabled()
        for row in page.get_by_test_id("calls").locator("tbody tr").all()[:5]:
            row.get_by_role("button").click()
            expect(page.get_by_test_id("recording")).to_be_visible()
            assert [] == acted(page)
            page.get_by_test_id("close-call").click()
            expect(page.get_by_test_id("receipt")).to_have_count(0)
