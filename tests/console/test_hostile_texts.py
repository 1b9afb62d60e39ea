"""Texts that would act in a page, wherever users and models put them: shown as they are, and nothing else."""

import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Locator, Page, expect

import boxes
from console.test_pages import PATHS
from support.browsing import PHONE, Look
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


# Of files that a visitor has; what a browser's own dialog would hand over, whoever made the name.
FILE_NAMES = (
    '"><img src=x onerror=window.__pwned=1>',
    "<svg onload=window.__pwned=1>",
    "'); window.__pwned=1; ('",
    "${window.__pwned=1}`{{constructor.constructor('window.__pwned=1')()}}",
    "long " * 50,
    "W" * 240,
    "\u202egnp.exe\u202c",
    "two\nlines\r\nand window.__pwned=1",
    "%3Cscript%3E & \\ %00 \u0007",
)


def picture() -> bytes:
    kept = io.BytesIO()
    Image.new("RGB", (40, 40), "white").save(kept, "png")
    return kept.getvalue()


def given(name: str, content: bytes) -> FilePayload:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


def fits(page: Page) -> bool:
    """Whether nothing is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_picture_of_a_hostile_name_is_only_shown(attacked: Console, browser: Browser):
    with attacked.visitor(browser, Look(size=PHONE)) as page:
        attacked.go(page, "/playground")
        page.get_by_test_id("model-picker").click()
        page.get_by_role("option", name="qwen-vl-plus", exact=True).click()
        expect(page.get_by_test_id("pick-image")).to_be_visible()
        chooser = page.locator("[data-testid=drop-image] input[type=file]")
        for count in range(0, len(FILE_NAMES), 3):
            names = FILE_NAMES[count : count + 3]
            for number, name in enumerate(names, 1):
                chooser.set_input_files({**given(f"{name}.png", picture()), "mimeType": "image/png"})
                expect(page.get_by_test_id("thumb")).to_have_count(number)
            alts = [flat(image.get_attribute("alt") or "") for image in page.get_by_test_id("thumb").locator("img").all()]
            # Quotes and line ends come as a browser writes them into a form, and of a path its last part.
            told = [flat(f"{name}.png".rpartition("\\")[2].replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")) for name in names]
            assert told == alts
            assert [] == acted(page)
            assert fits(page)
            page.get_by_test_id("prompt").fill("What is this?")
            page.get_by_test_id("send").click()
            expect(page.get_by_test_id("usage").last).to_contain_text("¥")
            page.get_by_test_id("view-code").click()
            for name in ("openai", "javascript", "curl", "dashscope"):
                page.get_by_test_id(f"tab-{name}").click()
                expect(page.get_by_test_id(f"snippet-{name}")).to_be_visible()
                assert "__pwned=" not in page.get_by_test_id(f"snippet-{name}").inner_text()
            assert [] == acted(page)
            assert fits(page)
            page.keyboard.press("Escape")
            expect(page.get_by_test_id("tab-curl")).to_have_count(0)
        chooser.set_input_files({**given(f"{FILE_NAMES[0]}.png", b"no picture"), "mimeType": "image/png"})
        expect(page.locator(".q-notification")).to_contain_text("is no picture that models read")
        assert [] == acted(page)


def test_batch_of_a_file_with_a_hostile_name_is_only_shown(attacked: Console, browser: Browser):
    with attacked.visitor(browser, Look(size=PHONE)) as page:
        attacked.go(page, "/batches")
        for number, name in enumerate(FILE_NAMES):
            page.get_by_test_id("new-batch").click()
            page.locator("[data-testid=batch-file] input[type=file]").set_input_files(given(f"{name}.txt", b"Say something.\n"))
            expect(page.get_by_test_id("batch-send")).to_be_enabled()
            assert [] == acted(page)
            assert fits(page)
            if not name.isprintable():
                # Letters that nobody sees are none of a batch's name.
                page.get_by_test_id("batch-name").fill(f"renamed {number}")
            page.get_by_test_id("batch-send").click()
            expect(page.get_by_test_id("batch-send")).to_have_count(0)
        cards = page.get_by_test_id("batch")
        for number, name in enumerate(FILE_NAMES[::-1]):
            told = flat(f"{name}.txt".replace('"', "%22"))[:50] if name.isprintable() else "renamed"
            expect(cards.nth(number).get_by_role("heading")).to_contain_text(told)
        expect(cards.first.get_by_test_id("batch-state")).to_have_text("Done")
        assert [] == acted(page)
        assert fits(page)
        for number in (0, 3, 4, 8):
            expect(cards.nth(number).get_by_test_id("batch-state")).to_have_text("Done")
            looks_at_results(page, cards.nth(number))


def looks_at_results(page: Page, card: Locator) -> None:
    card.get_by_test_id("batch-results").click()
    expect(page.get_by_test_id("result")).to_have_count(1)
    assert [] == acted(page)
    assert fits(page)
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("result")).to_have_count(0)
    card.get_by_test_id("batch-download").click()
    with page.expect_download() as download:
        page.get_by_test_id("download-answers.csv").click()
    assert not set(download.value.suggested_filename) & set("\n\r/\\<>")
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("download-answers.csv")).to_have_count(0)
