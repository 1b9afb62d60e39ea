"""This is where llama.cpp's chunks become pieces of text that know their tokens: stops cut off, characters whole."""

from collections.abc import Sequence

import msgspec

from qwenbox.engines.llamacpp.wire import Chunk, Probability
from qwenbox.engines.tokenizer import Tokenizer
from qwenbox.terms.events import FinishReason, TokenLogprob


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """Text that may be shown, and the output tokens it took (the swallowed ones before it included)."""

    text: str
    tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """What one chunk brought. finish: set once, when the choice is over, after which nothing comes. stop: the text that ended it."""

    pieces: tuple[Piece, ...] = ()
    finish: FinishReason | None = None
    stop: str = ""


class _Held(msgspec.Struct):
    """One chunk's worth of tokens whose text is held back. ids: all of its tokens, as far as they can be known."""

    text: str
    ids: tuple[int, ...]
    tokens: int
    logprobs: tuple[TokenLogprob, ...]


class PieceReader:
    """Hears the chunks of one choice, in order.

    llama.cpp keeps text back while it could be the beginning of a stop text, and loses it when the answer ends there at its
    limit; it names no id for the first tokens of a character that takes several. Both are mended here.
    stop_tokens: sequences of ids that end the answer, which llama.cpp does not know.
    """

    def __init__(self, tokenizer: Tokenizer, stop_tokens: Sequence[Sequence[int]] = (), top_logprobs: int | None = None) -> None:
        self._tokenizer = tokenizer
        self._stop_tokens = tuple(tuple(sequence) for sequence in stop_tokens if sequence)
        self._top_logprobs = top_logprobs
        self._held: list[_Held] = []
        self._unsaid: list[int] = []
        self._counted = 0
        self._is_over = False

    @property
    def output_tokens(self) -> int:
        return self._counted

    def hear(self, chunk: Chunk) -> Heard:
        if self._is_over or chunk.prompt_progress is not None:
            return Heard()
        if chunk.stop:
            return self._finish(chunk)
        held = self._take(chunk)
        self._held.append(held)
        if self._ends_with_stop():
            self._is_over = True
            return Heard(pieces=self._before_stop(), finish=FinishReason.STOP)
        return Heard(pieces=self._release())

    def _take(self, chunk: Chunk) -> _Held:
        fresh = max(chunk.tokens_predicted - self._counted, 0)
        self._counted += fresh
        ids = chunk.tokens
        if fresh > len(ids) and chunk.content:
            whole = tuple(self._tokenizer.encode_plain(chunk.content))
            ids = whole[-fresh:] if whole[-1:] == ids[-1:] else ids
        self._unsaid = [] if chunk.content else [*self._unsaid, *ids]
        return _Held(chunk.content, ids, fresh, self._logprobs(chunk.completion_probabilities))

    def _finish(self, chunk: Chunk) -> Heard:
        self._is_over = True
        fresh = max(chunk.tokens_predicted - self._counted, 0)
        self._counted += fresh
        text = chunk.content
        if chunk.stop_type == "limit":  # whatever looked like a stop text was none
            text = self._tokenizer.text([token for token in self._unsaid if token not in self._tokenizer.control.values()]) + text
        pieces = [*self._release(is_all=True)]
        if text or fresh:
            pieces.append(Piece(text=text, tokens=fresh))
        finish = FinishReason.LENGTH if chunk.stop_type == "limit" else FinishReason.STOP
        return Heard(pieces=tuple(pieces), finish=finish, stop=chunk.stopping_word)

    def _ends_with_stop(self) -> bool:
        if not self._stop_tokens:
            return False
        ids = self._held_ids()
        return any(ids[-len(sequence) :] == sequence for sequence in self._stop_tokens)

    def _before_stop(self) -> tuple[Piece, ...]:
        ids = self._held_ids()
        longest = max(len(sequence) for sequence in self._stop_tokens if ids[-len(sequence) :] == sequence)
        text = self._tokenizer.text(ids[: len(ids) - longest])
        logprobs = tuple(logprob for held in self._held for logprob in held.logprobs)[: len(ids) - longest]
        piece = Piece(text=text, tokens=sum(held.tokens for held in self._held), logprobs=logprobs)
        self._held.clear()
        return (piece,)

    def _release(self, *, is_all: bool = False) -> tuple[Piece, ...]:
        """What can no longer be part of a stop sequence."""
        keep = 0 if is_all else self._open_tokens()
        released: list[Piece] = []
        while self._held and (keep == 0 or len(self._held_ids()) - len(self._held[0].ids) >= keep):
            held = self._held.pop(0)
            released.append(Piece(text=held.text, tokens=held.tokens, logprobs=held.logprobs))
        return tuple(released)

    def _open_tokens(self) -> int:
        """How many of the last tokens are the beginning of a stop sequence."""
        ids = self._held_ids()
        lengths = (
            length
            for sequence in self._stop_tokens
            for length in range(min(len(sequence) - 1, len(ids)), 0, -1)
            if ids[-length:] == sequence[:length]
        )
        return max(lengths, default=0)

    def _held_ids(self) -> tuple[int, ...]:
        return tuple(token for held in self._held for token in held.ids)

    def _logprobs(self, probabilities: Sequence[Probability]) -> tuple[TokenLogprob, ...]:
        if self._top_logprobs is None:
            return ()
        return tuple(self._logprob(entry, self._top_logprobs) for entry in probabilities)

    def _logprob(self, entry: Probability, rivals: int) -> TokenLogprob:
        raw = self._tokenizer.raw(entry.id)
        best = tuple(self._logprob(rival, 0) for rival in entry.top_logprobs[:rivals])
        return TokenLogprob(text=raw.decode("utf-8", "replace"), raw=raw, logprob=entry.logprob, rivals=best)
