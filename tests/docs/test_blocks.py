"""Every Python block of README and docs, run against a box: a page's blocks one after the other, in a process of their own."""

import base64
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import boxes
from boxes import Box
from support.markdown import CHINESE, ROOT, Page, is_chinese, pages, read, twin

ADMIN_KEY = "ak-of-the-documentation"
# The laptop's names answered by echo; what a page shows must not depend on weights.
SETTINGS = boxes.CATALOG_ON_ECHO


def python_of(page: Page) -> list[dict[str, str | int]]:
    return [{"text": block.text, "line": block.line} for block in page.blocks if block.language == "python" and not block.reason]


def own_python(page: Page) -> bool:
    """A Chinese page is run only where it shows other code than its English twin."""
    if is_chinese(page):
        english = page.path.with_name(page.path.name.replace(CHINESE, ""))
        if english.is_file() and [block["text"] for block in python_of(read(english))] == [block["text"] for block in python_of(page)]:
            return False
    return bool(python_of(page))


PAGES = {page.name: page for page in pages() if own_python(page)}


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with boxes.serve(tmp_path_factory.mktemp("documented"), environment={"QWENBOX_ADMIN_KEY": ADMIN_KEY}) as running:
        yield running


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """What a reader has at hand: a photo, and questions for a batch."""
    Image.new("RGB", (64, 48), "navy").save(tmp_path / "receipt.jpg")
    body = {"model": "qwen-turbo", "messages": [{"role": "user", "content": "你好"}]}
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    (tmp_path / "in.jsonl").write_text(json.dumps(line) + "\n")
    return tmp_path


def filled_in(text: str, box: Box, desk: Path) -> str:
    """What a reader puts in place of the page's own words."""
    photo = io.BytesIO()
    Image.new("RGB", (64, 48), "navy").save(photo, "jpeg")
    for shown, real in {
        "http://127.0.0.1:8000": box.base_url,
        "sk-…": box.key,
        "file:///home/me": desk.as_uri(),
        "base64,…": f"base64,{base64.b64encode(photo.getvalue()).decode()}",
    }.items():
        text = text.replace(shown, real)
    return text


@pytest.mark.parametrize("name", PAGES)
def test_python_of_a_page_runs(name: str, documented: Box, desk: Path) -> None:
    blocks = [{**block, "text": filled_in(str(block["text"]), documented, desk)} for block in python_of(PAGES[name])]
    (desk / "blocks.json").write_text(json.dumps(blocks), "utf-8")
    environment = {
        **boxes.clean_environment(),
        "DASHSCOPE_HTTP_BASE_URL": documented.native,
        "DASHSCOPE_API_KEY": documented.key,
        "OPENAI_BASE_URL": documented.compatible,
        "OPENAI_API_KEY": documented.key,
        "ANTHROPIC_BASE_URL": f"{documented.base_url}/apps/anthropic",
        "ANTHROPIC_API_KEY": documented.key,
        "QWENBOX_ADMIN_KEY": ADMIN_KEY,
        "HOME": str(desk),
        # A page is read on a machine without warnings as errors.
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, str(ROOT / "tests" / "support" / "run_blocks.py"), name, "blocks.json"]
    ran = subprocess.run(command, cwd=desk, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, f"{ran.stdout[-2000:]}\n{ran.stderr[-4000:]}"


def test_blocks_are_left_out_only_with_a_reason() -> None:
    reasons = {f"{page.name}:{block.line}": block.reason for page in pages() for block in page.blocks if block.reason}
    assert {} == {where: reason for where, reason in reasons.items() if len(reason) < 15}
    python = [block for page in pages() for block in page.blocks if block.language == "python"]
    # Most of what is shown is run.
    assert len([block for block in python if block.reason]) * 4 <= len(python)


def test_a_page_runs_in_both_languages_or_shows_the_same() -> None:
    assert f"README{CHINESE}.md" not in PAGES
    assert twin(read(ROOT / "README.md")) is not None
