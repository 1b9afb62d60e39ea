"""English and Chinese pages: which must be there twice, and that both show the same headings and code."""

import re

import pytest

from support.markdown import Block, is_chinese, pages, twin

# What only maintainers read, and figures that a table says without words.
ENGLISH_ONLY = {f"docs/{name}.md" for name in ("benchmarks", "glossary", "request-life")}

ENGLISH = {page.name: page for page in pages() if not is_chinese(page)}
BOTH = {name: (page, chinese) for name, page in ENGLISH.items() if (chinese := twin(page)) is not None}


def code_of(block: Block) -> str:
    """What is executed of a block: comments and the layout around them may differ."""
    if block.language == "":
        return ""  # drawings and outputs
    # Nor need the words of an example: texts with a space or a Chinese character in them.
    text = re.sub(
        r"""(["'])([^"'\n]*)\1""", lambda text: "…" if re.search(r"[ \u4e00-\u9fff]", text.group(2)) else text.group(0), block.text
    )
    lines = [re.sub(r"(^|\s+)(#|//)\s.*$", "", line).rstrip() for line in text.splitlines()]
    return "\n".join(re.sub(r" {2,}", " ", line) for line in lines if line)


def needs_a_twin(name: str) -> bool:
    return name not in ENGLISH_ONLY and not name.startswith("docs/decisions/")


def test_english_pages_have_a_chinese_twin() -> None:
    assert [] == [name for name in ENGLISH if needs_a_twin(name) and name not in BOTH]


def test_chinese_pages_have_an_english_twin() -> None:
    assert [] == [page.name for page in pages() if is_chinese(page) and page.name.replace(".zh-CN", "") not in ENGLISH]


@pytest.mark.parametrize("name", BOTH)
def test_both_languages_have_the_same_headings(name: str) -> None:
    english, chinese = BOTH[name]
    assert [level for level, _ in english.headings] == [level for level, _ in chinese.headings]


@pytest.mark.parametrize("name", BOTH)
def test_both_languages_show_the_same_code(name: str) -> None:
    english, chinese = BOTH[name]
    assert [(block.language, code_of(block)) for block in english.blocks] == [(block.language, code_of(block)) for block in chinese.blocks]


@pytest.mark.parametrize("name", BOTH)
def test_both_languages_leave_out_the_same_blocks(name: str) -> None:
    english, chinese = BOTH[name]
    assert [bool(block.reason) for block in english.blocks] == [bool(block.reason) for block in chinese.blocks]
