"""This is where what was found gets its name for one request: the same value the same name, and none that the request says already."""

import re
from collections import Counter
from collections.abc import Callable

from qwenbox.gateway.redaction.found import Found

# What stands between the brackets of a placeholder.
LABEL = r"[A-Z][A-Z0-9_]*_[0-9]+"
_LABEL = re.compile(LABEL)


class Placeholders:
    """Names by value and spellings by name. Angle brackets, since models repeat them as they repeat a tag.

    spellings: label → the value as its first mention writes it. Its repr shows none of them.
    """

    def __init__(self, said: Callable[[], str]) -> None:
        """said: everything the request says; asked once something was found."""
        self._said = said
        self._taken: frozenset[str] | None = None
        self._labels: dict[tuple[str, str], str] = {}
        self._next: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.spellings: dict[str, str] = {}

    def name(self, found: Found, spelling: str) -> str:
        """What stands in the found one's place."""
        self.counts[found.kind] += 1
        key = (found.kind, found.value)
        label = self._labels.get(key)
        if label is None:
            label = self._labels[key] = self._free(found.kind.upper())
            self.spellings[label] = spelling
        return f"<{label}>"

    def has(self, spelling: str) -> bool:
        """Whether a placeholder of ours is in it: nothing is hidden twice."""
        return any(label in self.spellings for label in _LABEL.findall(spelling))

    def _free(self, word: str) -> str:
        if self._taken is None:
            self._taken = frozenset(_LABEL.findall(self._said()))
        while True:
            self._next[word] += 1
            label = f"{word}_{self._next[word]}"
            if label not in self._taken:
                return label
