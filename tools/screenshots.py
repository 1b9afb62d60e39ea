"""Take the pictures of docs/screenshots/: every page of the console, light, dark, in Chinese and on a phone. `make screenshots`.

They are taken of a box that tests know, too, with calls of three days and a batch at work, and each is looked at by script: nothing scrolls
sideways, no text is cut off, plots can be read. What is found is told, and ends the run with 1.
"""

import argparse
import io
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support import browsing  # noqa: E402
from support.browsing import PHONE, Look, visitor  # noqa: E402
from support.consoles import Console, opened  # noqa: E402
from support.lively import lively  # noqa: E402
from support.page_check import troubles  # noqa: E402

LOOKS = {
    "light": Look(),
    "dark": Look(theme="dark"),
    "zh": Look(language="zh-CN"),
    "phone": Look(size=PHONE, is_touch=True),
}
PAGES = {
    "overview": "/",
    "playground": "/playground",
    "keys": "/keys",
    "models": "/models",
    "usage": "/usage",
    "logs": "/logs",
    "batches": "/batches",
    "limits": "/limits",
    "health": "/health",
}
_MOST_HEIGHT = {browsing.DESKTOP: 1_100, PHONE: 844}
_COLOURS = 96
_PROMPT = """Quicksort takes a **pivot** and sorts what is smaller and what is larger:

```python
def quicksort(items):
    if len(items) < 2:
        return items
    pivot, *rest = items
    smaller = [item for item in rest if item < pivot]
    larger = [item for item in rest if item >= pivot]
    return quicksort(smaller) + [pivot] + quicksort(larger)
```

It takes *O(n log n)* steps on average."""


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--out", type=Path, default=ROOT / "docs" / "screenshots")
    asked.add_argument("--only", default="", help="pages, by commas: " + ", ".join([*PAGES, "login"]))
    wanted = asked.parse_args()
    wanted.out.mkdir(parents=True, exist_ok=True)
    only = {name for name in wanted.only.split(",") if name} or {*PAGES, "login"}
    found: list[str] = []
    with sync_playwright() as playwright, ExitStack() as stack:
        path = browsing.executable(playwright)
        if path is None:
            sys.exit("no Chromium here: apt-get install chromium, or playwright install chromium")
        browser = stack.enter_context(browsing.launched(playwright, path))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        console = stack.enter_context(opened(stack.enter_context(lively(Path(folder) / "home", calls=400)), browser))
        for name, look in LOOKS.items():
            for page in PAGES:
                if page in only:
                    found += _inside(console, browser, (page, name), wanted.out)
            if "login" in only:
                found += _login(console, browser, look, wanted.out / f"login-{name}.webp")
    print("\n".join(found) or "nothing scrolls sideways, no text is cut off, plots can be read")
    total = sum(file.stat().st_size for file in wanted.out.glob("*.webp"))
    print(f"{len([*wanted.out.glob('*.webp')])} pictures, {total / 1e6:.2f} MB")
    return int(bool(found))


def _inside(console: Console, browser: Browser, picture: tuple[str, str], out: Path) -> list[str]:
    name, look_name = picture
    look = LOOKS[look_name]
    with console.visitor(browser, look) as page:
        console.go(page, PAGES[name])
        if name == "playground":
            _talk(page)
        page.wait_for_timeout(1_500)
        return _take(page, look, out / f"{name}-{look_name}.webp")


def _talk(page: Page) -> None:
    """An echo says what it is told."""
    page.get_by_test_id("prompt").fill(_PROMPT)
    page.get_by_test_id("send").click()
    page.get_by_test_id("usage").get_by_text("¥").wait_for()


def _login(console: Console, browser: Browser, look: Look, file: Path) -> list[str]:
    with visitor(browser, look) as page:
        page.goto(f"{console.address}/login")
        return _take(page, look, file)


def _take(page: Page, look: Look, file: Path) -> list[str]:
    """The picture, at the height that the page needs, in few colours; and what is wrong with it."""
    height = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": look.size[0], "height": max(look.size[1], min(height, _MOST_HEIGHT[look.size]))})
    page.evaluate("scrollTo(0, 0)")
    found = troubles(page)
    picture = Image.open(io.BytesIO(page.screenshot(scale="css"))).convert("RGB")
    picture.quantize(_COLOURS, dither=Image.Dither.NONE).convert("RGB").save(file, "WEBP", lossless=True, quality=100, method=6)
    print(f"{file.name:<24} {file.stat().st_size / 1000:>6.1f} kB", flush=True)
    return [f"{file.stem}: {one}" for one in found]


if __name__ == "__main__":
    sys.exit(main())
