"""This is where limits are watched: what every account and key uses of a model at this moment, and when there is room again."""

from collections.abc import Sequence

from nicegui import ui

from qwenbox.client.shapes import WindowState
from qwenbox.console import figures, parts
from qwenbox.console.texts import Texts
from qwenbox.console.view import View

# From here on a bar says that there is little left, and that there is nothing.
_LITTLE, _NOTHING = 0.8, 1.0


async def build(view: View) -> None:
    t = view.t
    ui.label(
        t("What counts right now, of accounts by their tier and of keys with limits of their own. A call counts for one window.")
    ).classes("muted")
    nothing = ui.element("div").props("data-testid=no-limits")
    with nothing:
        parts.empty(view, t("No limit is in use: nobody who has one called within the last window."))
    board = _Board(view)

    async def show() -> None:
        windows = await view.house.polled("limits", view.admin.limits, 1.0).get()
        nothing.set_visibility(not windows)
        board.show(windows)

    await show()
    view.every(2.0, show)


class _Board:
    """Rows stay where they are while they are the same; only their bars move."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._space = ui.element("div").classes("stack").props("data-testid=limits")
        self._rows: dict[tuple[str, str], _Row] = {}

    def show(self, windows: Sequence[WindowState]) -> None:
        found = {(window.owner_id, window.model): window for window in sorted(windows, key=_order)}
        if list(found) != list(self._rows):
            self._space.clear()
            with self._space:
                self._rows = {}
                owner = ""
                for key, window in found.items():
                    if owner != (owner := whose(self._view.t, window)):
                        parts.text("h2", owner, "break")
                    self._rows[key] = _Row(self._view, window)
        for key, window in found.items():
            self._rows[key].show(window)


class _Row:
    def __init__(self, view: View, window: WindowState) -> None:
        t = self._t = view.t
        with ui.element("section").classes("card stack") as section:
            parts.named(section, f"{whose(t, window)}: {window.model}").props["data-testid"] = f"limit-{window.owner_id}-{window.model}"
            with ui.element("div").classes("row between"):
                parts.text("h3", window.model, "break")
                self._when = ui.label().classes("muted small")
            with ui.element("div").classes("grid-3"):
                self._meters = {name: _Meter(t(name)) for name in ("Requests", "Tokens", "Calls at once")}

    def show(self, window: WindowState) -> None:
        self._when.set_text(when(self._t, window))
        self._meters["Requests"].show(window.requests, window.requests_limit, self._t("no limit"))
        self._meters["Tokens"].show(window.tokens, window.tokens_limit, self._t("no limit"))
        self._meters["Calls at once"].show(window.open_calls, window.concurrency_limit, self._t("no limit"))


class _Meter:
    """A name, what is used of what, and a bar where there is a limit."""

    def __init__(self, name: str) -> None:
        with ui.element("div").classes("stack"):
            with ui.element("div").classes("row between small"):
                ui.label(name).classes("muted")
                self._said = ui.label().style("font-variant-numeric: tabular-nums")
            with ui.element("div").classes("bar").props('role="meter" aria-valuemin=0') as self._bar:
                self._used = ui.element("div")
            parts.named(self._bar, name)

    def show(self, used: int, limit: int | None, unlimited: str) -> None:
        self._said.set_text(
            f"{figures.count(used)} / {figures.count(limit)}" if limit is not None else f"{figures.count(used)} · {unlimited}"
        )
        self._bar.set_visibility(limit is not None)
        if limit is None:
            return
        share = used / limit if limit else 1.0
        self._bar.props(f"aria-valuenow={used} aria-valuemax={limit}")
        self._used.style(f"width: {min(100.0, 100 * share):.1f}%; background: var(--{level(share)})")


def level(share: float) -> str:
    """Which colour says how much is left."""
    return "bad" if share >= _NOTHING else "warn" if share >= _LITTLE else "go"


def whose(t: Texts, window: WindowState) -> str:
    if window.key:
        return t("Key {key} of {account}", key=window.key, account=window.account)
    return t("Account {account}", account=window.account or window.owner_id)


def when(t: Texts, window: WindowState) -> str:
    """When some and when all of it no longer counts."""
    if not window.requests:
        return t("calls are running")
    if window.empty_in_s - window.frees_in_s < 1:
        return t("free again in {time}", time=figures.wait(window.empty_in_s))
    return t("first room in {first}, all in {all}", first=figures.wait(window.frees_in_s), all=figures.wait(window.empty_in_s))


def _order(window: WindowState) -> tuple[str, str, str]:
    return window.account, window.key, window.model
