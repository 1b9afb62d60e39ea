"""The pytest example of docs/practices/testing.md, run as its reader would run it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import boxes
from support.ports import free_port

pytestmark = pytest.mark.e2e

PAGE = Path(__file__).parents[2] / "docs" / "practices" / "testing.md"


def test_example_of_the_page_runs(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(code) == 1
    (tmp_path / "test_example.py").write_text(code[0].replace("8765", str(free_port())), "utf-8")
    environment = boxes.clean_environment()
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"

    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout
