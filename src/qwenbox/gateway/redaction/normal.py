"""This is where a text is brought to the form finders read: full-width signs, foreign digits, all kinds of spaces and dashes.

Character by character, so that offsets stay what they are in the text.
"""

import re

# What may stand inside a number without being seen; finders take it for a space.
UNSEEN = "\u200b"

_SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2043\u2212\u2500\ufe58\ufe63"
_HIDDEN = "\u00ad\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\ufeff"
# The zero of each script's digits that people type; the last five are mathematical styles.
_ZEROS = "\u0660\u06f0\u0966\u09e6\u0e50\U0001d7ce\U0001d7d8\U0001d7e2\U0001d7ec\U0001d7f6"

_SEEN_AS: dict[int, str] = {
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},
    **dict.fromkeys(map(ord, _SPACES), " "),
    **dict.fromkeys(map(ord, _DASHES), "-"),
    **dict.fromkeys(map(ord, _HIDDEN), UNSEEN),
    **{ord(zero) + digit: str(digit) for zero in _ZEROS for digit in range(10)},
    ord("\u2028"): "\n",
    ord("\u2029"): "\n",
}
# Full-width punctuation stands in every Chinese text and changes nothing by itself, so its presence alone is no reason to translate;
# the colon, the stop and the @ are read by finders.
_IS_WORTH_IT = re.compile(
    f"[{_SPACES}{_DASHES}{_HIDDEN}\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff0b\uff0d\uff0e\uff1a\uff20\uff08\uff09\uff3f"
    "\u0660-\u0669\u06f0-\u06f9\u0966-\u096f\u09e6-\u09ef\u0e50-\u0e59\u2028\u2029\U0001d7ce-\U0001d7ff]"
)


def normal(text: str) -> str:
    """The text as finders read it, of the same length."""
    if text.isascii() or _IS_WORTH_IT.search(text) is None:
        return text
    return text.translate(_SEEN_AS)
