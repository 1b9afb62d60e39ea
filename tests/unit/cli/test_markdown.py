"""Where growing Markdown may be cut."""

import pytest

from qwenbox.cli.markdown import split_finished


@pytest.mark.parametrize(
    ("text", "finished", "rest"),
    [
        ("", "", ""),
        ("half a line", "", "half a line"),
        ("one\n\n", "", "one\n\n"),
        ("one\n\ntwo", "one", "two"),
        ("one\n\ntwo\n\nthree", "one\n\ntwo", "three"),
        ("```python\na\n\nb", "", "```python\na\n\nb"),
        ("```python\na\n\nb\n```\n\nafter", "```python\na\n\nb\n```", "after"),
        ("````\n```\n\nstill code", "", "````\n```\n\nstill code"),
        ("~~~\n```\n\n~~~\n\nafter", "~~~\n```\n\n~~~", "after"),
        ("- item\n\n  its second paragraph", "", "- item\n\n  its second paragraph"),
    ],
)
def test_split_cuts_at_the_last_blank_line_outside_code(text: str, finished: str, rest: str):
    assert (finished, rest) == split_finished(text)


def test_split_gives_the_same_blocks_however_the_text_came():
    text = "# Title\n\nSome text.\n\n```python\ndef f():\n\n    return 1\n```\n\n- a\n\n  b\n\nEnd."
    blocks, rest = [], ""
    for character in text:
        finished, rest = split_finished(rest + character)
        blocks += [finished] if finished else []
    assert ["# Title", "Some text.", "```python\ndef f():\n\n    return 1\n```", "- a\n\n  b"] == blocks
    assert "End." == rest
