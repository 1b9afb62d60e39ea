"""Build the documentation's site: `python tools/docs.py [FOLDER]`, site/ by default. Fails where a link leads nowhere; needs no network."""

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parent.parent
# The Chinese tree's pages are named NAME.zh-CN.html; its folder is opened without a name.
_FIRST_CHINESE_PAGE = """<!doctype html><html lang="zh-CN"><meta charset="utf-8"><title>qwenbox</title>
<meta http-equiv="refresh" content="0; url=index.zh-CN.html"><a href="index.zh-CN.html">qwenbox</a></html>
"""


def build(folder: Path) -> int:
    """The exit status: 0 when both trees were built without a warning."""
    sphinx = [sys.executable, "-m", "sphinx", "--builder", "html", "--fail-on-warning", "--quiet"]
    marks = folder / ".built"
    english = subprocess.Popen([*sphinx, "-d", str(marks / "en"), str(_ROOT / "docs"), str(folder)])
    chinese = subprocess.Popen([*sphinx, "-t", "zh", "-d", str(marks / "zh"), str(_ROOT / "docs"), str(folder / "zh-CN")])
    status = english.wait() or chinese.wait()
    if status == 0:
        (folder / "zh-CN" / "index.html").write_text(_FIRST_CHINESE_PAGE, "utf-8")
    return status


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else _ROOT / "site")
    status = build(target)
    if status == 0:
        print(f"{target}/index.html")
    sys.exit(status)
