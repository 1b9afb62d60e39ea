"""This is where a model's text is heard for tool calls: Hermes tags, bare JSON and fenced JSON → ToolCallDelta.

Only calls of tools the request offers are calls; everything else stays text, held back no longer than it could become one.
The forms are those `constraints.answer` lets a model begin a call with: `{"name": …, "arguments": …}` at the start of a line,
in a fence or after `<tool_call>` anywhere.
"""

import re
import secrets
from collections.abc import Callable
from enum import Enum, auto

from qwenbox.terms.chat import ChatRequest, ToolNone
from qwenbox.terms.events import ChatDelta, ChoiceFinished, FinishReason, TextDelta, TokenLogprob, ToolCallDelta

SPACE = " \t\r\n"
OPENING = "<tool_call>"
CLOSINGS = ("</tool_call>", "```")
FENCE = "```"
FENCE_WORD_CHARS = 8
_PLACES = re.compile(r"\n|<")
_BRACES = re.compile(r'["{}\\]|\[|\]')


def make_id() -> str:
    """`call_` and 24 hex digits, as the service gives them."""
    return "call_" + secrets.token_hex(12)


def hearing(request: ChatRequest, make_id: Callable[[], str] = make_id) -> "Hearing | None":
    """A machine for one choice of the request's answer; None when no call can come."""
    if not request.tools or isinstance(request.tool_choice, ToolNone):
        return None
    return Hearing(frozenset(tool.name for tool in request.tools), is_parallel=request.is_parallel_tool_calls, make_id=make_id)


class _Mode(Enum):
    TEXT = auto()
    ARGUMENTS = auto()
    OUTER = auto()  # behind the arguments, inside the call's object
    CLOSING = auto()  # behind the call's object
    OVER = auto()


class _More(Exception):
    """The text ends while it still fits."""


class Hearing:
    """Fed the text of one choice piece by piece; every token and logprob comes out again exactly once.

    is_parallel: more than one call may come. Without it what follows the first call is dropped.
    """

    def __init__(self, names: frozenset[str], *, is_parallel: bool, make_id: Callable[[], str] = make_id) -> None:
        self._names = names
        self._is_parallel = is_parallel
        self._make_id = make_id
        self._mode = _Mode.TEXT
        self._held: str = ""
        self._is_line_start = True
        self._is_space_dropped = True
        self._calls = 0
        self._depth = 0
        self._is_quoted = False
        self._tokens = 0
        self._logprobs: tuple[TokenLogprob, ...] = ()
        self._head: tuple[str, str] | None = None

    @property
    def is_over(self) -> bool:
        """No more can come of this choice: the engine may stop generating it."""
        return self._mode is _Mode.OVER

    def hear(self, delta: TextDelta) -> list[ChatDelta]:
        """What the piece adds up to, with what was held back before it."""
        self._tokens += delta.tokens
        self._logprobs += delta.logprobs
        self._held += delta.text
        events: list[ChatDelta] = []
        before = None
        while self._held and before != (self._mode, self._held):
            before = (self._mode, self._held)
            self._advance(delta.index, events)
        return events

    def finish(self, finished: ChoiceFinished) -> list[ChatDelta | ChoiceFinished]:
        """What was held back, and the end: TOOL_CALLS when calls were heard, LENGTH when the last one is only half there."""
        events: list[ChatDelta] = []
        reason = finished.reason
        if self._mode is _Mode.TEXT and self._held:
            self._say(self._held, finished.index, events)
        if reason is FinishReason.STOP and self._mode is _Mode.ARGUMENTS:
            reason = FinishReason.LENGTH
        elif reason is FinishReason.STOP and self._calls:
            reason = FinishReason.TOOL_CALLS
        self._held = ""
        tokens, _ = self._taken()
        return [*events, ChoiceFinished(reason=reason, index=finished.index, tokens=finished.tokens + tokens, stop=finished.stop)]

    def _advance(self, index: int, events: list[ChatDelta]) -> None:
        match self._mode:
            case _Mode.TEXT:
                self._hear_text(index, events)
            case _Mode.ARGUMENTS:
                self._hear_arguments(index, events)
            case _Mode.OUTER:
                end = self._closes(self._held)
                self._held = self._held[end:] if end is not None else ""
                self._mode = _Mode.CLOSING if end is not None else _Mode.OUTER
            case _Mode.CLOSING:
                self._hear_closing()
            case _Mode.OVER:
                self._held = ""

    def _hear_text(self, index: int, events: list[ChatDelta]) -> None:
        for start in self._places():
            try:
                found = _Call(self._held, start, self._names).read()
            except _More:
                self._say(self._held[:start], index, events)
                self._held = self._held[start:]
                return
            if found is not None:
                self._say(self._held[:start], index, events)
                self._begin(*found)
                return
        self._say(self._held, index, events)
        self._held = ""

    def _places(self) -> list[int]:
        """Where a call may begin: line starts and tags, in order."""
        first = {0} if self._is_line_start else set[int]()
        return sorted(first | {found.start() + (found[0] == "\n") for found in _PLACES.finditer(self._held)})

    def _say(self, text: str, index: int, events: list[ChatDelta]) -> None:
        if self._is_space_dropped:
            text = text.lstrip(SPACE) if self._calls else text
            self._is_space_dropped = self._calls > 0 and not text
        if text:
            self._is_line_start = text.endswith("\n")
            tokens, logprobs = self._taken()
            events.append(TextDelta(text=text, index=index, tokens=tokens, logprobs=logprobs))

    def _begin(self, name: str, end: int) -> None:
        self._head = (self._make_id(), name)
        self._held = self._held[end:]
        self._mode = _Mode.ARGUMENTS
        self._depth = 0
        self._is_quoted = False

    def _hear_arguments(self, index: int, events: list[ChatDelta]) -> None:
        if self._held.endswith("\\"):  # an escape stays whole, so that no piece ends inside one
            return
        end = self._closes(self._held)
        piece = self._held if end is None else self._held[:end]
        self._held = self._held[len(piece) :]
        tokens, logprobs = self._taken()
        identity, name = self._head or ("", "")
        self._head = None
        events.append(
            ToolCallDelta(call=self._calls, id=identity, name=name, arguments=piece, index=index, tokens=tokens, logprobs=logprobs)
        )
        if end is not None:
            self._calls += 1
            self._depth = 1
            self._mode = _Mode.OUTER

    def _closes(self, text: str) -> int | None:
        """Where the object that is open ends, counting braces outside of strings across pieces."""
        position = 0
        while found := _BRACES.search(text, position):
            position = found.end()
            char = found[0]
            if char == "\\" and self._is_quoted:
                position += 1
            elif char == '"':
                self._is_quoted = not self._is_quoted
            elif not self._is_quoted and char in "{[":
                self._depth += 1
            elif not self._is_quoted and char in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return position
        return None

    def _hear_closing(self) -> None:
        """Swallow the tag or fence behind a call; anything else is the next text."""
        if not self._is_parallel:
            self._mode = _Mode.OVER
            return
        rest = self._held.lstrip(SPACE)
        for closing in CLOSINGS:
            if rest.startswith(closing):
                self._held = rest[len(closing) :]
                break
            if closing.startswith(rest):
                return
        self._mode = _Mode.TEXT
        self._is_line_start = True
        self._is_space_dropped = True

    def _taken(self) -> tuple[int, tuple[TokenLogprob, ...]]:
        taken = (self._tokens, self._logprobs)
        self._tokens, self._logprobs = 0, ()
        return taken


class _Call:
    """Reads the head of a call at one place of a text."""

    def __init__(self, text: str, start: int, names: frozenset[str]) -> None:
        self._text = text
        self._at = start
        self._names = names

    def read(self) -> tuple[str, int] | None:
        """The tool's name and where its arguments begin; None when this is no call. Raises _More while it may become one."""
        self._skip(" \t")
        if self._is_next(OPENING):
            self._skip(SPACE)
        elif self._is_next(FENCE):
            self._word()
            self._skip(SPACE)
        if not (self._sees("{") and self._sees('"name"') and self._sees(":") and self._sees('"')):
            return None
        name = self._name()
        if name is None or not self._sees(","):
            return None
        self._skip(SPACE)
        if not (self._is_next('"arguments"') or self._is_next('"parameters"')) or not self._sees(":"):
            return None
        self._skip(SPACE)
        if self._at == len(self._text):
            raise _More
        return (name, self._at) if self._text[self._at] == "{" else None

    def _skip(self, chars: str) -> None:
        while self._at < len(self._text) and self._text[self._at] in chars:
            self._at += 1

    def _is_next(self, word: str) -> bool:
        rest = self._text[self._at : self._at + len(word)]
        if rest == word:
            self._at += len(word)
            return True
        if word.startswith(rest) and self._at + len(rest) == len(self._text):
            raise _More
        return False

    def _sees(self, word: str) -> bool:
        self._skip(SPACE)
        return self._is_next(word)

    def _word(self) -> None:
        end = self._at
        while end < len(self._text) and end - self._at < FENCE_WORD_CHARS and "a" <= self._text[end] <= "z":
            end += 1
        self._at = end

    def _name(self) -> str | None:
        end = self._text.find('"', self._at)
        if end < 0:
            part = self._text[self._at :]
            if any(name.startswith(part) for name in self._names):
                raise _More
            return None
        name = self._text[self._at : end]
        self._at = end + 1
        return name if name in self._names else None
