"""This is where placeholders in a growing text become what they stand for; nothing is held back that cannot be the start of one."""

import re
from collections.abc import Mapping

import msgspec

from qwenbox.gateway.redaction.placeholders import LABEL

_PLAIN = re.compile(f"<({LABEL})>")
# In JSON text: an escaped backslash first, so that what follows one is not taken for an escape; some servers escape the brackets.
_IN_JSON = re.compile(rf"\\\\|(?:<|\\u003[cC])({LABEL})(?:>|\\u003[eE])")
_PAIR = "\\\\"


class Names:
    """What stands for what, in a text or in JSON text. Shared by all texts of one answer; its repr shows nothing."""

    def __init__(self, spellings: Mapping[str, str], *, is_json: bool) -> None:
        """spellings: by label. is_json: the text is JSON, in whose strings the placeholders stand."""
        self.pattern = _IN_JSON if is_json else _PLAIN
        self.starts = "<\\" if is_json else "<"
        self._spellings = {label: _escaped(text) for label, text in spellings.items()} if is_json else dict(spellings)
        forms = [f"<{label}>" for label in spellings]
        if is_json:
            brackets = (("<", "\\u003e"), ("\\u003c", ">"), ("\\u003c", "\\u003e"))
            forms += [f"{left}{label}{right}" for label in spellings for left, right in brackets] + [_PAIR]
        self._beginnings = frozenset(form[:length].lower() for form in forms for length in range(1, len(form)))
        self.most_held = max(map(len, forms)) - 1

    def value(self, match: "re.Match[str]") -> str:
        """What the match stands for; itself when it is no placeholder of ours."""
        label = match[1]
        return match[0] if label is None else self._spellings.get(label, match[0])

    def held_from(self, text: str, start: int) -> int:
        """Where in the text, at `start` or later, a placeholder may have begun that is not over; its length if nowhere."""
        for place in range(max(start, len(text) - self.most_held), len(text)):
            if text[place] in self.starts and text[place:].lower() in self._beginnings:
                return place
        return len(text)


class Mender:
    """One growing text. held: its end that may be the beginning of a placeholder, at most Names.most_held characters."""

    __slots__ = ("_names", "held")

    def __init__(self, names: Names) -> None:
        self._names = names
        self.held = ""

    def feed(self, piece: str) -> str:
        """What can be let go."""
        names = self._names
        if not self.held and not any(sign in piece for sign in names.starts):
            return piece
        text = self.held + piece
        parts: list[str] = []
        place = 0
        for match in names.pattern.finditer(text):
            parts += (text[place : match.start()], names.value(match))
            place = match.end()
        end = names.held_from(text, place)
        self.held = text[end:]
        return "".join((*parts, text[place:end]))

    def flush(self) -> str:
        """The text is over: what is held was no placeholder."""
        rest, self.held = self.held, ""
        return rest


def _escaped(text: str) -> str:
    return msgspec.json.encode(text).decode()[1:-1]
