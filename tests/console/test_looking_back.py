"""What was called, seen in the browser: live in Logs, found by filters, whole with its timeline, on its receipt, in the figures."""

import csv
import json
import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from playwright.sync_api import Locator, Page, expect

from console.conftest import Visit
from support.consoles import Console
from support.lively import Caller, admin

# A busy machine is no failure.
_LONG_MS = 60_000
# Calls of one look at Logs.
_PAGE = 50


def chat(console: Console, text: str, model: str = "qwen-turbo") -> str:
    """A call's request id."""
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    asked = urllib.request.Request(
        f"{console.box.compatible}/chat/completions",
        data=json.dumps(body).encode(),
        headers={"authorization": f"Bearer {console.box.key}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(asked) as answer:
        answer.read()
        return str(answer.headers["x-request-id"])


def ids(console: Console) -> list[str]:
    """Of the newest calls."""
    return [call["id"] for call in admin(console.box).told("GET", f"/admin/v1/usage/calls?limit={_PAGE}")["items"]]


def found(page: Page, request_id: str) -> None:
    """Have only this call in the list."""
    page.locator("[data-testid=filter-id]").fill(request_id)
    expect(page.locator("[data-testid=calls] tbody tr")).to_have_count(1, timeout=_LONG_MS)


def test_call_comes_into_the_list_while_somebody_looks(visit: Visit, console: Console):
    page = visit("/logs")
    request_id = chat(console, "while somebody looks")
    expect(page.get_by_role("button", name=f"Look at call {request_id[:13]}")).to_be_visible(timeout=_LONG_MS)
    page.get_by_test_id("live").click()
    later = chat(console, "while nobody wants to hear of it")
    found(page, later)


def test_focus_stays_on_a_call_however_many_come_after_it(visit: Visit, console: Console):
    request_id = chat(console, "somebody is about to look at this one")
    page = visit("/logs")
    rows = page.get_by_test_id("calls").locator("tbody tr")

    def row(call: str) -> Locator:
        return page.locator(f"tr[data-key='{call}']")

    mine = row(request_id).locator("button")
    expect(mine).to_be_visible(timeout=_LONG_MS)
    mine.focus()
    with ThreadPoolExecutor(8) as pool:
        later = list(pool.map(lambda number: chat(console, f"and another one: {number}"), range(_PAGE + 5)))
    expect(row(max(later))).to_be_visible(timeout=_LONG_MS)
    expect(rows).to_have_count(_PAGE + 1)
    expect(mine).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("receipt")).to_contain_text(request_id)
    expect(row(chat(console, "while the call is looked at"))).to_be_attached(timeout=_LONG_MS)
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("receipt")).to_have_count(0)
    expect(mine).to_be_focused()
    page.get_by_test_id("live").focus()
    last = chat(console, "nobody is there any more")
    expect(row(last)).to_be_attached(timeout=_LONG_MS)
    expect(mine).to_have_count(0, timeout=_LONG_MS)
    expect(rows).to_have_count(_PAGE)
    assert rows.evaluate_all("(rows) => rows.map((row) => row.dataset.key)") == ids(console)


def test_focus_stays_on_a_batch_when_another_one_comes(visit: Visit, console: Console):
    caller = Caller(console.box, console.box.key)
    first = caller.batch("the first.jsonl", 1)
    page = visit("/batches")
    mine = page.locator(f"[data-batch='{first}']").get_by_test_id("batch-results")
    expect(mine).to_be_visible()
    mine.focus()
    second = caller.batch("the second.jsonl", 1)
    expect(page.get_by_test_id("batch").first).to_have_attribute("data-batch", second)
    expect(page.get_by_test_id("batch").nth(1)).to_have_attribute("data-batch", first)
    expect(mine).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("result")).to_have_count(1)


def test_call_is_shown_whole_with_its_timeline_and_says_that_nothing_was_recorded(visit: Visit, console: Console):
    request_id = chat(console, "a secret that is not kept")
    page = visit("/logs")
    found(page, request_id)
    page.get_by_role("button", name=f"Look at call {request_id[:13]}").click()
    receipt = page.get_by_test_id("receipt")
    expect(receipt).to_contain_text(request_id)
    expect(receipt.get_by_test_id("timeline")).to_have_attribute(
        "aria-label", re.compile("waiting for its turn: .* until the last token: ")
    )
    expect(receipt.get_by_test_id("receipt-lines")).to_contain_text("¥")
    expect(receipt.get_by_test_id("not-recorded")).to_be_visible()
    assert "a secret that is not kept" not in page.content()
    page.get_by_test_id("close-call").click()
    expect(receipt).to_have_count(0)


def test_filters_that_no_call_passes_leave_none(visit: Visit, console: Console):
    request_id = chat(console, "an ordinary call")
    page = visit("/logs")
    found(page, request_id)
    page.locator("[data-testid=filter-least]").fill("86400")
    expect(page.get_by_text("No such calls.")).to_be_visible(timeout=_LONG_MS)
    page.locator("[data-testid=filter-least]").fill("0")
    expect(page.locator("[data-testid=calls] tbody tr")).to_have_count(1, timeout=_LONG_MS)
    page.locator("[data-testid=filter-until]").fill("2020-01-01T00:00:00")
    expect(page.get_by_text("No such calls.")).to_be_visible(timeout=_LONG_MS)


def test_calls_are_downloaded_as_filtered(visit: Visit, console: Console):
    request_id = chat(console, "to be downloaded")
    page = visit("/logs")
    found(page, request_id)
    with page.expect_download() as download:
        page.get_by_test_id("calls-csv").click()
    with open(download.value.path(), encoding="utf-8") as file:
        assert [request_id] == [row["id"] for row in csv.DictReader(file)]


def test_receipt_is_found_by_its_request_id(visit: Visit, console: Console):
    request_id = chat(console, "what did it cost")
    page = visit("/usage")
    page.locator("[data-testid=receipt-field]").fill(f"chatcmpl-{request_id}")
    page.get_by_test_id("receipt-look").click()
    expect(page.get_by_test_id("receipt")).to_contain_text(request_id)
    page.locator("[data-testid=receipt-field]").fill("nothing like an id")
    page.get_by_test_id("receipt-look").click()
    expect(page.locator(".q-notification")).to_contain_text("nothing like an id")


def test_usage_is_added_up_by_what_is_chosen(visit: Visit, console: Console):
    chat(console, "one more")
    page = visit("/usage")
    page.get_by_test_id("usage-by").get_by_text("Model", exact=True).click()
    expect(page.locator("[data-testid=usage] tbody tr").filter(has_text="qwen-turbo")).to_be_visible(timeout=_LONG_MS)
    page.get_by_test_id("usage-measure").get_by_text("Tokens", exact=True).click()
    expect(page.get_by_test_id("plot-usage").locator("svg path").first).to_be_attached(timeout=_LONG_MS)
    with page.expect_download() as download:
        page.get_by_test_id("usage-csv").click()
    with open(download.value.path(), encoding="utf-8") as file:
        assert "qwen-turbo" in {row["model"] for row in csv.DictReader(file)}


def test_overview_tells_the_calls_of_the_span_that_is_chosen(visit: Visit, console: Console):
    chat(console, "seen from above")
    page = visit("/")
    expect(page.get_by_test_id("figure-calls")).to_contain_text(re.compile("[1-9]"), timeout=_LONG_MS)
    page.get_by_test_id("span").get_by_text("30 days", exact=True).click()
    expect(page.get_by_test_id("plot-calls").locator("svg path").first).to_be_attached(timeout=_LONG_MS)
    expect(page.get_by_test_id("plot-ttft")).to_contain_text("p95")
