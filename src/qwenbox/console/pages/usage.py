"""This is where usage and money are added up: by day, model, key or account; budgets; single receipts; everything as CSV."""

from collections.abc import Sequence
from datetime import date, timedelta

import msgspec
from nicegui import ui

from qwenbox.client.budgets import AccountBudget, BudgetsAsked
from qwenbox.client.usage import Statement, UsageAsked, UsageSum
from qwenbox.console import figures, names, parts, plots, receipt
from qwenbox.console.names import Names
from qwenbox.console.plots import Line, Plot
from qwenbox.console.view import View
from qwenbox.terms.errors import ApiError, ErrorKind

_EVERY_S = 10.0
_MOST_BARS = 12
_MOST_BUDGETS = 200

_GROUPS = {"day": "Day", "month": "Month", "model": "Model", "key": "Key", "account": "Account"}
_MEASURES = {"cost": "Cost", "tokens": "Tokens", "calls": "Calls"}


async def build(view: View) -> None:
    sums = _Sums(view)
    await sums.show()
    parts.text("h2", view.t("Budgets this month"))
    budgets = _Budgets(view)
    await budgets.show()
    _receipts(view)
    view.every(_EVERY_S, sums.show)
    view.every(_EVERY_S, budgets.show)


class _Sums:
    """What was used: a plot and a table of the same rows."""

    def __init__(self, view: View) -> None:
        t, self._view = view.t, view
        self._drawn: tuple[object, ...] = ()
        today = date.today()
        with ui.element("div").classes("card row filters").props(f'role="search" aria-label="{t("Filters")}"'):
            self._by = ui.toggle({name: t(told) for name, told in _GROUPS.items()}, value="day").props(
                f'unelevated dense data-testid=usage-by aria-label="{t("Added up by")}"'
            )
            self._since = _day(t("From"), today - timedelta(days=29), "usage-since")
            self._until = _day(t("To"), today, "usage-until")
            ui.button(t("CSV"), icon="download", on_click=view.handler(self._csv)).props("flat data-testid=usage-csv")
        self._figures = ui.element("div").classes("grid-4 figures")
        with ui.element("div").classes("row"):
            self._measure = ui.toggle({name: t(told) for name, told in _MEASURES.items()}, value="cost").props(
                f'unelevated dense data-testid=usage-measure aria-label="{t("What is drawn")}"'
            )
        self._plot_place = ui.element("div")
        self._table_place = ui.element("div")
        for field in (self._by, self._since, self._until, self._measure):
            field.on_value_change(view.handler(self.show))

    async def show(self) -> None:
        view, asked = self._view, self._asked()
        told = await view.house.polled(("usage", asked), lambda: view.admin.usage(asked), _EVERY_S).get()
        if self._drawn == (told, self._measure.value):
            return
        self._drawn = (told, self._measure.value)
        known = await names.read(view)
        for place in (self._figures, self._plot_place, self._table_place):
            place.clear()
        if not told.rows:
            with self._table_place:
                parts.empty(view, view.t("No calls in these days."))
            return
        with self._figures:
            _totals(view, told)
        with self._plot_place:
            _plot(view, told, known, str(self._measure.value))
        with self._table_place:
            _table(view, told, known)

    def _asked(self) -> UsageAsked:
        values = {"by": self._by.value, "since": self._since.value or None, "until": self._until.value or None}
        try:
            return msgspec.convert(values, UsageAsked)
        except msgspec.ValidationError as error:
            raise ApiError(ErrorKind.INVALID_REQUEST, self._view.t("That is no day; write YYYY-MM-DD.")) from error

    async def _csv(self) -> None:
        asked = self._asked()
        ui.download.content(await self._view.admin.usage_csv(asked), f"usage-by-{asked.by}.csv", "text/csv")


def _day(label: str, value: date, mark: str) -> ui.input:
    return ui.input(label, value=value.isoformat()).props(f"outlined dense stack-label type=date debounce=400 data-testid={mark}")


def _totals(view: View, told: Statement) -> None:
    t, rows = view.t, told.rows
    calls, hits = sum(row.calls for row in rows), sum(row.cache_hits for row in rows)
    parts.figure(t("Cost"), _cost(rows), mark="total-cost")
    parts.figure(t("Calls"), figures.count(calls), mark="total-calls")
    parts.figure(t("Input tokens"), figures.count(sum(row.input_tokens for row in rows)), mark="total-input")
    parts.figure(t("Output tokens"), figures.count(sum(row.output_tokens for row in rows)), mark="total-output")
    parts.figure(t("From the cache"), figures.share(hits, calls), mark="total-hits")


def _cost(rows: Sequence[UsageSum]) -> str:
    costs: dict[str, int] = {}
    for row in rows:
        costs[row.currency] = costs.get(row.currency, 0) + row.cost_micros
    return " + ".join(figures.money(micros, currency) for currency, micros in costs.items())


def _name(told: Statement, row: UsageSum, known: Names) -> str:
    if told.by == "key":
        return known.key(row.group)
    return known.account(row.group) if told.by == "account" else row.group


def _plot(view: View, told: Statement, known: Names, measure: str) -> None:
    t, rows = view.t, told.rows
    is_time = told.by in ("day", "month")
    if not is_time:
        # The largest; the table below has them all.
        rows = tuple(sorted(rows, key=lambda row: -_size(row, measure))[:_MOST_BARS])
    unit = plots.money(rows[0].currency) if measure == "cost" else plots.COUNT
    plot = Plot(t(_MEASURES[measure]), unit, kind="bar", mark="plot-usage", is_stacked=measure == "tokens")
    labels = [row.group[5:] if told.by == "day" else _name(told, row, known) for row in rows]
    if measure == "tokens":
        lines = [Line(t("input"), [row.input_tokens for row in rows], 1), Line(t("output"), [row.output_tokens for row in rows], 2)]
    else:
        lines = [Line(t(_MEASURES[measure]), [_size(row, measure) for row in rows], 1)]
    summed = _cost(told.rows) if measure == "cost" else figures.count(sum(_size(row, measure) for row in told.rows))
    plot.show(summed, lines, labels=labels)


def _size(row: UsageSum, measure: str) -> float:
    match measure:
        case "cost":
            return row.cost_micros / 1e6
        case "tokens":
            return row.input_tokens + row.output_tokens
        case _:
            return row.calls


def _table(view: View, told: Statement, known: Names) -> None:
    t = view.t
    headers = (t(_GROUPS[told.by]), t("Calls"), t("Input"), t("Cached"), t("Output"), t("From the cache"), t("Mean first token"), t("Cost"))
    rows = [
        [
            _name(told, row, known),
            figures.count(row.calls),
            figures.count(row.input_tokens),
            figures.count(row.cached_tokens),
            figures.count(row.output_tokens),
            figures.share(row.cache_hits, row.calls),
            figures.duration(row.ttft_micros / row.ttft_calls / 1e6 if row.ttft_calls else None),
            figures.money(row.cost_micros, row.currency),
        ]
        for row in (
            reversed(told.rows) if told.by in ("day", "month") else sorted(told.rows, key=lambda row: (-row.cost_micros, -row.calls))
        )
    ]
    parts.table(headers, rows, mark="usage", numbers=frozenset(range(1, 8)))


class _Budgets:
    """A card for each account, a bar for each budget."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._drawn: tuple[AccountBudget, ...] | None = None
        self._place = ui.element("div").classes("grid-2").props("data-testid=budgets")

    async def show(self) -> None:
        view = self._view
        page = await view.house.polled("budgets", lambda: view.admin.budgets(BudgetsAsked(limit=_MOST_BUDGETS)), _EVERY_S).get()
        if page.items == self._drawn:
            return
        self._drawn = page.items
        self._place.clear()
        busy = [one for one in page.items if one.budget_micros is not None or one.spent_micros or one.balance_micros or one.is_prepaid]
        with self._place:
            if not busy:
                parts.empty(view, view.t("No account has a budget, and nothing was spent this month."))
            for account in busy:
                self._account(account)
            if page.next_cursor:
                ui.label(view.t("Of the oldest {count} accounts; Keys has all of them.", count=_MOST_BUDGETS)).classes("muted")

    def _account(self, account: AccountBudget) -> None:
        t = self._view.t
        with ui.element("section").classes("card stack"):
            with ui.element("div").classes("row between"):
                parts.text("h3", account.name, "break")
                ends = figures.moment(account.ends_at)[:10]
                ui.label(t("until {day}", day=ends)).classes("muted small")
            self._bar(t("The account"), account, account.spent_micros, account.budget_micros)
            for key in account.keys:
                if key.budget_micros is not None or key.spent_micros:
                    self._bar(key.name, account, key.spent_micros, key.budget_micros)
            if account.is_prepaid or account.balance_micros > 0:
                ui.label(t("Balance: {amount}", amount=figures.money(account.balance_micros, account.currency))).classes(
                    "bad" if account.is_prepaid and account.balance_micros <= 0 else "muted"
                )

    def _bar(self, name: str, account: AccountBudget, spent: int, budget: int | None) -> None:
        t = self._view.t
        told = figures.money(spent, account.currency)
        if budget is not None:
            told = t("{spent} of {budget}", spent=told, budget=figures.money(budget, account.currency))
        with ui.element("div").classes("budget"):
            with ui.element("div").classes("row between"):
                ui.label(name).classes("break")
                ui.label(told).classes("mono small")
            if budget is None:
                return
            part = 1.0 if budget == 0 else min(1.0, spent / budget)
            state = "bad" if spent >= budget else "warn" if spent >= account.alert_share * budget else ""
            with ui.element("div").classes(f"bar {state}").props(f'role="img" aria-label="{figures.share(spent, budget)}"'):
                ui.element("div").style(f"width: {100 * part:.2f}%")


def _receipts(view: View) -> None:
    t = view.t
    parts.text("h2", t("Receipt of one call"))

    async def look() -> None:
        request_id = (field.value or "").strip().removeprefix("chatcmpl-")
        place.clear()
        if request_id:
            with place, ui.element("div").classes("card"):
                await receipt.build(view, request_id)

    with ui.element("form").classes("row").on("submit.prevent", view.handler(look)):
        field = ui.input(t("Request id"), placeholder="019…").props("outlined dense data-testid=receipt-field").classes("grow")
        ui.button(t("Look")).props("unelevated type=submit data-testid=receipt-look")
    place = ui.element("div")
