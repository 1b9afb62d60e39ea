"""The way into the console from a terminal: the banner's link and `qwenbox console`, on a real box with its real console."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from boxes import Box, clean_environment, serve

ANY_PORT = {"QWENBOX_CONSOLE_PORT": "0"}


def command(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {"QWENBOX_HOME": str(home), **environment}
    line = [sys.executable, "-m", "qwenbox", *arguments]
    return subprocess.run(line, env={**clean_environment(), **own}, capture_output=True, text=True, timeout=120, check=False)


def shown(text: str) -> str:
    """The link in what was printed."""
    found = re.search(r"^http\S+/console\?token=[A-Za-z0-9_-]+$", text, re.MULTILINE)
    assert found, text
    return found[0]


def is_let_in(link: str) -> bool:
    """Whether a browser that follows the link is signed in then."""
    with httpx.Client(follow_redirects=True, timeout=90) as browser:
        at_link = browser.get(link)
        if not browser.cookies:
            assert 401 == at_link.status_code
            return False
        return browser.get(at_link.url.join("/keys")).url.path == "/keys"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def open_box(home: Path) -> Iterator[Box]:
    with serve(home, environment=ANY_PORT) as box:
        yield box


def test_the_banners_link_lets_one_browser_in(open_box: Box) -> None:
    link = shown(open_box.log)
    assert link.startswith(open_box.base_url)
    assert (True, False) == (is_let_in(link), is_let_in(link))


def test_console_command_prints_a_link_that_lets_in_and_opens_it(open_box: Box, home: Path, tmp_path: Path) -> None:
    opened, browser = tmp_path / "opened", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {opened}.part && mv {opened}.part {opened}\n')
    browser.chmod(0o700)
    port = str(open_box.port)
    told = command(home, "console", QWENBOX_PORT=port, BROWSER=f"{browser} %s")
    assert 0 == told.returncode, told.stderr
    link = shown(told.stdout)
    assert link == opened.read_text()
    assert is_let_in(link)
    opened.unlink()
    told = command(home, "console", "--no-open", "--url", open_box.base_url, BROWSER=f"{browser} %s")
    assert is_let_in(shown(told.stdout))
    assert not opened.exists()


def test_console_command_says_what_to_do_when_no_box_runs_or_the_key_is_not_its_own(open_box: Box, home: Path, tmp_path: Path) -> None:
    told = command(home, "console", "--no-open", "--url", "http://127.0.0.1:9")
    assert (1, "No box answers at http://127.0.0.1:9. Start one: qwenbox serve") == (told.returncode, told.stderr.strip())
    told = command(tmp_path, "console", "--no-open", "--url", open_box.base_url, QWENBOX_ADMIN_KEY="ak-wrong")
    assert (1, "") == (told.returncode, told.stdout)
    assert "admin key" in told.stderr


def test_a_box_that_others_can_reach_is_closed_until_an_administrator_has_a_password(tmp_path: Path) -> None:
    environment = {**ANY_PORT, "QWENBOX_HOST": "0.0.0.0", "QWENBOX_ADMIN_KEY": "ak-chosen"}
    with serve(tmp_path, environment=environment) as box:
        assert "token=" not in box.log
        assert "closed on 0.0.0.0 until an administrator has a password" in box.log
        closed = httpx.get(f"{box.base_url}/console", headers={"accept": "text/html"})
        assert (403, True) == (closed.status_code, "qwenbox accounts password NAME" in closed.text)
        made = httpx.post(
            f"{box.base_url}/admin/v1/accounts", json={"name": "ann", "role": "admin"}, headers={"authorization": "Bearer ak-chosen"}
        )
        assert 201 == made.status_code
        own = [sys.executable, "-m", "qwenbox", "accounts", "password", "ann"]
        variables = {**clean_environment(), "QWENBOX_HOME": str(tmp_path)}
        typed = "correct horse\ncorrect horse\n"
        told = subprocess.run(own, env=variables, input=typed, capture_output=True, text=True, timeout=120, check=False)
        assert 0 == told.returncode, told.stderr
        led = httpx.get(f"{box.base_url}/console", timeout=90)
        assert 307 == led.status_code
        there = urlsplit(led.headers["location"])
        assert ("127.0.0.1", "/") == (there.hostname, there.path)
        assert httpx.get(led.headers["location"], follow_redirects=True).url.path == "/login"


def test_a_console_that_is_switched_off_is_not_there(tmp_path: Path) -> None:
    with serve(tmp_path, toml="[console]\nenabled = false\n") as box:
        assert "console" not in box.log
        reply = httpx.get(f"{box.base_url}/console")
        assert (404, True) == (reply.status_code, "enabled is false" in reply.json()["error"]["message"])


def test_a_box_does_not_load_what_the_console_needs() -> None:
    """In the box's own process nothing of the console is imported but its settings."""
    listed = "n for n in sys.modules if n.startswith(('nicegui', 'qwenbox.console'))"
    code = f"import qwenbox.cli.serve, sys; print(*sorted({listed}))"
    told = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True, timeout=60, check=True)
    assert "qwenbox.console qwenbox.console.settings" == told.stdout.strip()
