"""Passwords in the browser."""

import httpx
from playwright.sync_api import Browser, Page, expect

from support.browsing import Look, visitor
from support.console_http import Person
from support.consoles import Console, admin_key, settled

OLD = "correct horse battery"


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
