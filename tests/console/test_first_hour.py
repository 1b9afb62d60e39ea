"""A newcomer's way through the whole console on real weights, with a mouse, and once more with nothing but a keyboard."""

import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Locator, Page, expect

import boxes
from console.test_keys import expect_refused, status_of
from mirrors import REPOSITORY, blob, hub, sha256
from support.browsing import Look
from support.consoles import Console, opened, settled
from support.hands import Hands, Keyboard, Mouse
from support.lively import admin

pytestmark = pytest.mark.e2e

_WEIGHTS = blob(4_000_000)
# A model whose weights are nowhere but at a hub of the test's own, which takes some seconds for them.
_TOML = """
[weights.tiny]
title = "Tiny Q4"
repository = "{repository}"
file = "tiny.gguf"
bytes = {size}
sha256 = "{sum}"
[engine.tiny]
kind = "llamacpp"
weights = "tiny"
[[model]]
name = "tiny-model"
deployments = ["tiny"]
[model.card]
context_tokens = 4096
max_output_tokens = 512
[store]
hub_endpoint = "{hub}"
sources = ["hub"]
folders = ["{folder}"]
free_space_margin_bytes = 0
[console]
port = 0
"""
_LONG_S = 240_000


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory, weights_folder: Path, users_weights: Path, browser: Browser) -> Iterator[Console]:
    """The laptop's box on real weights, with a model that can be fetched."""
    home = tmp_path_factory.mktemp("first-hour") / "home"
    (home / "weights").mkdir(parents=True)
    for folder in users_weights.iterdir():
        if folder.is_dir():
            (home / "weights" / folder.name).symlink_to(folder)
    with hub(_WEIGHTS) as it:
        it.pause_s = 0.05
        toml = _TOML.format(repository=REPOSITORY, size=len(_WEIGHTS), sum=sha256(_WEIGHTS), hub=it.url, folder=weights_folder)
        toml += boxes.NO_CACHE
        with boxes.serve(home, profile="laptop", toml=toml, start_s=600) as box, opened(box, browser) as running:
            yield running


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("kind", [Mouse, Keyboard])
def test_newcomer_finds_the_way_through_all_of_it(
    console: Console, browser: Browser, tmp_path: Path, kind: Callable[[Page], Hands], capfd: pytest.CaptureFixture[str]
):
    with console.visitor(browser, Look()) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=console.address)
        console.go(page, "/")
        newcomer = Newcomer(console, kind(page), tmp_path, f"made by {kind.__name__.lower()}")
        newcomer.makes_a_key()
        newcomer.calls()
        newcomer.sees_the_call()
        newcomer.sees_the_cost()
        newcomer.chats()
        newcomer.stops_an_answer()
        with capfd.disabled():
            newcomer.copies_programs()
        newcomer.compares()
        newcomer.shows_a_picture()
        newcomer.fetches_a_model()
        newcomer.runs_a_batch()
        newcomer.revokes_the_key()


class Newcomer:
    """name: of the key. Each method is one thing that a person does, from the page where the one before has ended."""

    def __init__(self, console: Console, hands: Hands, folder: Path, name: str) -> None:
        self.console, self.hands, self.folder, self.name = console, hands, folder, name
        self.page = hands.page
        self.key = ""

    def mark(self, name: str) -> Locator:
        return self.page.get_by_test_id(name)

    def goes_to(self, name: str) -> None:
        # A dialog that is going away still holds the page.
        expect(self.page.locator("[role=dialog], body.q-body--prevent-scroll")).to_have_count(0)
        self.hands.press(self.page.locator("nav").get_by_role("link", name=name, exact=True))
        expect(self.page.locator("h1")).to_have_text(name)
        settled(self.page)

    def copied(self, button: Locator) -> str:
        self.page.evaluate("navigator.clipboard.writeText('')")
        self.hands.press(button)
        deadline = time.monotonic() + 60
        while not (text := self.page.evaluate("navigator.clipboard.readText()")):
            self.page.wait_for_timeout(50)
            assert time.monotonic() < deadline
        return text

    def makes_a_key(self) -> None:
        self.goes_to("Keys")
        self.hands.press(self.mark("create-key"))
        self.hands.write(self.mark("key-name"), self.name)
        self.hands.press(self.mark("key-submit"))
        shown = self.mark("new-key")
        self.key = self.copied(shown.locator("..").get_by_role("button", name="Copy"))
        assert shown.inner_text() == self.key
        self.hands.press(self.mark("key-copied"))
        expect(shown).to_have_count(0)

    def calls(self) -> None:
        with openai.OpenAI(base_url=self.console.box.compatible, api_key=self.key) as client:
            answer = client.chat.completions.create(
                model="qwen-turbo", messages=[{"role": "user", "content": f"{self.name}: say yes."}], max_tokens=8, temperature=0
            )
            assert answer.choices[0].message.content

    def sees_the_call(self) -> None:
        self.goes_to("Logs")
        row = self.mark("calls").locator("tr").filter(has_text=self.name).first
        expect(row).to_contain_text("qwen-turbo")
        expect(row).to_contain_text("completed")
        self.hands.press(row.get_by_role("button", name="Look at call"))
        expect(self.mark("timeline")).to_be_visible()
        expect(self.mark("receipt")).to_contain_text("qwen-turbo")
        self.hands.press(self.mark("close-call"))
        expect(self.mark("timeline")).to_have_count(0)

    def sees_the_cost(self) -> None:
        self.goes_to("Usage & billing")
        rows = admin(self.console.box).told("GET", "/admin/v1/usage?by=day")["rows"]
        cost = sum(row["cost_micros"] for row in rows)
        expect(self.mark("total-cost")).to_contain_text("¥")
        shown = self.mark("total-cost").inner_text()
        assert cost > 0
        assert round(cost / 1e6, 4) == pytest.approx(float(re.sub(r"[^\d.]", "", shown.split("¥")[1])), abs=1e-4)

    def asks(self, text: str) -> None:
        self.hands.write(self.mark("prompt"), text)
        expect(self.mark("prompt-tokens")).to_contain_text("tokens")
        self.hands.press(self.mark("send"))

    def limits_answers(self, tokens: int) -> None:
        self.hands.write(self.mark("param-max_tokens"), str(tokens))
        expect(self.mark("param-max_tokens")).to_have_value(str(tokens))

    def last(self, mark: str, column: int = 1) -> Locator:
        return self.mark("exchange").last.get_by_test_id(f"column-{column}").get_by_test_id(mark).last

    def watches_it_grow(self) -> None:
        """Note each length of the last answer that the page ever shows."""
        self.page.evaluate(
            """() => {
              window.seenLengths = [];
              new MutationObserver(() => {
                const answers = document.querySelectorAll("[data-testid=answer]");
                const length = answers.length ? answers[answers.length - 1].textContent.length : 0;
                if (length && length !== window.seenLengths.at(-1)) window.seenLengths.push(length);
              }).observe(document.body, { subtree: true, childList: true, characterData: true });
            }"""
        )

    def takes_the_likeliest(self) -> None:
        """Of one hundred answers drawn at random, some are a word or an apology where a long one is asked for."""
        self.hands.write(self.mark("param-temperature"), "0")
        expect(self.mark("param-temperature")).to_have_value("0")

    def chats(self) -> None:
        self.goes_to("Playground")
        self.takes_the_likeliest()
        self.limits_answers(120)
        self.watches_it_grow()
        self.asks("Count from one to forty in words.")
        expect(self.mark("stop")).to_be_visible()
        expect(self.mark("send")).to_be_visible(timeout=_LONG_S)
        lengths = self.page.evaluate("window.seenLengths")
        # Markdown may take back the signs of what it has understood.
        assert sum(after > before for before, after in itertools.pairwise(lengths)) >= 2, lengths
        expect(self.last("usage")).to_contain_text("tokens")
        expect(self.last("usage")).to_contain_text("¥")

    def stops_an_answer(self) -> None:
        self.limits_answers(2_000)
        self.asks("Write a very long story about the sea, in many chapters.")
        expect(self.last("answer")).to_contain_text(re.compile(r"\w{3}"), timeout=_LONG_S)
        self.hands.press(self.mark("stop"))
        expect(self.mark("send")).to_be_visible(timeout=_LONG_S)
        said = self.last("answer").inner_text()
        expect(self.last("usage")).to_contain_text(re.compile("stopped", re.IGNORECASE))
        self.page.wait_for_timeout(700)
        assert said == self.last("answer").inner_text()
        calls = admin(self.console.box).told("GET", "/admin/v1/usage/calls?limit=1")["items"]
        assert ("hung_up", True) == (calls[0]["outcome"], calls[0]["output_tokens"] < 2_000)

    def copies_programs(self) -> None:
        """Of the request that was sent last, with a short answer."""
        self.hands.press(self.mark("clear"))
        self.limits_answers(16)
        self.hands.write(self.mark("prompt"), 'Count from 1 to 9: it\'s "easy", in `one` line; 用数字。')
        expect(self.mark("prompt-tokens")).to_contain_text("tokens")
        self.hands.press(self.mark("view-code"))
        for name, run in (("dashscope", _python), ("openai", _python), ("javascript", _node), ("curl", _bash)):
            self.hands.press(self.mark(f"tab-{name}"))
            code = self.copied(self.mark(f"copy-{name}"))
            # Above it stands its language.
            assert re.sub(r"\s", "", self.mark(f"snippet-{name}").inner_text()).endswith(re.sub(r"\s", "", code))
            answer = run(code, self.folder, self.key)
            assert answer is None or answer.strip(), name
        self.page.keyboard.press("Escape")
        expect(self.mark("tab-curl")).to_have_count(0)

    def compares(self) -> None:
        self.hands.press(self.mark("compare"))
        self.hands.choose(self.mark("model-picker-2"), "qwen-plus")
        self.asks("What is the capital of France?")
        for column in (1, 2):
            expect(self.last("usage", column)).to_contain_text("¥", timeout=_LONG_S)
            assert self.last("answer", column).inner_text().strip()
        expect(self.mark("exchange").last).to_contain_text("qwen-turbo")
        expect(self.mark("exchange").last).to_contain_text("qwen-plus")
        self.hands.press(self.mark("compare"))

    def shows_a_picture(self) -> None:
        """Dropped by the mouse, chosen by the keyboard."""
        file = self.folder / "menu.png"
        picture = Image.new("RGB", (320, 120), "white")
        ImageDraw.Draw(picture).text((20, 40), "LENTIL SOUP 7.50", fill="black", font_size=28)
        picture.save(file)
        self.hands.press(self.mark("clear"))
        self.hands.choose(self.mark("model-picker"), "qwen-vl-plus")
        expect(self.mark("pick-image")).to_be_visible()
        if isinstance(self.hands, Mouse):
            self.drops(file)
        else:
            self.hands.give(self.mark("pick-image"), file)
        expect(self.mark("thumb")).to_have_count(1)
        self.asks("What does the soup cost?")
        expect(self.last("usage")).to_contain_text("¥", timeout=_LONG_S)
        expect(self.mark("exchange").last.locator("img")).to_have_count(1)
        assert self.last("answer").inner_text().strip()

    def drops(self, file: Path) -> None:
        data = self.page.evaluate_handle(
            """(bytes) => {
              const data = new DataTransfer();
              data.items.add(new File([new Uint8Array(bytes)], "menu.png", { type: "image/png" }));
              return data;
            }""",
            list(file.read_bytes()),
        )
        self.mark("prompt").dispatch_event("drop", {"dataTransfer": data})

    def fetches_a_model(self) -> None:
        """Whoever comes second takes away what the first has fetched, to see it come again."""
        shutil.rmtree(self.console.box.home / "weights" / "tiny", ignore_errors=True)
        self.goes_to("Models")
        self.hands.press(self.mark("pull-tiny-model"))
        bar = self.mark("progress-tiny-model").get_by_role("progressbar")
        seen: list[float] = []
        done = self.mark("model-tiny-model").get_by_text("Fetch", exact=False)
        deadline = time.monotonic() + 120
        while not (self.console.box.home / "weights" / "tiny" / "tiny.gguf").exists():
            seen.append(float(bar.get_attribute("aria-valuenow") or 0) if bar.is_visible() else 0.0)
            self.page.wait_for_timeout(200)
            assert time.monotonic() < deadline, self.mark("model-tiny-model").inner_text()
        assert seen == sorted(seen)
        assert len({share for share in seen if 0 < share < 100}) >= 2, seen
        expect(done).to_have_count(0)

    def runs_a_batch(self) -> None:
        file = self.folder / f"{self.name}.txt"
        file.write_text("Say one.\nSay two.\nSay three.\n", "utf-8")
        self.goes_to("Batches")
        self.hands.press(self.mark("new-batch"))
        self.hands.give(self.page.get_by_role("button", name="Choose a file"), file)
        self.hands.write(self.mark("batch-max-tokens"), "8")
        self.hands.write(self.mark("batch-name"), self.name)
        expect(self.mark("batch-send")).to_be_enabled()
        self.hands.press(self.mark("batch-send"))
        card = self.mark("batch").filter(has_text=self.name).first
        expect(card.get_by_test_id("batch-state")).to_have_text("Done", timeout=_LONG_S)
        expect(card.get_by_test_id("batch-done")).to_contain_text("3")
        self.hands.press(card.get_by_test_id("batch-results"))
        expect(self.mark("result")).to_have_count(3)
        self.page.keyboard.press("Escape")
        expect(self.mark("result")).to_have_count(0)

    def revokes_the_key(self) -> None:
        self.goes_to("Keys")
        assert 200 == status_of(self.console, self.key)
        self.hands.press(self.page.get_by_role("button", name=f"Revoke {self.name}"))
        self.hands.press(self.mark("confirm"))
        expect(self.page.get_by_role("button", name=f"Revoke {self.name}")).to_have_count(0)
        expect_refused(self.console, self.key)


def _python(code: str, folder: Path, key: str) -> str:
    (folder / "program.py").write_text(code, "utf-8")
    return _ran([sys.executable, "program.py"], folder, key)


def _bash(code: str, folder: Path, key: str) -> str:
    (folder / "program.sh").write_text(code, "utf-8")
    return _ran(["bash", "-e", "program.sh"], folder, key)


def _node(code: str, folder: Path, key: str) -> str | None:
    """Run with npm's openai where that can be had, else only read by node; None where nothing was run."""
    if shutil.which("node") is None:
        print("\n!!! no node here: the JavaScript program was only looked at, not run")
        return None
    program = folder / "program.mjs"
    program.write_text(code, "utf-8")
    if (modules := _npm_openai()) is None:
        subprocess.run(["node", "--check", str(program)], check=True, timeout=60)
        print("\n!!! npm has no openai here: the JavaScript program was checked by node, not run")
        return None
    (folder / "node_modules").symlink_to(modules)
    return _ran(["node", "program.mjs"], folder, key)


def _npm_openai() -> Path | None:
    """The package in a cache folder, fetched once."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "qwenbox-tests" / "node"
    modules = folder / "node_modules"
    if (modules / "openai").is_dir():
        return modules
    if shutil.which("npm") is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), "openai"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=60, check=False, cwd=folder)
    except subprocess.TimeoutExpired:
        return None
    return modules if done.returncode == 0 and (modules / "openai").is_dir() else None


def _ran(command: list[str], folder: Path, key: str) -> str:
    environment = {**boxes.clean_environment(), "DASHSCOPE_API_KEY": key}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout
