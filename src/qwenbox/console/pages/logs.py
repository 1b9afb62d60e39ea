"""This is where calls are looked through: filters, newest first or live, and one call whole."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial

import msgspec
from nicegui import context, ui

from qwenbox.client.shapes import Page
from qwenbox.client.usage import Call, CallsAsked, OutcomeName
from qwenbox.console import figures, names, parts, receipt
from qwenbox.console.names import Names
from qwenbox.console.view import View
from qwenbox.terms.errors import ApiError, ErrorKind

_PAGE = 50
_LIVE_S = 2.0
_DIALECTS = ("openai", "dashscope", "anthropic")
_OUTCOMES: dict[OutcomeName, str] = {"completed": "completed", "hung_up": "hung_up", "failed": "failed"}
_TAGS = {"completed": "good", "failed": "bad", "hung_up": "warn"}


async def build(view: View) -> None:
    known = await names.read(view)
    filters = _Filters(view, known)
    list_ = _List(view, known, filters)
    filters.on_change = view.handler(list_.first)
    await list_.first()
    view.every(_LIVE_S, list_.tail)
    # Other pages link to one call.
    if request_id := context.client.request.query_params.get("request", ""):
        await view.handler(show)(view, request_id)


class _Filters:
    """What is wanted. on_change: told of every change."""

    def __init__(self, view: View, known: Names) -> None:
        t = view.t
        self._view = view
        self.on_change: Callable[[], Awaitable[None]] | None = None
        with (
            ui.element("form")
            .classes("card grid-4 filters")
            .props(f'role="search" aria-label="{t("Filters")}"')
            .on("submit.prevent", self._changed)
        ):
            self._request_id = self._text(t("Request id"), "filter-id")
            self._account = self._choice(
                t("Account"), {account.name: account.name for account in known.accounts.values()}, "filter-account"
            )
            self._key = self._choice(t("Key"), {key.id: key.name for key in known.keys.values()}, "filter-key")
            self._model = self._text(t("Model"), "filter-model")
            self._outcome = self._choice(t("Ended"), {value: t(name) for value, name in _OUTCOMES.items()}, "filter-outcome")
            self._dialect = self._choice(t("Dialect"), {name: name for name in _DIALECTS}, "filter-dialect")
            self._since = self._text(t("From"), "filter-since", kind="datetime-local")
            self._until = self._text(t("Until"), "filter-until", kind="datetime-local")
            self._least = ui.number(t("At least (seconds)"), min=0).props(
                "outlined dense clearable debounce=400 step=any data-testid=filter-least"
            )
            self._least.on_value_change(self._changed)

    def _text(self, label: str, mark: str, kind: str = "text") -> ui.input:
        field = ui.input(label).props(f"outlined dense clearable debounce=400 type={kind} data-testid={mark}")
        if kind != "text":
            field.props('stack-label step="1"')
        field.on_value_change(self._changed)
        return field

    def _choice(self, label: str, options: dict[str, str], mark: str) -> ui.select:
        field = ui.select(options, label=label, clearable=True).props(f"outlined dense data-testid={mark}")
        field.on_value_change(self._changed)
        return field

    async def _changed(self) -> None:
        if self.on_change is not None:
            await self.on_change()

    def wanted(self, cursor: str = "") -> CallsAsked:
        """Raises ApiError(INVALID_REQUEST) for what cannot be asked, in the visitor's words."""
        values = {
            "account": self._account.value or "",
            "key": self._key.value or "",
            "model": (self._model.value or "").strip(),
            "outcome": self._outcome.value,
            "dialect": self._dialect.value or "",
            "request_id": (self._request_id.value or "").strip(),
            "since_at": _moment(self._since.value),
            "until_at": _moment(self._until.value),
            "least_s": self._least.value,
            "cursor": cursor,
            "limit": _PAGE,
        }
        try:
            return msgspec.convert(values, CallsAsked)
        except msgspec.ValidationError as error:
            raise ApiError(ErrorKind.INVALID_REQUEST, self._view.t("A filter has characters that no call can have.")) from error


class _List:
    """One page of calls, and the way to others."""

    def __init__(self, view: View, known: Names, filters: _Filters) -> None:
        self._view, self._names, self._filters = view, known, filters
        # Cursors of the pages from the newest to the one that is shown.
        self._trail = [""]
        self._shown: tuple[str, ...] | None = None
        self._next: str | None = None
        t = view.t
        with ui.element("div").classes("row between"):
            self._live = ui.switch(t("Live"), value=True).props("data-testid=live")
            with ui.element("div").classes("row"):
                self._newest = ui.button(t("Newest"), icon="first_page", on_click=view.handler(self.first)).props(
                    "flat dense data-testid=newest"
                )
                self._newer = ui.button(t("Newer"), icon="chevron_left", on_click=view.handler(self._back)).props(
                    "flat dense data-testid=newer"
                )
                self._older = ui.button(t("Older"), icon="chevron_right", on_click=view.handler(self._on)).props(
                    "flat dense data-testid=older"
                )
                ui.button(t("CSV"), icon="download", on_click=view.handler(self._csv)).props("flat dense data-testid=calls-csv")
        self._place = ui.element("div").classes("stack")
        self._table: parts.Table | None = None

    async def first(self) -> None:
        self._trail = [""]
        self._shown = None
        await self._show()

    async def tail(self) -> None:
        """What is new, while somebody looks at the newest and wants it live."""
        if self._live.value and len(self._trail) == 1:
            await self._show()

    async def _on(self) -> None:
        if self._next is not None:
            self._trail.append(self._next)
            await self._show()

    async def _back(self) -> None:
        if len(self._trail) > 1:
            self._trail.pop()
            await self._show()

    async def _csv(self) -> None:
        wanted = msgspec.structs.replace(self._filters.wanted(), limit=100)
        ui.download.content(await self._view.admin.calls_csv(wanted), "calls.csv", "text/csv")

    async def _show(self) -> None:
        asked = self._filters.wanted(self._trail[-1])
        # Whoever looks at the same sees the same answer.
        page = await self._view.house.polled(("calls", asked), lambda: self._view.admin.calls(asked), _LIVE_S).get()
        self._next = page.next_cursor
        for button, is_possible in (
            (self._newest, len(self._trail) > 1),
            (self._newer, len(self._trail) > 1),
            (self._older, self._next is not None),
        ):
            button.set_enabled(is_possible)
        ids = tuple(call.id for call in page.items)
        if ids == self._shown:
            return
        self._shown = ids
        if any(call.key_id not in self._names.keys for call in page.items):
            self._names = await names.read(self._view, is_stale=True)
        with self._place:
            self._draw(page)

    def _draw(self, page: Page[Call]) -> None:
        t = self._view.t
        if not page.items:
            self._place.clear()
            self._table = None
            told = t("None of the calls looked at. Older ones may be.") if page.next_cursor else t("No such calls.")
            parts.empty(self._view, told)
            return
        if self._table is None:
            self._place.clear()
            headers = (t("Time"), t("Model"), t("Key"), t("Ended"), t("Input"), t("Output"), t("First token"), t("Whole"), t("Cost"), "")
            self._table = parts.Table(headers, mark="calls", numbers=frozenset({4, 5, 6, 7, 8}))
        self._table.show({call.id: partial(self._row, call) for call in page.items})

    def _row(self, call: Call) -> list[parts.Cell]:
        t = self._view.t

        def ended() -> None:
            with ui.element("div").classes("row tight-tags"):
                ui.label(t(call.outcome)).classes(f"tag {_TAGS[call.outcome]}")
                if call.error_kind:
                    ui.label(call.error_kind).classes("tag bad")
                if call.is_cache_hit:
                    ui.label(t("cache")).classes("tag")

        async def look() -> None:
            await show(self._view, call.id)

        return [
            lambda: ui.label(figures.moment(call.admitted_at)[5:]).classes("nowrap"),
            lambda: ui.label(call.model).classes("nowrap"),
            self._names.key(call.key_id),
            ended,
            figures.count(call.input_tokens),
            figures.count(call.output_tokens),
            figures.duration(call.ttft_s),
            figures.duration(call.duration_s),
            figures.money(call.cost_micros, call.currency),
            parts.actions(("timeline", t("Look at call {name}", name=call.id[:13]), self._view.handler(look))),
        ]


async def show(view: View, request_id: str) -> None:
    """One call, over the page."""
    t = view.t
    with parts.dialog(t("Call"), is_wide=True) as dialog:
        with ui.element("div").classes("row between"):
            parts.text("h2", t("Call"))
            ui.button(icon="close", on_click=dialog.close).props(
                f'flat round dense autofocus aria-label="{t("Close")}" data-testid=close-call'
            )
        try:
            await receipt.build(view, request_id)
        except ApiError:
            dialog.delete()
            raise
    dialog.open()


def _moment(value: str | None) -> float | None:
    """Of a field for date and time; the machine's own zone, as all times here are shown."""
    try:
        return datetime.fromisoformat(value).timestamp() if value else None
    except ValueError:
        return None
