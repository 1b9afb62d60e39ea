"""Passwords in the browser: logged in with, changed by who stays in while all others with the old one are out, logged out."""

import httpx
from playwright.sync_api import Browser, Page, expect

from support.browsing import Look, visitor
from support.console_http import Person
from support.consoles import Console, admin_key, settled

OLD, NEW = "correct horse battery", "battery staple horse"


def log_in(page: Page, console: Console, name: str) -> None:
    page.goto(f"{console.address}/login")
    page.get_by_label("Account").fill(name)
    page.get_by_label("Password").fill(OLD)
    page.get_by_role("button", name="Log in").click()
    settled(page)


def administrator(console: Console, name: str) -> Person:
    """Somebody of that name, with the password OLD, who is logged in elsewhere."""
    headers = {"authorization": f"Bearer {admin_key(console.box)}"}
    with httpx.Client(base_url=f"{console.box.base_url}/admin/v1", headers=headers, timeout=60) as box:
        assert 201 == box.post("/accounts", json={"name": name, "role": "admin"}).status_code
        assert 204 == box.put(f"/accounts/{name}/password", json={"password": OLD}).status_code
    elsewhere = Person(console.address)
    assert 303 == elsewhere.post("/login", {"account": name, "password": OLD}).status_code
    assert elsewhere.is_in()
    return elsewhere


def test_browser_gets_in_with_a_password_and_out_by_its_button(console: Console, browser: Browser):
    administrator(console, "eve")
    with visitor(browser, Look()) as page:
        log_in(page, console, "eve")
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_label("Password")).to_be_visible()
        page.goto(f"{console.address}/keys")
        expect(page.get_by_label("Password")).to_be_visible()


def test_who_changes_a_password_on_its_page_stays_in_and_others_are_out(console: Console, browser: Browser):
    elsewhere = administrator(console, "ann")
    with visitor(browser, Look()) as page:
        log_in(page, console, "ann")
        console.go(page, "/password")
        expect(page.get_by_test_id("password-account")).to_have_value("ann")
        page.get_by_test_id("password-new").fill(NEW)
        page.get_by_test_id("password-again").fill(NEW)
        page.get_by_test_id("password-set").click()
        expect(page.get_by_text("The password is set.")).to_be_visible()
        expect(page.get_by_test_id("password-new")).to_have_value("")
        console.go(page, "/keys")
        expect(page.get_by_test_id("create-key")).to_be_visible()
    assert "/login" == elsewhere.get("/keys").headers["location"]


def test_who_changes_the_own_password_in_the_table_of_accounts_stays_in(console: Console, browser: Browser):
    elsewhere = administrator(console, "bea")
    with visitor(browser, Look()) as page:
        log_in(page, console, "bea")
        console.go(page, "/keys")
        page.get_by_test_id("tab-accounts").click()
        page.get_by_role("button", name="Password of bea").click()
        page.get_by_test_id("account-password").fill(NEW)
        page.get_by_test_id("account-password-set").click()
        expect(page.get_by_text("The password is set.")).to_be_visible()
        console.go(page, "/keys")
        expect(page.get_by_test_id("create-key")).to_be_visible()
    assert "/login" == elsewhere.get("/keys").headers["location"]
