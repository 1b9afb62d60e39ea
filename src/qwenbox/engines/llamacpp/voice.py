"""This is where one choice is spoken: chunks in, its deltas and its end out, with thoughts and tool calls told apart."""

import msgspec

from qwenbox.engines.llamacpp.pieces import Piece, PieceReader
from qwenbox.engines.llamacpp.wire import Chunk
from qwenbox.engines.thinking import Thinking
from qwenbox.engines.tokenizer import Tokenizer
from qwenbox.engines.tool_calls import Hearing
from qwenbox.terms.events import ChatDelta, ChatEvent, ChoiceFinished, FinishReason, TextDelta, TokenLogprob


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """How every choice of a call is read.

    stop_tokens: sequences of ids that end it. top_logprobs: None when none are wanted.
    """

    tokenizer: Tokenizer
    stop_tokens: tuple[tuple[int, ...], ...] = ()
    top_logprobs: int | None = None


class Voice:
    """One choice. thinking, hearing: machines of its own, None where nothing can come of them."""

    def __init__(self, index: int, manner: Manner, thinking: Thinking | None, hearing: Hearing | None) -> None:
        self._index = index
        self._manner = manner
        self._thinking = thinking
        self._hearing = hearing
        self._reader = self._make_reader()
        self._earlier_tokens = 0
        self._said: list[str] = []
        self._waiting_tokens = 0
        self._waiting_logprobs: tuple[TokenLogprob, ...] = ()
        self.is_over = False

    @property
    def output_tokens(self) -> int:
        return self._earlier_tokens + self._reader.output_tokens

    @property
    def reasoning_tokens(self) -> int | None:
        return self._thinking.reasoning_tokens if self._thinking else None

    @property
    def is_spent(self) -> bool:
        """Its budget of thoughts is used up: the child must be asked again, to go on from `said` and the cut."""
        return self._thinking is not None and not self.is_over and self._thinking.is_spent

    @property
    def said(self) -> str:
        """All its text so far as the model wrote it, tags included."""
        return "".join(self._said)

    def hear(self, chunk: Chunk) -> list[ChatEvent]:
        if self.is_over:
            return []
        heard = self._reader.hear(chunk)
        events: list[ChatEvent] = []
        for piece in heard.pieces:
            events.extend(self._speak(piece))
        if heard.finish is not None:
            events.extend(self._end(heard.finish, heard.stop))
        elif self._hearing is not None and self._hearing.is_over:
            events.extend(self._end(FinishReason.STOP))
        return events

    def cut(self) -> list[ChatDelta]:
        """The thoughts end here; what is heard next comes of a new call to the child."""
        self._earlier_tokens += self._reader.output_tokens
        self._reader = self._make_reader()
        return self._listen(self._thinking.cut(self._index)) if self._thinking else []

    def _make_reader(self) -> PieceReader:
        return PieceReader(self._manner.tokenizer, self._manner.stop_tokens, self._manner.top_logprobs)

    def _speak(self, piece: Piece) -> list[ChatDelta]:
        """Tokens without text (held back, or an end-of-turn token) are counted with the next text, or at the end."""
        self._waiting_tokens += piece.tokens
        self._waiting_logprobs += piece.logprobs
        if not piece.text:
            return []
        delta = TextDelta(text=piece.text, index=self._index, tokens=self._waiting_tokens, logprobs=self._waiting_logprobs)
        self._waiting_tokens, self._waiting_logprobs = 0, ()
        if self._thinking is None:
            return self._listen([delta])
        self._said.append(piece.text)
        return self._listen(self._thinking.hear(delta))

    def _listen(self, deltas: list[ChatDelta]) -> list[ChatDelta]:
        hearing = self._hearing
        if hearing is None:
            return deltas
        return [event for delta in deltas for event in (hearing.hear(delta) if isinstance(delta, TextDelta) else [delta])]

    def _end(self, reason: FinishReason, stop: str = "") -> list[ChatEvent]:
        self.is_over = True
        finished = ChoiceFinished(reason=reason, index=self._index, tokens=self._waiting_tokens, stop=stop)
        events: list[ChatEvent] = []
        for event in self._thinking.finish(finished) if self._thinking else [finished]:
            if not isinstance(event, ChoiceFinished):
                events.extend(self._listen([event]))
            elif self._hearing is not None:
                events.extend(self._hearing.finish(event))
            else:
                events.append(event)
        return events
