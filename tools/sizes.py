"""Fails on a source file past 600 lines and names those past 400: look for the second concept there."""

import sys
from pathlib import Path

LOOK, FAIL = 400, 600

sizes = {
    path: len(path.read_text("utf-8").splitlines()) for folder in ("src", "tests", "bench", "tools") for path in Path(folder).rglob("*.py")
}
for path, lines in sorted(sizes.items(), key=lambda item: -item[1]):
    if lines > LOOK:
        print(f"{path}: {lines} lines{' (limit 600)' if lines > FAIL else ''}")
sys.exit(any(lines > FAIL for lines in sizes.values()))
