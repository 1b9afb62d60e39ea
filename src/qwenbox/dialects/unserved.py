"""This is where it is said what a dialect's service has and this box has not."""

import msgspec


class Unserved(msgspec.Struct, frozen=True, kw_only=True):
    """Endpoints that a dialect's service has and this box has not; who asks is told so. docs/coverage.md is made of them.

    name: what they are, paths: below the dialect's prefix, all that lies below them, too; a segment `{name}` is any.
    why: ends "qwenbox does not serve that: …". is_planned: not by design.
    """

    name: str
    paths: tuple[str, ...]
    why: str
    is_planned: bool = False

    def has(self, path: str) -> bool:
        """Whether a path below the dialect's prefix is one of these."""
        return any(_begins(path.split("/"), known.split("/")) for known in self.paths)


def _begins(path: list[str], known: list[str]) -> bool:
    return len(path) >= len(known) and all(
        have == want or (want.startswith("{") and have != "") for have, want in zip(path, known, strict=False)
    )
