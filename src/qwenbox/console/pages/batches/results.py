"""This is where the first lines of a batch's results are read: what was asked, what was answered, what failed and why.

For tests: results · result (one answer) · failure (one kind of failure).
"""

from collections import Counter

import msgspec
from nicegui import ui

from qwenbox.client import batch_results
from qwenbox.client.batch_results import Row
from qwenbox.client.jobs import BatchJob
from qwenbox.console import figures, parts
from qwenbox.console.pages.batches.files import Shelf, lines
from qwenbox.console.view import View
from qwenbox.terms.errors import ApiError

_SHOWN, _LONGEST = 20, 4_000
# Failures are counted over so many lines of their file.
_COUNTED = 2_000


def download(label: str, batch_id: str, kind: str) -> ui.element:
    """A menu's item that takes a file away."""
    with (
        ui.element("a")
        .classes("menu-link")
        .props(f'href="/batches/{batch_id}/{kind}" role=menuitem download data-testid=download-{kind}') as link
    ):
        ui.label(label)
    return link


async def open_dialog(view: View, batch: BatchJob) -> None:
    t = view.t
    shelf = Shelf(view.house, batch.account_id)
    answers = await _rows(shelf, batch.output_file_id, _SHOWN + 1)
    failed = await _rows(shelf, batch.error_file_id, _COUNTED)
    asked = await _asked(shelf, batch.input_file_id) if answers or failed else {}
    name = batch.name or batch.id
    with parts.dialog(name, is_wide=True) as dialog:
        dialog.props("data-testid=results")
        with ui.element("div").classes("row between"):
            parts.text("h2", name, "break grow")
            parts.named(ui.button(icon="close", on_click=dialog.close).props("flat round dense"), t("Close"))
        if failed or batch.faults:
            _failures(view, batch, failed, asked)
        for row in answers[:_SHOWN]:
            _answer(view, row, asked.get(row.custom_id, ""))
        if len(answers) > _SHOWN:
            ui.label(t("These are the first {count}; the rest is in the download.", count=_SHOWN)).classes("muted")
        if not answers and not failed and not batch.faults:
            ui.label(t("There are no results.")).classes("muted")
    dialog.open()


def _answer(view: View, row: Row, asked: str) -> None:
    with ui.element("article").classes("result stack").props("data-testid=result"):
        if asked:
            ui.label(_cut(asked)).classes("muted small pre")
        ui.label(_cut(_said(view, row))).classes("pre")
        usage = batch_results.usage(row)
        counted = view.t("{input} tokens in, {output} out", input=usage.input_tokens, output=usage.output_tokens) if usage else ""
        ui.label(" · ".join(filter(None, (row.custom_id, counted, row.finish_reason or "")))).classes("muted small break")


def _failures(view: View, batch: BatchJob, failed: list[Row], asked: dict[str, str]) -> None:
    t = view.t
    with ui.element("div").classes("stack failures"):
        parts.text("h3", t("What failed"))
        for fault in batch.faults[:_SHOWN]:
            where = t("Line {number}: {reason}", number=fault.line, reason=fault.message) if fault.line else fault.message
            ui.label(where).classes("break").props("data-testid=failure")
        kinds = Counter((row.error.code, row.error.message) for row in failed if row.error is not None)
        for (code, message), count in kinds.most_common(10):
            alike = [row.custom_id for row in failed if row.error is not None and row.error.code == code and row.error.message == message]
            with ui.element("div").props("data-testid=failure"):
                ui.label(f"{figures.count(count)} × {code}: {message}").classes("break")
                examples = ", ".join(alike[:5]) + (" …" if len(alike) > 5 else "")
                ui.label(t("Lines by their custom_id: {examples}", examples=examples)).classes("muted small break")
                if first := asked.get(alike[0], ""):
                    ui.label(_cut(first, 300)).classes("muted small pre")
        if len(failed) >= _COUNTED:
            ui.label(t("Counted over the first {count} of {total}.", count=_COUNTED, total=figures.count(batch.failed))).classes("muted")


def _said(view: View, row: Row) -> str:
    if row.answer:
        return row.answer
    if row.tool_calls is not msgspec.UNSET:
        return view.t("Tool calls: {calls}", calls=bytes(row.tool_calls).decode())
    return "–" if row.embedding is msgspec.UNSET else view.t("A vector, in the download.")


async def _rows(shelf: Shelf, file_id: str | None, most: int) -> list[Row]:
    """The first ones of a file; the connection is closed once they are here."""
    found: list[Row] = []
    if file_id is not None:
        async with shelf.reading(file_id) as pieces:
            async for line in lines(pieces):
                found.append(batch_results.row(0, batch_results.custom_id(line), line))
                if len(found) >= most:
                    break
    return found


class _Message(msgspec.Struct, frozen=True):
    content: msgspec.Raw = msgspec.Raw(b'""')


class _Body(msgspec.Struct, frozen=True):
    messages: tuple[_Message, ...] = ()
    prompt: msgspec.Raw = msgspec.Raw(b'""')
    input: msgspec.Raw = msgspec.Raw(b'""')


class _Line(msgspec.Struct, frozen=True):
    custom_id: str = ""
    body: _Body = _Body()


_LINE = msgspec.json.Decoder(_Line)


async def _asked(shelf: Shelf, file_id: str) -> dict[str, str]:
    """What the first lines asked, by custom_id; nothing where the file was deleted."""
    found: dict[str, str] = {}
    try:
        async with shelf.reading(file_id) as pieces:
            async for text in lines(pieces):
                line = _LINE.decode(text)
                said = line.body.messages[-1].content if line.body.messages else line.body.prompt
                shown = msgspec.json.decode(said if bytes(said) != b'""' else line.body.input)
                found[line.custom_id] = shown if isinstance(shown, str) else msgspec.json.encode(shown).decode()
                if len(found) >= 3 * _SHOWN:
                    break
    except (ApiError, msgspec.DecodeError):
        return found
    return found


def _cut(text: str, most: int = _LONGEST) -> str:
    return text if len(text) <= most else f"{text[:most]} …"
