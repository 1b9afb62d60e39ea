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
from support.markdown import CHINESE, ROOT, Page, is_chinese, pages

ADMIN_KEY = "ak-of-the-documentation"


def python_of(page: Page) -> list[dict[str, str | int]]:
    return [{"text": block.text, "line": block.line} for block in page.blocks if block.language == "python" and not block.reason]


def has_own_code(page: Page) -> bool:
    """A Chinese page shows the code of its English twin (test_languages.py)."""
    has_twin = is_chinese(page) and page.path.with_name(page.path.name.replace(CHINESE, "")).is_file()
    return bool(python_of(page)) and not has_twin


PAGES = {page.name: page for page in pages() if has_own_code(page)}


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with boxes.serve(tmp_path_factory.mktemp("documented"), environment={"QWENBOX_ADMIN_KEY": ADMIN_KEY}) as running:
        yield running


@pytest.fixture(scope="module")
def desks(documented: Box, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each page's folder, with what its run left there."""
    top = tmp_path_factory.mktemp("desks")
    folders = {name: top / str(number) for number, name in enumerate(PAGES)}
    work: list[dict[str, object]] = []
    for name, folder in folders.items():
        lay_out(folder)
        blocks = [{**block, "text": filled_in(str(block["text"]), documented, folder)} for block in python_of(PAGES[name])]
        work.append({"page": name, "blocks": blocks, "folder": str(folder)})
    (top / "pages.json").write_text(json.dumps(work), "utf-8")
    environment = {
        **boxes.clean_environment(),
        "DASHSCOPE_HTTP_BASE_URL": documented.native,
        "DASHSCOPE_API_KEY": documented.key,
        "OPENAI_BASE_URL": documented.compatible,
        "OPENAI_API_KEY": documented.key,
        "ANTHROPIC_BASE_URL": f"{documented.base_url}/apps/anthropic",
        "ANTHROPIC_API_KEY": documented.key,
        "QWENBOX_ADMIN_KEY": ADMIN_KEY,
        "HOME": str(top),
        # A page is read on a machine without warnings as errors.
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, str(ROOT / "tests" / "support" / "run_blocks.py"), str(top / "pages.json")]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    return folders


def lay_out(folder: Path) -> None:
    """What a reader has at hand: a photo, and questions for a batch."""
    folder.mkdir()
    Image.new("RGB", (64, 48), "navy").save(folder / "receipt.jpg")
    body = {"model": "qwen-turbo", "messages": [{"role": "user", "content": "你好"}]}
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    (folder / "in.jsonl").write_text(json.dumps(line) + "\n")


def filled_in(text: str, box: Box, folder: Path) -> str:
    """What a reader puts in place of the page's own words."""
    photo = io.BytesIO()
    Image.new("RGB", (64, 48), "navy").save(photo, "jpeg")
    for shown, real in {
        "http://127.0.0.1:8000": box.base_url,
        "sk-…": box.key,
        "file:///home/me": folder.as_uri(),
        "base64,…": f"base64,{base64.b64encode(photo.getvalue()).decode()}",
    }.items():
        text = text.replace(shown, real)
    return text


@pytest.mark.parametrize("name", PAGES)
def test_python_of_a_page_runs(name: str, desks: dict[str, Path]) -> None:
    assert "0" == (desks[name] / "status").read_text(), (desks[name] / "output").read_text("utf-8", "replace")[-4000:]


def test_a_block_that_fails_is_told_with_its_line(tmp_path: Path) -> None:
    work = [{"page": "page.md", "blocks": [{"line": 7, "text": "one = 1\none / 0\n"}], "folder": str(tmp_path)}]
    (tmp_path / "pages.json").write_text(json.dumps(work))
    command = [sys.executable, str(ROOT / "tests" / "support" / "run_blocks.py"), str(tmp_path / "pages.json")]
    subprocess.run(
        command,
        env={**boxes.clean_environment(), "OPENAI_API_KEY": "", "QWENBOX_ADMIN_KEY": ""},
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert "1" == (tmp_path / "status").read_text()
    assert 'File "page.md", line 8' in (tmp_path / "output").read_text()


def test_blocks_are_left_out_only_with_a_reason() -> None:
    reasons = {f"{page.name}:{block.line}": block.reason for page in pages() for block in page.blocks if block.reason}
    assert {} == {where: reason for where, reason in reasons.items() if len(reason) < 15}
    python = [block for page in pages() for block in page.blocks if block.language == "python"]
    # Most of what is shown is run.
    assert len([block for block in python if block.reason]) * 4 <= len(python)


def test_pages_with_code_are_found() -> None:
    assert {"README.md", "docs/quickstart.md", "docs/stories.md", "docs/admin.md"} <= set(PAGES)
