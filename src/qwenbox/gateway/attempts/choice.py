"""This is where it is decided which of a model's deployments a call asks first, and which after it."""

import math
from collections.abc import Callable, Sequence
from hashlib import blake2b

from qwenbox.gateway.attempts.standing import Standing
from qwenbox.gateway.catalog import ModelEntry, Request
from qwenbox.gateway.estimate import texts_of
from qwenbox.terms.chat import ChatRequest, Role
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.model import Choice

# Of a prompt's beginning, so many characters decide; a longer system prompt is the same to all who share it, in practice.
_PREFIX_CHARS = 4_096
# A system prompt this long is what is worth keeping in an engine's cache; below it, the conversation's first question is.
_SYSTEM_CHARS = 400
# "Much busier": so many times as busy as the least busy, and so many calls on top.
_BUSIER_TIMES = 2.0
_BUSIER_CALLS = 4.0


def order(entry: ModelEntry, standings: Sequence[Standing], request: Request, draw: Callable[[], float]) -> Sequence[Standing]:
    """The deployments, the one to be asked first in front. draw: a number from 0 up to 1."""
    match entry.choice:
        case Choice.ORDERED:
            return standings
        case Choice.WEIGHTED:
            return _weighted(entry, standings, lambda _: draw())
        case Choice.LEAST_BUSY:
            return sorted(standings, key=lambda standing: _load(entry, standing))
        case Choice.PREFIX:
            return _by_prefix(entry, standings, request)


def prefix(request: Request) -> bytes:
    """The prompt's beginning by which calls belong together: the system's words if they are many, else up to the first question."""
    if isinstance(request, CompletionRequest):
        return request.prompt[:_PREFIX_CHARS].encode(errors="replace")
    if not isinstance(request, ChatRequest):
        return texts_of(request)[0][:_PREFIX_CHARS].encode(errors="replace")
    texts: list[str] = []
    for message in request.messages:
        texts.append(message.text[:_PREFIX_CHARS])
        if message.role is Role.USER or sum(map(len, texts)) >= _SYSTEM_CHARS:
            break
    return "\0".join(texts)[:_PREFIX_CHARS].encode(errors="replace")


def _share(entry: ModelEntry, standing: Standing) -> float:
    return entry.shares.get(standing.name, 1.0)


def _load(entry: ModelEntry, standing: Standing) -> float:
    """Calls that run there, for the share it should have. A deployment of share 0 is for when nobody else can."""
    share = _share(entry, standing)
    return standing.running / share if share else math.inf


def _weighted(entry: ModelEntry, standings: Sequence[Standing], draw: Callable[[Standing], float]) -> list[Standing]:
    """In the order of a lottery without replacement (Efraimidis and Spirakis, 2006): each place goes by the shares of those left."""

    def key(standing: Standing) -> float:
        share = _share(entry, standing)
        return -math.log(1.0 - draw(standing)) / share if share else math.inf

    return sorted(standings, key=key)


def _by_prefix(entry: ModelEntry, standings: Sequence[Standing], request: Request) -> list[Standing]:
    """By rendezvous hashing: a deployment that comes or goes moves only its own prefixes."""
    beginning = blake2b(prefix(request), digest_size=16).digest()

    def draw(standing: Standing) -> float:
        digest = blake2b(standing.name.encode(), key=beginning, digest_size=8).digest()
        return (int.from_bytes(digest) >> 11) / 2**53

    ranked = _weighted(entry, standings, draw)
    loads = [_load(entry, standing) for standing in ranked]
    least = min(loads)
    limit = least * _BUSIER_TIMES + _BUSIER_CALLS
    # A stable sort: whoever is much too busy goes behind those who are not.
    return [standing for _, standing in sorted(zip(loads, ranked, strict=True), key=lambda pair: pair[0] > limit)]
