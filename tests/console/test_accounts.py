"""Accounts in the browser: their tiers are the box's, their money is that of its price book."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

import boxes
from support.browsing import Look
from support.consoles import Console, opened
from support.lively import admin

_TOML = """
[money]
shipped_prices = false
[[price]]
model = "qwen-turbo"
from = 2026-01-01
currency = "USD"
tiers = [{ input_micros = 50_000, output_micros = 200_000 }]
[limits]
default_tier = "guests"
[tier.guests]
rpm = 60
[tier.staff]
tpm = 2_000_000
concurrency = 8
"""


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Console]:
    with boxes.serve(tmp_path_factory.mktemp("tiers") / "home", toml=_TOML) as box, opened(box, browser) as running:
        yield running


def test_account_gets_one_of_the_boxs_tiers_and_a_budget_in_the_boxs_money(console: Console, browser: Browser):
    with console.visitor(browser, Look()) as page:
        console.go(page, "/keys")
        page.get_by_test_id("tab-accounts").click()
        page.get_by_test_id("create-account").click()
        page.get_by_test_id("account-name").fill("carol")
        page.get_by_label("Budget a month (USD)").fill("12.5")
        expect(page.get_by_label("Tier")).to_have_value("the box's (guests)")
        page.get_by_test_id("account-tier").click()
        page.get_by_role("option", name="staff · 2.00M TPM · 8 at once", exact=True).click()
        page.get_by_test_id("account-submit").click()
        row = page.get_by_test_id("accounts").locator("tbody tr").filter(has_text="carol")
        expect(row).to_contain_text("staff")
        expect(row).to_contain_text("$12.50")
        made = admin(console.box).told("GET", "/admin/v1/accounts/carol")
        assert ("staff", 12_500_000) == (made["tier"], made["budget_micros"])
        page.get_by_role("button", name="Change carol").click()
        page.get_by_test_id("account-tier").click()
        page.get_by_role("option", name="the box's (guests)", exact=True).click()
        page.get_by_test_id("account-submit").click()
        expect(row).not_to_contain_text("staff")
        assert "" == admin(console.box).told("GET", "/admin/v1/accounts/carol")["tier"]


def test_budget_of_a_key_is_in_the_boxs_money(console: Console, browser: Browser):
    with console.visitor(browser, Look()) as page:
        console.go(page, "/keys")
        page.get_by_test_id("create-key").click()
        page.get_by_test_id("key-name").fill("limited")
        page.get_by_test_id("key-limits").click()
        page.get_by_label("Budget a month (USD)").fill("3")
        page.get_by_test_id("key-submit").click()
        page.get_by_test_id("key-copied").click()
        expect(page.get_by_test_id("keys").locator("tbody tr").filter(has_text="limited")).to_contain_text("$3.00 a month")
