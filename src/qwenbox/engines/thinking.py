"""This is where the think tags of a text stream become ReasoningDelta and TextDelta, and where a thinking budget runs out."""

from enum import Enum, auto

from qwenbox.terms.events import ChatDelta, ChoiceFinished, ReasoningDelta, TextDelta, TokenLogprob

OPENING = "<think>"
CLOSING = "</think>"
# What an engine appends to the prompt and the thoughts so far when the budget is spent; the model then answers.
CUT = "\n</think>\n\n"
SPACE = " \t\r\n"


class _Mode(Enum):
    START = auto()  # nothing but space so far: thinking may begin
    THOUGHT = auto()
    ANSWER = auto()


class Thinking:
    """Fed the text of one choice piece by piece; every token and logprob comes out again exactly once.

    is_open: the prompt already holds the opening tag. budget_tokens: None thinks as long as it likes.
    Tags and the empty lines around them are swallowed; their tokens count as reasoning.
    """

    def __init__(self, *, is_open: bool = False, budget_tokens: int | None = None) -> None:
        self._mode = _Mode.THOUGHT if is_open else _Mode.START
        self._budget_tokens = budget_tokens
        self._held: str = ""
        self._is_space_dropped = True
        self._tokens = 0
        self._logprobs: tuple[TokenLogprob, ...] = ()
        self._reasoning_tokens = 0

    @property
    def reasoning_tokens(self) -> int:
        return self._reasoning_tokens

    @property
    def is_spent(self) -> bool:
        """The budget is used up and the model still thinks: the engine goes on from the thoughts so far plus CUT."""
        return self._mode is _Mode.THOUGHT and self._budget_tokens is not None and self._reasoning_tokens >= self._budget_tokens

    def hear(self, delta: TextDelta) -> list[ChatDelta]:
        """What the piece adds up to, with what was held back before it."""
        self._tokens += delta.tokens
        self._logprobs += delta.logprobs
        self._held += delta.text
        if self._mode is _Mode.THOUGHT:
            self._reasoning_tokens += delta.tokens
        events: list[ChatDelta] = []
        before = None
        while before is not self._mode:
            before = self._mode
            self._advance(delta, events)
        return events

    def cut(self, index: int = 0) -> list[ChatDelta]:
        """The engine cut the thoughts over to answering: what was held back is thought, what comes next is answer."""
        events: list[ChatDelta] = []
        self._say(self._held.rstrip(SPACE), index, events)
        self._held = ""
        self._become(_Mode.ANSWER)
        return events

    def finish(self, finished: ChoiceFinished) -> list[ChatDelta | ChoiceFinished]:
        """What was held back, and the end."""
        events: list[ChatDelta] = []
        self._say(self._held, finished.index, events)
        self._held = ""
        tokens, self._tokens = self._tokens, 0
        return [*events, ChoiceFinished(reason=finished.reason, index=finished.index, tokens=finished.tokens + tokens, stop=finished.stop)]

    def _advance(self, delta: TextDelta, events: list[ChatDelta]) -> None:
        match self._mode:
            case _Mode.START:
                self._hear_start(delta)
            case _Mode.THOUGHT:
                self._hear_thought(delta, events)
            case _Mode.ANSWER:
                self._say(self._held, delta.index, events)
                self._held = ""

    def _hear_start(self, delta: TextDelta) -> None:
        rest = self._held.lstrip(SPACE)
        if rest.startswith(OPENING):
            self._held = rest[len(OPENING) :]
            self._reasoning_tokens += self._tokens
            self._become(_Mode.THOUGHT)
        elif not OPENING.startswith(rest):
            self._mode, self._is_space_dropped = _Mode.ANSWER, False

    def _hear_thought(self, delta: TextDelta, events: list[ChatDelta]) -> None:
        end = self._held.find(CLOSING)
        if end >= 0:
            rest = self._held[end + len(CLOSING) :]
            self._say(self._held[:end].rstrip(SPACE), delta.index, events)
            self._held = rest
            self._become(_Mode.ANSWER)
            return
        keep = _open_chars(self._held)
        self._say(self._held[: len(self._held) - keep], delta.index, events)
        self._held = self._held[len(self._held) - keep :]

    def _become(self, mode: _Mode) -> None:
        self._mode = mode
        self._is_space_dropped = True

    def _say(self, text: str, index: int, events: list[ChatDelta]) -> None:
        if self._is_space_dropped:
            text = text.lstrip(SPACE)
            self._is_space_dropped = not text
        if not text:
            return
        kind = ReasoningDelta if self._mode is _Mode.THOUGHT else TextDelta
        events.append(kind(text=text, index=index, tokens=self._tokens, logprobs=self._logprobs))
        self._tokens, self._logprobs = 0, ()


def _open_chars(text: str) -> int:
    """How many of the last characters may be the beginning of the closing tag, with the space before it."""
    tag = next((length for length in range(len(CLOSING) - 1, 0, -1) if text.endswith(CLOSING[:length])), 0)
    body = text[: len(text) - tag]
    return tag + len(body) - len(body.rstrip(SPACE))
