"""This is where the deterministic engine's text is cut into tokens and told, up to a stop or as far as there is room.

Its tokens: up to eight ASCII letters, digits or underscores with one space before them, up to eight white-space characters, or
any other single character. A token's id is the CRC-32 of its UTF-8 bytes.
"""

import math
import re
import zlib
from collections.abc import Iterable, Iterator

import msgspec

from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.events import ChatDelta, ChoiceFinished, FinishReason, TextDelta, TokenLogprob

_TOKEN = re.compile(r" ?[A-Za-z0-9_]{1,8}|\s{1,8}|.", re.DOTALL)
_RIVALS = (" the", ",", ".", "\n", " a", " of", " and", " to", " is", " in", "!", "?", ":", ";", "-", " it", " as", " at", " by", " or")


def tokens_of(text: str) -> list[str]:
    """Its tokens, in order; together they are the text."""
    return _TOKEN.findall(text)


def count_of(text: str) -> int:
    """How many tokens it has."""
    return len(tokens_of(text))


class Stops:
    """What ends the text early, and how many alternatives its tokens show (None: no logprobs)."""

    def __init__(self, texts: tuple[str, ...], ids: tuple[tuple[int, ...], ...], top_logprobs: int | None) -> None:
        self._texts = texts
        self._ids = ids
        self.top_logprobs = top_logprobs

    @classmethod
    def of(cls, request: ChatRequest | CompletionRequest) -> "Stops":
        return cls(request.stop, request.stop_tokens if isinstance(request, ChatRequest) else (), request.top_logprobs)

    def find(self, text: str, tokens: list[str]) -> tuple[int, int, str] | None:
        """(characters of the text that stay, tokens generated until the stop was whole, the stop's text), or None."""
        found: tuple[int, int, str] | None = None
        places = [(text.find(stop), stop) for stop in self._texts if stop]
        if ends := [(at + len(stop), at, stop) for at, stop in places if at >= 0]:
            end, at, stop = min(ends)
            found = at, _tokens_until(tokens, end), stop
        for sequence in self._ids:
            if (at_token := _index_of(sequence, tokens)) is not None and (found is None or at_token + len(sequence) < found[1]):
                found = sum(len(token) for token in tokens[:at_token]), at_token + len(sequence), ""
        return found


def told(stops: Stops, text: str, room: int, index: int) -> Iterator[ChatDelta | ChoiceFinished]:
    """The text's deltas, one per token, up to a stop or `room` tokens, and the finish."""
    tokens = tokens_of(text)
    stop = stops.find(text, tokens)
    word = ""
    if stop is not None and stop[1] <= room:
        characters, spent, word = stop
        reason = FinishReason.STOP
    else:
        characters, spent = len(text), min(len(tokens), room)
        reason = FinishReason.STOP if len(tokens) <= room else FinishReason.LENGTH
    shown = 0
    for token in tokens[:spent]:
        if not characters:
            break
        piece = token[:characters]
        characters -= len(piece)
        shown += 1
        logprobs = () if stops.top_logprobs is None else (_logprob(piece, stops.top_logprobs),)
        yield TextDelta(text=piece, index=index, tokens=1, logprobs=logprobs)
    yield ChoiceFinished(reason=reason, index=index, tokens=spent - shown, stop=word)


def _tokens_until(tokens: Iterable[str], characters: int) -> int:
    """How many tokens it takes to have written so many characters."""
    for number, token in enumerate(tokens, 1):
        characters -= len(token)
        if characters <= 0:
            return number
    return 0


def _index_of(sequence: tuple[int, ...], tokens: list[str]) -> int | None:
    ids = [zlib.crc32(token.encode("utf-8", "surrogatepass")) for token in tokens]
    width = len(sequence) or len(ids) + 1
    return next((start for start in range(len(ids) - width + 1) if tuple(ids[start : start + width]) == sequence), None)


def _logprob(token: str, top_logprobs: int) -> TokenLogprob:
    """The token at half the probability, its rivals sharing the rest by halves."""
    rivals = [token, *(other for other in _RIVALS if other != token)][:top_logprobs]
    chosen, *ranked = (
        TokenLogprob(text=text, raw=text.encode("utf-8", "replace"), logprob=max(place, 1) * math.log(0.5))
        for place, text in enumerate([token, *rivals])
    )
    return msgspec.structs.replace(chosen, rivals=tuple(ranked))
