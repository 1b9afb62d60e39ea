import re

import pytest

from qwenbox.engines.echo.patterns import Unmatchable, matching


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "abc",
        "a|b",
        "^(foo|bar)baz$",
        r"\d{3}-\d{4}",
        r"[A-Fa-f0-9]{8}",
        r"[^abc]+x",
        r"[\w.-]+@[\w-]+\.\w+",
        r"a{2,}b*c?",
        r"(?P<year>\d{4})".replace("?P<", "?<"),
        r"^\u4e2d\x41\.$",
        r"x{,3}",
        "[]a-z-]".replace("[]", "["),
        r".+?\s\S",
        "(((a)))",
    ],
)
def test_matching_gives_a_match_when_pattern_is_readable(pattern):
    text = matching(pattern)

    assert re.search(pattern.replace("(?<", "(?P<"), text) is not None


def test_matching_grows_when_text_must_be_long():
    assert len(matching("^[a-z0-9]+$", min_length=37, max_length=37)) == 37
    assert len(matching("^[a-z0-9]+$", min_length=33)) >= 33


@pytest.mark.parametrize(
    "pattern", ["(?=a)", "(?!a)", "(?<=a)b", r"(a)\1", "(", ")", "*a", "[a", "a{2000}", r"\p{L}", "[^\\w\\W]" * 2 + "("]
)
def test_matching_refuses_when_pattern_is_beyond_it(pattern):
    with pytest.raises(Unmatchable):
        matching(pattern)


def test_matching_refuses_when_no_length_fits():
    with pytest.raises(Unmatchable):
        matching("^abc$", min_length=5)
