"""This is where one model has its card: names and facts, what answers it, its pull with a bar, and what can be done with it."""

from collections.abc import Awaitable, Callable

from nicegui import ui

from qwenbox.client.catalog import DeploymentInfo, Model, Pull, Speed, WeightsFile
from qwenbox.client.shapes import PriceRow
from qwenbox.console import figures, parts
from qwenbox.console.house import Polled
from qwenbox.console.texts import Texts
from qwenbox.console.view import View

# What a state is called, and how it is marked.
STATES = {
    "ready": ("ready", "good"),
    "idle": ("loads on first use", ""),
    "starting": ("loading", "warn"),
    "missing": ("weights are not here", "warn"),
    "down": ("does not answer", "bad"),
}
CAPABILITIES = {
    "chat": "chat",
    "vision": "pictures",
    "thinking": "thinking",
    "tools": "tools",
    "json": "JSON",
    "embedding": "embeddings",
    "rerank": "rerank",
    "image": "draws",
}


def catalog(view: View) -> Polled[tuple[Model, ...]]:
    """All models, asked for once for all open pages."""
    return view.house.polled("catalog", view.admin.catalog, 2.0)


def pulls(view: View) -> Polled[tuple[Pull, ...]]:
    return view.house.polled("pulls", view.admin.pulls, 0.8)


def forget(view: View) -> None:
    """Something was changed: ask anew."""
    catalog(view).forget()
    pulls(view).forget()


class Card:
    """Built anew only when something about the model changed, so that nothing jumps under a pointer or loses the keyboard."""

    def __init__(self, view: View, name: str) -> None:
        self._view = view
        self._name = name
        self._is_busy = self._is_open = False
        self.model: Model | None = None
        self._space = ui.element("section").classes("card stack")
        parts.named(self._space, name).props["data-testid"] = f"model-{name}"
        with self._space:
            self._facts = ui.element("div").classes("stack")
            self._progress = _Progress(view, name, self._cancel)

    def set_visibility(self, is_shown: bool) -> None:
        self._space.set_visibility(is_shown)

    def show(self, model: Model, pull: Pull | None) -> None:
        self._progress.show(pull)
        if self._is_busy or (self.model is not None and _without_growth(model) == _without_growth(self.model)):
            return
        self.model = model
        self._facts.clear()
        with self._facts:
            self._build(model)

    def _build(self, model: Model) -> None:
        t = self._view.t
        with ui.element("div").classes("row between"):
            with ui.element("div").classes("row grow"):
                parts.text("h2", t("every other name") if model.name == "*" else model.name, "break")
                for capability in model.capabilities:
                    if capability in CAPABILITIES:
                        ui.label(t(CAPABILITIES[capability])).classes("tag")
            self._actions(model)
        if model.description:
            ui.label(model.description).classes("muted small")
        for deployment in model.deployments:
            _deployment(t, deployment)
        ui.label(" · ".join(facts(t, model))).classes("muted small")
        if model.speed:
            ui.label(speed(t, model.speed)).classes("muted small").props["data-testid"] = f"speed-{self._name}"
        self._details(model)

    def _details(self, model: Model) -> None:
        """Folded away until somebody asks."""
        t, has_files = self._view.t, any(deployment.files for deployment in model.deployments)
        if not (model.aliases or has_files or model.price):
            return
        details = ui.element("div").classes("stack small")
        details.set_visibility(self._is_open)
        with details:
            _details(t, model)

        def turn() -> None:
            self._is_open = not self._is_open
            details.set_visibility(self._is_open)
            name(more)

        def name(button: ui.button) -> None:
            button.props(f"aria-expanded={str(self._is_open).lower()} icon={'expand_less' if self._is_open else 'expand_more'}")

        with self._buttons:
            more = ui.button(on_click=turn).props("flat dense round").tooltip(t("Details"))
            more.props["data-testid"] = f"details-{self._name}"
            parts.named(more, t("Details of {name}", name=self._name))
            name(more)

    def _actions(self, model: Model) -> None:
        t, admin, name = self._view.t, self._view.admin, self._name
        files = [file for deployment in model.deployments for file in deployment.files]
        states = {deployment.state for deployment in model.deployments if deployment.can_load}
        with ui.element("div").classes("row tight") as self._buttons:
            if any(not file.is_here for file in files) and model.pull != "running":
                missing = sum((file.bytes_total or 0) - file.bytes_here for file in {f.name: f for f in files}.values() if not file.is_here)
                said = t("Fetch ({size})", size=figures.size(missing)) if missing > 0 else t("Fetch")
                self._button("download", said, "pull", lambda: admin.pull(name))
            if states & {"idle"}:
                self._button("play_arrow", t("Load"), "load", lambda: admin.load(name), t("{name} is loaded.", name=name))
            if "ready" in states:
                self._button("stop", t("Unload"), "unload", lambda: admin.unload(name), t("{name} is unloaded.", name=name))
            if can_be_measured(model):
                self._button("speed", t("Measure"), "measure", lambda: admin.measure(name), t("{name} is measured.", name=name))

    def _button(self, icon: str, said: str, mark: str, run: Callable[[], Awaitable[object]], done: str = "") -> None:
        """mark: for tests. done: told when it is."""
        button = ui.button(said, icon=icon).props("flat" if done else "unelevated").props('padding="xs sm"')
        button.props["data-testid"] = f"{mark}-{self._name}"
        parts.named(button, f"{said}: {self._name}")

        async def pressed() -> None:
            self._is_busy = True
            button.props("loading")
            try:
                await run()
                if done:
                    self._view.tell(done)
            finally:
                self._is_busy, self.model = False, None  # whatever became of it is shown anew
                button.props(remove="loading")
                forget(self._view)

        button.on_click(self._view.handler(pressed))

    async def _cancel(self) -> None:
        await self._view.admin.cancel_pull(self._name)
        forget(self._view)


class _Progress:
    """A pull under way, or why it ended: changed in place."""

    def __init__(self, view: View, name: str, cancel: Callable[[], Awaitable[None]]) -> None:
        self._view = view
        self._space = ui.element("div").classes("stack")
        self._space.props["data-testid"] = f"progress-{name}"
        with self._space:
            with ui.element("div").classes("row between"):
                self._said = ui.label().classes("small grow break")
                self._button = ui.button(view.t("Stop"), icon="close", on_click=view.handler(cancel)).props("dense flat")
                self._button.props["data-testid"] = f"cancel-{name}"
            with ui.element("div").classes("bar").props('role="progressbar" aria-valuemin=0 aria-valuemax=100') as self._bar:
                self._done = ui.element("div")
            parts.named(self._bar, view.t("Weights of {name}", name=name))
            self._reason = ui.label().classes("small bad break mono").style("white-space: pre-wrap")
        self._space.set_visibility(False)

    def show(self, pull: Pull | None) -> None:
        self._space.set_visibility(pull is not None)
        if pull is None:
            return
        share = 100 * pull.bytes_done / pull.bytes_total if pull.bytes_total else 0.0
        self._said.set_text(progress(self._view.t, pull))
        self._done.style(f"width: {share:.1f}%")
        self._bar.props(f"aria-valuenow={share:.0f}")
        self._button.set_visibility(pull.state == "running")
        self._reason.set_text(pull.reason)
        self._reason.set_visibility(bool(pull.reason))


def progress(t: Texts, pull: Pull) -> str:
    """How far it is, how fast, how long still; or how it ended."""
    done = figures.size(pull.bytes_done)
    far = t("{done} of {total}", done=done, total=figures.size(pull.bytes_total)) if pull.bytes_total else done
    if pull.state == "failed":
        return f"{t('Fetching failed')} · {far}"
    if pull.state == "cancelled":
        return f"{t('Stopped; what is here is kept')} · {far}"
    phases = {file.phase for file in pull.files if file.state == "running"}
    sources = [file.source for file in pull.files if file.source and file.state == "running"]
    said = [far]
    if pull.bytes_total:
        said.insert(0, f"{100 * pull.bytes_done / pull.bytes_total:.0f} %")
    if phases == {"checking"}:
        return " · ".join([*said, t("checking its sha256")])
    if phases == {"waiting"}:
        return " · ".join([*said, t("waiting for its turn")])
    if pull.rate_bytes_s > 0:
        said.append(t("{rate}/s", rate=figures.size(pull.rate_bytes_s)))
    if pull.eta_s is not None:
        said.append(t("{time} to go", time=figures.wait(pull.eta_s)))
    if sources:
        said.append(t("from {source}", source=sources[0]))
    return " · ".join(said)


def facts(t: Texts, model: Model) -> list[str]:
    told = [t("{count} tokens of context", count=figures.count(model.context_tokens))]
    if model.max_output_tokens:
        told.append(t("{count} out at most", count=figures.count(model.max_output_tokens)))
    told.append(price(t, model.price))
    return told


def price(t: Texts, row: PriceRow | None) -> str:
    """Of a short input; per picture for a model that draws."""
    if row is None:
        return t("free")
    tier = row.tiers[0]
    if tier.picture_micros is not None:
        return t("{price} a picture", price=_money(tier.picture_micros, row.currency))
    if not tier.output_micros:
        return t("{price} per million", price=_money(tier.input_micros, row.currency))
    paid = {"input": _money(tier.input_micros, row.currency), "output": _money(tier.output_micros, row.currency)}
    return t("{input} in, {output} out per million", **paid)


def _money(micros: int, currency: str) -> str:
    """A price, without zeros that say nothing."""
    text = figures.money(micros, currency)
    return text.rstrip("0").rstrip(".") if "." in text else text


def speed(t: Texts, measured: Speed) -> str:
    told = [t("writes {rate} tokens/s", rate=_rate(measured.decode_tokens_s)), t("reads {rate}/s", rate=_rate(measured.prefill_tokens_s))]
    told.append(t("begins after {time}", time=figures.duration(measured.ttft_s)))
    return ", ".join(told) + f" ({figures.moment(measured.at)})"


def can_be_measured(model: Model) -> bool:
    writes = "chat" in model.capabilities or "completion" in model.capabilities
    return writes and any(deployment.state in ("ready", "idle") for deployment in model.deployments)


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _deployment(t: Texts, deployment: DeploymentInfo) -> None:
    said, mark = STATES.get(deployment.state, (deployment.state, ""))
    with ui.element("div").classes("row"):
        ui.label(t(said)).classes(f"tag {mark}").tooltip(deployment.detail or t(said))
        ui.label(deployment.weights or deployment.name).classes("break")
        names = dict.fromkeys((deployment.name, deployment.kind))
        ui.label(" · ".join(names)).classes("muted small")
        if deployment.state == "down" and deployment.detail:
            ui.label(deployment.detail).classes("muted small break")


def _details(t: Texts, model: Model) -> None:
    if model.aliases:
        ui.label(t("Also called {names}", names=", ".join(model.aliases))).classes("break")
    files = {file.name: file for deployment in model.deployments for file in deployment.files}
    if files:
        headers = (t("File"), t("Size"), t("Here"), t("Licence"))
        parts.table(headers, [_file(t, file) for file in files.values()], numbers=frozenset({1, 2}))
    if model.price:
        money = model.price.currency
        headers = (t("Input up to"), t("Input"), t("Output"), t("Cached input"))
        rows = [
            [
                figures.count(tier.up_to_tokens) if tier.up_to_tokens else t("any length"),
                _money(tier.input_micros, money),
                _money(tier.output_micros, money),
                _money(_cached(tier.cached_micros, tier.input_micros, model.price.cached_permille), money),
            ]
            for tier in model.price.tiers
        ]
        parts.table(headers, rows, numbers=frozenset({0, 1, 2, 3}))
        ui.label(t("Per million tokens, since {date}.", date=model.price.since)).classes("muted")


def _cached(own: int | None, of_input: int, permille: int) -> int:
    return of_input * permille // 1_000 if own is None else own


def _file(t: Texts, file: WeightsFile) -> list[parts.Cell]:
    total = figures.size(file.bytes_total) if file.bytes_total else "–"
    here = t("yes") if file.is_here else figures.size(file.bytes_here) if file.bytes_here else t("no")
    return [file.file, total, here, file.licence or "–"]


def _without_growth(model: Model) -> tuple[object, ...]:
    """What a card shows of it apart from a pull's progress, which has its own bar."""
    files = tuple((file.name, file.is_here) for deployment in model.deployments for file in deployment.files)
    states = tuple((deployment.name, deployment.state, deployment.detail) for deployment in model.deployments)
    return (model.name, model.pull == "running", model.speed, files, states, model.price)
