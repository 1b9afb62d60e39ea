"""This is where models are looked at: what each can, what answers it, whether its weights are here, how fast it is."""

from collections.abc import Sequence

from nicegui import ui

from qwenbox.client.catalog import Model, Pull
from qwenbox.console import parts
from qwenbox.console.pages.models.card import Card, catalog, pulls
from qwenbox.console.view import View

# What people tick, and which models it leaves.
_FILTERS = {"all": "All", "here": "Ready to answer", "missing": "Not here yet"}
_ANSWERING = frozenset({"ready", "idle", "starting"})


async def build(view: View) -> None:
    t = view.t
    ui.label(t("What callers can name, and what answers them. Weights are fetched here and used without a restart.")).classes("muted")
    with ui.element("div").classes("row between"):
        found = (
            ui.input(placeholder=t("Find a model")).props("outlined dense clearable debounce=150 data-testid=find-model").classes("grow")
        )
        parts.named(found, t("Find a model"))
        kind = ui.toggle({name: t(said) for name, said in _FILTERS.items()}, value="all").props("unelevated dense data-testid=which-models")
        parts.named(kind, t("Which models"))
    nothing = ui.label(t("No model is like that.")).classes("empty card")
    shelf = _Shelf(view)

    async def show() -> None:
        shelf.show(await catalog(view).get(), await pulls(view).get())
        nothing.set_visibility(not shelf.filter((found.value or "").strip().lower(), str(kind.value)))

    def narrow() -> None:
        nothing.set_visibility(not shelf.filter((found.value or "").strip().lower(), str(kind.value)))

    found.on_value_change(narrow)
    kind.on_value_change(narrow)
    await show()
    view.every(1.0, show)


class _Shelf:
    """One card for each model, in the catalog's order."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._space = ui.element("div").classes("stack").props("data-testid=models")
        self._cards: dict[str, Card] = {}

    def show(self, models: Sequence[Model], pulls: Sequence[Pull]) -> None:
        if [model.name for model in models] != list(self._cards):
            self._space.clear()
            with self._space:
                self._cards = {model.name: Card(self._view, model.name) for model in models}
        by_name = {pull.model: pull for pull in pulls}
        for model in models:
            self._cards[model.name].show(model, by_name.get(model.name))

    def filter(self, text: str, kind: str) -> int:
        """How many are left."""
        count = 0
        for card in self._cards.values():
            is_shown = fits(card.model, text, kind)
            card.set_visibility(is_shown)
            count += is_shown
        return count


def fits(model: Model | None, text: str, kind: str) -> bool:
    """text: in lower case, a part of a name, an alias, the weights or what it can."""
    if model is None:
        return False
    states = {deployment.state for deployment in model.deployments}
    if kind == "here" and not states & _ANSWERING:
        return False
    if kind == "missing" and not any(not file.is_here for deployment in model.deployments for file in deployment.files):
        return False
    words = (model.name, *model.aliases, *(deployment.weights for deployment in model.deployments), *model.capabilities)
    return any(text in word.lower() for word in words)
