"""This is where somebody sees at a glance what the box does: calls, tokens, cost, errors, first tokens, cache hits, over time and live."""

from typing import NamedTuple

from nicegui import ui

from qwenbox.client.series import Quantiles, Series, SeriesAsked, Step
from qwenbox.console import figures, parts, plots
from qwenbox.console.plots import Line, Plot
from qwenbox.console.view import View


class _Span(NamedTuple):
    """every_s: how often it is looked at anew."""

    name: str
    last_s: float
    step_s: float
    every_s: float


_SPANS = {
    "1h": _Span("1 hour", 3_600, 60, 5),
    "24h": _Span("24 hours", 86_400, 900, 20),
    "7d": _Span("7 days", 604_800, 7_200, 60),
    "30d": _Span("30 days", 2_592_000, 43_200, 120),
}


async def build(view: View) -> None:
    t = view.t
    with ui.element("div").classes("row between"):
        ui.label(t("Calls that were let in, by the moment they came.")).classes("muted")
        picker = ui.toggle({name: t(span.name) for name, span in _SPANS.items()}, value="1h").props(
            f'unelevated dense data-testid=span aria-label="{t("Span")}"'
        )
    nothing = ui.element("div")
    board = _Board(view, (await _read(view, "1h")).currency)

    async def show() -> None:
        found = await _read(view, str(picker.value))
        board.show(found)
        # Once, so that nothing jumps under the hand of whoever copies it.
        if found.total.calls:
            nothing.clear()
        elif not nothing.default_slot.children:
            with nothing:
                await _nothing(view)

    timers: list[ui.timer] = []

    async def pick() -> None:
        for timer in timers:
            timer.cancel()
        timers[:] = [view.every(_SPANS[str(picker.value)].every_s, show)]

    picker.on_value_change(view.handler(pick))
    await pick()


async def _read(view: View, name: str) -> Series:
    """One question for all open pages of this span."""
    span = _SPANS[name]
    asked = SeriesAsked(last_s=span.last_s, step_s=span.step_s)
    return await view.house.polled(("series", name), lambda: view.admin.series(asked), span.every_s).get()


async def _nothing(view: View) -> None:
    t = view.t
    models = await view.admin.engines()
    ready = [one.model for one in models if any(deployment.state == "ready" for deployment in one.deployments)]
    model = next(iter([*ready, *(one.model for one in models)]), "qwen-turbo")
    command = (
        f"curl {view.base_url}/compatible-mode/v1/chat/completions -H 'authorization: Bearer <{t('your key')}>' "
        f'-H \'content-type: application/json\' -d \'{{"model": "{model}", "messages": [{{"role": "user", "content": "hi"}}]}}\''
    )
    with ui.element("div").classes("empty card").props("data-testid=no-calls"):
        ui.label(t("No calls in this span. Make one: in the playground, or with a key of yours:"))
        parts.copyable(view, command)
        with ui.element("div").classes("row"):
            parts.text("a", t("Create a key")).props('href="/keys"')
            parts.text("a", t("Open the playground")).props('href="/playground"')


class _Board:
    """Figures above, plots below."""

    def __init__(self, view: View, currency: str) -> None:
        self._t = t = view.t
        with ui.element("div").classes("grid-4 figures"):
            self._calls = parts.figure(t("Calls"), "–", mark="figure-calls")
            self._tokens = parts.figure(t("Tokens"), "–", mark="figure-tokens")
            self._cost = parts.figure(t("Cost"), "–", mark="figure-cost")
            self._errors = parts.figure(t("Failed"), "–", mark="figure-errors")
            self._ttft = parts.figure(t("First token, p50"), "–", mark="figure-ttft")
            self._hits = parts.figure(t("From the cache"), "–", mark="figure-hits")
        self._cut = ui.label(t("More calls than one look takes: only the newest of this span are shown.")).classes("muted small")
        self._plots = ui.element("div").classes("grid-2")
        with self._plots:
            self._calls_plot = Plot(t("Calls"), plots.COUNT, kind="bar", mark="plot-calls", is_stacked=True)
            self._tokens_plot = Plot(t("Tokens"), plots.COUNT, kind="bar", mark="plot-tokens", is_stacked=True)
            self._ttft_plot = Plot(t("Time to first token"), plots.SECONDS, mark="plot-ttft")
            self._cost_plot = Plot(t("Cost"), plots.money(currency), kind="bar", mark="plot-cost")
            self._hits_plot = Plot(t("Answered from the cache"), plots.PERCENT, mark="plot-hits")
            self._duration_plot = Plot(t("Whole answers"), plots.SECONDS, mark="plot-duration")

    def show(self, found: Series) -> None:
        total = found.total
        self._calls.set_text(figures.count(total.calls))
        self._tokens.set_text(figures.count(total.input_tokens + total.output_tokens))
        self._cost.set_text(figures.money(total.cost_micros, found.currency))
        self._errors.set_text(figures.share(total.failed, total.calls))
        self._ttft.set_text(figures.duration(total.ttft.p50 if total.ttft else None))
        self._hits.set_text(figures.share(total.cache_hits, total.calls))
        self._cut.set_visibility(not found.is_whole)
        self._plots.set_visibility(bool(total.calls))
        self._plot(found)

    def _plot(self, found: Series) -> None:
        t, steps, total = self._t, found.steps, found.total
        moments = [step.at + found.step_s / 2 for step in steps]
        good = [step.calls - step.failed - step.hung_up for step in steps]
        self._calls_plot.show(
            " · ".join((t("{count} calls", count=figures.count(total.calls)), *_kinds(total))),
            [
                Line(t("answered"), good, 1),
                Line(t("left by the client"), [step.hung_up for step in steps], 3),
                Line(t("failed"), [step.failed for step in steps], 4),
            ],
            moments=moments,
        )
        self._tokens_plot.show(
            t("{input} in, {output} out", input=figures.count(total.input_tokens), output=figures.count(total.output_tokens)),
            [Line(t("input"), [step.input_tokens for step in steps], 1), Line(t("output"), [step.output_tokens for step in steps], 2)],
            moments=moments,
        )
        self._ttft_plot.show(_told(total.ttft), _percentiles([step.ttft for step in steps]), moments=moments)
        self._cost_plot.show(
            figures.money(total.cost_micros, found.currency), [Line(t("cost"), [step.cost_micros / 1e6 for step in steps])], moments=moments
        )
        self._hits_plot.show(
            t("{count} calls", count=figures.count(total.cache_hits)),
            [Line(t("share"), [_hits(step) for step in steps], 2)],
            moments=moments,
        )
        self._duration_plot.show(_told(total.duration), _percentiles([step.duration for step in steps]), moments=moments)


def _hits(step: Step) -> float | None:
    return 100 * step.cache_hits / step.calls if step.calls else None


def _kinds(total: Step) -> list[str]:
    """How many failed, and of what."""
    return [f"{kind} {figures.count(number)}" for kind, number in total.errors.items()]


def _told(times: Quantiles | None) -> str:
    return f"p50 {figures.duration(times.p50)} · p95 {figures.duration(times.p95)}" if times else "–"


def _percentiles(times: list[Quantiles | None]) -> list[Line]:
    return [
        Line("p50", [one.p50 if one else None for one in times], 1),
        Line("p95", [one.p95 if one else None for one in times], 3),
    ]
