"""This is where documents that are to be ordered by a question are said in our own words."""

from typing import ClassVar

import msgspec


class RerankRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Say how well each document answers `query`.

    top_n: how many of the best are wanted, None all. instruct: what "well" means, None: the model's own words.
    extensions, n, max_output_tokens: as in an embedding.
    """

    n: ClassVar[int] = 1
    max_output_tokens: ClassVar[int] = 0

    model: str
    query: str
    documents: tuple[str, ...]
    top_n: int | None = None
    instruct: str | None = None
    extensions: dict[str, bytes] = {}
