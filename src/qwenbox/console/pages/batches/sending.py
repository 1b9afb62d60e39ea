"""This is where a visitor makes a batch of a file: chosen, told how to read it, checked in plain words, sent.

For tests: in the dialog batch-file (the uploader), batch-model, batch-system, batch-max-tokens, batch-column, batch-template,
batch-temperature, batch-encoding, batch-check, batch-told (what the check found), batch-fault, batch-account, batch-key, batch-name,
batch-send.
"""

import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import BinaryIO

import anyio
import anyio.to_thread
from nicegui import events, ui

from qwenbox.client.batch_input import CHAT, EMBEDDINGS, Recipe, Shape, sniffed
from qwenbox.client.catalog import Model
from qwenbox.client.jobs import NewBatchJob
from qwenbox.client.shapes import Key
from qwenbox.console import figures, parts
from qwenbox.console.pages.batches import checking
from qwenbox.console.pages.batches.checking import MOST_BYTES, MOST_LINES, Checked
from qwenbox.console.pages.batches.files import Shelf
from qwenbox.console.view import View
from qwenbox.terms.errors import ApiError, ErrorKind

_ENCODINGS = ("utf-8", "gb18030", "utf-16")
# The file is read again after each change of an option, unless that takes a while.
_QUICK_BYTES = 20 * 1024 * 1024
_FAULTS_SHOWN = 5
_WINDOW_S = 86_400
_LARGEST = f"{MOST_BYTES // 1_000_000} MB"


async def open_dialog(view: View, sent: Callable[[], Awaitable[None]]) -> None:
    t = view.t
    models = await view.admin.catalog()
    keys = [key for key in await view.admin.keys() if _may_pay(key)]
    accounts = {account.id: account.name for account in await view.admin.accounts()}
    with parts.dialog(t("New batch"), is_persistent=True) as dialog:
        parts.text("h2", t("New batch"))
        sending = _Sending(view, models, keys, accounts)
        with ui.element("div").classes("row end"):
            ui.button(t("Cancel"), on_click=dialog.close).props("flat")
            send = ui.button(t("Send")).props("unelevated data-testid=batch-send")
            sending.watch(send)

    async def run() -> None:
        send.props(add="loading")
        try:
            is_sent = await sending.send()
        finally:
            send.props(remove="loading")
            await sent()
        if is_sent:
            dialog.close()

    send.on_click(view.handler(run))
    dialog.on("hide", sending.close)
    dialog.open()


def _may_pay(key: Key) -> bool:
    """Whether it lives as long as the batch may take; the console's own keys do not."""
    return key.revoked_at is None and (key.expires_at is None or key.expires_at > time.time() + _WINDOW_S)


class _Sending:
    """What is in the dialog, from the file to the batch."""

    def __init__(self, view: View, models: tuple[Model, ...], keys: list[Key], accounts: dict[str, str]) -> None:
        self._view = view
        self._models = {name: model for model in models for name in (model.name, *model.aliases)}
        self._file: BinaryIO | None = None
        self._name = ""
        self._size_bytes = 0
        self._shape = Shape.TEXT
        self._checked = Checked()
        self._turn = anyio.Lock()
        self._wanted = 0
        self._build(models, keys, accounts)

    def _build(self, models: tuple[Model, ...], keys: list[Key], accounts: dict[str, str]) -> None:
        self._uploader()
        with ui.element("div").classes("stack") as self._rest:
            self._options(models)
            self._report = ui.element("div").classes("stack report").props("data-testid=batch-told role=status")
            self._payer(keys, accounts)
        self._rest.set_visibility(False)

    def _uploader(self) -> None:
        t = self._view.t
        upload = ui.upload(auto_upload=True, max_file_size=MOST_BYTES, on_upload=self._view.handler(self._take), on_rejected=self._refuse)
        upload.props('flat accept=".jsonl,.ndjson,.json,.txt,.csv,.tsv" data-testid=batch-file').classes("drop")
        with upload.add_slot("header"), ui.element("div").classes("row drop-head"):
            # What the browser asks for a file with; a button inside it would hide it from nobody but the eye.
            with ui.element("div").classes("hidden-input"):
                ui.element("q-uploader-add-trigger")
            button = ui.button(t("Choose a file"), icon="upload_file").props("unelevated no-caps")
            # At once in the browser: it opens its dialog for a file only while it remembers the key or the click.
            button.on("click", js_handler=f"(event) => getElement({upload.id}).$refs.qRef.pickFiles(event)")
            self._chosen = ui.label(t("or drop it here")).classes("muted break").props("role=status")
        upload.on("added", lambda: self._chosen.set_text(t("Uploading …")), args=[])
        upload.on("failed", lambda: self._chosen.set_text(t("The upload broke off; please choose the file again.")), args=[])
        with upload.add_slot("list"):
            told = t(
                "One prompt a line (.txt), a table with a column of prompts (.csv, .tsv), or requests of the Batches API (.jsonl). "
                "Up to {size}; {count} requests are one batch.",
                size=_LARGEST,
                count=figures.count(MOST_LINES),
            )
            ui.label(told).classes("muted small")

    def _options(self, models: tuple[Model, ...]) -> None:
        t, changed = self._view.t, self._view.handler(self._maybe_check)
        names = [model.name for model in models if {"chat", "embedding"} & set(model.capabilities) and model.name != "*"]
        with ui.element("div").classes("grid-fields"):
            self._model = ui.select(names, label=t("Model, for lines that name none"), value=names[0] if names else None, with_input=True)
            self._model.props("outlined dense data-testid=batch-model").on_value_change(changed)
            if any(model.name == "*" for model in models):
                self._model.props('new-value-mode="add-unique"')
            self._most = ui.number(t("Longest answer (tokens)"), min=1, precision=0).props("outlined dense data-testid=batch-max-tokens")
            self._column = ui.select({"": t("find it")}, value="", label=t("Column of the prompt"))
            self._column.props("outlined dense data-testid=batch-column").on_value_change(changed)
        self._system = ui.textarea(t("System prompt, for lines that have none")).props("outlined dense autogrow data-testid=batch-system")
        with ui.expansion(t("More")).classes("more"), ui.element("div").classes("grid-fields"):
            self._template = ui.input(t("Template around the prompt"), placeholder=t("e.g. Translate: {text}"))
            self._template.props("outlined dense data-testid=batch-template")
            self._temperature = ui.number(t("Temperature"), min=0, max=2, step=0.1).props("outlined dense data-testid=batch-temperature")
            self._encoding = ui.select(list(_ENCODINGS), value="utf-8", label=t("Encoding"))
            self._encoding.props("outlined dense data-testid=batch-encoding").on_value_change(changed)
        for field in (self._most, self._system, self._template, self._temperature):
            field.on("change", changed)
        self._again = ui.button(t("Check again"), on_click=self._view.handler(self.check)).props("flat data-testid=batch-check")

    def _payer(self, keys: list[Key], accounts: dict[str, str]) -> None:
        t = self._view.t
        names = {accounts.get(key.account_id, ""): key.account_id for key in keys}
        with ui.element("div").classes("grid-fields"):
            self._account = ui.select(list(names), label=t("Account that pays"), value=next(iter(names), None))
            self._account.props("outlined dense data-testid=batch-account")
            self._key = ui.select({}, label=t("Key"), value=None).props("outlined dense data-testid=batch-key")
            self._title = ui.input(t("Name")).props("outlined dense maxlength=200 data-testid=batch-name")

        def offer() -> None:
            # The newest first, but those that may use anything before.
            mine = [key for key in reversed(keys) if key.account_id == names.get(self._account.value or "")]
            offered = {key.id: key.name for key in sorted(mine, key=lambda key: key.models is not None)}
            parts.offer(self._key, offered, next(iter(offered), None))

        offer()
        self._account.on_value_change(offer)
        self._key.on_value_change(lambda: self._told(self._checked))
        self._account_ids, self._keys = names, {key.id: key for key in keys}
        if not keys:
            ui.label(t("No key can pay: a batch is run in the name of a key that is good for another day.")).classes("warn")
            parts.text("a", t("Create a key")).props('href="/keys"')

    def watch(self, send: ui.button) -> None:
        """The button is there for a file that can be sent."""
        self._send = send
        send.disable()

    async def _take(self, event: events.UploadEventArguments) -> None:
        kept = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        head = b""
        async for piece in event.file.iterate():
            head = head or piece[:4_096]
            await anyio.to_thread.run_sync(kept.write, piece)
        kept.flush()
        if self._file is not None:
            self._file.close()
        self._send.disable()
        self._file, self._name, self._size_bytes = kept, event.file.name, event.file.size()
        self._shape = sniffed(self._name, head)
        self._chosen.set_text(f"{self._name} · {figures.size(self._size_bytes)}")
        self._title.set_value(self._name[:200])
        self._rest.set_visibility(True)
        is_table = self._shape in (Shape.CSV, Shape.TSV)
        self._column.set_visibility(is_table)
        if is_table:
            columns = checking.columns(head, self._shape, self._encoding.value or "utf-8")
            parts.offer(self._column, {"": self._view.t("find it"), **{name: name for name in columns if name}}, "")
        await self.check()

    def _refuse(self) -> None:
        told = self._view.t("This file is too large, or of a kind that is not read here; up to {size}.", size=_LARGEST)
        ui.notify(told, type="negative")

    async def _maybe_check(self) -> None:
        if self._size_bytes <= _QUICK_BYTES:
            await self.check()
        else:
            self._send.disable()
            self._again.set_visibility(True)

    async def check(self) -> None:
        """Read the file as the fields say, and tell what it holds; of several changes at once only the last one counts."""
        if self._file is None:
            return
        self._wanted += 1
        mine, file = self._wanted, self._file
        self._tell([self._view.t("Reading …")])
        async with self._turn:
            if mine != self._wanted or file.closed:
                return
            recipe, encoding, shape = self._recipe(), str(self._encoding.value), self._shape
            handle = os.fdopen(os.dup(file.fileno()), "rb")
            handle.seek(0)
            self._checked.close()
            self._checked = await anyio.to_thread.run_sync(checking.check, handle, shape, encoding, recipe)
        if mine == self._wanted:
            self._told(self._checked)

    def _recipe(self) -> Recipe:
        model = str(self._model.value or "")
        known = self._models.get(model)
        is_embedding = known is not None and "embedding" in known.capabilities and "chat" not in known.capabilities
        return Recipe(
            model=model,
            column=str(self._column.value or "") if self._shape in (Shape.CSV, Shape.TSV) else "",
            template=self._template.value or "",
            system=self._system.value or "",
            endpoint=EMBEDDINGS if is_embedding else CHAT,
            temperature=self._temperature.value,
            max_tokens=int(self._most.value) if self._most.value else None,
        )

    def _told(self, checked: Checked) -> None:
        t = self._view.t
        self._send.disable()
        self._again.set_visibility(self._size_bytes > _QUICK_BYTES)
        if not checked.parts and not checked.faults:
            return
        if checked.faults:
            self._tell([t("Nothing can be sent yet:")], checked)
            return
        if refused := self._refused(checked.models):
            self._tell([refused], is_wrong=True)
            return
        batches = t("{count} batches, one for each model", count=len(checked.parts)) if len(checked.parts) > 1 else ""
        first = [t("{count} requests", count=figures.count(checked.total)), ", ".join(checked.models[:5]), batches]
        tokens = t("about {count} tokens to read", count=figures.count(sum(checked.input_tokens.values())))
        self._tell([" · ".join(filter(None, first)), " · ".join(filter(None, (tokens, self._cost(checked))))])
        self._send.enable()

    def _refused(self, models: list[str]) -> str:
        """Why the box would not run them, or not with this key."""
        t, key = self._view.t, self._keys.get(str(self._key.value))
        unknown = [name for name in models if name not in self._models and "*" not in self._models]
        if unknown:
            return t("This box has no model “{name}”.", name=unknown[0])
        if key is None or key.models is None:
            return ""
        allowed = {self._named(name) for name in key.models}
        closed = [name for name in models if self._named(name) not in allowed]
        return t("The key “{key}” may not use “{name}”.", key=key.name, name=closed[0]) if closed else ""

    def _named(self, name: str) -> str:
        """A model's own name, of an alias."""
        return self._models[name].name if name in self._models else name

    def _cost(self, checked: Checked) -> str:
        t, cost = self._view.t, checking.cost(checked, self._models)
        if cost is None:
            return ""
        if cost.most is None:
            return t("about {amount}, and what the answers cost", amount=figures.money(cost.input, cost.currency))
        least, most = figures.money(cost.input, cost.currency), figures.money(cost.most, cost.currency)
        return t("about {least} to {most}", least=least, most=most)

    def _tell(self, lines: list[str], checked: Checked | None = None, *, is_wrong: bool = False) -> None:
        t = self._view.t
        self._report.clear()
        with self._report:
            for line in lines:
                ui.label(line).classes("bad" if is_wrong or checked else "")
            for fault in checked.faults[:_FAULTS_SHOWN] if checked else ():
                said = t(fault.told, **fault.values)
                shown = t("Line {number}: {reason}", number=fault.line, reason=said) if fault.line else said
                ui.label(shown).classes("break").props("data-testid=batch-fault")
            if checked and len(checked.faults) > _FAULTS_SHOWN:
                ui.label(t("and {count} more", count=len(checked.faults) - _FAULTS_SHOWN)).classes("muted")

    async def send(self) -> bool:
        """Upload and start what the check found; whether anything was. A check that a last change began comes first.

        What was sent before something failed is told by the list, and not sent again.
        """
        async with self._turn:
            if not self._checked.parts or self._refused(self._checked.models):
                return False
            await self._send_parts(self._checked)
            return True

    async def _send_parts(self, checked: Checked) -> None:
        t, key = self._view.t, self._key.value
        if not key:
            raise ApiError(
                ErrorKind.INVALID_REQUEST, t("No key can pay: a batch is run in the name of a key that is good for another day.")
            )
        shelf = Shelf(self._view.house, self._account_ids[str(self._account.value)])
        title = (self._title.value or "").strip() or self._name
        while checked.parts:
            part, number = checked.parts[0], checked.sent + 1
            if checked.count > 1:
                self._tell([t("Sending batch {number} of {count} …", number=number, count=checked.count)])
            name = title if checked.count == 1 else f"{title[:180]} ({number}/{checked.count})"
            file_id = await shelf.upload(f"{self._name}.jsonl", part.handle, part.size_bytes)
            await self._view.admin.create_batch(NewBatchJob(key=key, input_file_id=file_id, endpoint=part.endpoint, name=name))
            checked.was_sent(part)
        self._view.tell(t("Sent."))

    def close(self) -> None:
        self._wanted += 1
        self._checked.close()
        if self._file is not None:
            self._file.close()
            self._file = None
