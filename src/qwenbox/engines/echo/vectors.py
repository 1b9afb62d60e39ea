"""This is where echo makes vectors and orders documents without weights: which words a text has, and nothing of what they mean.

Each word (a run of Latin letters or digits, lower case) and every other character that is no space or punctuation adds to twelve places of
the vector, drawn by a hash; the sum has length 1. Equal texts have equal vectors, and texts with common words near ones. A sparse vector
has the words themselves: their index is the CRC-32 of their UTF-8 bytes. Documents are ordered by the likeness of the vectors.
"""

import hashlib
import math
import re
import zlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

from qwenbox.terms.embedding import EmbeddingRequest, OutputType
from qwenbox.terms.engine import Events
from qwenbox.terms.events import ChatEvent, Completed, Embedded, Ranked, SparseWeight, Started
from qwenbox.terms.rerank import RerankRequest
from qwenbox.terms.usage import Usage

DIMENSIONS = 1024
_WORD = re.compile(r"[a-z0-9]+|[^\W_]")
_PLACES = 12


def embed(request: EmbeddingRequest, tokens: Callable[[str], int]) -> Events:
    """tokens: how many a text has."""
    made: list[ChatEvent] = []
    for index, text in enumerate(request.texts):
        words = Counter(_WORD.findall(text.lower()))
        dense = () if request.output_type is OutputType.SPARSE else vector(words, request.dimensions or DIMENSIONS)
        sparse = None if request.output_type is OutputType.DENSE else _sparse(words)
        made.append(Embedded(index=index, vector=dense, sparse=sparse))
    return _played(sum(map(tokens, request.texts)), made)


def rerank(request: RerankRequest, tokens: Callable[[str], int]) -> Events:
    asked = vector(Counter(_WORD.findall(request.query.lower())), DIMENSIONS)
    scores = [_likeness(asked, vector(Counter(_WORD.findall(text.lower())), DIMENSIONS)) for text in request.documents]
    best = sorted(enumerate(scores), key=lambda pair: (-pair[1], pair[0]))[: request.top_n]
    total = sum(map(tokens, (request.query, *request.documents)))
    return _played(total, [Ranked(index=index, score=score) for index, score in best])


def vector(words: Counter[str], dimensions: int) -> tuple[float, ...]:
    """Of length 1, also for a text without words."""
    places = [0.0] * dimensions
    for word, times in (words or Counter({"": 1})).items():
        digest = hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=_PLACES * 4).digest()
        for start in range(0, len(digest), 4):
            drawn = int.from_bytes(digest[start : start + 4])
            places[(drawn >> 1) % dimensions] += math.copysign(math.sqrt(times), -(drawn & 1))
    length = math.sqrt(sum(place * place for place in places))
    if not length:  # opposite words of a very short vector
        places[0] = length = 1.0
    return tuple(place / length for place in places)


def _sparse(words: Counter[str]) -> tuple[SparseWeight, ...]:
    most = max(words.values(), default=1)
    return tuple(
        SparseWeight(index=zlib.crc32(word.encode("utf-8", "replace")), value=times / most, token=word) for word, times in words.items()
    )


def _likeness(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """0 to 1; rounding may say a little more for equal ones."""
    return min(max(sum(a * b for a, b in zip(one, other, strict=True)), 0.0), 1.0)


@asynccontextmanager
async def _played(input_tokens: int, made: list[ChatEvent]) -> AsyncGenerator[AsyncIterator[ChatEvent]]:
    async def events() -> AsyncGenerator[ChatEvent]:
        yield Started(input_tokens=input_tokens)
        for event in made:
            yield event
        yield Completed(usage=Usage(input_tokens=input_tokens, output_tokens=0))

    playing = events()
    try:
        yield playing
    finally:
        await playing.aclose()
