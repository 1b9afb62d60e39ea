"""This is where batches of every account are shown as they run: sent, watched, cancelled, their results read and taken away.

For tests: new-batch · batches-account, batches-running · batch (data-batch: its id) with batch-state, batch-progress, batch-done,
batch-results, batch-download, batch-cancel · batches-older; in the dialogs those of sending.py and results.py.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from nicegui import ui

from qwenbox.client.admin import AdminClient
from qwenbox.client.jobs import BatchesAsked, BatchJob
from qwenbox.client.shapes import Page
from qwenbox.console import figures, parts
from qwenbox.console.house import Polled
from qwenbox.console.pages.batches import results, sending
from qwenbox.console.pages.batches.pace import Pace
from qwenbox.console.view import View

_EVERY_S = 2.0
_SHOWN, _MOST_SHOWN = 20, 1_000
_STATES = {
    "validating": "Checking its file",
    "in_progress": "Running",
    "finalizing": "Writing results",
    "completed": "Done",
    "failed": "Not run",
    "expired": "Out of time",
    "cancelling": "Cancelling",
    "cancelled": "Cancelled",
}
_STOPPED = ("expired", "cancelled")
_MARKS = {"completed": "good", "failed": "bad", "expired": "warn", "cancelling": "warn", "cancelled": "warn"}


Watched: TypeAlias = tuple[Page[BatchJob], dict[str, Pace]]


async def build(view: View) -> None:
    t = view.t
    board = _Board(view)
    with ui.element("div").classes("row between"):
        ui.label(t("Many requests in one file, run when engines have time for them, at the price of batches.")).classes("muted grow")
        send = view.handler(lambda: sending.open_dialog(view, board.refresh_now))
        ui.button(t("New batch"), icon="add", on_click=send).props("unelevated data-testid=new-batch")
    await board.build()


class _Watch:
    """One list of batches and how fast they move, for all who look at it."""

    def __init__(self, admin: AdminClient, asked: BatchesAsked) -> None:
        self._admin = admin
        self._asked = asked
        self._paces: dict[str, Pace] = {}

    async def look(self) -> Watched:
        page = await self._admin.batches(self._asked)
        self._paces = {batch.id: self._paces.get(batch.id) or Pace() for batch in page.items}
        for batch in page.items:
            self._paces[batch.id].see(batch, time.monotonic())
        return page, self._paces


class _Board:
    """The list, whose cards change in place: nothing that somebody reads or has the focus on is made anew."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._limit = _SHOWN
        self._cards: dict[str, _Card] = {}
        self._names: dict[str, str] = {}

    async def build(self) -> None:
        t = self._view.t
        accounts = [account.name for account in await self._view.admin.accounts()]
        changed = self._view.handler(self.refresh_now)
        with ui.element("div").classes("row"):
            self._account = ui.select({"": t("All accounts"), **{name: name for name in accounts}}, value="", label=t("Account"))
            self._account.props("outlined dense data-testid=batches-account").classes("filter").on_value_change(changed)
            self._is_open = ui.checkbox(t("Only those that are not over"), on_change=changed).props("data-testid=batches-running")
        self._list = ui.element("div").classes("stack")
        self._older = ui.button(t("Show older ones"), on_click=self._view.handler(self._more)).props("flat data-testid=batches-older")
        await self.refresh_now()
        self._view.every(_EVERY_S, self.refresh)

    async def refresh_now(self) -> None:
        """Without what was asked a moment ago."""
        self._polled().forget()
        await self.refresh()

    async def refresh(self) -> None:
        page, paces = await self._polled().get()
        missing = {name for batch in page.items for name in (batch.account_id, batch.key_id)} - self._names.keys()
        if missing:
            self._names |= {account.id: account.name for account in await self._view.admin.accounts()}
            self._names |= {key.id: key.name for key in await self._view.admin.keys()}
            self._names |= {name: name for name in missing - self._names.keys()}
        if [batch.id for batch in page.items] != list(self._cards) or not page.items:
            self._arrange(page.items)
        for batch in page.items:
            self._cards[batch.id].show(batch, paces[batch.id])
        self._older.set_visibility(page.next_cursor is not None and self._limit < _MOST_SHOWN)

    def _arrange(self, batches: Sequence[BatchJob]) -> None:
        """These cards in this order; those that were there stay as they are."""
        if not self._cards or not batches:
            self._list.clear()
            self._cards = {}
        for gone in self._cards.keys() - {batch.id for batch in batches}:
            self._cards.pop(gone).box.delete()
        with self._list:
            self._cards = {
                batch.id: self._cards.get(batch.id) or _Card(self._view, batch, self._names, self.refresh_now) for batch in batches
            }
            if not batches:
                self._empty()
        for card in self._cards.values():
            card.box.move(self._list)

    def _polled(self) -> Polled[Watched]:
        view = self._view
        account, is_open, limit = str(self._account.value or ""), True if self._is_open.value else None, self._limit
        asked = BatchesAsked(account=account, is_open=is_open, limit=limit)
        return view.house.polled(("batches", account, is_open, limit), _Watch(view.admin, asked).look, _EVERY_S)

    def _empty(self) -> None:
        t = self._view.t
        is_filtered = bool(self._account.value or self._is_open.value)
        parts.empty(self._view, t("No batch is like that.") if is_filtered else t("There is no batch yet. Any file of prompts will do."))

    async def _more(self) -> None:
        self._limit = min(_MOST_SHOWN, self._limit * 3)
        await self.refresh_now()


class _Card:
    """One batch."""

    def __init__(self, view: View, batch: BatchJob, names: dict[str, str], changed: Callable[[], Awaitable[None]]) -> None:
        self._view = view
        self._batch = batch
        self._changed = changed
        t = view.t
        self.box = ui.element("section").classes("card stack batch").props(f"data-testid=batch data-batch={batch.id}")
        with self.box:
            with ui.element("div").classes("row"):
                parts.text("h2", batch.name or batch.id, "break grow")
                self._state = ui.label().classes("tag").props("data-testid=batch-state")
                self._buttons()
            who = t("{account}, by the key “{key}”", account=names[batch.account_id], key=names[batch.key_id])
            self._about = ui.label(" · ".join(filter(None, (who, figures.moment(batch.created_at), batch.description))))
            self._about.classes("muted small break")
            self._bar = parts.named(ui.element("div").classes("bar"), t("Progress"))
            self._bar.props("role=progressbar aria-valuemin=0 aria-valuemax=100 data-testid=batch-progress")
            with self._bar:
                self._fill = ui.element("div")
            with ui.element("div").classes("row between small") as self._counts:
                self._done = ui.label().props("data-testid=batch-done").classes("numbers")
                self._cost = ui.label().classes("numbers muted")
            self._fault = ui.label().classes("bad small break")

    def _buttons(self) -> None:
        t, view, batch = self._view.t, self._view, self._batch
        shown = batch.name or batch.id
        with ui.element("div").classes("row tight"):
            self._results = ui.button(icon="visibility", on_click=view.handler(lambda: results.open_dialog(view, self._batch)))
            parts.named(self._results.props("flat round dense data-testid=batch-results"), t("Look at the results of {name}", name=shown))
            self._results.tooltip(t("Look at results"))
            self._download = ui.button(icon="download").props("flat round dense data-testid=batch-download")
            parts.named(self._download, t("Download the results of {name}", name=shown))
            with self._download, ui.menu():
                self._answers = results.download(t("Answers as a table (CSV)"), batch.id, "answers.csv")
                self._lines = results.download(t("Results as they are (JSONL)"), batch.id, "results.jsonl")
                self._errors = results.download(t("Failed lines (JSONL)"), batch.id, "errors.jsonl")
            self._cancel = ui.button(icon="stop_circle", on_click=view.handler(self._ask_to_cancel))
            parts.named(self._cancel.props("flat round dense data-testid=batch-cancel"), t("Stop {name}", name=shown))
            self._cancel.tooltip(t("Stop"))

    def show(self, batch: BatchJob, pace: Pace) -> None:
        """As it stands now."""
        self._batch, t = batch, self._view.t
        self._state.set_text(t(_STATES[batch.status]))
        self._state.classes(replace=f"tag {_MARKS.get(batch.status, '')}")
        # What was stopped is not done.
        done = batch.completed if batch.status in _STOPPED else batch.completed + batch.failed
        percent = 100 * done / batch.total if batch.total else 0
        self._fill.style(f"width: {percent:.2f}%")
        self._bar.props(f"aria-valuenow={percent:.0f}")
        # Of a file that was not run there is nothing to count.
        self._counts.set_visibility(batch.status != "failed")
        self._done.set_text(_progress(self._view, batch, pace))
        tokens = t("{input} tokens in, {output} out", input=figures.count(batch.input_tokens), output=figures.count(batch.output_tokens))
        amount = figures.money(batch.cost_micros, batch.currency) if batch.currency else ""
        self._cost.set_text(" · ".join(filter(None, (batch.model, tokens, amount))))
        self._fault.set_text(_why(self._view, batch))
        self._fault.set_visibility(bool(self._fault.text))
        has_files = bool(batch.output_file_id or batch.error_file_id)
        self._results.set_visibility(has_files or bool(batch.faults))
        self._download.set_visibility(has_files)
        for item in (self._answers, self._lines):
            item.set_visibility(bool(batch.output_file_id))
        self._errors.set_visibility(bool(batch.error_file_id))
        self._cancel.set_visibility(batch.status in ("validating", "in_progress"))

    async def _ask_to_cancel(self) -> None:
        t, batch = self._view.t, self._batch
        question = t("Stop “{name}”? What is answered stays and is paid; the rest is not run.", name=batch.name or batch.id)
        if await parts.ask(self._view, question, t("Stop the batch"), is_dangerous=True):
            await self._view.admin.cancel_batch(batch.id)
            await self._changed()


def _progress(view: View, batch: BatchJob, pace: Pace) -> str:
    t, told = view.t, list[str]()
    completed, failed, total = figures.count(batch.completed), figures.count(batch.failed), figures.count(batch.total)
    if batch.status in _STOPPED:
        told.append(t("{count} of {total} answered", count=completed, total=total))
        told.append(t("{count} failed or not run", count=failed) if batch.failed else "")
    elif batch.total:
        told.append(t("{done} of {total} done", done=figures.count(batch.completed + batch.failed), total=total))
        told.append(t("{count} failed", count=failed) if batch.failed else "")
    rate, left_s = pace.lines_s, pace.left_s(batch)
    if batch.status == "in_progress" and rate and left_s is not None:
        told.append(t("{rate} a second", rate=f"{rate:.1f}" if rate < 10 else figures.count(rate)))
        told.append(t("about {time} left", time=figures.duration(max(1.0, left_s))))
    if batch.ended_at is not None:
        told.append(t("took {time}", time=figures.duration(max(0.0, batch.ended_at - batch.created_at))))
    return " · ".join(filter(None, told))


def _why(view: View, batch: BatchJob) -> str:
    """Why its file was not run."""
    if not batch.faults:
        return ""
    first = batch.faults[0]
    said = view.t("Line {number}: {reason}", number=first.line, reason=first.message) if first.line else first.message
    more = len(batch.faults) - 1
    return said + (f" {view.t('and {count} more', count=more)}" if more else "")
