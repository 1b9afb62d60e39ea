"""This is where one model has its card: names and facts, what answers it, its pull with a bar, and what can be done with it."""

from collections.abc import Awaitable, Callable

from nicegui import ui

from qwenbox.client.catalog import DeploymentInfo, Model, Pull, Speed, WeightsFile
from qwenbox.client.shapes import PriceRow
from qwenbox.console import figures, parts
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


class Card:
    """Built anew only when something about the model changed, so that nothing jumps under a pointer or loses the keyboard."""

    def __init__(self, view: View, name: str) -> None:
        self._view = view
        self._name = name
        self._is_busy = False
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
            with ui.element("div").classes("row"):
                parts.text("h2", t("every other name") if model.name == "*" else model.name, "break")
                for capability in model.capabilities:
                    if capability in CAPABILITIES:
                        ui.label(t(CAPABILITIES[capability])).classes("tag")
            self._actions(model)
        if model.description:
            ui.label(model.description).classes("muted small")
        for deployment in model.deployments:
            _deployment(t, deployment)
        with ui.element("div").classes("row muted small"):
            for said in facts(t, model):
                ui.label(said)
        if model.aliases or any(deployment.files for deployment in model.deployments) or (model.price and len(model.price.tiers) > 1):
            with ui.expansion(t("Details")).classes("w-full small").props("dense dense-toggle"):
                _details(t, model)

    def _actions(self, model: Model) -> None:
        t, admin, name = self._view.t, self._view.admin, self._name
        files = [file for deployment in model.deployments for file in deployment.files]
        states = {deployment.state for deployment in model.deployments if deployment.can_load}
        with ui.element("div").classes("row tight"):
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
        button = ui.button(said, icon=icon).props("dense flat" if done else "dense unelevated")
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
                for name in ("catalog", "pulls"):
                    self._view.house.polled(name, self._view.admin.pulls).forget()

        button.on_click(self._view.handler(pressed))

    async def _cancel(self) -> None:
        await self._view.admin.cancel_pull(self._name)
        self._view.house.polled("pulls", self._view.admin.pulls).forget()


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
        said.append(t("{time} to go", time=figures.duration(max(1.0, round(pull.eta_s)))))
    if sources:
        said.append(t("from {source}", source=sources[0]))
    return " · ".join(said)


def facts(t: Texts, model: Model) -> list[str]:
    told = [t("{count} tokens of context", count=figures.count(model.context_tokens))]
    if model.max_output_tokens:
        told.append(t("{count} out at most", count=figures.count(model.max_output_tokens)))
    told.append(price(t, model.price))
    if model.speed:
        told.append(speed(t, model.speed))
    return told


def price(t: Texts, row: PriceRow | None) -> str:
    if row is None:
        return t("free")
    tier = row.tiers[0]
    if tier.picture_micros is not None:
        return t("{price} a picture", price=figures.money(tier.picture_micros, row.currency))
    each = (figures.money(micros, row.currency) for micros in (tier.input_micros, tier.output_micros))
    return t("{input} in, {output} out per million", **dict(zip(("input", "output"), each, strict=True)))


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
        ui.label(f"{deployment.name} · {deployment.kind}").classes("muted small")


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
                figures.money(tier.input_micros, money),
                figures.money(tier.output_micros, money),
                figures.money(_cached(tier.cached_micros, tier.input_micros, model.price.cached_permille), money),
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
