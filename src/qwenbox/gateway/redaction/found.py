"""This is where something found in a text is described: where it stands and what it is, without its spelling."""

from collections.abc import Callable, Iterable
from typing import TypeAlias


class Found:
    """kind: a Kind or the name of a user's pattern. start, end: offsets in the text. value: the same for every spelling of the same thing.

    A plain class, since the value must show in no repr.
    """

    __slots__ = ("end", "kind", "start", "value")

    def __init__(self, kind: str, start: int, end: int, value: str) -> None:
        self.kind = kind
        self.start = start
        self.end = end
        self.value = value


# Looks through a normalised text (normal.py).
Finder: TypeAlias = Callable[[str], Iterable[Found]]
