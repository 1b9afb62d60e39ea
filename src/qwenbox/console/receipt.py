"""This is where one call is shown whole: where its time went, what it used and cost, and what was said if that was recorded."""

from nicegui import ui

from qwenbox.client.recordings import Recording, Turn
from qwenbox.client.usage import Call, Hop, Receipt
from qwenbox.console import figures, parts
from qwenbox.console.view import View
from qwenbox.terms.errors import ApiError, ErrorKind

# Between which two hops a part of the time lies, and what it is called. Hops that a call never came to are passed over.
_PHASES = (
    ("received", "admitted", "read, counted, let in", 4),
    ("admitted", "turn", "waiting for its turn", 3),
    ("turn", "first_token", "until the first token", 2),
    ("first_token", "last", "until the last token", 1),
)
_NOTHING = 0.000_05


async def build(view: View, request_id: str) -> None:
    """In the place where it is called. Raises ApiError(NOT_FOUND) for a call that is not there."""
    found = await view.admin.receipt(request_id)
    with ui.element("div").classes("stack receipt").props("data-testid=receipt"):
        _facts(view, found.call)
        _timeline(view, found)
        _lines(view, found)
        await _said(view, found.call)


def _facts(view: View, call: Call) -> None:
    t = view.t
    parts.copyable(view, call.id, mark="receipt-id")
    facts = {
        t("Time"): figures.moment(call.admitted_at),
        t("Model"): call.model,
        t("Ran on"): call.deployment or "–",
        t("Dialect"): call.dialect,
        t("Ended"): t(call.outcome) + (f" · {call.finish_reason}" if call.finish_reason else ""),
        t("Error"): call.error_kind or "",
        t("Cache"): t("answered from the cache") if call.is_cache_hit else "",
        t("Lane"): t("batch") if call.lane == "batch" else "",
        t("Tokens counted"): t("here, since the engine told none") if call.is_counted else "",
        t("Notes"): ", ".join(f"{name}: {value}" for name, value in call.notes.items()),
    }
    with ui.element("dl").classes("facts"):
        for name, value in facts.items():
            if value:
                with ui.element("div"):
                    parts.text("dt", name)
                    parts.text("dd", value, "break")


def phases(timeline: tuple[Hop, ...]) -> list[tuple[str, float, int]]:
    """Names and lengths of the parts of a call's time, in order, and their colours; all of the time is in one of them."""
    at = {hop.name: hop.at_s for hop in timeline}
    found: list[tuple[str, float, int]] = []
    start_s = 0.0
    for _, end, name, series in _PHASES:
        end_s = at.get(end)
        if end_s is None:
            continue
        # Of a call that said nothing, nobody knows more than how long it took from there.
        told = name if end != "last" or "first_token" in at else "until its end"
        found.append((told, max(0.0, end_s - start_s), series))
        start_s = max(start_s, end_s)
    return found


def _timeline(view: View, found: Receipt) -> None:
    t = view.t
    parts.text("h3", t("Timeline"))
    told = phases(found.timeline)
    if not told:
        ui.label(t("Its moments were not noted.")).classes("muted")
        return
    whole_s = sum(length_s for _, length_s, _ in told)
    text = ", ".join(f"{t(name)}: {figures.duration(length_s)}" for name, length_s, _ in told)
    with ui.element("div").classes("timeline").props(f'role="img" data-testid=timeline aria-label="{text}"'):
        for name, length_s, series in told:
            if length_s >= _NOTHING:
                share = 100 * length_s / whole_s
                ui.element("div").style(f"flex: {share:.3f} 0 3px; background: var(--series-{series})").tooltip(t(name))
    with ui.element("ul").classes("timeline-key"):
        for name, length_s, series in told:
            with ui.element("li"):
                ui.element("span").classes("dot").style(f"background: var(--series-{series})")
                ui.label(t(name))
                ui.label(figures.duration(length_s)).classes("mono")
        with ui.element("li"):
            ui.label(t("in all"))
            ui.label(figures.duration(whole_s)).classes("mono")


def _lines(view: View, found: Receipt) -> None:
    t, call = view.t, found.call
    parts.text("h3", t("Receipt"))
    headers = (t("Kind"), t("Tokens"), t("Per million"), t("Amount"))
    rows: list[list[parts.Cell]] = [
        [
            t(line.kind),
            figures.count(line.tokens),
            figures.money(line.price_micros, call.currency),
            figures.money(line.amount_micros, call.currency),
        ]
        for line in found.lines
    ]
    if not rows:
        rows = [[t("input"), figures.count(call.input_tokens), "–", "–"], [t("output"), figures.count(call.output_tokens), "–", "–"]]
    rows.append([t("Cost"), "", "", figures.money(call.cost_micros, call.currency)])
    if found.refunded_micros:
        rows.append([t("Refunded"), "", "", figures.money(-found.refunded_micros, call.currency)])
    parts.table(headers, rows, mark="receipt-lines", numbers=frozenset({1, 2, 3}))


async def _said(view: View, call: Call) -> None:
    t = view.t
    parts.text("h3", t("Prompt and answer"))
    try:
        recording = await view.admin.recording(call.id)
    except ApiError as error:
        if error.kind is not ErrorKind.NOT_FOUND:
            raise
        state = await view.admin.recordings()
        why = t("Not kept: no longer, or not yet.") if state.is_enabled else t("Not recorded: [recording] is off, and nothing is kept.")
        ui.label(why).classes("muted").props("data-testid=not-recorded")
        return
    _recording(view, recording)


def _recording(view: View, recording: Recording) -> None:
    t = view.t
    with ui.element("div").classes("stack").props("data-testid=recording"):
        if recording.is_cut:
            ui.label(t("Too long to be kept whole: of a prompt its end is here, of an answer its beginning.")).classes("muted small")
        for turn in (*recording.prompt, *recording.answer):
            _turn(view, turn)


def _turn(view: View, turn: Turn) -> None:
    with ui.element("div").classes("turn"):
        ui.label(view.t(turn.role)).classes("muted small")
        if turn.reasoning:
            parts.text("pre", turn.reasoning, "muted")
        if turn.text:
            parts.text("pre", turn.text)
        for name, arguments in turn.tool_calls:
            parts.text("pre", f"{name}({arguments})")
