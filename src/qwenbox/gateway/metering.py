"""This is where one call is watched: tokens, time to first token, outcome → its row, committed before its last byte leaves."""

from collections import deque
from collections.abc import AsyncIterator, Callable
from time import monotonic

import anyio
import msgspec

from qwenbox.clock import Clock
from qwenbox.gateway import hops
from qwenbox.gateway.admission import Admission, Admitted
from qwenbox.gateway.counters.base import PurseState, Used
from qwenbox.gateway.counting import Produced
from qwenbox.gateway.journal.base import Journal, Outcome, UsageRow
from qwenbox.gateway.ledger import booking
from qwenbox.gateway.recordings import Heard, Recordings
from qwenbox.gateway.router import Answer
from qwenbox.terms.call import AnyCall
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import (
    ChatDelta,
    ChatEvent,
    ChoiceFinished,
    Completed,
    Embedded,
    FinishReason,
    ImageMade,
    Ranked,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
)
from qwenbox.terms.timeline import CallRecord, Timeline
from qwenbox.terms.usage import Usage

# The last write of a call whose client has left, or whose engine has died.
_LAST_WRITE_S = 5.0


class Metering:
    """Makes an `Entry` for each call. told: hears of every purse that a call has changed, e.g. to warn of a budget's end."""

    def __init__(self, journal: Journal, admission: Admission, clock: Clock, told: Callable[[tuple[PurseState, ...]], None]) -> None:
        self.journal = journal
        self.admission = admission
        self.clock = clock
        self.told = told
        # Calls whose booking is on its way, with their tokens: what they hold is theirs until it is known how the booking ended.
        self.ending: dict[str, tuple[Admitted, int]] = {}
        self._late: deque[tuple[str, tuple[PurseState, ...]]] = deque()
        self._heard = anyio.Event()
        journal.when_late(self._hear)
        self.recordings: Recordings | None = None
        self.observer: Callable[[CallRecord, Timeline], None] | None = None

    def record(self, recordings: Recordings) -> None:
        """From now on prompts and answers are kept."""
        self.recordings = recordings

    def observe(self, observer: Callable[[CallRecord, Timeline], None]) -> None:
        """From now on tell `observer` of every call whose row is written, or will be for certain; it must be quick and not raise."""
        self.observer = observer

    def entry(self, call: AnyCall, admitted: Admitted, *, is_cache_hit: bool = False) -> "Entry":
        """is_cache_hit: the answer was made for an earlier call; its tokens are told as they were, and count and cost nothing."""
        return Entry(self, call, admitted, is_cache_hit=is_cache_hit)

    async def follow(self) -> None:
        """Settle for ever what was booked after nobody waited for it any more; run by whoever owns the box's background tasks."""
        while True:
            await self._heard.wait()
            self._heard = anyio.Event()
            while self._late:
                call_id, states = self._late.popleft()
                ended = self.ending.pop(call_id, None)
                if ended is not None:
                    await self.admission.release(ended[0], Used(tokens=ended[1], purses=states))
                self.told(states)

    def _hear(self, call_id: str, states: tuple[PurseState, ...]) -> None:
        self._late.append((call_id, states))
        self._heard.set()


class Entry:
    """What one call has used so far, and its end, which is written exactly once.

    reusable_share: how much of its prompt an earlier one had begun with, 0 to 1; None: nobody looked.
    """

    __slots__ = (
        "_admitted",
        "_begun_s",
        "_call",
        "_deployment",
        "_heard",
        "_input_tokens",
        "_is_cache_hit",
        "_is_over",
        "_metering",
        "_notes",
        "_output_tokens",
        "_produced",
        "_reason",
        "_reasoning_tokens",
        "_started",
        "_ttft_s",
        "reusable_share",
    )

    def __init__(self, metering: Metering, call: AnyCall, admitted: Admitted, *, is_cache_hit: bool) -> None:
        self._metering = metering
        self._call = call
        self._admitted = admitted
        self._begun_s = metering.clock.monotonic()
        self._deployment = ""
        self._started: Started | None = None
        self._ttft_s: float | None = None
        self._output_tokens = 0
        self._reasoning_tokens = 0
        self._reason: FinishReason | None = None
        self._produced: Produced | None = None
        self._notes: dict[str, object] = dict(call.notes)
        self._is_cache_hit = is_cache_hit
        self._is_over = False
        self._heard: Heard | None = None
        self.reusable_share: float | None = None

    def watch(self, events: AsyncIterator[ChatEvent], answer: Answer) -> AsyncIterator[ChatEvent]:
        """The same events; `Completed` passes only after the call's row is committed."""
        self._deployment = answer.deployment
        self._notes.update(answer.notes)
        self._produced = None if answer.has_exact_counts else Produced(answer.text_counter)
        recordings = self._metering.recordings
        if recordings is not None:
            events = self._heard = Heard(events, recordings.config.max_bytes)
        return _Watched(events, self)

    def note(self, event: ChatEvent) -> None:
        """Count an event that is not the last."""
        match event:
            case TextDelta() | ReasoningDelta() | ToolCallDelta():
                self._note_delta(event)
            case ChoiceFinished():
                self._reason = event.reason
                self._output_tokens += event.tokens
            case Started():
                self._started = event
            case Embedded() | Ranked() | ImageMade():
                self._note_result()
            case Completed():
                raise AssertionError("Completed goes to complete()")

    def _note_result(self) -> None:
        if self._ttft_s is None:
            self._ttft_s = self._metering.clock.monotonic() - self._begun_s

    def _note_delta(self, event: ChatDelta) -> None:
        if self._ttft_s is None:
            self._ttft_s = self._metering.clock.monotonic() - self._begun_s
        self._output_tokens += event.tokens
        if isinstance(event, ReasoningDelta):
            self._reasoning_tokens += event.tokens
        if self._produced is not None:
            self._produced.note(event)

    async def complete(self, usage: Usage) -> Usage:
        """Commit the row, and say what is billed. Raises ApiError(OVERLOADED) when the books do not take it: the answer must not end well
        then."""
        if usage.is_counted and not self._is_cache_hit:
            usage = await self._counted()
        await self._end(self._row(usage, Outcome.COMPLETED, None), is_owed=self._call.is_incremental)
        return usage

    async def close(self, error: BaseException | None) -> None:
        """The end of a call that did not complete; does nothing after `Completed`. Never raises but for cancellation."""
        if self._is_over:
            return
        if self._call.timeline.was_stopped:
            error = ApiError(ErrorKind.OVERLOADED)
        is_gone = not isinstance(error, Exception)
        outcome = Outcome.HUNG_UP if is_gone else Outcome.FAILED
        usage = await self._counted()
        # A whole answer that failed has served nothing; a client that left had the engine work for it to that moment.
        is_served = self._output_tokens > 0 and (is_gone or self._call.is_incremental)
        row = self._row(usage, outcome, error)
        if not is_served:
            row = msgspec.structs.replace(row, cost_micros=0)
        with anyio.move_on_after(_LAST_WRITE_S, shield=True):
            try:
                await self._end(row, is_owed=is_served)
            except ApiError:
                return  # the journal has said so, and keeps what is owed

    async def _end(self, row: UsageRow, *, is_owed: bool) -> None:
        self._is_over = True
        metering, used = self._metering, 0 if row.is_cache_hit else row.input_tokens + row.output_tokens
        metering.ending[row.id] = (self._admitted, used)
        states: tuple[PurseState, ...] = ()
        timeline, is_kept = self._call.timeline, True
        timeline.committing_s = monotonic()
        try:
            states = await metering.journal.commit(booking(row, self._call.caller, is_owed=is_owed))
        except ApiError:
            is_kept = is_owed
            if is_owed:
                raise  # written when the books open; until then nobody else may have the money
            metering.ending.pop(row.id, None)
            await metering.admission.release(self._admitted, Used(tokens=used))
            raise
        finally:
            # Also of a call that is cancelled while it waits.
            timeline.committed_s = monotonic()
            if is_kept:
                timeline.record = row
                if metering.recordings is not None:
                    metering.recordings.add(self._call, self._heard)
                if metering.observer is not None:
                    metering.observer(row, timeline)
        # A call that is cancelled while it waits is settled when its booking is written.
        metering.ending.pop(row.id, None)
        await metering.admission.release(self._admitted, Used(tokens=used, purses=states))
        if states:
            metering.told(states)

    async def _counted(self) -> Usage:
        """What was used, by our own count: for calls cut short, and for engines that report nothing."""
        started = self._started
        if started is None:
            return Usage(input_tokens=0, output_tokens=0, is_counted=True)
        told = Usage(
            input_tokens=started.input_tokens,
            output_tokens=self._output_tokens,
            cached_tokens=started.cached_tokens,
            reasoning_tokens=self._reasoning_tokens or None,
            is_counted=True,
        )
        if self._produced is None:
            return told
        usage, by = await self._produced.usage(self._call.request, told)
        self._notes["counted_by"] = by
        # What was reserved is paid for; no engine was asked for more, so only deltas can show that there is more.
        lease = self._admitted.lease
        output_tokens = min(usage.output_tokens, max(lease.output_tokens, self._output_tokens))
        return msgspec.structs.replace(
            usage,
            input_tokens=started.input_tokens or min(usage.input_tokens, lease.ask.worst.input_tokens),
            output_tokens=output_tokens,
            reasoning_tokens=None if usage.reasoning_tokens is None else min(usage.reasoning_tokens, output_tokens),
        )

    def _row(self, usage: Usage, outcome: Outcome, error: BaseException | None) -> UsageRow:
        call, admitted = self._call, self._admitted
        lease = admitted.lease
        return UsageRow(
            id=call.id,
            account_id=call.caller.account_id,
            key_id=call.caller.key_id,
            model=admitted.model,
            deployment=self._deployment,
            dialect=call.dialect,
            lane=call.lane.value,
            day=admitted.day,
            arrived_at=call.arrived_at,
            admitted_at=lease.at,
            ttft_s=self._ttft_s,
            duration_s=self._metering.clock.monotonic() - self._begun_s,
            input_tokens=usage.input_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            image_tokens=usage.image_tokens,
            reusable_tokens=None if self.reusable_share is None else round(self.reusable_share * usage.input_tokens),
            is_counted=usage.is_counted,
            is_cache_hit=self._is_cache_hit,
            outcome=outcome,
            finish_reason=self._reason.value if self._reason else None,
            error_kind=_kind(error),
            cost_micros=admitted.tariff.cost_micros(usage, call.lane, is_cache_hit=self._is_cache_hit),
            currency=admitted.tariff.currency,
            price_version=admitted.tariff.version,
            notes=msgspec.json.encode(self._notes).decode() if self._notes else "{}",
            hops=hops.write(call.timeline, monotonic()),
        )


class _Watched(AsyncIterator[ChatEvent]):
    """Not a generator: whoever opened the events closes them, and nothing here needs closing."""

    __slots__ = ("_entry", "_events")

    def __init__(self, events: AsyncIterator[ChatEvent], entry: Entry) -> None:
        self._events = events
        self._entry = entry

    async def __anext__(self) -> ChatEvent:
        event = await anext(self._events)
        if not isinstance(event, Completed):
            self._entry.note(event)
            return event
        billed = await self._entry.complete(event.usage)
        return event if billed is event.usage else msgspec.structs.replace(event, usage=billed)


def _kind(error: BaseException | None) -> str | None:
    if error is None or not isinstance(error, Exception):
        return None
    return error.kind.value if isinstance(error, ApiError) else ErrorKind.INTERNAL.value
