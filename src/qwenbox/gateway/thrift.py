"""This is where a key's prompts are made shorter: older turns left out, redundant white space collapsed, and it is said what was done."""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TypeAlias

import msgspec

from qwenbox.gateway.estimate import most_tokens
from qwenbox.gateway.router import Answer
from qwenbox.terms.call import Call
from qwenbox.terms.caller import Thrift
from qwenbox.terms.chat import ChatRequest, Message, Role, TextPart

# The input tokens of a request.
Count: TypeAlias = Callable[[ChatRequest], Awaitable[int]]

# What may be collapsed is in hardly any text, so it is looked for first.
_REDUNDANT = re.compile(r" {2}|[ \t]\r?\n|\n[ \t]*\r?\n[ \t]*\r?\n")
_SPACES = re.compile(r" {2,}")
_CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")
_FENCE = re.compile(r"([ \t>]*)(?:[-*+][ \t]+|\d{1,9}[.)][ \t]+)?(`{3,}|~{3,})")
_FENCE_END = re.compile(r"([ \t>]*)(`{3,}|~{3,})[ \t\r]*$")
_INDENTED = re.compile(r" {0,3}\t| {4}")
_BLANKS = " \t\r"
_MOST_INDENT = 3
# Looking for code in a line takes longer than its length says, for one made for that.
_MOST_SPANS = 5_000

# A call's further way, with the request that is left of it.
Way: TypeAlias = Callable[[Call[ChatRequest], ChatRequest], AbstractAsyncContextManager[Answer]]


class Trimmed(msgspec.Struct, frozen=True, kw_only=True):
    """applied: what was done, for a header: "whitespace-collapsed;characters=88", "history-trimmed;turns=3;tokens=412", and
    "history-over-budget;tokens=95" where what must stay is longer than the budget. notes: the same, for the call's row."""

    request: ChatRequest
    applied: tuple[str, ...] = ()
    notes: Mapping[str, object] = {}


async def trim(request: ChatRequest, thrift: Thrift, count: Count) -> Trimmed:
    """The request as the key's policies want it. count: asked about log2(turns) times, never for a chat that is short anyway.

    Raises what `count` raises.
    """
    applied: list[str] = []
    done: dict[str, int] = {}
    if thrift.collapses_whitespace:
        before = request
        request = collapse(request)
        if characters := _characters(before) - _characters(request):
            applied.append(f"whitespace-collapsed;characters={characters}")
            done["collapsed_characters"] = characters
    if thrift.history_tokens is not None and most_tokens(request) > thrift.history_tokens:
        request, turns, tokens, over = await _shorten(request, thrift.history_tokens, count)
        if turns:
            applied.append(f"history-trimmed;turns={turns};tokens={tokens}")
            done |= {"trimmed_turns": turns, "trimmed_tokens": tokens}
        if over:
            applied.append(f"history-over-budget;tokens={over}")
            done["over_budget_tokens"] = over
    return Trimmed(request=request, applied=tuple(applied), notes={"thrift": done} if done else {})


class Thrifty:
    """The answer to a chat whose prompt the caller's policies make shorter first; `way` leads to it."""

    __slots__ = ("_call", "_count", "_opening", "_request", "_way")

    def __init__(self, call: Call[ChatRequest], request: ChatRequest, count: Count, way: Way) -> None:
        """request: complete; `call` holds it as the client sent it."""
        self._call = call
        self._request = request
        self._count = count
        self._way = way

    async def __aenter__(self) -> Answer:
        call = self._call
        trimmed = await trim(self._request, call.caller.thrift, self._count)
        sent = msgspec.structs.replace(call.request, messages=trimmed.request.messages)
        call = msgspec.structs.replace(call, request=sent, notes={**call.notes, **trimmed.notes})
        self._opening = self._way(call, trimmed.request)
        answer = await self._opening.__aenter__()
        return msgspec.structs.replace(answer, applied=(*trimmed.applied, *answer.applied))

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._opening.__aexit__(kind, error, trace)


def turn_starts(messages: Sequence[Message]) -> list[int]:
    """Where turns begin: at a user's message that follows anything but one; what stands before the first belongs to a turn, too."""
    starts: list[int] = []
    last: Role | None = None
    for place, message in enumerate(messages):
        if message.role is Role.SYSTEM:
            continue
        if not starts or (message.role is Role.USER and last is not Role.USER):
            starts.append(place)
        last = message.role
    return starts


def cuts(messages: Sequence[Message]) -> list[int]:
    """Where a history may begin: starts of turns with no tool result after them whose call is before them; the whole is the first."""
    called: dict[str | None, int] = {}
    # By a call's place: its last result's.
    results: dict[int, int] = {}
    for place, message in enumerate(messages):
        if message.tool_calls:
            called |= {call.id: place for call in message.tool_calls}
            called[None] = place
        # A result that names no call, or one that is nowhere, belongs to the last calls.
        elif message.role is Role.TOOL and (origin := called.get(message.tool_call_id, called.get(None))) is not None:
            results[origin] = place
    allowed: list[int] = []
    reach = before = 0
    for start in turn_starts(messages):
        reach = max([reach, *(results.get(place, 0) for place in range(before, start))])
        before = start
        if reach < start or not allowed:
            allowed.append(start)
    return allowed


def collapse(request: ChatRequest) -> ChatRequest:
    """Runs of spaces become one, of empty lines one, and lines end without blanks; the same request when there was nothing to do.

    Code stays as it is: fenced, indented or in a line; so do JSON texts, tool results that look like data, and a turn to be continued.
    """
    messages = tuple(_collapsed(message) for message in request.messages)
    if all(new is old for new, old in zip(messages, request.messages, strict=True)):
        return request
    return msgspec.structs.replace(request, messages=messages)


async def _shorten(request: ChatRequest, budget: int, count: Count) -> tuple[ChatRequest, int, int, int]:
    """The request; how many turns and tokens are gone, and by how many tokens it is still too long."""
    whole = await count(request)
    if whole <= budget:
        return request, 0, 0, 0
    places = cuts(request.messages)
    low, high, best, tokens = 1, len(places) - 1, request, whole
    # The longest history that fits; the shortest is counted for certain, unless a longer one fits.
    while low <= high:
        middle = (low + high) // 2
        shorter = _from(request, places[middle])
        its_tokens = await count(shorter)
        if its_tokens <= budget:
            best, tokens, high = shorter, its_tokens, middle - 1
        else:
            low = middle + 1
            if middle == len(places) - 1:
                best, tokens = shorter, its_tokens
    first = next((place for place, message in enumerate(best.messages) if message.role is not Role.SYSTEM), 0)
    gone = len(turn_starts(request.messages)) - len(turn_starts(best.messages[first:]))
    return best, gone, whole - tokens, max(0, tokens - budget)


def _from(request: ChatRequest, place: int) -> ChatRequest:
    kept = (message for message in request.messages[:place] if message.role is Role.SYSTEM)
    return msgspec.structs.replace(request, messages=(*kept, *request.messages[place:]))


def _characters(request: ChatRequest) -> int:
    return sum(len(message.text) for message in request.messages)


def _collapsed(message: Message) -> Message:
    texts = [part.text for part in message.content if isinstance(part, TextPart)]
    if message.is_partial or not any(map(_REDUNDANT.search, texts)) or _is_data(message):
        return message
    # Texts that are put together in the middle of a line are not what they look like alone.
    if not all(text.endswith("\n") for text in texts[:-1]):
        return message
    collapsed = iter(_collapsed_texts(texts))
    content = tuple(TextPart(text=next(collapsed)) if isinstance(part, TextPart) else part for part in message.content)
    return message if content == message.content else msgspec.structs.replace(message, content=content)


def _is_data(message: Message) -> bool:
    text = message.text.strip()
    if message.role is Role.TOOL:
        return any(mark in text for mark in '{["')
    if text[:1] not in ("{", "["):
        return False
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    return True


def _collapsed_texts(texts: Sequence[str]) -> list[str]:
    lines = [(number, line) for number, text in enumerate(texts) for line in _lines(text)]
    told: list[list[str]] = [[] for _ in texts]
    for number, line in _collapsed_lines(lines):
        told[number].append(line)
    return ["".join(parts) for parts in told]


def _lines(text: str) -> list[str]:
    """With their ends; "" has none."""
    lines = [f"{line}\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def _collapsed_lines(lines: Sequence[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Each with the number of the text that it is of."""
    fence: tuple[int, str] | None = None
    empty: list[tuple[int, str]] = []
    was_code = False
    for number, line in lines:
        if fence is not None:
            yield number, line
            fence = None if _ends(fence, line) else fence
            continue
        if not line.strip(" \t\r\n"):
            empty.append((number, line))
            continue
        is_code = bool(_INDENTED.match(line))
        opening = _FENCE.match(line)
        # Empty lines between lines of indented code are code.
        yield from empty if was_code and is_code else _one(empty)
        empty = []
        was_code = is_code
        if opening:
            fence = (len(opening[1].expandtabs(4)), opening[2])
        yield number, line if is_code or opening else _collapsed_line(line)
    yield from _one(empty)


def _ends(fence: tuple[int, str], line: str) -> bool:
    found = _FENCE_END.match(line.removesuffix("\n"))
    return found is not None and found[2].startswith(fence[1]) and len(found[1].expandtabs(4)) <= fence[0] + _MOST_INDENT


def _one(empty: Sequence[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    for number, line in empty[:1]:
        yield number, line.lstrip(" \t") if line.endswith("\n") else line


def _collapsed_line(line: str) -> str:
    if line.endswith("\n"):
        body, end = line[:-1].rstrip(_BLANKS), "\r\n" if line.endswith("\r\n") else "\n"
    else:
        body, end = line, ""
    start = len(body) - len(body.lstrip(" "))
    head, body = body[:start], body[start:]
    if "`" in body and len(body) > _MOST_SPANS:
        return head + body + end
    if "`" not in body:
        return head + _SPACES.sub(" ", body) + end
    pieces: list[str] = []
    place = 0
    for span in _CODE_SPAN.finditer(body):
        pieces += [_SPACES.sub(" ", body[place : span.start()]), span[0]]
        place = span.end()
    rest = body[place:]
    # A mark without its other half: what is code goes on in another line.
    return head + ("".join(pieces) + _SPACES.sub(" ", rest) if "`" not in rest else body) + end
