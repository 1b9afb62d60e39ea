"""This is where the documentation's pages are read by their tests: blocks, links, headings."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHINESE = ".zh-CN"

_FENCE = re.compile(r"^(?:<!-- not run: (?P<reason>[^\n]*?) -->\n+)?```(?P<language>[\w{}]*)[^\n]*\n(?P<text>.*?)^```$", re.M | re.S)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^(#{1,6}) +(.+?) *$", re.M)


@dataclass(frozen=True)
class Block:
    """line: of its first line of code, from 1. reason: why it is not run, "" when it is."""

    language: str
    text: str
    line: int
    reason: str


@dataclass(frozen=True)
class Page:
    path: Path
    text: str

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def prose(self) -> str:
        """The page without its blocks, line by line as it was."""
        return _FENCE.sub(lambda found: "\n" * found.group(0).count("\n"), self.text)

    @property
    def blocks(self) -> list[Block]:
        return [
            Block(
                language=found.group("language"),
                text=found.group("text"),
                line=self.text[: found.start("text")].count("\n") + 1,
                reason=found.group("reason") or "",
            )
            for found in _FENCE.finditer(self.text)
        ]

    @property
    def links(self) -> list[str]:
        prose = re.sub(r"`[^`\n]*`", "", self.prose)
        return _LINK.findall(prose)

    @property
    def headings(self) -> list[tuple[int, str]]:
        return [(len(marks), text) for marks, text in _HEADING.findall(self.prose)]

    @property
    def anchors(self) -> set[str]:
        """As GitHub and the site make them from headings."""
        taken: dict[str, int] = {}
        anchors: set[str] = set()
        for _, text in self.headings:
            plain = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).lower()).replace(" ", "-")
            count = taken.get(plain, 0)
            taken[plain] = count + 1
            anchors.add(f"{plain}-{count}" if count else plain)
        return anchors


def read(path: Path) -> Page:
    return Page(path=path, text=path.read_text("utf-8"))


def pages() -> list[Page]:
    """README and all of docs/, in both languages."""
    files = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [read(file) for file in files]


def twin(page: Page) -> Page | None:
    """The Chinese page of an English one."""
    path = page.path.with_name(f"{page.path.stem}{CHINESE}.md")
    return read(path) if path.is_file() else None


def is_chinese(page: Page) -> bool:
    return page.path.stem.endswith(CHINESE)
