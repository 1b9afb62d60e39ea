"""This is where texts that are to become vectors are said in our own words."""

from enum import StrEnum
from typing import ClassVar

import msgspec


class TextType(StrEnum):
    """What a text is for a search: asked, or to be found. Weights made for search read the two in different ways."""

    QUERY = "query"
    DOCUMENT = "document"


class OutputType(StrEnum):
    DENSE = "dense"
    SPARSE = "sparse"
    BOTH = "dense&sparse"


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Make one vector of each text.

    dimensions: of each vector; None until the catalog puts in the card's own. instruct: what the search is for, for queries; None: the
    model's own words. extensions, defaults: as in a chat. n, max_output_tokens: nothing is written, and nothing is reserved for it.
    """

    n: ClassVar[int] = 1
    max_output_tokens: ClassVar[int] = 0

    model: str
    texts: tuple[str, ...]
    dimensions: int | None = None
    text_type: TextType = TextType.DOCUMENT
    output_type: OutputType = OutputType.DENSE
    instruct: str | None = None
    extensions: dict[str, bytes] = {}
    defaults: dict[str, float | bool] = {}

    @property
    def dimensions_said(self) -> int | None:
        """Those the caller asked for."""
        return None if "dimensions" in self.defaults else self.dimensions
