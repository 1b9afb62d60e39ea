"""This is where prompts and answers are kept, for a box that is told to: nothing at all unless `[recording] enabled = true`.

Texts are as the caller sent and got them, before a `[redaction]` takes anything out for an engine. Only the admin API shows them. They are
written a moment after their call, in the order in which calls ended, by one follower per process; the call waits for nothing.
"""

import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import NamedTuple

import anyio
import msgspec
from sqlalchemy import Boolean, Column, Float, Index, Table, Text, delete, func, select, text

from qwenbox.clock import Clock
from qwenbox.db import METADATA, Database
from qwenbox.terms.call import AnyCall
from qwenbox.terms.chat import ChatRequest, ImagePart, Message, TextPart, VideoPart
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.embedding import EmbeddingRequest
from qwenbox.terms.errors import ApiError
from qwenbox.terms.events import ChatEvent, ReasoningDelta, TextDelta, ToolCallDelta
from qwenbox.terms.image import ImageRequest
from qwenbox.terms.rerank import RerankRequest

RECORDINGS = Table(
    "recordings",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Column("is_cut", Boolean, nullable=False),
    Index("recordings_by_time", "at"),
)

# Told again after an outage of which nobody knows how it ended, it is there once.
_ADD = text(
    "INSERT INTO recordings (id, account_id, at, prompt, answer, is_cut) "
    "VALUES (:id, :account_id, :at, :prompt, :answer, :is_cut) ON CONFLICT (id) DO NOTHING"
)

_LOG = logging.getLogger(__name__)

# What waits to be written: beyond it the database is behind, and what comes is not kept.
_MOST_WAITING = 2_000
_WRITE_BATCH = 100
_PRUNE_BATCH = 500
_PRUNE_EVERY_S = 3_600.0
_DAY_S = 86_400.0
_LAST_WRITE_S = 5.0
_AGAIN_S = 1.0

_encoder = msgspec.json.Encoder()


class RecordingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[recording]`: whether prompts and answers are kept, for an administrator to read in the console.

    keep_days: how long. max_bytes: of one prompt or one answer, UTF-8; of what is longer, a prompt keeps its end, an answer its beginning.
    """

    enabled: bool = False
    keep_days: int = 7
    max_bytes: int = 65_536

    def __post_init__(self) -> None:
        if self.keep_days < 1:
            raise ValueError("keep_days must be at least 1; enabled = false keeps nothing")
        if not 100 <= self.max_bytes <= 10_000_000:
            raise ValueError("max_bytes must be 100 to 10,000,000")


class Turn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One turn of a chat, or another piece of what was sent or said. tool_calls: name and arguments of each."""

    role: str
    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[tuple[str, str], ...] = ()


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """answer: a turn for each choice; () where nothing was said. is_cut: something was longer than may be kept."""

    id: str
    at: float
    prompt: tuple[Turn, ...]
    answer: tuple[Turn, ...]
    is_cut: bool


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """How many recordings there are, and since when; None: none."""

    count: int
    oldest_at: float | None


class Recordings:
    """What was recorded, and the line of what will be. Calls are only recorded where `config.enabled`; what is kept can always be read."""

    def __init__(self, database: Database, config: RecordingConfig, clock: Clock) -> None:
        self._database = database
        self.config = config
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._heard = anyio.Event()
        self._is_behind = False

    def add(self, call: AnyCall, heard: "Heard | None") -> None:
        """Put a call that is over into the line."""
        if len(self._waiting) >= _MOST_WAITING:
            if not self._is_behind:
                _LOG.warning("The database is behind: prompts and answers of some calls are not recorded.")
            self._is_behind = True
            return
        self._is_behind = False
        self._waiting.append(_Waiting(call.id, call.caller.account_id, self._clock.now(), _turns(call), heard))
        self._heard.set()

    async def read(self, request_id: str) -> Recording | None:
        rows = await self._database.read(select(RECORDINGS).where(RECORDINGS.c.id == request_id))
        if not rows:
            return None
        turns = {name: msgspec.json.decode(str(rows[0][name]), type=tuple[Turn, ...]) for name in ("prompt", "answer")}
        return msgspec.convert({**rows[0], **turns}, Recording)

    async def kept(self) -> Kept:
        query = select(func.count().label("count"), func.min(RECORDINGS.c.at).label("oldest_at")).select_from(RECORDINGS)
        (row,) = await self._database.read(query)
        return msgspec.convert(row, Kept)

    async def forget(self, *, request_id: str | None = None, account_id: str | None = None, before: float | None = None) -> int:
        """Delete what is of this call, of this account, older than this moment; all of it where nothing is said. Returns how many."""
        columns, count = RECORDINGS.c, 0
        query = select(columns.id).limit(_PRUNE_BATCH)
        for column, value in ((columns.id, request_id), (columns.account_id, account_id)):
            if value is not None:
                query = query.where(column == value)
        if before is not None:
            query = query.where(columns.at < before)
        while rows := await self._database.read(query):
            await self._database.write(delete(RECORDINGS).where(columns.id.in_([str(row["id"]) for row in rows])))
            count += len(rows)
        return count

    async def follow(self) -> None:
        """Write for ever what calls leave; run by whoever owns the box's background tasks, whose end has the rest written."""
        try:
            while True:
                await self._heard.wait()
                self._heard = anyio.Event()
                while self._waiting:
                    try:
                        await self.write()
                    except ApiError:
                        await self._clock.sleep(_AGAIN_S)
        finally:
            with anyio.move_on_after(_LAST_WRITE_S, shield=True), suppress(ApiError):
                while self._waiting:
                    await self.write()

    async def sweep(self) -> None:
        """Delete for ever what is too old; also where nothing is recorded any more."""
        while True:
            with suppress(ApiError):
                await self.forget(before=self._clock.now() - self.config.keep_days * _DAY_S)
            await self._clock.sleep(_PRUNE_EVERY_S)

    async def write(self) -> None:
        """What has waited longest, a batch of it."""
        some = [self._waiting[number] for number in range(min(_WRITE_BATCH, len(self._waiting)))]
        await self._database.write(*(_ADD.bindparams(**self._row(one)) for one in some))
        for _ in some:
            self._waiting.popleft()

    def _row(self, one: "_Waiting") -> dict[str, object]:
        prompt, is_cut = _from_end(one.prompt, self.config.max_bytes)
        return {
            "id": one.id,
            "account_id": one.account_id,
            "at": one.at,
            "prompt": _encoder.encode(prompt).decode(),
            "answer": _encoder.encode(one.heard.turns() if one.heard else ()).decode(),
            "is_cut": is_cut or (one.heard is not None and one.heard.is_cut),
        }


class _Waiting(NamedTuple):
    """A call that is over and not written yet."""

    id: str
    account_id: str
    at: float
    prompt: list[Turn]
    heard: "Heard | None"


class Heard(AsyncIterator[ChatEvent]):
    """The same events; what they say is remembered up to so many bytes."""

    __slots__ = ("_events", "_left", "_said", "is_cut")

    def __init__(self, events: AsyncIterator[ChatEvent], most_bytes: int) -> None:
        self._events = events
        self._left = most_bytes
        self._said: dict[int, _Said] = {}
        self.is_cut = False

    async def __anext__(self) -> ChatEvent:
        event = await anext(self._events)
        match event:
            case TextDelta():
                self._choice(event.index).text.append(self._fitting(event.text))
            case ReasoningDelta():
                self._choice(event.index).reasoning.append(self._fitting(event.text))
            case ToolCallDelta():
                call = self._choice(event.index).calls.setdefault(event.call, ["", ""])
                call[0] += self._fitting(event.name)
                call[1] += self._fitting(event.arguments)
            case _:
                pass
        return event

    def turns(self) -> tuple[Turn, ...]:
        return tuple(said.turn() for _, said in sorted(self._said.items()))

    def _choice(self, index: int) -> "_Said":
        return self._said.setdefault(index, _Said())

    def _fitting(self, text: str) -> str:
        fitting = _beginning(text, self._left)
        self.is_cut = self.is_cut or len(fitting) < len(text)
        self._left -= len(fitting.encode(errors="replace"))
        return fitting


class _Said:
    """Of one choice."""

    __slots__ = ("calls", "reasoning", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.calls: dict[int, list[str]] = {}

    def turn(self) -> Turn:
        calls = tuple((name, arguments) for _, (name, arguments) in sorted(self.calls.items()))
        return Turn(role="assistant", text="".join(self.text), reasoning="".join(self.reasoning), tool_calls=calls)


def _turns(call: AnyCall) -> list[Turn]:
    """What was sent, without the bytes of pictures."""
    request = call.request
    match request:
        case ChatRequest():
            return [_turn(message) for message in request.messages]
        case CompletionRequest():
            return [Turn(role="prompt", text=request.prompt)]
        case EmbeddingRequest():
            return [Turn(role="text", text=text) for text in request.texts]
        case RerankRequest():
            return [Turn(role="query", text=request.query), *(Turn(role="document", text=text) for text in request.documents)]
        case ImageRequest():
            return [Turn(role="prompt", text=request.prompt)]


def _turn(message: Message) -> Turn:
    calls = tuple((call.name, call.arguments) for call in message.tool_calls)
    text = "\n".join(_texts(message))
    return Turn(role=message.role.value, text=text, reasoning=message.reasoning or "", tool_calls=calls)


def _texts(message: Message) -> Iterable[str]:
    for part in message.content:
        match part:
            case TextPart():
                yield part.text
            case ImagePart():
                yield f"[picture {part.width}×{part.height}]" if part.width else "[picture]"
            case VideoPart():
                yield f"[video of {len(part.frames)} frames]"


def _from_end(turns: list[Turn], most_bytes: int) -> tuple[tuple[Turn, ...], bool]:
    """The last turns, as many as fit, and whether something is missing: what was said last explains an answer best."""
    kept: list[Turn] = []
    left = most_bytes
    for turn in reversed(turns):
        size = len(_encoder.encode(turn))
        if size > left:
            text = turn.text.encode(errors="replace")[-left:].decode(errors="ignore") if left else ""
            return tuple(reversed([*kept, *([Turn(role=turn.role, text=text)] if text else [])])), True
        kept.append(turn)
        left -= size
    return tuple(reversed(kept)), False


def _beginning(text: str, most_bytes: int) -> str:
    # Characters are at most four bytes long.
    return text if len(text) * 4 <= most_bytes else text.encode(errors="replace")[:most_bytes].decode(errors="ignore")
