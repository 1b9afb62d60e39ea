"""How a person works a page: with a mouse, or with nothing but a keyboard. The same steps can be gone with either."""

from pathlib import Path
from typing import Protocol

from playwright.sync_api import Locator, Page, expect

# More than any page has to press until its last field.
MOST_TABS = 150

_IS_THERE = """(target) => {
  const here = document.activeElement;
  if (here === document.body) return false;
  const isAround = here.contains(target) && here.matches("a, button, label, .q-field, .q-btn");
  return target === here || target.contains(here) || isAround;
}"""
# A ring, a field's own border, or Quasar's veil over a button.
_IS_SEEN = """() => {
  const here = document.activeElement, style = getComputedStyle(here);
  const around = here.closest(".q-field, .q-checkbox, .q-toggle, .q-radio, .q-uploader, .q-item, .q-btn") || here;
  const frame = around.getBoundingClientRect();
  const veil = around.querySelector(".q-focus-helper");
  const isMarked = (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0)
    || style.boxShadow !== "none"
    || around.matches(".q-field--focused, .q-field--highlighted")
    || (veil !== null && parseFloat(getComputedStyle(veil).opacity) > 0);
  const isInside = frame.bottom > 0 && frame.top < innerHeight && frame.right > 0 && frame.left < innerWidth;
  return isMarked && isInside ? "" : `${isMarked ? "outside of the window" : "no mark"}: ${here.outerHTML.slice(0, 200)}`;
}"""


class Hands(Protocol):
    page: Page

    def press(self, target: Locator) -> None:
        """A button or a link."""

    def write(self, target: Locator, text: str) -> None:
        """Into a field, instead of what stands there."""

    def choose(self, target: Locator, option: str) -> None:
        """Of a field with a list of options."""

    def give(self, target: Locator, file: Path) -> None:
        """A file, by the button that asks for one."""


class Mouse:
    def __init__(self, page: Page) -> None:
        self.page = page

    def press(self, target: Locator) -> None:
        target.click()

    def write(self, target: Locator, text: str) -> None:
        target.fill(text)

    def choose(self, target: Locator, option: str) -> None:
        target.click()
        self.page.get_by_role("option", name=option, exact=True).click()

    def give(self, target: Locator, file: Path) -> None:
        with self.page.expect_file_chooser() as asked:
            target.click()
        asked.value.set_files(file)


class Keyboard:
    """Every key is pressed as a person would; what has the focus must be seen to have it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.pressed = 0
        # Playwright catches a file's dialog only while somebody listens, and takes a moment to begin: a key is there before that.
        page.on("filechooser", lambda _: None)

    def key(self, name: str) -> None:
        self.page.keyboard.press(name)
        self.pressed += 1

    def reach(self, target: Locator) -> None:
        """Tab until it has the focus."""
        expect(target).to_be_visible()
        for _ in range(MOST_TABS):
            # Anew each time: a page that refreshes itself may have made it anew.
            if target.evaluate(_IS_THERE):
                trouble = self.page.evaluate(_IS_SEEN)
                assert trouble == "", trouble
                return
            self.key("Tab")
        raise AssertionError(f"{target} is not reached with {MOST_TABS} tabs; the focus is on {self.focus()}")

    def focus(self) -> str:
        return self.page.evaluate("document.activeElement.outerHTML.slice(0, 200)")

    def press(self, target: Locator) -> None:
        expect(target).to_be_visible()
        if target.get_attribute("role") == "tab":
            self.arrow_to(target)
        else:
            self.reach(target)
        self.key("Enter")

    def arrow_to(self, tab: Locator) -> None:
        """One of a row of tabs is reached by Tab, the others from there by arrows."""
        self.reach(tab.locator("xpath=ancestor::*[@role='tablist'][1]").locator("[role=tab][aria-selected=true]").first)
        for _ in range(MOST_TABS):
            if tab.evaluate(_IS_THERE):
                return
            self.key("ArrowRight")
        raise AssertionError(f"{tab} is not reached with arrows; the focus is on {self.focus()}")

    def write(self, target: Locator, text: str) -> None:
        self.reach(target)
        self.key("ControlOrMeta+a")
        self.page.keyboard.type(text)

    def choose(self, target: Locator, option: str) -> None:
        self.reach(target)
        self.key("Enter")
        wanted = self.page.get_by_role("option", name=option, exact=True)
        expect(wanted).to_be_visible()
        for _ in range(MOST_TABS):
            if wanted.evaluate("(item) => item.matches('.q-manual-focusable--focused, .q-item--active:focus, :focus')"):
                break
            self.key("ArrowDown")
        self.key("Enter")
        expect(wanted).to_have_count(0)

    def give(self, target: Locator, file: Path) -> None:
        self.reach(target)
        with self.page.expect_file_chooser() as asked:
            self.key("Enter")
        asked.value.set_files(file)
