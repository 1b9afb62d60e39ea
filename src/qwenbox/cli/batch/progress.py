"""This is where a run shows how far it is: redrawn on a terminal, a line now and then elsewhere, on standard error."""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import msgspec
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from qwenbox.cli.amounts import units
from qwenbox.cli.batch.state import Part
from qwenbox.cli.console import err
from qwenbox.client.batches import Batch

_PLAIN_EVERY_S = 30.0
_MOST_IDS = 5


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """All batches of a round together. total: requests. costs: what the lines so far cost, by currency; None when nobody tells."""

    total: int
    completed: int
    failed: int
    input_tokens: int
    output_tokens: int
    costs: dict[str, int] | None

    @property
    def done(self) -> int:
        return self.completed + self.failed


def standing(parts: Sequence[Part], batches: Mapping[str, Batch]) -> Standing:
    """Of the last round; an ended batch whose counts stayed behind has failed for the rest."""
    last = max((part.round for part in parts), default=0)
    current = [part for part in parts if part.round == last]
    seen = [batches[part.marker] for part in current if part.marker in batches]
    usages = [batch.usage for batch in seen if batch.usage is not None]
    return Standing(
        total=sum(part.size for part in current),
        completed=sum(batch.counts.completed for batch in seen),
        failed=sum(batch.counts.failed for batch in seen),
        input_tokens=sum(usage.input_tokens for usage in usages),
        output_tokens=sum(usage.output_tokens for usage in usages),
        costs=costs(seen),
    )


def costs(batches: Sequence[Batch]) -> dict[str, int] | None:
    """By currency, in millionths."""
    told = [batch.qwenbox for batch in batches if batch.qwenbox is not None]
    sums: dict[str, int] = {}
    for cost in told:
        sums[cost.currency] = sums.get(cost.currency, 0) + cost.cost_micros
    return sums if told else None


def money(sums: Mapping[str, int]) -> str:
    return ", ".join(f"{units(micros)} {currency}" for currency, micros in sums.items())


class Show:
    """parts: of the run, as they are now. is_quiet: say nothing at all."""

    def __init__(self, parts: Sequence[Part], *, is_quiet: bool) -> None:
        self._parts = parts
        self._is_live = err.is_terminal and not is_quiet
        self._is_quiet = is_quiet
        self._live = Live(console=err, auto_refresh=False, transient=True)
        self._batches: Mapping[str, Batch] = {}
        self._notice = ""
        self._stage = ""
        self._begun: tuple[float, int] | None = None
        self._said_at = -_PLAIN_EVERY_S

    def __enter__(self) -> Self:
        if self._is_live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._is_live:
            self._live.stop()

    def stage(self, text: str) -> None:
        """What is done now, when it is no waiting for batches."""
        self._stage = text
        self._draw()

    def notice(self, text: str) -> None:
        """A trouble that is waited out; "" when it is over."""
        if text and text != self._notice:
            self._say(text)
        self._notice = text
        self._draw()

    def update(self, batches: Mapping[str, Batch]) -> None:
        self._batches = batches
        now, state = time.monotonic(), standing(self._parts, batches)
        if self._begun is None:
            self._begun = (now, state.done)
        if self._is_live:
            self._draw()
        elif now - self._said_at >= _PLAIN_EVERY_S:
            self._said_at = now
            self._say(" · ".join((self._progress(state), *self._spent(state), *self._ids())))

    def _say(self, text: str) -> None:
        if not self._is_live and not self._is_quiet:
            err.print(text, markup=False)

    def _draw(self) -> None:
        if not self._is_live:
            return
        state = standing(self._parts, self._batches)
        head = Table.grid(padding=(0, 1))
        head.add_row(ProgressBar(total=max(1, state.total), completed=state.done, width=40), Text(self._progress(state)))
        lines = [Text(" · ".join(self._spent(state))), *(Text(line, style="dim") for line in self._ids())]
        lines += [Text(text, style=style) for text, style in ((self._stage, ""), (self._notice, "yellow")) if text]
        self._live.update(Group(head, *lines), refresh=True)

    def _progress(self, state: Standing) -> str:
        failed = f", {state.failed:,} failed" if state.failed else ""
        begun_at, before = self._begun or (time.monotonic(), state.done)
        elapsed_s, done = time.monotonic() - begun_at, state.done - before
        pace = ""
        if done > 0 and elapsed_s > 0:
            left_s = (state.total - state.done) * elapsed_s / done
            pace = f" · {done / elapsed_s:,.1f} lines/s · {_span(left_s)} left"
        return f"{state.done:,} of {state.total:,} done{failed}{pace}"

    def _spent(self, state: Standing) -> tuple[str, ...]:
        tokens = state.input_tokens + state.output_tokens
        used = (f"{state.input_tokens:,} tokens in, {state.output_tokens:,} out",) if tokens else ()
        return (*used, f"{money(state.costs)} so far") if state.costs is not None else used

    def _ids(self) -> tuple[str, ...]:
        open_parts = [part for part in self._parts if part.batch_id and not part.is_over]
        shown = [f"{part.batch_id} {self._status(part)}" for part in open_parts[:_MOST_IDS]]
        more = len(open_parts) - len(shown)
        return (*shown, *([f"and {more} more batches"] if more > 0 else []))

    def _status(self, part: Part) -> str:
        batch = self._batches.get(part.marker)
        return batch.status if batch is not None else part.status


def _span(seconds_s: float) -> str:
    whole = round(seconds_s)
    if whole < 3_600:
        return f"{whole // 60}:{whole % 60:02d}"
    return f"{whole // 3_600}:{whole % 3_600 // 60:02d}:{whole % 60:02d}"
