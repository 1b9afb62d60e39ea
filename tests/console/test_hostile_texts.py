"""Texts that would act in a page, wherever users and models put them: shown as they are, and nothing else."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from playwright.sync_api import Browser, Page

import boxes
from console.test_pages import PATHS
from support.browsing import Look
from support.consoles import Console, opened
from support.lively import Caller, admin, new_key
from support.payloads import HOSTILE_NAMES, acted


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Console]:
    """A console over an echo box whose keys, accounts, files, models and prompts all carry such texts."""
    with boxes.serve(tmp_path_factory.mktemp("attacked") / "home") as box:
        for text in HOSTILE_NAMES:
            admin(box).told("POST", "/admin/v1/accounts", {"name": text})
        with ThreadPoolExecutor(4) as pool:
            keys = list(pool.map(lambda text: new_key(box, text, text, models=[text, "qwen-turbo"]), HOSTILE_NAMES))
            list(pool.map(lambda pair: Caller(box, pair[0]).chat(pair[1], pair[1]), zip(keys, HOSTILE_NAMES, strict=True)))
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
